//! DESIGN §2 over this model: what a commit may change (judged when it is made, against what was committed before), and what must be
//! true of every state. I1 and I5 hold by the form of a row (`rows`). I11 and I12 are no matter of interleavings.

use super::{
    clients::latest_of_target,
    decide::{Decider, Lane, Pin},
    model::Interleavings,
    rows::{Chat, HALF, Names, Written},
    sessions::{At, Reading, World},
};
use moorline::model::target::Target;
use stateright::Property;

/// What a step did that it may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    /// A pin moved or went though nobody asked and the target is the pin's agent.
    PinMoved,
    /// The pin or the marker of an archived chat changed, or one that has ended was marked.
    NotFrozen,
    /// A refresh token was marked as handled, and the pin is nothing that the target pointed at since.
    TokenWithoutRefresh,
    /// Something that a chat shows changed without exactly one event, or an event came without a change.
    NotOneEvent,
    /// The version of a row fell.
    VersionWentBack,
    /// The reader had a chat's events in another order than they were numbered in.
    NotInOrder,
    /// A push of a superseded run, or one out of order, was accepted.
    StalePush,
}

pub(crate) const PINS_LAST: &str = "I2: what is pinned, and what an agent points at, is there";
pub(crate) const DIRTY_IS_THE_LEVEL: &str = "I3: once converged, dirty says that the pin differs from its agent's latest";
pub(crate) const FROZEN: &str = "I3: archiving freezes pin and marker, and a chat that has ended is only cleaned";
pub(crate) const PINS_STAY: &str = "I4: a pin moves only by refresh, rebind or policy";
pub(crate) const CONVERGES: &str = "I6: without further input everything converges, and everybody has been told";
pub(crate) const TOKENS: &str = "I6: a refresh token is handled with the refresh, not before it";
pub(crate) const ONE_EVENT: &str = "I7: a change appends one event, in its transaction";
pub(crate) const VERSIONS_RISE: &str = "I7: versions never go back";
pub(crate) const READER_MISSES_NOTHING: &str = "I7: a reader misses no event, has none twice, and has them in order per chat";
pub(crate) const PUSHES_ARE_FENCED: &str = "I8: a push of a superseded run, or out of order, changes nothing";
pub(crate) const NOTHING_HALF: &str = "I9: nothing half-finished is pinned";
pub(crate) const AT_REST: &str = "I10: what is converged is left alone";

/// All of them.
pub(crate) fn properties() -> Vec<Property<Interleavings>> {
    vec![
        Property::always(PINS_LAST, |_, world: &World| pins_last(world)),
        Property::always(DIRTY_IS_THE_LEVEL, |_, world: &World| quiet(world).all(|chat| dirty_is_the_level(world, chat))),
        Property::always(FROZEN, |_, world: &World| world.wrong != Some(Wrong::NotFrozen)),
        Property::always(PINS_STAY, |_, world: &World| world.wrong != Some(Wrong::PinMoved)),
        Property::always(CONVERGES, Interleavings::converges),
        Property::always(TOKENS, |_, world: &World| world.wrong != Some(Wrong::TokenWithoutRefresh)),
        Property::always(ONE_EVENT, |_, world: &World| world.wrong != Some(Wrong::NotOneEvent)),
        Property::always(VERSIONS_RISE, |_, world: &World| world.wrong != Some(Wrong::VersionWentBack)),
        Property::always(READER_MISSES_NOTHING, |_, world: &World| {
            world.wrong != Some(Wrong::NotInOrder) && nothing_behind(world)
        }),
        Property::always(PUSHES_ARE_FENCED, |_, world: &World| world.wrong != Some(Wrong::StalePush)),
        Property::always(NOTHING_HALF, |_, world: &World| {
            world.tables.chats.iter().flatten().all(|chat| chat.pin.is_none_or(|pin| pin.context != HALF))
        }),
        Property::always(AT_REST, |model: &Interleavings, world: &World| {
            quiet(world).all(|chat| at_rest(&model.decider, world, chat))
        }),
    ]
}

/// What is wrong with making these rows visible, if anything.
pub(crate) fn wrong_with(before: &World, written: &[Written], rv: u8) -> Option<Wrong> {
    written.iter().find_map(|row| match row {
        Written::Chat(n, new) => {
            let events: Vec<u8> = written.iter().filter_map(|row| event_of(row, *n)).collect();
            match before.tables.chats[usize::from(*n)] {
                Some(old) => wrong_change(before, *n, &old, new, &events, rv),
                None => (events != [1] || new.rv != rv).then_some(Wrong::NotOneEvent),
            }
        }
        Written::Accepted { agent, run, seq } => {
            let agent = before.tables.agent_of_name(*agent)?;
            (agent.epoch != *run || *seq <= agent.seq).then_some(Wrong::StalePush)
        }
        Written::Agent(..) | Written::Snapshot(_) | Written::NoSnapshot(_) | Written::Event { .. } => None,
    })
}

fn event_of(row: &Written, of: u8) -> Option<u8> {
    if let Written::Event { chat, chat_seq } = row
        && *chat == of
    {
        return Some(*chat_seq);
    }
    None
}

