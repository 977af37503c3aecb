//! Words for states of the decision: `chat().archived().pinned(1, A)`, `of(2, B)`. Agents and hashes are small numbers;
//! a snapshot's id is made of both, so that equal hashes of two agents are two snapshots.

use moorline::{
    model::{
        chat::{ChatState, RefreshPolicy},
        hash::ContextHash,
        snapshot::SnapshotId,
        target::{Latest, Pin, Target},
    },
    plan::ChatFacts,
};
use uuid::Uuid;

/// A context.
pub(crate) const A: u8 = 0xa;
/// Another.
pub(crate) const B: u8 = 0xb;

/// The uid of agent `n`.
pub(crate) fn agent_id(n: u8) -> Uuid {
    Uuid::from_u128(n.into())
}

/// The snapshot that agent `n` makes of the context `hash`.
pub(crate) fn snapshot(n: u8, hash: u8) -> Latest {
    let bytes = ContextHash::from_slice(&[hash; 32]).unwrap();
    Latest { snapshot: SnapshotId(i64::from(n) * 1_000 + i64::from(hash)), hash: bytes }
}

/// A pin on that snapshot.
pub(crate) fn pin_on(n: u8, hash: u8) -> Pin {
    let Latest { snapshot, hash } = snapshot(n, hash);
    Pin { snapshot, agent: agent_id(n), hash }
}

/// The target agent `n`, whose latest is `hash`, or which has none.
pub(crate) fn of(n: u8, hash: impl Into<Option<u8>>) -> Target {
    Target::Agent { id: agent_id(n), latest: hash.into().map(|hash| snapshot(n, hash)) }
}

/// A chat and its pin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) facts: ChatFacts,
    pub(crate) pin: Option<Pin>,
}

/// An active chat that nobody asks anything of, without a pin.
pub(crate) fn chat() -> Case {
    let facts = ChatFacts {
        archived: false,
        suspended: false,
        state: ChatState::Running,
        policy: RefreshPolicy::Manual,
        refresh_pending: false,
        dirty: false,
    };
    Case { facts, pin: None }
}

impl Case {
    pub(crate) fn archived(mut self) -> Self {
        self.facts.archived = true;
        self
    }

    pub(crate) fn suspended(mut self) -> Self {
        self.facts.suspended = true;
        self
    }

    pub(crate) fn state(mut self, state: ChatState) -> Self {
        self.facts.state = state;
        self
    }

    pub(crate) fn terminal(self) -> Self {
        self.state(ChatState::Completed)
    }

    pub(crate) fn on_drift(mut self) -> Self {
        self.facts.policy = RefreshPolicy::OnDrift;
        self
    }

    pub(crate) fn refresh(mut self) -> Self {
        self.facts.refresh_pending = true;
        self
    }

    pub(crate) fn dirty(mut self) -> Self {
        self.facts.dirty = true;
        self
    }

    pub(crate) fn pinned(mut self, agent: u8, hash: u8) -> Self {
        self.pin = Some(pin_on(agent, hash));
        self
    }
}
