//! Which agent a chat names now. Pure: the same rule stands in SQL (`store`), and a test holds the two together.

use super::{chat::Reference, hash::ContextHash, snapshot::SnapshotId};
use jiff::Timestamp;
use uuid::Uuid;

/// A snapshot as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Latest {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its hash.
    pub hash: ContextHash,
}

/// A pin as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pin {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// The agent it came from. Part of the pin's identity: equal hashes of two agents are still a rebind.
    pub agent: Uuid,
    /// Its hash.
    pub hash: ContextHash,
}

/// What a chat names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The chat names no agent.
    Unbound,
    /// It names one that does not exist, or that is being deleted.
    Missing,
    /// It names this one.
    Agent {
        /// The agent.
        id: Uuid,
        /// What the agent points at; none before its first complete push.
        latest: Option<Latest>,
    },
}

impl Target {
    /// What the target points at.
    pub fn latest(&self) -> Option<Latest> {
        match self {
            Self::Unbound | Self::Missing => None,
            Self::Agent { latest, .. } => *latest,
        }
    }
}

/// An agent as the choice of a target sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its uid.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The workspace it belongs to.
    pub workspace: Option<String>,
    /// Its build.
    pub build: Option<i64>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether its deletion was asked for.
    pub deleting: bool,
    /// What it points at.
    pub latest: Option<Latest>,
}

/// The agent that `reference` names among `agents`: the one of that name, or the workspace's current agent (the highest
/// build; none counts lowest; ties: the oldest). One that is being deleted counts as missing.
pub fn resolve(reference: &Reference, agents: &[Candidate]) -> Target {
    let living = agents.iter().filter(|agent| !agent.deleting);
    let found = match reference {
        Reference::Unbound => return Target::Unbound,
        Reference::Agent(name) => living.into_iter().find(|agent| agent.name == *name),
        Reference::Workspace(workspace) => living
            .filter(|agent| agent.workspace.as_ref() == Some(workspace))
            .max_by_key(|agent| (agent.build, std::cmp::Reverse((agent.created_at, agent.id)))),
    };
    found.map_or(Target::Missing, |agent| Target::Agent { id: agent.id, latest: agent.latest })
}
