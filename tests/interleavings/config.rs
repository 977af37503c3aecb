//! What takes part: which rows there are at first, what clients ask for, how many loops run, what may crash; and which of the product's
//! rules is broken on purpose.

use super::{
    clients::{Ask, agent, chat},
    rows::{AGENTS, Agent, CHATS, Chat, Names, Progress, Snap, Tables},
};

/// A rule of the product that is broken on purpose. Each must be caught (`caught`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Defect {
    /// A lap writes what it decided before it waited for the chats' locks.
    NoReread,
    /// A client's write is decided from what was read before its lock.
    ReadBeforeLock,
    /// The end of a lap does not ask whether the agent's revision is still the one that it began with.
    NoRevisionCheck,
    /// The end of a lap marks the newest revision as converged, not the one that it began with.
    ConvergedTooEarly,
    /// A lap passes over chats that are due and look fine.
    DueIgnored,
    /// An agent whose news nobody has to be told is converged whatever its revision is by then.
    QuietWithoutRevision,
    /// Whether anybody follows an agent is not looked at.
    QuietIsGuessed,
    /// Laps of two agents over one workspace run at the same time.
    NotAlone,
    /// A lap takes the chats' locks with SKIP LOCKED, and those that it skipped for told.
    SkippedIsDone,
    /// A refresh token is marked as handled in a transaction before the one that refreshes.
    TokenBeforeRefresh,
    /// Lanes are told to look before the commit.
    HintBeforeCommit,
    /// A lane that finds nothing due but what others hold waits for a hint.
    HeldIsForgotten,
    /// A repeated push is judged by what was there before it waited for its agent.
    RepeatFromBefore,
    /// A row's version is written without `AND rv <= $rv`.
    NoGuard,
    /// The reader fetches the horizon after the rows.
    HorizonAfterRows,
    /// The reader takes all that is committed.
    NoHorizon,
    /// The converge forgets its event.
    EventForgotten,
    /// Retention does not lock the agent.
    PruneWithoutAgent,
    /// A report with `phase: Pending` becomes a snapshot.
    HalfIsWhole,
}

/// What a connection is there for.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Asks for one thing after another.
    Client(Vec<Ask>),
    /// Runs the chats' lane.
    ChatsLane,
    /// Runs the agents' lane.
    AgentsLane,
    /// Runs either, a transaction of the one or of the other: what two connections of one process do, and more.
    Loop,
}

/// A world to explore.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) tables: Tables,
    pub(crate) roles: Vec<Role>,
    /// Chats that one transaction of the loop takes (`Reconciler::with_batch`).
    pub(crate) page: usize,
    /// How many processes may crash, at any statement.
    pub(crate) crashes: u8,
    /// Whether somebody reads the log.
    pub(crate) reader: bool,
    /// Lanes look only when they are told to: no poll.
    pub(crate) hints_only: bool,
    /// Every statement is a step, even those that nobody can see and that see nobody.
    pub(crate) every_statement: bool,
    pub(crate) defect: Option<Defect>,
}

impl Config {
    pub(crate) fn new() -> Self {
        let tables = Tables { chats: [None; CHATS], agents: [None; AGENTS], snapshots: Vec::new(), events: Vec::new() };
        Self {
            tables,
            roles: Vec::new(),
            page: 2,
            crashes: 0,
            reader: false,
            hints_only: false,
            every_statement: false,
            defect: None,
        }
    }

    pub(crate) fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    /// Whether retention takes part.
    pub(crate) fn prunes(&self) -> bool {
        let prunes = |ask: &Ask| matches!(ask, Ask::Prune(_));
        self.roles.iter().any(|role| matches!(role, Role::Client(asks) if asks.iter().any(prunes)))
    }

    /// An agent whose first run has reported `context` with its seq 1, and whose lap has ended.
    pub(crate) fn agent(mut self, name: u8, context: u8) -> Self {
        let latest = Snap { agent: name + 1, context };
        let phase = Progress::Complete;
        let row = Agent { latest: Some(latest), epoch: 1, seq: 1, phase, revision: 3, converged: 3, ..agent(name + 1) };
        self.tables.agents[usize::from(name)] = Some(row);
        self.tables.snapshots.push(latest);
        self
    }

    /// The last agent is in the workspace.
    pub(crate) fn in_workspace(mut self) -> Self {
        if let Some(agent) = self.tables.agents.iter_mut().rev().flatten().next() {
            agent.in_workspace = true;
        }
        self
    }

    /// A chat that is converged as far as its conditions: it is the first thing that the loop will say of it.
    pub(crate) fn chat(mut self, name: u8, names: Names, pin: Option<(u8, u8)>) -> Self {
        let pin = pin.map(|(agent, context)| Snap { agent: agent + 1, context });
        self.tables.chats[usize::from(name)] = Some(Chat { pin, revision: 1, converged: 1, ..chat(names) });
        if let Some(pin) = pin.filter(|pin| !self.tables.snapshots.contains(pin)) {
            self.tables.snapshots.push(pin);
            self.tables.snapshots.sort_unstable();
        }
        self
    }

    /// The same, changed.
    pub(crate) fn with(mut self, name: u8, change: impl FnOnce(&mut Chat)) -> Self {
        change(self.tables.chats[usize::from(name)].as_mut().expect("a chat"));
        self
    }

    pub(crate) fn client(mut self, asks: impl Into<Vec<Ask>>) -> Self {
        self.roles.push(Role::Client(asks.into()));
        self
    }

    pub(crate) fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Two loops.
    pub(crate) fn two_loops(self) -> Self {
        self.role(Role::Loop).role(Role::Loop)
    }

    pub(crate) fn page(mut self, chats: usize) -> Self {
        self.page = chats;
        self
    }

    pub(crate) fn crashes(mut self, crashes: u8) -> Self {
        self.crashes = crashes;
        self
    }

    pub(crate) fn reader(mut self) -> Self {
        self.reader = true;
        self
    }

    pub(crate) fn hints_only(mut self) -> Self {
        self.hints_only = true;
        self
    }

    pub(crate) fn every_statement(mut self) -> Self {
        self.every_statement = true;
        self
    }

    pub(crate) fn broken(mut self, defect: Defect) -> Self {
        self.defect = Some(defect);
        self
    }
}
