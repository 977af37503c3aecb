//! The loop's transactions, statement by statement: `reconcile::DueChats` and `reconcile::fan_out::FanOut`, in their order, with the
//! writes of `store::converge::record` and `store::fanout::{advance, end_lap, remove}`; and the two statements of
//! `reconcile::quiet`, of one agent at a time.
//!
//! Not mirrored: poison and what is done about it (`reconcile::poison`, `HowToTell::MakeDue`), an agent's refresh token that is copied
//! to its chats, and the conditions of agents.

use super::{
    config::{Config, Defect},
    decide::{Decider, Lane, Outcome, Pin},
    rows::{Agent, Chat, Row, Written},
    sessions::{At, Chats, Lap, Page, World},
};

/// Claims chats that are due and that nobody holds (`store::converge::claim`); none when there are none.
pub(crate) fn claim_chats(config: &Config, world: &World, me: usize) -> Option<World> {
    let due = |n: &u8| world.tables.chats[usize::from(*n)].is_some_and(|chat| chat.due());
    let free = (0..).take(world.tables.chats.len()).filter(|n| due(n) && !world.held_by_others(me, Row::Chat(*n)));
    let claimed: Vec<u8> = free.take(config.page).collect();
    if claimed.is_empty() {
        return None;
    }
    let mut after = world.clone();
    for chat in &claimed {
        after.lock(me, Row::Chat(*chat));
    }
    after.sessions[me].at = At::Chats(Chats::Load(claimed));
    Some(after)
}

/// Claims an agent that is due, if nobody holds it (`store::fanout::claim`).
pub(crate) fn claim_agent(world: &World, me: usize, name: u8) -> Option<World> {
    if world.held_by_others(me, Row::Agent(name)) || !world.tables.agent_of_name(name)?.due() {
        return None;
    }
    let mut after = world.clone();
    after.lock(me, Row::Agent(name));
    after.sessions[me].at = At::Lap(Lap::LoadAgent, Page { agent: name, next: None });
    Some(after)
}

/// Reads, unlocked, that an agent is due whose news nobody has to be told (`store::fanout::quiet`); none when there is no such agent.
pub(crate) fn find_quiet(config: &Config, world: &World, me: usize, name: u8) -> Option<World> {
    let agent = world.tables.agent_of_name(name)?;
    let followed = world.tables.chats.iter().flatten().any(|chat| !chat.archived && agent.concerns(name, chat));
    let followed = followed && !config.has(Defect::QuietIsGuessed);
    if !agent.due() || agent.deleting || agent.in_workspace || agent.left_workspace || agent.lap.is_some() || followed {
        return None;
    }
    let mut after = world.clone();
    after.sessions[me].at = At::Lap(Lap::EndQuiet(agent.revision), Page { agent: name, next: None });
    Some(after)
}

/// Converges it, in a statement that is a transaction of its own and never waits, if it is still at that revision
/// (`store::fanout::end_quiet`).
fn end_quiet(config: &Config, world: &World, me: usize, name: u8, revision: u8) -> World {
    let mut after = world.clone();
    let free = world.tables.agent_of_name(name).filter(|agent| {
        let as_read = agent.revision == revision || config.has(Defect::QuietWithoutRevision);
        as_read && agent.due() && agent.lap.is_none() && !world.held_by_others(me, Row::Agent(name))
    });
    if let Some(agent) = free {
        after.lock(me, Row::Agent(name));
        after.sessions[me].written.push(Written::Agent(name, Some(Agent { converged: agent.revision, ..*agent })));
        after.commit(me, At::Idle);
    } else {
        after.roll_back(me);
    }
    after
}

/// One statement of the chats' lane; none while it has to wait.
pub(crate) fn converge(config: &Config, decider: &Decider, world: &World, me: usize, at: Chats) -> Option<World> {
    let mut after = world.clone();
    let next = match at {
        Chats::Load(claimed) => {
            let outcomes: Vec<(u8, Outcome)> = decided(decider, world, &claimed, Lane::Due).collect();
            if config.has(Defect::TokenBeforeRefresh) {
                acknowledge(&mut after, me, &outcomes);
            }
            At::Chats(Chats::Version(outcomes))
        }
        Chats::Version(outcomes) => {
            after.version(me);
            At::Chats(Chats::Record(outcomes))
        }
        Chats::Record(outcomes) => match record(config, &mut after, me, &outcomes, Lane::Due)? {
            Recorded::Written => At::Commit,
            Recorded::LostARace => return Some(after),
        },
    };
    after.sessions[me].at = next;
    Some(after)
}

