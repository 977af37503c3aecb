//! What the clients do: a sequence for each, which the seed decides and nothing else. What a seed cannot decide is how the
//! sequences interleave, and so which of their operations are refused.

use super::history::Target;
use crate::support::proxy::Seeded;
use serde_json::{Value, json};

/// How many namespaces there are.
pub const NAMESPACES: u64 = 3;
/// How many names of chats there are in each: few enough that clients meet, and that names come again.
pub const CHATS: u64 = 40;
/// How many names of agents there are in each.
pub const AGENTS: u64 = 4;
/// How many workspaces there are in each.
const WORKSPACES: u64 = 2;
/// How many contexts an agent may have: few, so that A→B→A happens all the time, and more than it keeps, so that retention has to
/// do.
pub const CONTENTS: u64 = 6;

/// Whom a chat names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    Agent(String),
    Workspace(String),
    Nobody,
}

impl Reference {
    fn random(random: &mut Seeded) -> Self {
        match random.of(0..10) {
            0..6 => Self::Agent(format!("agent-{}", random.of(0..AGENTS))),
            6..9 => Self::Workspace(format!("ws-{}", random.of(0..WORKSPACES))),
            _ => Self::Nobody,
        }
    }

    /// As a merge patch of a spec.
    pub fn patch(&self) -> Value {
        match self {
            Self::Agent(name) => json!({"agentRef": {"name": name}, "workspaceRef": null}),
            Self::Workspace(name) => json!({"agentRef": null, "workspaceRef": {"name": name}}),
            Self::Nobody => json!({"agentRef": null, "workspaceRef": null}),
        }
    }
}

/// One operation. Every write of a spec leaves its mark as a label too, so that it can be found again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    CreateChat {
        reference: Reference,
        parent: Option<String>,
        follows: bool,
    },
    /// Nothing but the mark.
    Mark,
    Suspend(bool),
    Archive(bool),
    Follow(bool),
    Rebind(Reference),
    Report(&'static str),
    Refresh,
    DeleteChat {
        orphan: bool,
    },
    /// Reads a chat with its context.
    Read,
    CreateAgent {
        workspace: String,
        build: u64,
    },
    MoveAgent {
        workspace: String,
        build: u64,
    },
    RefreshAgent,
    DeleteAgent,
    /// A run of the agent; made by a client that has none, before a push.
    Run,
    Push {
        content: u64,
        complete: bool,
    },
}

impl Op {
    /// It is about a chat; otherwise about an agent.
    pub fn is_of_chat(&self) -> bool {
        match self {
            Self::CreateChat { .. }
            | Self::Mark
            | Self::Suspend(_)
            | Self::Archive(_)
            | Self::Follow(_)
            | Self::Rebind(_)
            | Self::Report(_)
            | Self::Refresh
            | Self::DeleteChat { .. }
            | Self::Read => true,
            Self::CreateAgent { .. }
            | Self::MoveAgent { .. }
            | Self::RefreshAgent
            | Self::DeleteAgent
            | Self::Run
            | Self::Push { .. } => false,
        }
    }

    /// Its mark becomes the object's label.
    pub fn leaves_mark(&self) -> bool {
        match self {
            Self::CreateChat { .. }
            | Self::Mark
            | Self::Suspend(_)
            | Self::Archive(_)
            | Self::Follow(_)
            | Self::Rebind(_)
            | Self::CreateAgent { .. }
            | Self::MoveAgent { .. }
            | Self::RefreshAgent => true,
            Self::Report(_)
            | Self::Refresh
            | Self::DeleteChat { .. }
            | Self::Read
            | Self::DeleteAgent
            | Self::Run
            | Self::Push { .. } => false,
        }
    }
}

/// The operations of one client.
pub struct Script {
    random: Seeded,
    client: u64,
    clients: u64,
}

impl Script {
    /// Of a client among so many.
    pub fn new(seed: u64, client: usize, clients: usize) -> Self {
        let (client, clients) = (client as u64, clients as u64);
        Self { random: Seeded::new(seed.wrapping_mul(1_000_003).wrapping_add(client)), client, clients }
    }

    /// The next one.
    pub fn next(&mut self) -> (Target, Op) {
        let random = &mut self.random;
        let namespace = format!("team-{}", random.of(0..NAMESPACES));
        let chat = format!("chat-{}", random.of(0..CHATS));
        let op = match random.of(0..100) {
            0..13 => Op::CreateChat {
                reference: Reference::random(random),
                parent: (random.of(0..4) == 0).then(|| format!("chat-{}", random.of(0..CHATS))),
                follows: random.of(0..4) == 0,
            },
            13..21 => Op::Mark,
            21..26 => Op::Suspend(random.of(0..3) == 0),
            26..32 => Op::Archive(random.of(0..3) == 0),
            32..35 => Op::Follow(random.of(0..3) == 0),
            35..43 => Op::Rebind(Reference::random(random)),
            43..53 => Op::Report(STATES[usize::try_from(random.of(0..8)).unwrap()]),
            53..62 => Op::Refresh,
            62..67 => Op::DeleteChat { orphan: random.of(0..3) == 0 },
            67..76 => Op::Read,
            _ => return self.of_agent(namespace),
        };
        (Target { namespace, name: chat }, op)
    }

    /// Each agent has a client that pushes for it, mostly: two runs of one agent put each other out.
    fn of_agent(&mut self, namespace: String) -> (Target, Op) {
        let random = &mut self.random;
        let (mut namespace, mut agent) = (namespace, random.of(0..AGENTS));
        let (workspace, build) = (format!("ws-{}", random.of(0..WORKSPACES)), random.of(0..6));
        let op = match random.of(0..24) {
            0..4 => Op::CreateAgent { workspace, build },
            4..6 => Op::MoveAgent { workspace, build },
            6 => Op::RefreshAgent,
            7 => Op::DeleteAgent,
            _ => Op::Push { content: random.of(0..CONTENTS), complete: random.of(0..8) != 0 },
        };
        let own = (0..NAMESPACES * AGENTS).filter(|at| at % self.clients == self.client).collect::<Vec<_>>();
        if matches!(op, Op::Push { .. }) && !own.is_empty() && random.of(0..12) != 0 {
            let at = own[usize::try_from(random.of(0..own.len() as u64)).unwrap()];
            (namespace, agent) = (format!("team-{}", at / AGENTS), at % AGENTS);
        }
        (Target { namespace, name: format!("agent-{agent}") }, op)
    }
}

/// Active ones more often.
const STATES: [&str; 8] = ["Waiting", "Running", "Paused", "Pending", "RequiresAction", "Running", "Completed", "Error"];
