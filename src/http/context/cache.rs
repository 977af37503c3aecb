//! The encoded resources of the snapshots that were read last. Speed only: without it every answer is the same, and slower.
//!
//! A snapshot is immutable, so nothing here is ever out of date; what is looked up is what a read of the database has just named,
//! after whoever asks was found to be allowed to see it. Bounded by [`BYTES_MAX`] and [`ENTRIES_MAX`], whatever is asked for.

use crate::{
    metrics::METRICS,
    model::{hash::ContextHash, snapshot::SnapshotId},
};
use axum::body::Bytes;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The most that all entries hold together, in bytes: a quarter of what a server may need in all (measure P7).
pub const BYTES_MAX: usize = 16 << 20;
/// The most entries: looking for the one that was used longest ago looks at all of them.
const ENTRIES_MAX: usize = 1024;
/// The largest entry, in bytes: the largest context does not drive out all others.
const ENTRY_MAX: usize = BYTES_MAX / 2;

/// Which snapshot. Its version is in it because a database that was restored counts ids from there again, in another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The tenant.
    pub namespace: String,
    /// The snapshot's id within it.
    pub id: SnapshotId,
    /// The snapshot's version.
    pub rv: i64,
    /// The snapshot's hash.
    pub hash: ContextHash,
}

/// What was read last.
#[derive(Debug, Default)]
pub struct Cache(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    all: HashMap<Name, Entry>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    encoded: Bytes,
    used: u64,
}

impl Cache {
    /// The encoded resources of a snapshot, if they are here.
    pub fn get(&self, name: &Name) -> Option<Bytes> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let now = entries.uses;
        let entry = entries.all.get_mut(name)?;
        entry.used = now;
        Some(entry.encoded.clone())
    }

    /// Keeps the encoded resources of a snapshot, in the place of what was used longest ago.
    pub fn put(&self, name: Name, encoded: Bytes) {
        if encoded.len() > ENTRY_MAX {
            return;
        }
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.uses += 1;
        let used = entries.uses;
        entries.bytes += encoded.len();
        if let Some(old) = entries.all.insert(name, Entry { encoded, used }) {
            entries.bytes -= old.encoded.len();
        }
        while entries.bytes > BYTES_MAX || entries.all.len() > ENTRIES_MAX {
            let oldest = entries.all.iter().min_by_key(|(_, entry)| entry.used).map(|(name, _)| name.clone());
            let Some(removed) = oldest.and_then(|name| entries.all.remove(&name)) else { return };
            entries.bytes -= removed.encoded.len();
        }
        METRICS.cache("contexts", entries.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::hash::ContextHash;

    fn name(id: i64) -> Name {
        Name { namespace: "team-a".into(), id: SnapshotId(id), rv: 1, hash: ContextHash::of(&[]) }
    }

    fn held(cache: &Cache) -> (usize, usize) {
        let entries = cache.0.lock().expect("no panic");
        let sum = entries.all.values().map(|entry| entry.encoded.len()).sum::<usize>();
        assert_eq!(entries.bytes, sum);
        (entries.all.len(), sum)
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let cache = Cache::default();
        for id in 0..8 {
            cache.put(name(id), Bytes::from(vec![0; BYTES_MAX / 8]));
        }
        assert_eq!(held(&cache), (8, BYTES_MAX));
        assert!(cache.get(&name(0)).is_some());
        cache.put(name(8), Bytes::from_static(b"[]"));
        assert!(cache.get(&name(0)).is_some() && cache.get(&name(8)).is_some() && cache.get(&name(1)).is_none());
        assert_eq!(held(&cache), (8, BYTES_MAX - BYTES_MAX / 8 + 2));
        cache.put(name(8), Bytes::from_static(b"[1]"));
        assert_eq!(held(&cache), (8, BYTES_MAX - BYTES_MAX / 8 + 3));
    }

    #[test]
    fn neither_many_nor_large_ones_go_over_the_bounds() {
        let cache = Cache::default();
        cache.put(name(-1), Bytes::from(vec![0; ENTRY_MAX + 1]));
        assert_eq!(held(&cache), (0, 0));
        for id in 0..2000 {
            cache.put(name(id), Bytes::from_static(b"[]"));
        }
        assert_eq!(held(&cache), (ENTRIES_MAX, 2 * ENTRIES_MAX));
    }

    #[test]
    fn another_epoch_or_namespace_is_another_snapshot() {
        let cache = Cache::default();
        cache.put(name(1), Bytes::from_static(b"[]"));
        assert!(cache.get(&Name { rv: 2, ..name(1) }).is_none());
        assert!(cache.get(&Name { namespace: "team-b".into(), ..name(1) }).is_none());
    }
}
