//! The encoded resources of the snapshots that were read last. Speed only: without it every answer is the same, and slower.
//!
//! A snapshot is immutable, so nothing here is ever out of date; what is looked up is what a read of the database has just named,
//! after whoever asks was found to be allowed to see it. Bounded by [`BYTES_MAX`], whatever is asked for.

use crate::{
    http::kept::Kept,
    model::{hash::ContextHash, snapshot::SnapshotId},
};
use axum::body::Bytes;

/// The most that all entries hold together, in bytes: an eighth of what a server may need in all (measure P7), and room for the largest
/// context, whose 4 MiB of bodies take 5.6 in base64.
pub const BYTES_MAX: usize = 8 << 20;

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
#[derive(Debug)]
pub struct Cache(Kept<Name, Bytes>);

impl Default for Cache {
    fn default() -> Self {
        Self(Kept::new("contexts", BYTES_MAX))
    }
}

impl Cache {
    /// The encoded resources of a snapshot, if they are here.
    pub fn get(&self, name: &Name) -> Option<Bytes> {
        self.0.get(name)
    }

    /// Keeps the encoded resources of a snapshot.
    pub fn put(&self, name: Name, encoded: Bytes) {
        let bytes = encoded.len();
        self.0.put(name, encoded, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(id: i64) -> Name {
        Name { namespace: "team-a".into(), id: SnapshotId(id), rv: 1, hash: ContextHash::of(&[]) }
    }

    #[test]
    fn another_epoch_or_namespace_is_another_snapshot() {
        let cache = Cache::default();
        cache.put(name(1), Bytes::from_static(b"[]"));
        assert!(cache.get(&name(1)).is_some());
        assert!(cache.get(&Name { rv: 2, ..name(1) }).is_none());
        assert!(cache.get(&Name { namespace: "team-b".into(), ..name(1) }).is_none());
    }
}
