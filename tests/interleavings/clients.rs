//! What clients of the API ask for, statement by statement. Each write mirrors one of `writes::*`: lock, then read, then the
//! version, then the rows and the event, commit, and a hint to the lanes after it.

use super::{
    config::{Config, Defect},
    decide::Decider,
    rows::{Agent, Chat, HALF, Names, Progress, Row, Snap, Written},
    sessions::{At, Client, Held, World},
};
use moorline::model::target::Target;

/// What a client asks for. Chats and agents go by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// `writes::agents::CreateAgent`, in the workspace.
    CreateAgent(u8),
    /// `writes::agents::DeleteAgent`.
    DeleteAgent(u8),
    /// `writes::agents::UpdateAgent`, of its workspace: it leaves it.
    Leave(u8),
    /// `writes::agents::RegisterRun`.
    Register(u8),
    /// `writes::push::AcceptPush`.
    Push(Push),
    /// `writes::push::take_repeated`, and `AcceptPush` when it is no repetition.
    Repeat(Push),
    /// `writes::chats::CreateChat`.
    CreateChat(u8, Names),
    /// `writes::chats::UpdateChat`.
    Rebind(u8, Names),
    /// The same.
    Archive(u8, bool),
    /// `writes::chats::ReportChat`, of a state that is terminal or active.
    Report(u8, bool),
    /// `writes::chats::RefreshChat`, with a token.
    Refresh(u8, u8),
    /// `retention::Prune`, of the snapshots of an agent.
    Prune(u8),
}

/// A push.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Push {
    pub(crate) agent: u8,
    /// The epoch of the run that pushes.
    pub(crate) run: u8,
    pub(crate) seq: u8,
    /// What it reports; [`HALF`] is a report with `phase: Pending`.
    pub(crate) context: u8,
}

/// A push of the first run of agent 0.
pub(crate) fn push(seq: u8, context: u8) -> Ask {
    Ask::Push(Push { agent: 0, run: 1, seq, context })
}

/// The row that is locked first.
fn locked_row(ask: Ask) -> Option<Row> {
    match ask {
        Ask::CreateAgent(_) | Ask::CreateChat(..) => None,
        Ask::DeleteAgent(agent)
        | Ask::Leave(agent)
        | Ask::Register(agent)
        | Ask::Prune(agent)
        | Ask::Push(Push { agent, .. })
        | Ask::Repeat(Push { agent, .. }) => Some(Row::Agent(agent)),
        Ask::Rebind(chat, _) | Ask::Archive(chat, _) | Ask::Report(chat, _) | Ask::Refresh(chat, _) => Some(Row::Chat(chat)),
    }
}

/// The first statement of a client's transaction.
pub(crate) fn begin(config: &Config, ask: Ask) -> Client {
    match locked_row(ask) {
        None => Client::Version(Held::Nothing),
        Some(_) if matches!(ask, Ask::Repeat(_)) => Client::Repeated(Held::Nothing),
        // Its own read comes after the lock: deciding from what was there before would lose what came in between.
        Some(_) if config.has(Defect::ReadBeforeLock) => Client::Get,
        Some(_) => Client::Lock(Held::Nothing),
    }
}

