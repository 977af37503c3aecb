//! The model that `stateright` explores: which statement may come next, and what it does.
//!
//! Statements that no other session can see and that see no other session (`log_rv()` once a row is locked, reading and writing rows
//! that one has locked) go together with the statement before them: that leaves out orders that differ in nothing. The configuration
//! [`Config::every_statement`] does without, to show that nothing is lost by it.
//!
//! States that differ only in how versions and events are counted are one ([`canonical`]).

use super::{
    clients::{self, Ask},
    config::{Config, Defect, Role},
    decide::Decider,
    invariants, lanes, reader,
    rows::{AGENTS, Agent, Chat, Written},
    sessions::{At, Client, Hint, Lap, Reading, Session, World},
};
use stateright::{Model, Property};
use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// A client begins the next thing that it asks for.
    Begin(usize),
    /// The next statement of a transaction.
    Statement(usize),
    /// A lane claims chats.
    ClaimChats(usize),
    /// A lane claims the agent of this name.
    ClaimAgent(usize, u8),
    /// A lane finds that nobody has to be told the news of the agent of this name.
    FindQuiet(usize, u8),
    /// A lane that has been told to looks; it may find nothing.
    Look(usize),
    /// The reader's next statement.
    Read,
    /// The process behind this connection dies.
    Crash(usize),
}

/// The model.
pub(crate) struct Interleavings {
    pub(crate) config: Config,
    pub(crate) decider: Decider,
    /// States from which everything converges.
    good: Mutex<HashSet<u64>>,
    pub(crate) seen: Seen,
}

/// How often what the rules are for has happened, ways to rest included.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// A statement had to wait for a lock.
    pub(crate) waits: AtomicUsize,
    /// A guard fired, or what was to be pinned was gone: the transaction began again.
    pub(crate) races_lost: AtomicUsize,
    /// A lap found another over the same chats.
    pub(crate) busy_laps: AtomicUsize,
}

