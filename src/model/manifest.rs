//! A manifest of a cluster, as far as the record that is made from it remembers it.
//!
//! Taking a manifest over is a merge of three: what it says now, what it said when it was last taken over, and the record. What a
//! manifest never said is not its to change: a refresh that somebody asked for through the API stays asked for.

use super::object::TextMap;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What is kept of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The object's uid in the cluster. Another one: it was deleted there and made again.
    pub uid: Uuid,
    /// The object's resourceVersion in the cluster. Grows with every change of one object.
    pub version: u64,
    /// The object's generation in the cluster, which its status has to name as observed.
    pub generation: i64,
    /// Its labels.
    pub labels: TextMap,
    /// Its annotations.
    pub annotations: TextMap,
    /// Whether its spec names an agent or a workspace. A child chat without has its parent's.
    pub bound: bool,
}

impl Manifest {
    /// What this says after the other was taken over.
    ///
    /// Versions of one cluster only grow, for all its objects. So what has a lower one was seen late; or the cluster has a new history,
    /// because its data were restored or lost. Only the cluster can tell: what it still says when it is asked after the other
    /// was remembered is `sure`.
    pub fn after(&self, last: &Self, sure: bool) -> News {
        if self.uid == last.uid && (self.version == last.version || Self { version: last.version, ..self.clone() } == *last) {
            News::None
        } else if self.version < last.version && !sure {
            News::Doubtful
        } else {
            News::Some
        }
    }
}

/// Whether a manifest says anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It does.
    Some,
    /// It does not.
    None,
    /// It is an earlier state of it or of its predecessor, unless the cluster has another history by now.
    Doubtful,
}

/// What `record` becomes when what a manifest says goes from `last` to `now`: its own keys, and no others.
#[must_use]
pub fn merge(record: &TextMap, last: Option<&TextMap>, now: &TextMap) -> TextMap {
    let mut merged = record.clone();
    if let Some(last) = last {
        merged.retain(|key, _| !last.contains_key(key) || now.contains_key(key));
    }
    for (key, value) in now {
        if last.and_then(|last| last.get(key)) != Some(value) {
            merged.insert(key.clone(), value.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> TextMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn manifest(version: u64, token: &str) -> Manifest {
        Manifest {
            uid: Uuid::from_u128(1),
            version,
            generation: 1,
            labels: map(&[]),
            annotations: map(&[("refresh", token)]),
            bound: true,
        }
    }

    #[test]
    fn what_a_manifest_never_said_is_left_alone() {
        let record = map(&[("theirs", "1"), ("shared", "api"), ("gone", "1")]);
        let last = map(&[("shared", "old"), ("gone", "1")]);
        assert_eq!(
            merge(&record, Some(&last), &map(&[("shared", "old"), ("new", "1")])),
            map(&[("new", "1"), ("shared", "api"), ("theirs", "1")])
        );
        assert_eq!(merge(&record, Some(&last), &map(&[("shared", "new")])), map(&[("shared", "new"), ("theirs", "1")]));
    }

    #[test]
    fn the_first_time_all_that_a_manifest_says_counts() {
        assert_eq!(merge(&map(&[("a", "1"), ("b", "1")]), None, &map(&[("a", "2")])), map(&[("a", "2"), ("b", "1")]));
    }

    #[test]
    fn the_same_is_no_news_and_what_is_earlier_is_only_when_the_cluster_says_it_still() {
        let last = manifest(7, "b");
        for sure in [false, true] {
            assert_eq!(manifest(7, "b").after(&last, sure), News::None);
            assert_eq!(manifest(9, "b").after(&last, sure), News::None, "only its status changed");
            assert_eq!(manifest(5, "b").after(&last, sure), News::None);
            assert_eq!(manifest(9, "c").after(&last, sure), News::Some);
            assert_eq!(Manifest { uid: Uuid::from_u128(2), ..manifest(9, "b") }.after(&last, sure), News::Some);
        }
        let other = Manifest { uid: Uuid::from_u128(2), ..manifest(7, "b") };
        assert_eq!(other.after(&last, false), News::Some, "of one version, and another object");
        for earlier in [manifest(5, "a"), Manifest { uid: Uuid::from_u128(2), ..manifest(5, "b") }] {
            assert_eq!(earlier.after(&last, false), News::Doubtful);
            assert_eq!(earlier.after(&last, true), News::Some);
        }
    }
}