/// Does one statement; none while it has to wait for a lock.
pub(crate) fn step(config: &Config, world: &World, me: usize, ask: Ask, at: Client) -> Option<World> {
    let mut after = world.clone();
    let refused = |mut world: World| {
        world.sessions[me].next += 1;
        world.roll_back(me);
        Some(world)
    };
    let next = match at {
        // One statement, which waits for the row and then looks at it as it is: `UPDATE … WHERE run, epoch, number, digest`.
        Client::Repeated(held) => {
            let (Ask::Repeat(push), Some(row)) = (ask, locked_row(ask)) else { unreachable!("{ask:?} repeats nothing") };
            let seen = if held == Held::Nothing { read(world, row) } else { held };
            if world.held_by_others(me, row) {
                after.sessions[me].at = At::Client(Client::Repeated(seen));
                return (config.has(Defect::RepeatFromBefore) && after != *world).then_some(after);
            }
            match seen {
                Held::Agent(agent) if repeats(&agent, push) => {
                    after.lock(me, row);
                    after.sessions[me].written = write_agent(config, world, ask, agent);
                    after.sessions[me].at = At::Commit;
                    return Some(after);
                }
                _ => Client::Lock(Held::Nothing),
            }
        }
        Client::Lock(held) => {
            let row = locked_row(ask).expect("it locks something");
            if world.held_by_others(me, row) {
                return None;
            }
            if matches!(read(world, row), Held::Nothing) {
                return refused(after); // 404
            }
            if !(config.has(Defect::PruneWithoutAgent) && matches!(ask, Ask::Prune(_))) {
                after.lock(me, row);
            }
            match (ask, held) {
                (Ask::Prune(_), _) => Client::Superfluous,
                (_, Held::Nothing) => Client::Get,
                (_, held) => Client::Version(held),
            }
        }
        Client::Get => {
            match (read(world, locked_row(ask).expect("it reads what it locks")), config.has(Defect::ReadBeforeLock)) {
                (Held::Nothing, _) => return refused(after),
                (held, true) => Client::Lock(held),
                (held, false) => Client::Version(held),
            }
        }
        Client::Version(held) => {
            if is_refused(world, ask, &held) {
                return refused(after);
            }
            after.version(me);
            Client::Write(held)
        }
        Client::Write(held) => {
            let rv = after.version(me);
            let Some(written) = write(config, world, ask, held, rv) else {
                after.roll_back(me); // the guard fired: again, with a fresh transaction
                return Some(after);
            };
            after.sessions[me].written = written;
            after.sessions[me].at = At::Commit;
            return Some(after);
        }
        Client::Superfluous => Client::LockSnapshots(superfluous(world, ask)),
        Client::LockSnapshots(found) => {
            // FOR UPDATE SKIP LOCKED: one that is being pinned at this moment is left out.
            let free = |snap: &Snap| !world.held_by_others(me, Row::Snapshot(*snap)) && !world.shared_by_others(me, *snap);
            let there = |snap: &Snap| world.tables.snapshots.contains(snap);
            let locked: Vec<Snap> = found.into_iter().filter(|snap| there(snap) && free(snap)).collect();
            if locked.is_empty() {
                return refused(after);
            }
            for snap in &locked {
                after.lock(me, Row::Snapshot(*snap));
            }
            Client::DeleteSnapshots(locked)
        }
        Client::DeleteSnapshots(locked) => {
            let again = superfluous(world, ask);
            let gone = locked.into_iter().filter(|snap| again.contains(snap));
            after.sessions[me].written = gone.map(Written::NoSnapshot).collect();
            after.sessions[me].at = At::Commit;
            return Some(after);
        }
    };
    after.sessions[me].at = At::Client(next);
    Some(after)
}

/// Whether others cannot see a statement and it cannot see others: it speaks of rows that this transaction has locked.
pub(crate) fn is_local(config: &Config, world: &World, me: usize, at: &Client) -> bool {
    match at {
        Client::Get => !config.has(Defect::ReadBeforeLock),
        Client::Version(_) => world.sessions[me].xid.is_some(),
        Client::Write(_) => true,
        Client::Repeated(_) | Client::Lock(_) | Client::Superfluous | Client::LockSnapshots(_) | Client::DeleteSnapshots(_) => {
            false
        }
    }
}

fn read(world: &World, row: Row) -> Held {
    match row {
        Row::Chat(chat) => world.tables.chats[usize::from(chat)].map_or(Held::Nothing, Held::Chat),
        Row::Agent(name) => world.tables.agents[usize::from(name)].map_or(Held::Nothing, Held::Agent),
        Row::Snapshot(_) | Row::Laps => Held::Nothing,
    }
}

/// Whether an agent's last accepted push said the same, and this one may follow it.
fn repeats(agent: &Agent, push: Push) -> bool {
    let said = Some(Snap { agent: agent.id, context: push.context });
    let same = agent.phase == Progress::Complete && agent.latest == said;
    same && !agent.deleting && push.run == agent.epoch && push.seq > agent.seq
}