impl Seen {
    /// All of it.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [&self.waits, &self.races_lost, &self.busy_laps].map(|count| count.load(Ordering::Relaxed))
    }

    fn note(&self, before: &At, after: Option<&At>) {
        let count = match (before, after) {
            (_, None) => &self.waits,
            (At::Chats(_) | At::Lap(Lap::Record(_), _) | At::Client(Client::Write(_)), Some(At::Idle)) => &self.races_lost,
            (At::Lap(Lap::AloneIn, _), Some(At::Idle)) => &self.busy_laps,
            (_, Some(_)) => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Steps of every session after which a drain has come to rest, or never will.
const SWEEPS_MAX: usize = 500;

impl Interleavings {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, decider: Decider::default(), good: Mutex::default(), seen: Seen::default() }
    }

    /// Does the next statement of a session, and those behind it that nobody can see.
    fn statements(&self, world: &World, me: usize) -> Option<World> {
        let mut after = self.statement(world, me)?;
        while !self.config.every_statement && self.is_local(&after, me) {
            after = self.statement(&after, me)?;
        }
        Some(after)
    }

    fn is_local(&self, world: &World, me: usize) -> bool {
        match &world.sessions[me].at {
            At::Client(at) => clients::is_local(&self.config, world, me, at),
            at => lanes::is_local(&self.config, at),
        }
    }

    fn statement(&self, world: &World, me: usize) -> Option<World> {
        let after = self.execute(world, me);
        self.seen.note(&world.sessions[me].at, after.as_ref().map(|after| &after.sessions[me].at));
        after
    }

    fn execute(&self, world: &World, me: usize) -> Option<World> {
        let session = &world.sessions[me];
        let mut after = match session.at.clone() {
            At::Idle => return None,
            At::Client(at) => {
                let Role::Client(asks) = &self.config.roles[me] else { return None };
                clients::step(&self.config, world, me, asks[usize::from(session.next)], at)?
            }
            At::Chats(at) => lanes::converge(&self.config, &self.decider, world, me, at)?,
            At::Lap(at, page) => lanes::tell(&self.config, &self.decider, world, me, at, page)?,
            At::Commit => return Some(self.commit(world, me)),
            At::Tell(hint) => {
                let mut after = world.clone();
                after.sessions[me].at = At::Idle;
                self.tell_lanes(&mut after, hint);
                return Some(after);
            }
        };
        if after.sessions[me].at == At::Commit
            && self.config.has(Defect::HintBeforeCommit)
            && let Some(hint) = self.hint(&after, me)
        {
            self.tell_lanes(&mut after, hint);
        }
        Some(after)
    }

    /// What the lanes are told of a transaction that is about to commit. After a batch of chats or a page of a lap only those are told
    /// who wait for them: no lane.
    fn hint(&self, world: &World, me: usize) -> Option<Hint> {
        let Role::Client(asks) = &self.config.roles[me] else { return None };
        let session = &world.sessions[me];
        match asks[usize::from(session.next)] {
            Ask::Push(push) | Ask::Repeat(push) => {
                let before = world.tables.agent_of_name(push.agent).map(|agent| agent.revision);
                let is_shown = |row: &Written| matches!(row, Written::Agent(_, Some(after)) if Some(after.revision) != before);
                session.written.iter().any(is_shown).then_some(Hint::Agents)
            }
            Ask::Prune(_) => None,
            Ask::CreateAgent(_)
            | Ask::DeleteAgent(_)
            | Ask::Leave(_)
            | Ask::Register(_)
            | Ask::CreateChat(..)
            | Ask::Rebind(..)
            | Ask::Archive(..)
            | Ask::Report(..)
            | Ask::Refresh(..) => Some(Hint::Work),
        }
    }

    /// Whether a lane finds records that are due, whoever holds them.
    fn finds(&self, world: &World, me: usize) -> bool {
        let chats = || world.tables.chats.iter().flatten().any(Chat::due);
        let agents = || world.tables.agents.iter().flatten().any(Agent::due);
        match &self.config.roles[me] {
            Role::Client(_) => false,
            Role::ChatsLane => chats(),
            Role::AgentsLane => agents(),
            Role::Loop => chats() || agents(),
        }
    }

    fn tell_lanes(&self, world: &mut World, hint: Hint) {
        for (session, role) in world.sessions.iter_mut().zip(&self.config.roles) {
            session.hinted |= hint == Hint::Work || !matches!(role, Role::ChatsLane);
        }
    }

    fn commit(&self, world: &World, me: usize) -> World {
        let mut after = world.clone();
        let client = matches!(self.config.roles[me], Role::Client(_));
        let tells = self.config.hints_only && !self.config.has(Defect::HintBeforeCommit);
        let hint = self.hint(world, me).filter(|_| tells);
        after.commit(me, hint.map_or(At::Idle, At::Tell));
        after.sessions[me].next += u8::from(client);
        after
    }

    /// What a lane can claim now.
    fn claims(&self, me: usize, actions: &mut Vec<Action>) {
        let agents = || (0..).take(AGENTS).flat_map(|name| [Action::ClaimAgent(me, name), Action::FindQuiet(me, name)]);
        match &self.config.roles[me] {
            Role::Client(_) => {}
            Role::ChatsLane => actions.push(Action::ClaimChats(me)),
            Role::AgentsLane => actions.extend(agents()),
            Role::Loop => {
                actions.push(Action::ClaimChats(me));
                actions.extend(agents());
            }
        }
    }

    /// What a session may do of itself: no new input, no crash.
    fn own_actions(&self, world: &World, me: usize, actions: &mut Vec<Action>) {
        match &world.sessions[me].at {
            At::Idle if !self.config.hints_only => self.claims(me, actions),
            At::Idle if world.sessions[me].hinted => actions.push(Action::Look(me)),
            At::Idle => {}
            At::Client(_) | At::Chats(_) | At::Lap(..) | At::Commit | At::Tell(_) => actions.push(Action::Statement(me)),
        }
    }

    fn act(&self, world: &World, action: Action) -> Option<World> {
        let mut after = match action {
            Action::Begin(me) => {
                let Role::Client(asks) = &self.config.roles[me] else { return None };
                let mut begun = world.clone();
                let ask = *asks.get(usize::from(world.sessions[me].next))?;
                begun.sessions[me].at = At::Client(clients::begin(&self.config, ask));
                self.statements(&begun, me)?
            }
            Action::Statement(me) => self.statements(world, me)?,
            Action::ClaimChats(me) => lanes::claim_chats(&self.config, world, me)?,
            Action::ClaimAgent(me, name) => self.claimed(lanes::claim_agent(world, me, name)?, me)?,
            Action::FindQuiet(me, name) => lanes::find_quiet(&self.config, world, me, name)?,
            Action::Look(me) => {
                let mut looked = world.clone();
                // Registered before it looks; and again soon, when there is something that others hold.
                looked.sessions[me].hinted = self.finds(world, me) && !self.config.has(Defect::HeldIsForgotten);
                let mut claims = Vec::new();
                self.claims(me, &mut claims);
                claims.into_iter().find_map(|claim| self.act(&looked, claim)).unwrap_or(looked)
            }
            Action::Read => reader::read(&self.config, world)?,
            Action::Crash(me) => {
                let mut crashed = world.clone();
                crashed.crashes -= 1;
                crashed.sessions[me].next += u8::from(matches!(self.config.roles[me], Role::Client(_)));
                crashed.roll_back(me);
                crashed
            }
        };
        canonical(&self.config, &mut after);
        Some(after)
    }

    fn claimed(&self, world: World, me: usize) -> Option<World> {
        if self.config.every_statement { Some(world) } else { self.statements(&world, me) }
    }

    /// Whether without further input everything converges: all sessions go on, one statement each in turn, until nothing moves. As
    /// that way leads only through states that are explored themselves, it is followed only to one from which that is known.
    pub(crate) fn converges(&self, world: &World) -> bool {
        if world.wrong.is_some() {
            return true; // caught; what comes of it is no matter
        }
        let mut seen = Vec::new();
        let mut world = world.clone();
        for _ in 0..SWEEPS_MAX {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            let mark = hasher.finish();
            if self.good.lock().unwrap().contains(&mark) {
                break;
            }
            seen.push(mark);
            if !self.sweep(&mut world) {
                if !invariants::settled(self, &world) {
                    return false;
                }
                break;
            }
            if seen.len() == SWEEPS_MAX {
                return false;
            }
        }
        self.good.lock().unwrap().extend(seen);
        true
    }

    fn sweep(&self, world: &mut World) -> bool {
        let mut moved = false;
        for me in 0..self.config.roles.len() {
            let mut actions = Vec::new();
            self.own_actions(world, me, &mut actions);
            if let Some(after) = actions.into_iter().find_map(|action| self.act(world, action)) {
                (*world, moved) = (after, true);
            }
        }
        if self.config.reader
            && let Some(after) = self.act(world, Action::Read)
        {
            moved |= after != *world;
            *world = after;
        }
        moved
    }
}

