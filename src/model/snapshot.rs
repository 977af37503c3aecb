//! A snapshot: an immutable, content-addressed revision of an agent's pinned-class resources.

use super::{hash::ContextHash, resource::ResourceMeta};
use jiff::Timestamp;
use uuid::Uuid;

/// What a pin refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SnapshotId(pub i64);

/// A snapshot without its resources.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The tenant and the shard.
    pub namespace: String,
    /// What pins refer to.
    pub id: SnapshotId,
    /// `metadata.name`.
    pub name: String,
    /// The agent that reported it, which may be gone.
    pub agent_id: Uuid,
    /// That agent's name.
    pub agent_name: String,
    /// Counts the distinct contexts of the agent, from 1.
    pub revision: i64,
    /// The hash of its resources.
    pub hash: ContextHash,
    /// What the agent said was wrong with its scan when this context first appeared.
    pub error: String,
    /// How many resources it holds.
    pub resource_count: i32,
    /// How many of them are not `Ok`.
    pub degraded_count: i32,
    /// Sum of their sizes in bytes.
    pub size_bytes: i64,
    /// When it was first reported.
    pub created_at: Timestamp,
    /// Version.
    pub rv: i64,
}

/// A snapshot and the resources it lists, in (kind, source) order.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotWithManifest {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Its resources.
    pub manifest: Vec<ResourceMeta>,
}

/// The name of the `n`th snapshot of `agent` (from 1) whose hash begins alike: `<agent>-<hash12>`, then `<agent>-<hash12>-2`.
pub fn name(agent: &str, hash: &ContextHash, n: usize) -> String {
    match n {
        0 | 1 => format!("{agent}-{}", hash.short()),
        n => format!("{agent}-{}-{n}", hash.short()),
    }
}

/// The name when too many of [`name`] are taken: with the agent's uid, which no other agent of that name has.
pub fn name_with_uid(agent: &str, hash: &ContextHash, id: Uuid) -> String {
    format!("{agent}-{}-{}", hash.short(), id.simple())
}
