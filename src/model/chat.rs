//! A chat: what somebody asked of it, what its runner reports, and the snapshot it is moored to.

use super::{
    condition::Conditions,
    drift::Drift,
    object::{DeletionPolicy, Metadata, Progress, Source},
    snapshot::{Snapshot, SnapshotId},
    word::word_enum,
};
use jiff::Timestamp;
use uuid::Uuid;

/// What a chat names as the source of its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// Nothing: the chat is unbound.
    Unbound,
    /// An agent, by name.
    Agent(String),
    /// A workspace: its current agent is the target.
    Workspace(String),
}

impl Reference {
    /// From the two columns, of which a CHECK lets at most one be set.
    pub fn from_columns(agent: Option<String>, workspace: Option<String>) -> Self {
        match (agent, workspace) {
            (Some(agent), _) => Self::Agent(agent),
            (None, Some(workspace)) => Self::Workspace(workspace),
            (None, None) => Self::Unbound,
        }
    }

    /// The agent it names.
    pub fn agent(&self) -> Option<&str> {
        match self {
            Self::Agent(name) => Some(name),
            Self::Unbound | Self::Workspace(_) => None,
        }
    }

    /// The workspace it names.
    pub fn workspace(&self) -> Option<&str> {
        match self {
            Self::Workspace(name) => Some(name),
            Self::Unbound | Self::Agent(_) => None,
        }
    }
}

word_enum! {
    /// What whoever runs the chat says of it.
    ChatState {
        /// For its user.
        Waiting,
        /// Working.
        Running,
        /// Held by its user.
        Paused,
        /// Not begun.
        Pending,
        /// For an answer.
        RequiresAction,
        /// Ended well. Terminal.
        Completed,
        /// Ended badly. Terminal.
        Error,
    }
}

impl ChatState {
    /// Active chats are hydrated, dirtied and rebound by themselves; terminal ones are not.
    pub const fn is_active(self) -> bool {
        match self {
            Self::Waiting | Self::Running | Self::Paused | Self::Pending | Self::RequiresAction => true,
            Self::Completed | Self::Error => false,
        }
    }
}

word_enum! {
    /// What to do when the agent's context changes.
    RefreshPolicy {
        /// Mark the chat dirty and wait until somebody asks.
        Manual,
        /// Move to the latest snapshot at once.
        OnDrift,
    }
}

word_enum! {
    /// Why a pin is where it is.
    PinCause {
        /// The first pin.
        Hydrated,
        /// Somebody asked.
        Refreshed,
        /// The policy asked.
        AutoRefreshed,
        /// The target became another agent.
        Rebound,
        /// Created with its parent's pin.
        Inherited,
    }
}

/// `spec`: what somebody asked of a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSpec {
    /// Whose chat it is. Immutable.
    pub owner: String,
    /// For people.
    pub title: String,
    /// Where its context comes from.
    pub reference: Reference,
    /// The chat it branched off, by name. Immutable.
    pub parent: Option<String>,
    /// What to do when the agent's context changes.
    pub refresh_policy: RefreshPolicy,
    /// Leave it alone.
    pub suspend: bool,
    /// Its own wish to be archived; covers the whole subtree.
    pub archived: bool,
    /// What deleting a manifest does to the record.
    pub deletion_policy: DeletionPolicy,
}

/// The snapshot that a chat is moored to.
#[derive(Clone, Debug, PartialEq)]
pub struct PinRecord {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Why.
    pub cause: PinCause,
    /// Since when.
    pub at: Timestamp,
}

/// A whole chat record.
#[derive(Clone, Debug, PartialEq)]
pub struct Chat {
    /// Identity and versions.
    pub meta: Metadata,
    /// What was asked.
    pub spec: ChatSpec,
    /// An ancestor is archived.
    pub inherited_archived: bool,
    /// Who owns the spec.
    pub source: Source,
    /// Whether the paused annotation stands.
    pub paused: bool,
    /// The chat it branched off.
    pub parent_id: Option<Uuid>,
    /// The first chat of its tree; its own id when it has no parent.
    pub root_id: Uuid,
    /// The user who created it.
    pub created_by: String,
    /// When a person or a runner last changed it.
    pub updated_at: Timestamp,
    /// What its runner reports.
    pub state: ChatState,
    /// Why the state is `Error`.
    pub last_error: String,
    /// What it is moored to.
    pub pin: Option<PinRecord>,
    /// The start of the current drift episode.
    pub dirty_since: Option<Timestamp>,
    /// The last token that asked for a refresh.
    pub refresh_requested: Option<String>,
    /// Echo of the refresh token that was last handled.
    pub refresh_handled: Option<String>,
    /// Echo of the reconcile token that was last handled.
    pub reconcile_handled: Option<String>,
    /// Counts its events.
    pub event_seq: i64,
    /// How far the loop has got.
    pub progress: Progress,
    /// `status.conditions`.
    pub conditions: Conditions,
}

impl Chat {
    /// Archived by its own wish or by an ancestor's.
    pub fn is_archived(&self) -> bool {
        self.spec.archived || self.inherited_archived
    }
}

/// The agent whose context a chat uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundAgent {
    /// Its uid.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// A chat with what it is pinned to: what a reader of a list is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatView {
    /// The record; `spec.parent` holds the parent's name.
    pub chat: Chat,
    /// The pin's snapshot.
    pub pinned: Option<Snapshot>,
    /// The agent it names now, if that exists.
    pub target: Option<BoundAgent>,
}

impl ChatView {
    /// The pin's agent, or the target while there is no pin.
    pub fn bound_agent(&self) -> Option<BoundAgent> {
        match &self.pinned {
            Some(snapshot) => Some(BoundAgent { id: snapshot.agent_id, name: snapshot.agent_name.clone() }),
            None => self.target.clone(),
        }
    }
}

/// What a reader of one chat is shown beyond that, as of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatDetail {
    /// The chat.
    pub view: ChatView,
    /// The target's latest snapshot.
    pub latest: Option<Snapshot>,
    /// How the pin differs from it, when it does and the target is the pin's own agent.
    pub drift: Option<Drift>,
}
