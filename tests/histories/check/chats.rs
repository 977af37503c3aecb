//! Each chat's story, event by event: numbered without a gap, and ending as the last state has it.

use super::{Findings, follow, walk::Walk};
use crate::histories::{
    history::Target,
    log::{Event, Place, Text},
    state::State,
};
use moorline::model::event::EventKind;
use std::collections::HashMap;
use uuid::Uuid;

/// What a chat is pinned to, as far as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    None,
    /// As its parent was: the log does not say to what.
    Inherited,
    To(Text),
}

impl Pin {
    /// This is what is shown of it.
    pub fn agrees(&self, shown: Option<&str>) -> bool {
        match self {
            Self::None => shown.is_none(),
            Self::Inherited => shown.is_some(),
            Self::To(hash) => shown == Some(hash),
        }
    }
}

/// A chat's story, followed.
pub struct Followed {
    pub target: Target,
    pub places: Vec<Place>,
    /// After each event.
    pub pins: Vec<Pin>,
    pub marks: Vec<Option<String>>,
    pub states: Vec<Option<String>>,
}

impl Followed {
    /// The last of its events of a version, which it must have.
    pub fn at(&self, rv: i64) -> Option<usize> {
        let at = self.places.partition_point(|place| place.0 <= rv).checked_sub(1)?;
        (self.places[at].0 == rv).then_some(at)
    }
}

/// Whether an event is about a chat.
pub fn is_of_chat(kind: EventKind) -> bool {
    match kind {
        EventKind::ChatCreated
        | EventKind::ChatUpdated
        | EventKind::ChatDeleted
        | EventKind::ContextHydrated
        | EventKind::ContextDrifted
        | EventKind::ContextConverged
        | EventKind::ContextRefreshed
        | EventKind::AgentRebound
        | EventKind::ContextCleared => true,
        EventKind::AgentCreated
        | EventKind::AgentUpdated
        | EventKind::AgentDeleted
        | EventKind::SnapshotAccepted
        | EventKind::SnapshotDeleted => false,
    }
}

/// Follows every chat.
pub fn check(stories: &HashMap<Uuid, Vec<&Event>>, state: &State, findings: &mut Findings) -> HashMap<Uuid, Followed> {
    let of_chats = stories.iter().filter(|(_, story)| is_of_chat(story[0].kind));
    let all: HashMap<Uuid, Followed> = of_chats.map(|(id, story)| (*id, follow_one(*id, story, state, findings))).collect();
    for (id, chat) in &state.chats {
        let what = || format!("chat {}/{} ({id}) is there, and the log has no event of it", chat.namespace, chat.name);
        findings.unless(all.contains_key(id), "every change is in the log", what);
    }
    all
}

fn follow_one(id: Uuid, story: &[&Event], state: &State, findings: &mut Findings) -> Followed {
    let target = Target { namespace: story[0].namespace.to_string(), name: story[0].name.to_string() };
    let who = format!("chat {target} ({id})");
    numbered(&who, story, findings);
    let mut walk = Walk::new(&who, findings);
    let pins = story.iter().map(|event| walk.step(event)).collect();
    let Walk { pin, dirty, over, findings, .. } = walk;
    let last = story[story.len() - 1];
    let chat = state.chats.get(&id);
    match (over, chat) {
        (Some(_), None) => {}
        (Some(event), Some(_)) => findings.add("what is deleted is gone", format!("{who}: {event}, and it is there still")),
        (None, None) => findings.add("what is gone was deleted", format!("{who}: is gone, and its last event is {last}")),
        (None, Some(chat)) => {
            let shown = state.pinned(chat).map(|snapshot| snapshot.hash.as_str());
            findings.unless(pin.agrees(shown), "the pin is where the log leads", || {
                format!("{who}: is pinned to {shown:?}, and the log leads to {pin:?} by {last}")
            });
            findings.unless(chat.dirty == dirty, "the marker is what the log leads to", || {
                format!("{who}: dirty is {}, and the log leads to {dirty} by {last}", chat.dirty)
            });
            findings.unless(chat.rv == last.place.0, "an object shows the version of its last event", || {
                format!("{who}: shows {}, and its last event is {last}", chat.rv)
            });
            let count = i64::try_from(story.len()).unwrap();
            findings.unless(chat.events == count, "a chat has counted its events", || {
                format!("{who}: has counted {}, and the log has {count}, the last of them {last}", chat.events)
            });
        }
    }
    let gone = last.last.as_ref();
    let last_mark = chat.map_or_else(|| gone.and_then(|last| last.mark.clone()), |chat| chat.mark.clone());
    let last_state = chat.map_or_else(|| gone.and_then(|last| last.state.clone()), |chat| Some(chat.state.clone()));
    Followed {
        target,
        places: story.iter().map(|event| event.place).collect(),
        pins,
        marks: follow::afterwards(story, last_mark, follow::mark),
        states: follow::afterwards(story, last_state, follow::state),
    }
}

fn numbered(who: &str, story: &[&Event], findings: &mut Findings) {
    for (n, event) in story.iter().enumerate() {
        let expected = i64::try_from(n + 1).unwrap();
        if event.chat_seq != Some(expected) {
            let before = n.checked_sub(1).map_or("the beginning".to_owned(), |before| story[before].to_string());
            let what = format!("{who}: after {before} comes {event}, and number {expected} should");
            findings.add("a chat's events are numbered without a gap", what);
            break; // what follows is off by the same
        }
    }
    let starts = story.iter().filter(|event| event.kind == EventKind::ChatCreated).count();
    findings.unless(starts == 1 && story[0].kind == EventKind::ChatCreated, "a chat begins once, with ChatCreated", || {
        format!("{who}: begins with {}, and was created {starts} times", story[0])
    });
}
