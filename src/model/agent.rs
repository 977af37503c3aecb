//! An agent: what somebody asked of it, what it reported, and how far the loop has got with telling its chats.

use super::{
    condition::Conditions,
    object::{DeletionPolicy, Metadata, Progress, Source},
    push::Phase,
    snapshot::{Snapshot, SnapshotId},
};
use jiff::Timestamp;
use uuid::Uuid;

/// `spec`: what somebody asked of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    /// The workspace it belongs to.
    pub workspace: Option<String>,
    /// The highest build is the workspace's current agent; none counts lowest.
    pub build: Option<i64>,
    /// The user name that may push as it.
    pub service_account: Option<String>,
    /// Pushes are refused.
    pub suspend: bool,
    /// How many snapshots nobody is pinned to are kept, 1 to 100.
    pub revision_history_limit: i32,
    /// What deleting a manifest does to the record.
    pub deletion_policy: DeletionPolicy,
}

/// One process lifetime of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its id, known to the process.
    pub id: Uuid,
    /// The fencing number of its pushes.
    pub epoch: i64,
    /// When it was registered.
    pub started_at: Timestamp,
}

/// A whole agent record.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Identity and versions.
    pub meta: Metadata,
    /// When deletion was asked for.
    pub deletion_timestamp: Option<Timestamp>,
    /// What was asked.
    pub spec: AgentSpec,
    /// Who owns the spec.
    pub source: Source,
    /// Whether the paused annotation stands.
    pub paused: bool,
    /// The run that may push.
    pub run: Option<Run>,
    /// The last accepted push of that run.
    pub seq: i64,
    /// None before the first run.
    pub phase: Option<Phase>,
    /// What it currently points at.
    pub latest: Option<SnapshotId>,
    /// What it said was wrong with its own scan.
    pub latest_error: String,
    /// The last token that asked to refresh all its chats.
    pub refresh_requested: Option<String>,
    /// Echo of the one whose lap has ended.
    pub refresh_handled: Option<String>,
    /// Echo of the reconcile token whose lap has ended.
    pub reconcile_handled: Option<String>,
    /// How far the loop has got.
    pub progress: Progress,
    /// `status.conditions`.
    pub conditions: Conditions,
}

/// An agent with the snapshot it points at: what a reader is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentView {
    /// The record.
    pub agent: Agent,
    /// What it points at.
    pub latest: Option<Snapshot>,
}