/// One statement of a page of a lap; none while it has to wait.
pub(crate) fn tell(config: &Config, decider: &Decider, world: &World, me: usize, at: Lap, page: Page) -> Option<World> {
    let name = page.agent;
    if let Lap::EndQuiet(revision) = at {
        return Some(end_quiet(config, world, me, name, revision));
    }
    let mut after = world.clone();
    let agent = world.tables.agents[usize::from(name)].expect("an agent that is locked is there");
    let mut next_page = page;
    let next = match at {
        Lap::LoadAgent if (agent.in_workspace || agent.left_workspace) && !config.has(Defect::NotAlone) => Lap::AloneIn,
        Lap::LoadAgent => Lap::LoadConcerned,
        Lap::AloneIn if world.held_by_others(me, Row::Laps) => {
            after.roll_back(me); // Turn::Busy
            return Some(after);
        }
        Lap::AloneIn => {
            after.lock(me, Row::Laps);
            Lap::LoadConcerned
        }
        Lap::LoadConcerned => {
            let concerned = on_page(config, world, name, &agent);
            let whole = concerned.len() >= config.page;
            next_page.next = concerned.last().filter(|_| whole).map(|last| last + 1);
            let decision: Vec<_> =
                decided(decider, world, &concerned, Lane::Fanout).filter(|(_, outcome)| outcome.something).collect();
            // A chat that is due may be in another session's hands, read before this news.
            let due = |n: &u8| world.tables.chats[usize::from(*n)].is_some_and(|chat| chat.due());
            let heeds_due = !config.has(Defect::DueIgnored);
            let acted_on = |n: &u8| decision.iter().any(|(chat, _)| chat == n);
            let wanted: Vec<u8> = concerned.into_iter().filter(|n| acted_on(n) || (heeds_due && due(n))).collect();
            let unlocked_decision = if config.has(Defect::NoReread) { decision } else { Vec::new() };
            if wanted.is_empty() { Lap::Close } else { Lap::LockAll { wanted, locked: Vec::new(), unlocked_decision } }
        }
        Lap::LockAll { wanted, mut locked, unlocked_decision } => {
            let mut waits = false;
            for chat in &wanted[locked.len()..] {
                if world.held_by_others(me, Row::Chat(*chat)) {
                    waits = true;
                    break;
                }
                after.lock(me, Row::Chat(*chat));
                locked.push(*chat);
            }
            if waits && config.has(Defect::SkippedIsDone) {
                let free: Vec<u8> = wanted.into_iter().filter(|chat| !world.held_by_others(me, Row::Chat(*chat))).collect();
                for chat in &free {
                    after.lock(me, Row::Chat(*chat));
                }
                Lap::Load(free)
            } else if waits {
                if matches!(&world.sessions[me].at, At::Lap(Lap::LockAll { locked: before, .. }, _) if *before == locked) {
                    return None;
                }
                Lap::LockAll { wanted, locked, unlocked_decision }
            } else if config.has(Defect::NoReread) {
                Lap::Version(unlocked_decision)
            } else {
                Lap::Load(locked)
            }
        }
        Lap::Load(locked) => {
            // One that names somebody else by now is not this lap's to decide.
            let own = |n: &u8| world.tables.chats[usize::from(*n)].is_some_and(|chat| agent.concerns(name, &chat));
            let own: Vec<u8> = locked.into_iter().filter(own).collect();
            let outcomes = decided(decider, world, &own, Lane::Fanout);
            Lap::Version(outcomes.filter(|(_, outcome)| outcome.something).collect())
        }
        Lap::Version(outcomes) => {
            after.version(me);
            Lap::Record(outcomes)
        }
        Lap::Record(outcomes) => match record(config, &mut after, me, &outcomes, Lane::Fanout)? {
            Recorded::Written => Lap::Close,
            Recorded::LostARace => return Some(after),
        },
        Lap::EndQuiet(_) => unreachable!("it was done above"),
        Lap::Close => {
            let new = turn_page(config, agent, page.next);
            after.sessions[me].written.push(Written::Agent(name, new));
            after.sessions[me].at = At::Commit;
            return Some(after);
        }
    };
    after.sessions[me].at = At::Lap(next, next_page);
    Some(after)
}

/// Whether others cannot see a statement and it cannot see others.
pub(crate) fn is_local(config: &Config, at: &At) -> bool {
    match at {
        // The claim has locked a row, so the version is taken.
        At::Chats(Chats::Version(_)) | At::Lap(Lap::LoadAgent | Lap::Version(_) | Lap::Close, _) => true,
        // Its foreign keys are seen by retention, if there is one.
        At::Chats(Chats::Record(_)) | At::Lap(Lap::Record(_), _) => !config.prunes(),
        At::Chats(Chats::Load(_))
        | At::Lap(Lap::AloneIn | Lap::LoadConcerned | Lap::LockAll { .. } | Lap::Load(_) | Lap::EndQuiet(_), _)
        | At::Idle
        | At::Client(_)
        | At::Commit
        | At::Tell(_) => false,
    }
}

