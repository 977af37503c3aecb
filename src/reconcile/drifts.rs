//! How contexts differ: what is known of it, and in which order the rest is found out.

use crate::model::{drift::Drift, hash::ContextHash, snapshot::SnapshotId};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// How many pairs of contexts are remembered at most. A drift has a few names, not a manifest.
const DRIFTS_MAX: usize = 4_096;
/// How many manifests are held at once while contexts are compared: one may have some megabytes.
const MANIFESTS_MAX: usize = 8;

/// Two contexts: what a chat is pinned to, and what its agent has.
pub(super) type Pair = (ContextHash, ContextHash);

/// How contexts differ. It is a function of their hashes, so what one batch has found out all others can use.
#[derive(Clone, Debug, Default)]
pub(super) struct Drifts(Arc<Mutex<HashMap<Pair, Arc<Drift>>>>);

impl Drifts {
    /// How these two differ, if that is known.
    pub(super) fn get(&self, pair: &Pair) -> Option<Arc<Drift>> {
        self.lock().get(pair).cloned()
    }

    /// Keeps these. Where there is no room for them, what was known before is forgotten.
    pub(super) fn keep(&self, new: &HashMap<Pair, Arc<Drift>>) {
        let mut known = self.lock();
        if known.len() + new.len() > DRIFTS_MAX {
            known.clear();
        }
        known.extend(new.iter().map(|(pair, drift)| (*pair, Arc::clone(drift))));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pair, Arc<Drift>>> {
        self.0.lock().expect("no holder of this lock panics")
    }
}

/// Pairs of contexts that are to be compared, and of each a pair of snapshots that hold them.
pub(super) type Pairs = HashMap<Pair, (SnapshotId, SnapshotId)>;

/// Some of them, and the snapshots that they name.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) snapshots: Vec<SnapshotId>,
    pub(super) pairs: Vec<(Pair, (SnapshotId, SnapshotId))>,
}

/// All of them, in batches that name at most [`MANIFESTS_MAX`] snapshots. Those with the same latest come together.
pub(super) fn batches(pairs: Pairs) -> Vec<Compared> {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_unstable_by_key(|(_, (from, to))| (*to, *from));
    let mut batches: Vec<Compared> = Vec::new();
    for (pair, (from, to)) in pairs {
        let new = |batch: &Compared| [from, to].into_iter().filter(|id| !batch.snapshots.contains(id)).count();
        if batches.last().is_none_or(|batch| batch.snapshots.len() + new(batch) > MANIFESTS_MAX) {
            batches.push(Compared::default());
        }
        let Some(batch) = batches.last_mut() else { continue };
        for id in [from, to] {
            if !batch.snapshots.contains(&id) {
                batch.snapshots.push(id);
            }
        }
        batch.pairs.push((pair, (from, to)));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn hash(n: i64) -> ContextHash {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        ContextHash::from_slice(&bytes).expect("32 bytes")
    }

    #[test]
    fn contexts_are_compared_a_few_manifests_at_a_time_and_each_pair_once() {
        // A thousand chats with pins of their own, that drift from the same latest or from one of a hundred.
        for latest in [1, 100] {
            let pair = |n: i64| ((hash(n), hash(-1 - n % latest)), (SnapshotId(n), SnapshotId(-1 - n % latest)));
            let wanted: Pairs = (1..=1_000).map(pair).collect();
            let batches = batches(wanted.clone());
            let mut compared = BTreeSet::new();
            for batch in &batches {
                assert!((2..=MANIFESTS_MAX).contains(&batch.snapshots.len()));
                let distinct: BTreeSet<_> = batch.snapshots.iter().collect();
                assert_eq!(distinct.len(), batch.snapshots.len(), "each is read once");
                for (pair, (from, to)) in &batch.pairs {
                    assert_eq!(wanted.get(pair), Some(&(*from, *to)));
                    assert!(batch.snapshots.contains(from) && batch.snapshots.contains(to) && compared.insert(*from));
                }
            }
            assert_eq!(compared.len(), 1_000);
            // With one latest as few as will do; with many of them, those with the same come together.
            let most = if latest == 1 { 1_000usize.div_ceil(MANIFESTS_MAX - 1) } else { 1_000usize.div_ceil(MANIFESTS_MAX - 2) };
            assert!(batches.len() <= most, "{} batches", batches.len());
        }
        assert!(super::batches(Pairs::new()).is_empty());
    }

    #[test]
    fn what_is_known_of_contexts_is_kept_within_its_bound_and_then_forgotten() {
        let drifts = Drifts::default();
        let drift = Arc::new(Drift::between(&[], &[]));
        let some = |from: i64, to: i64| -> HashMap<Pair, Arc<Drift>> {
            (from..to).map(|n| ((hash(n), hash(n + 1)), Arc::clone(&drift))).collect()
        };
        let most = i64::try_from(DRIFTS_MAX).expect("a count");
        let known = |n: i64| drifts.get(&(hash(n), hash(n + 1))).is_some();
        drifts.keep(&some(0, most - 10));
        drifts.keep(&some(most - 10, most));
        assert!(known(0) && known(most - 1), "there is room for all of them");
        drifts.keep(&some(most, most + 1));
        assert!(!known(0) && !known(most - 1) && known(most), "there was not for one more");
    }
}
