//! A reader of the log with a cursor, and a watcher behind it: `store::events::read_after` and `http::tail`. The place after a part of
//! the log is found by the product's own `Batch::end`.

use super::{
    config::{Config, Defect},
    invariants::Wrong,
    rows::Event,
    sessions::{Reading, World},
};
use moorline::store::events::{Batch, Cursor};

/// One statement of the reader; none when there is nothing for it.
pub(crate) fn read(config: &Config, world: &World) -> Option<World> {
    let mut after = world.clone();
    match &world.reading {
        // Fetching the horizon when nothing is there to be read would change nothing: what comes later is not below it.
        Reading::Nothing if world.tables.events.is_empty() => return None,
        Reading::Nothing if config.has(Defect::HorizonAfterRows) => {
            after.reading = Reading::Rows { horizon: 0, events: world.tables.events.clone() };
        }
        Reading::Nothing => after.reading = Reading::Horizon(world.horizon()),
        Reading::Horizon(horizon) => {
            let horizon = if config.has(Defect::NoHorizon) { world.next_xid } else { *horizon };
            after.take(world.tables.events.clone(), horizon);
        }
        Reading::Rows { events, .. } if config.has(Defect::HorizonAfterRows) => {
            let events = events.clone();
            after.take(events.clone(), world.horizon());
            if let Reading::Rows { horizon, events } = std::mem::replace(&mut after.reading, Reading::Nothing) {
                after.show(horizon, &events);
            }
        }
        Reading::Rows { horizon, events } => {
            after.show(*horizon, events);
            after.reading = Reading::Nothing;
        }
    }
    Some(after)
}

impl World {
    /// Rows that have been read become the reader's, up to the horizon; contextevents are told now.
    fn take(&mut self, rows: Vec<Event>, horizon: u8) {
        let events: Vec<Event> = rows.into_iter().filter(|row| (row.rv, row.seq) > self.cursor && row.rv < horizon).collect();
        for event in &events {
            let had = &mut self.had[usize::from(event.chat)];
            if event.chat_seq != *had + 1 {
                self.wrong = self.wrong.or(Some(Wrong::NotInOrder));
            }
            *had = event.chat_seq;
        }
        let place = |(rv, seq): (u8, u8)| {
            let seq = if seq == u8::MAX { i32::MAX } else { seq.into() };
            Cursor { rv: rv.into(), seq }
        };
        let last = events.last().map(|event| place((event.rv, event.seq)));
        let batch = Batch { events: Vec::new(), last, horizon: horizon.into(), exhausted: true };
        let end = batch.end(place(self.cursor));
        self.cursor = (u8::try_from(end.rv).expect("versions are small"), u8::try_from(end.seq).unwrap_or(u8::MAX));
        self.tables.events.retain(|event| !events.contains(event));
        self.reading = if events.is_empty() { Reading::Nothing } else { Reading::Rows { horizon, events } };
    }

    /// A watcher is told of the objects as they stand, by the rule of docs/event-log.md, "On the wire".
    fn show(&mut self, horizon: u8, events: &[Event]) {
        for event in events {
            let chat = usize::from(event.chat);
            let Some(row) = self.tables.chats[chat] else { continue };
            let superseded = event.rv < row.rv && row.rv < horizon;
            if !superseded {
                self.known[chat] = true;
            }
        }
    }
}
