//! What watchers were told: transitions exactly as the log has them; chats in the order of their versions, added once, and in the
//! end as they are.

use super::{Evidence, Findings, chats::is_of_chat};
use crate::histories::{
    log::{Event, Place},
    state::{Chat, State},
    watchers::{Seen, Shown, Stretch, Told, Transition, Word},
};
use moorline::model::event::EventKind;
use std::collections::HashMap;
use uuid::Uuid;

const EXACTLY: &str = "a watcher with a cursor sees every event exactly once, in order";
const WORDS: &str = "a watch adds what is new, once, changes what is known, and deletes it once";
const VERSIONS: &str = "a watch tells each object's versions in order, and each is in the log";
const END: &str = "a watch ends with what there is";

/// Looks at every watcher.
pub fn check(evidence: &Evidence, stories: &HashMap<Uuid, Vec<&Event>>, findings: &mut Findings) {
    for Seen { watcher, stretches, complete, .. } in &evidence.seen {
        findings.unless(*complete, END, || format!("{watcher}: was not told of the last chat's end"));
        let last = stretches.len().saturating_sub(1);
        for (n, stretch) in stretches.iter().enumerate() {
            let ends = n == last && *complete;
            match stretch {
                Stretch::Events { after, told } => events(watcher, *after, told, ends, &evidence.log.events, findings),
                Stretch::Objects { selects, version, listed, told, resumed } => {
                    let mut follower = Follower {
                        watcher,
                        selects: *selects,
                        version: *version,
                        listed,
                        known: HashMap::new(),
                        stories,
                        findings,
                    };
                    follower.follow(told, resumed);
                    if ends {
                        follower.ends(&evidence.state);
                    }
                }
            }
        }
    }
}

/// The transitions after a place are those of the log.
fn events(watcher: &str, after: Place, told: &[Transition], ends: bool, log: &[Event], findings: &mut Findings) {
    let log = &log[log.partition_point(|event| event.place <= after)..];
    for (n, transition) in told.iter().enumerate() {
        let Some(event) = log.get(n) else {
            findings.add(EXACTLY, format!("{watcher}: was told of {transition:?} after the end of the log"));
            return;
        };
        let name = transition.chat.map_or("", |_| &*event.name);
        let same =
            (event.place, event.kind, event.subject.zip(event.chat_seq)) == (transition.place, transition.kind, transition.chat);
        if !same || transition.name != name {
            let before = n.checked_sub(1).map_or("its start".to_owned(), |before| log[before].to_string());
            findings.add(
                EXACTLY,
                format!("{watcher}: after {before} was told of {transition:?}, and the log has {event} ({:?})", event.subject),
            );
            return; // what follows is off by the same
        }
    }
    if let Some(missed) = log.get(told.len()).filter(|_| ends) {
        findings.add(EXACTLY, format!("{watcher}: was not told of {missed}"));
    }
}

struct Follower<'a> {
    watcher: &'a str,
    /// Only what is not archived is told: what comes into view and goes out of it, as often as it may be in doubt.
    selects: bool,
    version: i64,
    listed: &'a HashMap<Uuid, (i64, Shown)>,
    /// What is known of each chat: by what it was told last; of one that is gone, none.
    known: HashMap<Uuid, Option<&'a Told>>,
    stories: &'a HashMap<Uuid, Vec<&'a Event>>,
    findings: &'a mut Findings,
}