impl Model for Interleavings {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let mut tables = self.config.tables.clone();
        // The conditions say what is true at first, as they do of what has been converged.
        let seen = tables.clone();
        for chat in tables.chats.iter_mut().flatten() {
            chat.said = self.decider.decide(chat, &seen, super::decide::Lane::Fanout).says;
        }
        let mut world = World {
            tables,
            sessions: vec![Session::new(); self.config.roles.len()],
            reading: Reading::Nothing,
            cursor: (0, 0),
            had: [0; super::rows::CHATS],
            known: [true; super::rows::CHATS],
            offered: Default::default(),
            next_xid: 1,
            crashes: self.config.crashes,
            wrong: None,
        };
        self.tell_lanes(&mut world, Hint::Work);
        canonical(&self.config, &mut world);
        vec![world]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.wrong.is_some() {
            return; // caught; what comes of it is no matter
        }
        for me in 0..self.config.roles.len() {
            if let (Role::Client(_), At::Idle) = (&self.config.roles[me], &world.sessions[me].at) {
                actions.push(Action::Begin(me));
            }
            self.own_actions(world, me, actions);
            if world.crashes > 0 && world.sessions[me].at != At::Idle {
                actions.push(Action::Crash(me));
            }
        }
        if self.config.reader {
            actions.push(Action::Read);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.act(world, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        invariants::properties()
    }
}

/// Renames versions and counts so that states with the same future are equal.
fn canonical(config: &Config, world: &mut World) {
    super::canonical::rename(config, world);
}
