//! The rows that matter, with the columns that matter, as small as they can be. Names and uids are small numbers; a snapshot is
//! known by whose it is and what it holds (`UNIQUE (namespace, agent_id, context_hash)`), so a pin is one value, as it is one
//! foreign key in the schema: I1 and I5 hold by the form of the row here as they do there.

use std::fmt;

/// Chats there may be.
pub(crate) const CHATS: usize = 2;
/// Names of agents there may be.
pub(crate) const AGENTS: usize = 2;

/// The uid of an agent: one that is created again under its name has another.
pub(crate) type AgentId = u8;

/// A snapshot: whose, and of which context.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Snap {
    pub(crate) agent: AgentId,
    pub(crate) context: u8,
}

impl fmt::Debug for Snap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}{}", self.context, self.agent)
    }
}

/// A context that an agent reports.
pub(crate) const A: u8 = 0xa;
/// Another.
pub(crate) const B: u8 = 0xb;
/// What it reports before it knows all of it (`phase: Pending`): never to be pinned.
pub(crate) const HALF: u8 = 0xe;

/// What a chat names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Names {
    Nothing,
    /// The agent of this name.
    Agent(u8),
    /// The workspace; there is one.
    Workspace,
}

/// A row of `chats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "a row: one field a column")]
pub(crate) struct Chat {
    pub(crate) names: Names,
    pub(crate) on_drift: bool,
    pub(crate) archived: bool,
    pub(crate) terminal: bool,
    /// `refresh_requested`, a token; 0 is none.
    pub(crate) asked: u8,
    /// `refresh_handled`.
    pub(crate) handled: u8,
    pub(crate) pin: Option<Snap>,
    pub(crate) dirty: bool,
    /// `observed_generation < generation`.
    pub(crate) spec_unseen: bool,
    /// `conditions`, interned (`decide`).
    pub(crate) said: u8,
    pub(crate) event_seq: u8,
    pub(crate) revision: u8,
    pub(crate) converged: u8,
    pub(crate) rv: u8,
}

impl Chat {
    pub(crate) fn due(&self) -> bool {
        self.converged < self.revision
    }
}

/// How far an agent's run has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Progress {
    NoRun,
    Pending,
    Complete,
}

/// A row of `agents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) in_workspace: bool,
    /// `former_workspaces`: it has left the workspace, and not all of its chats have been told.
    pub(crate) left_workspace: bool,
    pub(crate) deleting: bool,
    pub(crate) epoch: u8,
    pub(crate) seq: u8,
    pub(crate) phase: Progress,
    pub(crate) latest: Option<Snap>,
    pub(crate) revision: u8,
    pub(crate) converged: u8,
    /// `fanout_revision` and `fanout_cursor`: what the running lap began with, and the next chat that it tells.
    pub(crate) lap: Option<(u8, u8)>,
}

impl Agent {
    pub(crate) fn due(&self) -> bool {
        self.converged < self.revision
    }

    /// Whether the news of the agent of this name concern a chat.
    pub(crate) fn concerns(&self, name: u8, chat: &Chat) -> bool {
        match chat.names {
            Names::Nothing => false,
            Names::Agent(other) => other == name,
            Names::Workspace => self.in_workspace || self.left_workspace,
        }
    }
}

/// An event about a chat. Those about agents are left out: they are written by the same code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Event {
    pub(crate) rv: u8,
    pub(crate) seq: u8,
    pub(crate) chat: u8,
    pub(crate) chat_seq: u8,
}

/// What is committed. Events that the reader has had are forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tables {
    pub(crate) chats: [Option<Chat>; CHATS],
    pub(crate) agents: [Option<Agent>; AGENTS],
    /// Sorted.
    pub(crate) snapshots: Vec<Snap>,
    /// Sorted by (rv, seq).
    pub(crate) events: Vec<Event>,
}

impl Tables {
    pub(crate) fn pinned(&self, snap: Snap) -> bool {
        self.chats.iter().flatten().any(|chat| chat.pin == Some(snap))
    }

    pub(crate) fn agent_of_name(&self, name: u8) -> Option<&Agent> {
        self.agents[usize::from(name)].as_ref()
    }
}

/// A row that can be locked, as a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Row {
    Chat(u8),
    Agent(u8),
    Snapshot(Snap),
    /// The advisory lock of laps over the workspace (`store::fanout::alone_in`).
    Laps,
}

impl Row {
    pub(crate) fn bit(self) -> u32 {
        match self {
            Self::Laps => 1,
            Self::Chat(chat) => 1 << (1 + chat),
            Self::Agent(name) => 1 << (4 + name),
            // Contexts are a, b and e; uids 1 to 4.
            Self::Snapshot(snap) => 1 << (8 + (snap.agent - 1) * 6 + (snap.context - A)),
        }
    }
}

/// What a transaction has written and not committed. A row's new version is what the others see after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Written {
    Chat(u8, Chat),
    Agent(u8, Option<Agent>),
    Snapshot(Snap),
    NoSnapshot(Snap),
    /// No row: what a push was accepted as, for the judge.
    Accepted {
        agent: u8,
        run: u8,
        seq: u8,
    },
    /// A chat's event, with its number among the chat's. Its version is the transaction's.
    Event {
        chat: u8,
        chat_seq: u8,
    },
}