/// Snapshots that nobody needs, with a history limit of nothing: neither the latest nor pinned.
fn superfluous(world: &World, ask: Ask) -> Vec<Snap> {
    let Ask::Prune(name) = ask else { return Vec::new() };
    let Some(agent) = world.tables.agent_of_name(name) else { return Vec::new() };
    let all = world.tables.snapshots.iter().copied();
    all.filter(|snap| snap.agent == agent.id && agent.latest != Some(*snap) && !world.tables.pinned(*snap)).collect()
}

/// What the API refuses, or what changes nothing.
fn is_refused(world: &World, ask: Ask, held: &Held) -> bool {
    let agent = |refuses: &dyn Fn(&Agent) -> bool| matches!(held, Held::Agent(agent) if refuses(agent));
    let chat = |refuses: &dyn Fn(&Chat) -> bool| matches!(held, Held::Chat(chat) if refuses(chat));
    match ask {
        Ask::CreateChat(name, _) => world.tables.chats[usize::from(name)].is_some(),
        Ask::CreateAgent(name) => world.tables.agent_of_name(name).is_some(),
        Ask::DeleteAgent(_) | Ask::Register(_) => agent(&|agent| agent.deleting),
        Ask::Leave(_) => agent(&|agent| !agent.in_workspace),
        // `writes::push::judge`. A repeated push is answered as the first was; it changes nothing either.
        Ask::Push(push) | Ask::Repeat(push) => agent(&|agent| agent.deleting || push.run != agent.epoch || push.seq <= agent.seq),
        Ask::Prune(_) => false,
        Ask::Rebind(_, names) => chat(&|chat| chat.names == names),
        Ask::Archive(_, archived) => chat(&|chat| chat.archived == archived),
        Ask::Report(_, terminal) => chat(&|chat| chat.terminal == terminal),
        Ask::Refresh(_, token) => chat(&|chat| chat.archived || chat.asked == token),
    }
}

/// The rows as they are to be; none when a guard fires.
fn write(config: &Config, world: &World, ask: Ask, held: Held, rv: u8) -> Option<Vec<Written>> {
    match (ask, held) {
        (Ask::CreateAgent(name), _) => {
            let id = 1 + world.tables.snapshots.iter().map(|snap| snap.agent).chain(ids(world)).max().unwrap_or(0);
            Some(vec![Written::Agent(name, Some(Agent { in_workspace: true, ..agent(id) }))])
        }
        (Ask::CreateChat(name, names), _) => {
            let new = Chat { rv, revision: 1, event_seq: 1, spec_unseen: true, ..chat(names) };
            Some(vec![Written::Chat(name, new), Written::Event { chat: name, chat_seq: 1 }])
        }
        (ask, Held::Agent(held)) => Some(write_agent(config, world, ask, held)),
        (ask, Held::Chat(held)) => write_chat(config, world, ask, held, rv),
        (_, Held::Nothing) => unreachable!("what is changed has been read"),
    }
}

fn ids(world: &World) -> impl Iterator<Item = u8> {
    world.tables.agents.into_iter().flatten().map(|agent| agent.id)
}