fn decided<'a>(decider: &'a Decider, world: &'a World, ids: &'a [u8], lane: Lane) -> impl Iterator<Item = (u8, Outcome)> + 'a {
    ids.iter().filter_map(move |n| {
        let chat = world.tables.chats[usize::from(*n)].as_ref()?;
        Some((*n, decider.decide(chat, &world.tables, lane)))
    })
}

/// `store::converge::load_concerned`: the next chats that an agent's news may concern, of those that are not archived.
fn on_page(config: &Config, world: &World, name: u8, agent: &Agent) -> Vec<u8> {
    let from = agent.lap.map_or(0, |(_, next)| next);
    let concerned =
        |n: &u8| world.tables.chats[usize::from(*n)].is_some_and(|chat| !chat.archived && agent.concerns(name, &chat));
    (from..).take_while(|n| usize::from(*n) < world.tables.chats.len()).filter(concerned).take(config.page).collect()
}

/// `store::fanout::{advance, end_lap, remove}`: what the lap began with has been seen, not what has come since.
fn turn_page(config: &Config, agent: Agent, next: Option<u8>) -> Option<Agent> {
    let began_with = agent.lap.map_or(agent.revision, |(revision, _)| revision);
    if next.is_some() {
        return Some(Agent { lap: next.map(|next| (began_with, next)), ..agent });
    }
    let whole = began_with == agent.revision || config.has(Defect::NoRevisionCheck);
    if whole && agent.deleting {
        return None;
    }
    let converged = if config.has(Defect::ConvergedTooEarly) { agent.revision } else { began_with };
    Some(Agent { converged, lap: None, left_workspace: agent.left_workspace && !whole, ..agent })
}

enum Recorded {
    Written,
    /// A guard fired, or what was to be pinned is gone: again, with a fresh transaction.
    LostARace,
}

/// `store::converge::record`: one statement for all, and the events. None while a foreign key has to wait.
fn record(config: &Config, world: &mut World, me: usize, outcomes: &[(u8, Outcome)], lane: Lane) -> Option<Recorded> {
    let rv = world.version(me);
    for (n, outcome) in outcomes {
        let Some(old) = world.tables.chats[usize::from(*n)] else { continue };
        let mut gone = old.rv > rv && !config.has(Defect::NoGuard);
        if let Pin::Move(to) = outcome.pin {
            if world.held_by_others(me, Row::Snapshot(to)) {
                return None;
            }
            gone |= !world.tables.snapshots.contains(&to);
            world.share(me, to);
        }
        if gone {
            world.roll_back(me);
            return Some(Recorded::LostARace);
        }
        let new = recorded(old, *outcome, rv, lane);
        world.sessions[me].written.push(Written::Chat(*n, new));
        if outcome.event && !config.has(Defect::EventForgotten) {
            world.sessions[me].written.push(Written::Event { chat: *n, chat_seq: new.event_seq });
        }
    }
    Some(Recorded::Written)
}

/// The SET clause. Tokens and revisions are those of the row as it stands, which is why it is read after it is locked.
fn recorded(old: Chat, outcome: Outcome, rv: u8, lane: Lane) -> Chat {
    let mut new = Chat { said: outcome.says, ..old };
    match outcome.pin {
        Pin::Keep => {}
        Pin::Move(to) => new.pin = Some(to),
        Pin::Clear => new.pin = None,
    }
    new.dirty = outcome.dirty.unwrap_or(old.dirty);
    if outcome.handled {
        new.handled = old.asked;
    }
    if outcome.event {
        (new.event_seq, new.rv) = (old.event_seq + 1, rv);
    }
    match lane {
        Lane::Due => (new.converged, new.spec_unseen) = (old.revision, false),
        Lane::Fanout => {}
    }
    new
}

/// [`Defect::TokenBeforeRefresh`]: that the tokens are handled is committed before what they ask for is done.
fn acknowledge(world: &mut World, me: usize, outcomes: &[(u8, Outcome)]) {
    let handled = outcomes.iter().filter(|(_, outcome)| outcome.handled);
    let row = |n: u8| world.tables.chats[usize::from(n)].map(|chat| Written::Chat(n, Chat { handled: chat.asked, ..chat }));
    let written: Vec<Written> = handled.filter_map(|(n, _)| row(*n)).collect();
    let rv = world.version(me);
    world.publish(written, rv);
}
