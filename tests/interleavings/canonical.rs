//! States with the same future are made one. That is speed; a state that is renamed behaves as it did, because versions are only
//! compared with versions, and event numbers of a chat with those of the same chat.
//!
//! * Versions: those older than every open transaction, every unread event and every horizon in hand are 0 (a comparison with any of
//!   those is the same), the others are numbered in their order.
//! * A chat's events are numbered from the last that the reader has had.
//! * Without a reader nobody looks at the log, so it is not kept.

use super::{
    config::{Config, Role},
    rows::{Chat, Written},
    sessions::{At, Client, Held, Reading, World},
};

pub(crate) fn rename(config: &Config, world: &mut World) {
    for (me, session) in world.sessions.iter_mut().enumerate() {
        session.hinted &= config.hints_only && !matches!(config.roles[me], Role::Client(_));
    }
    if !config.reader {
        world.tables.events.clear();
        world.known = [true; super::rows::CHATS];
        for n in 0..world.had.len() {
            world.had[n] = world.tables.chats[n].map_or(0, |chat| chat.event_seq);
        }
    }
    versions(world);
    numbers(world);
}

fn versions(world: &mut World) {
    let mut alive: Vec<u8> = world.sessions.iter().filter_map(|session| session.xid).collect();
    alive.extend(world.tables.events.iter().map(|event| event.rv));
    match &world.reading {
        Reading::Nothing => {}
        Reading::Horizon(horizon) => alive.push(*horizon),
        Reading::Rows { horizon, events } => {
            alive.push(*horizon);
            alive.extend(events.iter().map(|event| event.rv));
        }
    }
    let oldest = alive.iter().copied().min().unwrap_or(world.next_xid);
    let mut used = Vec::new();
    each_version(world, &mut |rv| {
        if *rv < oldest {
            *rv = 0;
        }
        used.push(*rv);
    });
    used.push(0);
    used.sort_unstable();
    used.dedup();
    let next = u8::try_from(used.len()).expect("few versions are alive");
    each_version(world, &mut |rv| {
        let place = used.binary_search(rv).expect("it was seen a moment ago");
        *rv = u8::try_from(place).expect("few versions are alive");
    });
    world.next_xid = next;
    if world.cursor.0 == 0 {
        world.cursor.1 = 0;
    }
}

fn each_version(world: &mut World, f: &mut dyn FnMut(&mut u8)) {
    for chat in world.tables.chats.iter_mut().flatten() {
        f(&mut chat.rv);
    }
    for event in &mut world.tables.events {
        f(&mut event.rv);
    }
    match &mut world.reading {
        Reading::Nothing => {}
        Reading::Horizon(horizon) => f(horizon),
        Reading::Rows { horizon, events } => {
            f(horizon);
            for event in events {
                f(&mut event.rv);
            }
        }
    }
    f(&mut world.cursor.0);
    for session in &mut world.sessions {
        if let Some(xid) = &mut session.xid {
            f(xid);
        }
        each_chat(session, &mut |_, chat| f(&mut chat.rv));
    }
}

/// The copies of chats that a session holds.
fn each_chat(session: &mut super::sessions::Session, f: &mut dyn FnMut(Option<u8>, &mut Chat)) {
    for row in &mut session.written {
        if let Written::Chat(n, chat) = row {
            f(Some(*n), chat);
        }
    }
    if let At::Client(Client::Lock(Held::Chat(chat)) | Client::Version(Held::Chat(chat)) | Client::Write(Held::Chat(chat))) =
        &mut session.at
    {
        f(None, chat);
    }
}

/// Numbers of events. What a client has read for a write of its own is left as it was: then nothing is renamed.
fn numbers(world: &mut World) {
    let mut holds = false;
    for session in &mut world.sessions {
        each_chat(session, &mut |n, _| holds |= n.is_none());
    }
    if holds {
        return;
    }
    for n in 0..world.had.len() {
        let had = std::mem::take(&mut world.had[n]);
        let of = u8::try_from(n).expect("few chats");
        if let Some(chat) = &mut world.tables.chats[n] {
            chat.event_seq -= had;
        }
        for event in world.tables.events.iter_mut().filter(|event| event.chat == of) {
            event.chat_seq = event.chat_seq.wrapping_sub(had);
        }
        if let Reading::Rows { events, .. } = &mut world.reading {
            events
                .iter_mut()
                .filter(|event| event.chat == of)
                .for_each(|event| event.chat_seq = event.chat_seq.wrapping_sub(had));
        }
        for session in &mut world.sessions {
            for row in &mut session.written {
                let (chat, number) = match row {
                    Written::Chat(chat, row) => (chat, &mut row.event_seq),
                    Written::Event { chat, chat_seq } => (chat, chat_seq),
                    Written::Agent(..) | Written::Snapshot(_) | Written::NoSnapshot(_) | Written::Accepted { .. } => continue,
                };
                if *chat == of {
                    *number = number.wrapping_sub(had);
                }
            }
        }
    }
}
