//! What changed from one context to another: the one notion of it, from which [`Drift`](super::drift::Drift) counts and the
//! diff of a chat tells. Bodies are not looked at: their hashes are.
//!
//! A resource is the same resource when kind and source are; it changed when its status or the hash of its content did, which
//! is what the context hash sees of it. A path, a size or an error text of its own is no change.

use super::{
    hash::ContentHash,
    resource::{ResourceKind, ResourceMeta, ResourceStatus},
};
use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet, VecDeque},
};

/// One step on the way from a context to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It is only in the first.
    Removed(&'a ResourceMeta),
    /// It is only in the other.
    Added(&'a ResourceMeta),
    /// It is in both, with another content or status: as it was, and as it is.
    Changed(&'a ResourceMeta, &'a ResourceMeta),
}

/// The steps from `from` to `to`, both in (kind, source) order, as manifests are; in that order too.
pub fn steps<'a>(from: &'a [ResourceMeta], to: &'a [ResourceMeta]) -> impl Iterator<Item = Step<'a>> {
    let (mut from, mut to) = (from.iter().peekable(), to.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (from.peek(), to.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.key().cmp(&b.key()),
            };
            match order {
                Ordering::Less => return from.next().map(Step::Removed),
                Ordering::Greater => return to.next().map(Step::Added),
                Ordering::Equal => {
                    let both = from.next().zip(to.next()).filter(|(a, b)| content(a) != content(b));
                    if let Some((a, b)) = both {
                        return Some(Step::Changed(a, b));
                    }
                }
            }
        }
    })
}

/// What the context hash sees of a resource beside its identity.
fn content(resource: &ResourceMeta) -> (ResourceStatus, Option<ContentHash>) {
    (resource.status, resource.content_hash)
}

/// What changed, whole. Each list is in (kind, source) order; `renamed` in that of the names before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff<'a> {
    /// Only in the other.
    pub added: Vec<&'a ResourceMeta>,
    /// Only in the first.
    pub removed: Vec<&'a ResourceMeta>,
    /// The same content under another name: as it was, and as it is. What is here is in neither `added` nor `removed`.
    pub renamed: Vec<(&'a ResourceMeta, &'a ResourceMeta)>,
    /// In both, with another content or status: as it was, and as it is.
    pub changed: Vec<(&'a ResourceMeta, &'a ResourceMeta)>,
}

/// What must be equal for a removed and an added resource to be one that was renamed. Without content nothing is.
fn identity(resource: &ResourceMeta) -> Option<(ResourceKind, ResourceStatus, ContentHash)> {
    resource.content_hash.map(|hash| (resource.kind, resource.status, hash))
}