/// `store::agents::begin_run` and `store::push::accept` count up what stands; `store::agents::update` writes what was read, plus one.
fn write_agent(config: &Config, world: &World, ask: Ask, held: Agent) -> Vec<Written> {
    let Some(Row::Agent(name)) = locked_row(ask) else { unreachable!("{ask:?} is not about an agent") };
    let Some(now) = world.tables.agents[usize::from(name)] else { return Vec::new() };
    let mut written = Vec::new();
    let new = match ask {
        Ask::DeleteAgent(_) => Agent { deleting: true, revision: held.revision + 1, ..now },
        Ask::Leave(_) => Agent { in_workspace: false, left_workspace: true, revision: held.revision + 1, ..now },
        Ask::Register(_) => Agent { epoch: now.epoch + 1, seq: 0, phase: Progress::Pending, revision: now.revision + 1, ..now },
        Ask::Push(Push { agent, run, seq, context }) | Ask::Repeat(Push { agent, run, seq, context }) => {
            written.push(Written::Accepted { agent, run, seq });
            let half = context == HALF;
            let snap = Snap { agent: held.id, context };
            let whole = !half || config.has(Defect::HalfIsWhole);
            let latest = if whole { Some(snap) } else { held.latest };
            let phase = if half { Progress::Pending } else { Progress::Complete };
            if whole && !world.tables.snapshots.contains(&snap) {
                written.push(Written::Snapshot(snap));
            }
            let shown = latest != held.latest || phase != held.phase;
            Agent { seq, phase, latest, revision: now.revision + u8::from(shown), ..now }
        }
        Ask::CreateAgent(_)
        | Ask::CreateChat(..)
        | Ask::Rebind(..)
        | Ask::Archive(..)
        | Ask::Report(..)
        | Ask::Refresh(..)
        | Ask::Prune(_) => unreachable!("{ask:?} changes no agent"),
    };
    written.push(Written::Agent(name, Some(new)));
    written
}

/// `store::chats::update` writes the desired columns, the revision and the event's number from what was read;
/// `store::chats::request_refresh` counts up what stands, and shows nothing.
fn write_chat(config: &Config, world: &World, ask: Ask, held: Chat, rv: u8) -> Option<Vec<Written>> {
    let Some(Row::Chat(name)) = locked_row(ask) else { unreachable!("{ask:?} is not about a chat") };
    let now = world.tables.chats[usize::from(name)]?;
    let mut new = Chat { names: held.names, archived: held.archived, terminal: held.terminal, asked: held.asked, ..now };
    let mut input = true;
    match ask {
        Ask::Refresh(_, token) => {
            return Some(vec![Written::Chat(name, Chat { asked: token, revision: now.revision + 1, ..now })]);
        }
        Ask::Rebind(_, names) => (new.names, new.spec_unseen) = (names, true),
        Ask::Archive(_, archived) => (new.archived, new.spec_unseen) = (archived, true),
        Ask::Report(_, terminal) => (new.terminal, input) = (terminal, held.terminal != terminal),
        Ask::CreateAgent(_)
        | Ask::DeleteAgent(_)
        | Ask::Leave(_)
        | Ask::Register(_)
        | Ask::Push(_)
        | Ask::Repeat(_)
        | Ask::CreateChat(..)
        | Ask::Prune(_) => unreachable!("{ask:?} changes no chat"),
    }
    if now.rv > rv && !config.has(Defect::NoGuard) {
        return None;
    }
    (new.revision, new.event_seq, new.rv) = (held.revision + u8::from(input), held.event_seq + 1, rv);
    Some(vec![Written::Chat(name, new), Written::Event { chat: name, chat_seq: new.event_seq }])
}

/// A chat as it is when it has just been created and nothing is known of it.
pub(crate) fn chat(names: Names) -> Chat {
    Chat {
        names,
        on_drift: false,
        archived: false,
        terminal: false,
        asked: 0,
        handled: 0,
        pin: None,
        dirty: false,
        spec_unseen: false,
        said: 0,
        event_seq: 0,
        revision: 0,
        converged: 0,
        rv: 0,
    }
}

/// An agent as it is when it has just been created.
pub(crate) fn agent(id: u8) -> Agent {
    Agent {
        id,
        in_workspace: false,
        left_workspace: false,
        deleting: false,
        epoch: 0,
        seq: 0,
        phase: Progress::NoRun,
        latest: None,
        revision: 1,
        converged: 0,
        lap: None,
    }
}

/// Whether a chat names an agent that has something to be pinned to, for invariants.
#[expect(clippy::option_option, reason = "no target, a target that has nothing, a target that has something")]
pub(crate) fn latest_of_target(world: &World, chat: &Chat) -> Option<Option<Snap>> {
    match Decider::target(chat, &world.tables) {
        Target::Unbound | Target::Missing => None,
        Target::Agent { latest, .. } => Some(latest.map(super::decide::snap_of)),
    }
}