fn wrong_change(before: &World, n: u8, old: &Chat, new: &Chat, events: &[u8], rv: u8) -> Option<Wrong> {
    let asked_and_done = new.handled != old.handled;
    let may_move = match (old.pin, new.pin) {
        (None, _) => true,
        (Some(from), Some(to)) => from == to || asked_and_done || from.agent != to.agent || new.on_drift,
        (Some(_), None) => asked_and_done && new.names == Names::Nothing,
    };
    if !may_move {
        return Some(Wrong::PinMoved);
    }
    let frozen = !(old.archived && new.archived) || (old.pin, old.dirty) == (new.pin, new.dirty);
    if !frozen || (old.terminal && new.terminal && new.dirty && !old.dirty) {
        return Some(Wrong::NotFrozen);
    }
    let offered = &before.offered[usize::from(n)];
    if asked_and_done && !new.archived && new.names != Names::Nothing && !new.pin.is_some_and(|pin| offered.contains(&pin)) {
        return Some(Wrong::TokenWithoutRefresh);
    }
    if new.rv < old.rv {
        return Some(Wrong::VersionWentBack);
    }
    // What a chat shows: everything but the columns that only the loop knows.
    let shown = |chat: &Chat| Chat { asked: 0, event_seq: 0, revision: 0, converged: 0, rv: 0, ..*chat };
    let changes = shown(old) != shown(new);
    let told = if changes { vec![old.event_seq + 1] } else { Vec::new() };
    let version = if changes { rv } else { old.rv };
    // A refresh onto the pin that is there shows its token.
    (events != told || new.event_seq != old.event_seq + u8::from(changes) || new.rv != version).then_some(Wrong::NotOneEvent)
}

/// Notes what the targets of chats that wait for a refresh point at now.
pub(crate) fn remember_offers(world: &mut World) {
    for n in 0..world.offered.len() {
        match world.tables.chats[n] {
            Some(chat) if chat.asked != chat.handled => {
                let latest = latest_of_target(world, &chat).flatten();
                if let Some(latest) = latest.filter(|latest| !world.offered[n].contains(latest)) {
                    world.offered[n].push(latest);
                    world.offered[n].sort_unstable();
                }
            }
            Some(_) | None => world.offered[n].clear(),
        }
    }
}

/// Chats that are not due, and none of whose agents is.
fn quiet(world: &World) -> impl Iterator<Item = &Chat> {
    let tables = &world.tables;
    let news = |chat: &Chat| {
        (0..).zip(&tables.agents).any(|(name, agent)| agent.is_some_and(|agent| agent.due() && agent.concerns(name, chat)))
    };
    tables.chats.iter().flatten().filter(move |chat| !chat.due() && !news(chat))
}

fn pins_last(world: &World) -> bool {
    let tables = &world.tables;
    let there = |snap| tables.snapshots.contains(&snap);
    tables.chats.iter().flatten().all(|chat| chat.pin.is_none_or(there))
        && tables.agents.iter().flatten().all(|agent| agent.latest.is_none_or(there))
}

/// I3, in its own words: nothing of `plan` is asked here.
fn dirty_is_the_level(world: &World, chat: &Chat) -> bool {
    if chat.archived || chat.terminal {
        return true;
    }
    let drifted = chat.pin.is_some_and(|pin| match Decider::target(chat, &world.tables) {
        Target::Unbound | Target::Missing => false,
        Target::Agent { id, latest } => {
            let latest = latest.map(super::decide::snap_of);
            id == crate::support::plan_words::agent_id(pin.agent) && latest.is_some_and(|latest| latest.context != pin.context)
        }
    });
    chat.dirty == drifted && (!chat.dirty || chat.pin.is_some())
}

fn at_rest(decider: &Decider, world: &World, chat: &Chat) -> bool {
    let outcome = decider.decide(chat, &world.tables, Lane::Fanout);
    // No lap comes by an archived chat, so what its conditions say may be of before; its pin, marker and tokens may not.
    let frozen = chat.archived && outcome.pin == Pin::Keep && outcome.dirty.is_none() && !outcome.handled;
    frozen || !outcome.something
}

/// Nothing has been committed at or before the reader's place that it has not had.
fn nothing_behind(world: &World) -> bool {
    world.tables.events.iter().all(|event| (event.rv, event.seq) > world.cursor)
}

/// Whether everything has come to rest: nothing is due, converging again would write nothing, and the reader has had every event and
/// knows every chat as it is.
pub(crate) fn settled(model: &Interleavings, world: &World) -> bool {
    let tables = &world.tables;
    let chats = || (0..).zip(&tables.chats).filter_map(|(n, chat): (usize, _)| Some((n, chat.as_ref()?)));
    let told = |(n, chat): (usize, &Chat)| world.had[n] == chat.event_seq && world.known[n];
    world.sessions.iter().all(|session| session.at == At::Idle)
        && chats().all(|(_, chat)| !chat.due() && at_rest(&model.decider, world, chat) && dirty_is_the_level(world, chat))
        && tables.agents.iter().flatten().all(|agent| !agent.due() && !agent.deleting)
        && (!model.config.reader || (tables.events.is_empty() && world.reading == Reading::Nothing && chats().all(told)))
}