impl<'a> Diff<'a> {
    /// What changed from `from` to `to`, both in (kind, source) order, as manifests are.
    ///
    /// When several resources of one content went and came, the first that went is paired with the first that came, and so
    /// on: the same pairs whichever of the two contexts comes first.
    pub fn between(from: &'a [ResourceMeta], to: &'a [ResourceMeta]) -> Self {
        let mut diff = Self::default();
        for step in steps(from, to) {
            match step {
                Step::Removed(a) => diff.removed.push(a),
                Step::Added(b) => diff.added.push(b),
                Step::Changed(a, b) => diff.changed.push((a, b)),
            }
        }
        let mut came: HashMap<_, VecDeque<&'a ResourceMeta>> = HashMap::new();
        for b in &diff.added {
            if let Some(identity) = identity(b) {
                came.entry(identity).or_default().push_back(b);
            }
        }
        let mut found = HashSet::new();
        let renamed = &mut diff.renamed;
        diff.removed.retain(|a| {
            let Some(b) = identity(a).and_then(|identity| came.get_mut(&identity)).and_then(VecDeque::pop_front) else {
                return true;
            };
            found.insert(b.key());
            renamed.push((a, b));
            false
        });
        diff.added.retain(|b| !found.contains(&b.key()));
        diff
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        let Self { added, removed, renamed, changed } = self;
        added.is_empty() && removed.is_empty() && renamed.is_empty() && changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{drift::Drift, hash::ContextHash, resource::Resource};
    use proptest::{collection::btree_map, prelude::*, sample::select};
    use std::collections::BTreeMap;

    fn resource(kind: ResourceKind, source: &str, status: ResourceStatus, body: Option<&str>) -> ResourceMeta {
        let meta = Resource::ok(kind, source, format!("{source}/path"), body.unwrap_or_default().as_bytes().to_vec()).meta;
        ResourceMeta { status, content_hash: meta.content_hash.filter(|_| body.is_some()), ..meta }
    }

    fn file(source: &str, body: &str) -> ResourceMeta {
        resource(ResourceKind::InstructionFile, source, ResourceStatus::Ok, Some(body))
    }

    /// Few names and few contents, so that much is renamed, changed, and ambiguous.
    fn manifest() -> impl Strategy<Value = Vec<ResourceMeta>> {
        let kind = select(vec![ResourceKind::InstructionFile, ResourceKind::Skill, ResourceKind::McpConfig]);
        let status = select(vec![ResourceStatus::Ok, ResourceStatus::Ok, ResourceStatus::Oversize, ResourceStatus::Unreadable]);
        let body = select(vec![None, Some("1"), Some("2")]);
        let source = select(vec!["a", "b", "c", "d", "e"]);
        btree_map((kind.prop_map(ResourceKind::as_str), source), (status, body), 0..10).prop_map(|entries| {
            let kind = |word: &str| word.parse::<ResourceKind>().expect("a kind");
            entries.into_iter().map(|((k, source), (status, body))| resource(kind(k), source, status, body)).collect()
        })
    }

    type Resources<'a> = BTreeMap<(&'static str, &'a str), &'a ResourceMeta>;

    fn apply<'a>(from: &'a [ResourceMeta], diff: &Diff<'a>) -> Resources<'a> {
        let mut all: Resources<'a> = from.iter().map(|resource| (resource.key(), resource)).collect();
        for a in diff.removed.iter().chain(diff.renamed.iter().map(|(a, _)| a)) {
            assert_eq!(all.remove(&a.key()), Some(*a), "what went was there");
        }
        for b in diff.added.iter().chain(diff.renamed.iter().map(|(_, b)| b)) {
            assert_eq!(all.insert(b.key(), b), None, "what came was not there");
        }
        for (a, b) in &diff.changed {
            assert_eq!(all.insert(b.key(), b), Some(*a), "what changed was there as it was");
        }
        all
    }

    fn hash(resources: &[ResourceMeta]) -> ContextHash {
        ContextHash::of(resources)
    }

    proptest! {
        #[test]
        fn nothing_changed_exactly_when_the_hashes_are_equal(from in manifest(), to in manifest()) {
            prop_assert!(Diff::between(&from, &from).is_empty());
            prop_assert_eq!(Diff::between(&from, &to).is_empty(), hash(&from) == hash(&to));
        }

        #[test]
        fn what_changed_makes_the_other_of_the_one(from in manifest(), to in manifest()) {
            let made: Vec<ResourceMeta> = apply(&from, &Diff::between(&from, &to)).into_values().cloned().collect();
            prop_assert_eq!(hash(&made), hash(&to));
        }

        #[test]
        fn the_way_back_is_the_way_there_turned_round(from in manifest(), to in manifest()) {
            let (there, back) = (Diff::between(&from, &to), Diff::between(&to, &from));
            prop_assert_eq!(&there.added, &back.removed);
            prop_assert_eq!(&there.removed, &back.added);
            let turned = |pairs: &[(&ResourceMeta, &ResourceMeta)]| {
                let mut pairs: Vec<_> = pairs.iter().map(|(a, b)| (b.key().0, b.source.clone(), a.source.clone())).collect();
                pairs.sort();
                pairs
            };
            let straight = |pairs: &[(&ResourceMeta, &ResourceMeta)]| {
                let mut pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.key().0, a.source.clone(), b.source.clone())).collect();
                pairs.sort();
                pairs
            };
            prop_assert_eq!(turned(&there.renamed), straight(&back.renamed));
            prop_assert_eq!(turned(&there.changed), straight(&back.changed));
        }

        #[test]
        fn nothing_that_went_and_came_with_one_content_is_left_unpaired(from in manifest(), to in manifest()) {
            let diff = Diff::between(&from, &to);
            for (a, b) in &diff.renamed {
                prop_assert_eq!(identity(a), identity(b));
                prop_assert!(identity(a).is_some() && a.source != b.source);
            }
            let went: HashSet<_> = diff.removed.iter().filter_map(|a| identity(a)).collect();
            prop_assert!(diff.added.iter().filter_map(|b| identity(b)).all(|came| !went.contains(&came)));
        }

        #[test]
        fn a_drift_counts_what_the_diff_tells(from in manifest(), to in manifest()) {
            let (diff, drift) = (Diff::between(&from, &to), Drift::between(&from, &to));
            let renamed = diff.renamed.len();
            prop_assert_eq!(drift.added, diff.added.len() + renamed);
            prop_assert_eq!(drift.removed, diff.removed.len() + renamed);
            prop_assert_eq!(drift.changed, diff.changed.len());
        }
    }

    #[test]
    fn equal_contents_are_paired_in_the_order_of_their_names_and_only_within_a_kind() {
        let skill = |source: &str, body: &str| resource(ResourceKind::Skill, source, ResourceStatus::Ok, Some(body));
        let from = [file("a", "1"), file("b", "1"), file("c", "2"), skill("s", "3")];
        let to = [file("s", "3"), file("x", "1"), file("y", "1"), file("z", "1")];
        let diff = Diff::between(&from, &to);
        let names = |all: &[&ResourceMeta]| all.iter().map(|meta| meta.source.clone()).collect::<Vec<_>>();
        let pairs: Vec<_> = diff.renamed.iter().map(|(a, b)| format!("{} {}", a.source, b.source)).collect();
        assert_eq!(
            (pairs, names(&diff.added), names(&diff.removed)),
            (
                vec!["a x".to_owned(), "b y".to_owned()],
                vec!["s".to_owned(), "z".to_owned()],
                vec!["c".to_owned(), "s".to_owned()],
            )
        );
    }

    #[test]
    fn two_without_content_are_not_one_that_was_renamed() {
        let lost = |source: &str| resource(ResourceKind::Skill, source, ResourceStatus::Unreadable, None);
        let (from, to) = ([lost("a")], [lost("b")]);
        let diff = Diff::between(&from, &to);
        assert_eq!((diff.added.len(), diff.removed.len(), diff.renamed.len()), (1, 1, 0));
    }
}
