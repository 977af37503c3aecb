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
    /// Whether this is the other, or an earlier state of it, so that there is nothing to be taken over.
    pub fn is_no_news_after(&self, last: &Self) -> bool {
        self.uid == last.uid && (self.version <= last.version || Self { version: last.version, ..self.clone() } == *last)
    }
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
    fn an_earlier_state_or_the_same_at_a_later_version_is_no_news_and_another_object_always_is() {
        let last = manifest(7, "b");
        assert!(manifest(5, "a").is_no_news_after(&last));
        assert!(manifest(9, "b").is_no_news_after(&last), "only its status changed");
        assert!(!manifest(9, "c").is_no_news_after(&last));
        assert!(!Manifest { uid: Uuid::from_u128(2), ..manifest(1, "b") }.is_no_news_after(&last));
    }
}