impl<'a> Follower<'a> {
    fn follow(&mut self, all: &'a [Told], resumed: &[i64]) {
        let mut last: HashMap<Uuid, &Told> = HashMap::new();
        for (n, told) in all.iter().enumerate() {
            let watcher = self.watcher;
            let from = resumed[told.connection as usize];
            // What a connection began with comes again, if it was an object's own version.
            let repeats = from % 2 == 0
                && told.rv == from / 2
                && all[..n].iter().rev().take_while(|told| told.rv * 2 >= from).any(|known| known.id == told.id);
            let who = || {
                format!(
                    "{watcher}, connection {} from {from}: {:?} {} ({}) at {}",
                    told.connection, told.word, told.name, told.id, told.rv
                )
            };
            let before = last.insert(told.id, told);
            if let Some(before) = before {
                let forward = if repeats { before.rv <= told.rv } else { before.rv < told.rv };
                self.findings.unless(forward, VERSIONS, || format!("{} comes after {:?} at {}", who(), before.word, before.rv));
            }
            let event = self.stories.get(&told.id).and_then(|story| story.iter().find(|event| event.place.0 == told.rv));
            match event {
                Some(event) if is_of_chat(event.kind) => {
                    let deletes = self.stories[&told.id]
                        .iter()
                        .any(|event| event.place.0 == told.rv && event.kind == EventKind::ChatDeleted);
                    self.findings.unless(deletes == (told.word == Word::Deleted) || (self.selects && !deletes), WORDS, || {
                        format!("{} is told of {event}", who())
                    });
                }
                Some(_) | None => self.findings.add(VERSIONS, format!("{}: the log has no such event", who())),
            }
            if !repeats && !self.selects {
                self.word(told, from, &who);
            }
            self.known.insert(told.id, (told.word != Word::Deleted).then_some(told));
        }
    }

    /// The word fits what it knows.
    fn word(&mut self, told: &Told, from: i64, who: &dyn Fn() -> String) {
        let story = self.stories.get(&told.id).map_or(&[][..], Vec::as_slice);
        let created = story.first().map_or(0, |event| event.place.0);
        // A list may show what came after its version: then the watch tells it once more.
        let known = match self.known.get(&told.id) {
            Some(known) => known.is_some(),
            None => self.listed.contains_key(&told.id) && created <= self.version,
        };
        let is_right = match told.word {
            // It came to be with what the connection begins with, which comes again.
            Word::Added => !known || (from % 2 == 0 && created == from / 2),
            // What came to be before a connection went on, and was passed over by the one before it, is changed to it.
            Word::Modified => known || (told.connection > 0 && created > self.version && created <= from / 2),
            // Of what was made after the list's version, and deleted before it could be told, only the end is told.
            Word::Deleted => {
                known || (created > self.version && !self.known.contains_key(&told.id)) || !self.listed.contains_key(&told.id)
            }
        };
        self.findings.unless(is_right, WORDS, || {
            let before = self.known.get(&told.id).map(|known| known.map(|known| (known.word, known.rv, known.connection)));
            format!(
                "{}; before: {before:?}, listed {:?} at {}, created at {created}",
                who(),
                self.listed.get(&told.id).map(|listed| listed.0),
                self.version
            )
        });
    }

    /// What it knows is what there is.
    fn ends(&mut self, state: &State) {
        let (watcher, selects) = (self.watcher, self.selects);
        let in_view = |chat: &Chat| !selects || !chat.archived;
        for (id, (rv, shown)) in self.listed {
            let there = state.chats.get(id).filter(|chat| in_view(chat));
            if !self.known.contains_key(id) {
                let same = there.is_some_and(|chat| chat.rv == *rv && is_shown(state, *id, shown));
                self.findings
                    .unless(same, END, || format!("{watcher}: knows {id} at {rv} from its list only, and it is {there:?}"));
            }
        }
        for (id, chat) in state.chats.iter().filter(|(_, chat)| in_view(chat)) {
            let who = || format!("{watcher}: chat {}/{} ({id}) at {}", chat.namespace, chat.name, chat.rv);
            match self.known.get(id) {
                None => self.findings.unless(self.listed.contains_key(id), END, || format!("{}: was never told of", who())),
                Some(None) => self.findings.add(END, format!("{}: was told that it is gone", who())),
                Some(Some(told)) => {
                    let same = told.rv == chat.rv && is_shown(state, *id, &told.shown);
                    self.findings.unless(same, END, || format!("{}: was told last {told:?}", who()));
                }
            }
        }
        for (id, told) in &self.known {
            if let Some(told) = told {
                let there = state.chats.get(id).is_some_and(in_view);
                self.findings
                    .unless(there, END, || format!("{watcher}: was not told that {} ({id}) is gone; last {told:?}", told.name));
            }
        }
    }
}

fn is_shown(state: &State, id: Uuid, shown: &Shown) -> bool {
    let Some(chat) = state.chats.get(&id) else { return false };
    let hash = state.pinned(chat).map(|snapshot| snapshot.hash.as_str());
    shown.mark == chat.mark && shown.dirty == chat.dirty && shown.hash.as_deref() == hash
}
