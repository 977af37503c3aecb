//! What may be asked of records: creating, changing and deleting them, refreshing, registering runs, pushing. Each is one
//! transaction that checks the rules under the record's lock, and is the same whoever asks: the HTTP API today, manifests of a
//! cluster tomorrow.
//!
//! What it does not: authorize (the caller has), converge (the loop does), or notify (the caller does, after commit).

pub mod agents;
pub mod chats;
pub mod manifests;
pub mod push;

use crate::{
    model::{
        fault::Fault,
        object::{Metadata, Source},
    },
    store::StoreError,
};
use jiff::Timestamp;

/// Why a write was refused. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is nothing of that name.
    #[error("not found")]
    NotFound,
    /// There is something of that name already.
    #[error("already exists")]
    AlreadyExists,
    /// The record has changed since the version that the caller knows.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Changed,
    /// The uid is not the one that the caller means.
    #[error("the UID in the precondition ({wanted}) does not match the UID in record ({found})")]
    OtherUid {
        /// What the caller means.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// Somebody else owns the record's spec.
    #[error("it was made from the manifest {owner} of the cluster, which owns its spec: change or delete that instead")]
    OwnedByManifest {
        /// The manifest: kind, namespace and name.
        owner: String,
    },
    /// A manifest over a record that was made through the API.
    #[error("{owner} was made through the API, which owns its spec: delete it there, or give the manifest another name")]
    OwnedByApi {
        /// The record: kind, namespace and name.
        owner: String,
    },
    /// The record of this name is being deleted.
    #[error("the record of this name is still being deleted")]
    BeingDeleted,
    /// Refreshing an archived chat.
    #[error("the chat is archived: unarchive it to refresh it")]
    Archived,
    /// Some fields are wrong.
    #[error("{} faults", .0.len())]
    Invalid(Vec<Fault>),
    /// A push, and why it was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a push was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another run has taken over.
    #[error("run {got_run} (epoch {got}) is not this agent's run any more: epoch {current} is; register a run to push again")]
    StaleRun {
        /// The run that pushed.
        got_run: uuid::Uuid,
        /// Its epoch.
        got: i64,
        /// The epoch that may push.
        current: i64,
    },
    /// The run has pushed something later, or something else under this number.
    #[error("push {got} comes after push {accepted} was accepted, with other content; count seq up from {accepted}")]
    OutOfOrder {
        /// Its number.
        got: i64,
        /// The last accepted number.
        accepted: i64,
    },
    /// The agent takes no pushes.
    #[error("the agent is suspended: pushes are refused until spec.suspend is false and the paused annotation is gone")]
    Suspended,
    /// The agent is being deleted.
    #[error("the agent is being deleted")]
    Deleting,
}

impl WriteError {
    /// The store's failure, if that is what it is.
    pub fn store(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotFound
            | Self::AlreadyExists
            | Self::Changed
            | Self::OtherUid { .. }
            | Self::OwnedByManifest { .. }
            | Self::OwnedByApi { .. }
            | Self::BeingDeleted
            | Self::Archived
            | Self::Invalid(_)
            | Self::Refused(_) => None,
        }
    }
}

/// What the caller knows of the record it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The version it has seen.
    pub rv: Option<i64>,
    /// The uid it means.
    pub uid: Option<uuid::Uuid>,
}

impl Preconditions {
    /// The same, and at least that the record is the one that the caller was shown: one of another uid may have another owner.
    #[must_use]
    pub fn or_the_same(self, id: uuid::Uuid) -> Self {
        Self { uid: self.uid.or(Some(id)), ..self }
    }

    /// The same, and at least that the record is as the caller saw it.
    #[must_use]
    pub fn or_as_seen(self, id: uuid::Uuid, rv: i64) -> Self {
        Self { rv: self.rv.or(Some(rv)), uid: self.uid.or(Some(id)) }
    }

    fn check(&self, id: uuid::Uuid, rv: i64) -> Result<(), WriteError> {
        if let Some(wanted) = self.uid.filter(|wanted| *wanted != id) {
            return Err(WriteError::OtherUid { wanted: wanted.to_string(), found: id.to_string() });
        }
        if self.rv.is_some_and(|wanted| wanted != rv) { Err(WriteError::Changed) } else { Ok(()) }
    }
}

/// Who asks, as far as ownership goes.
fn check_owner(kind: &str, meta: &Metadata, source: Source, asks: Source) -> Result<(), WriteError> {
    match (source, asks) {
        // A record has the name of its manifest.
        (Source::Manifest, Source::Api) => {
            Err(WriteError::OwnedByManifest { owner: format!("{kind} {}/{}", meta.namespace, meta.name) })
        }
        (Source::Manifest, Source::Manifest) | (Source::Api, Source::Api | Source::Manifest) => Ok(()),
    }
}

/// `updated_at` never goes back, whichever replica's clock is behind.
fn later(now: Timestamp, than: Timestamp) -> Timestamp {
    now.max(than)
}
