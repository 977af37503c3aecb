//! From rows of the event log to changes that watchers are told of (docs/event-log.md, "On the wire").
//!
//! Objects are sent as levels. For a row `e` of the log, with `c` the object as it stands, read after the row:
//! `c.rv = e.rv`: it is sent. `e.rv < c.rv < horizon`: it is not; the later row will bring it. `c.rv ≥ horizon`: the present
//! state is sent, labelled with the row's version, for else a busy object would wait. No object: only the event of its
//! deletion is told, from what that holds.
//!
//! A row that is not sent may still be the one that took the object out of somebody's view. He is told so by that row: cut off
//! after it, he resumes after it, and the later row speaks of an object that he does not know. What the object looked like then,
//! neither the row says nor the object as it stands, if it stands at all: its later rows are looked up for that.
//!
//! Pure: what stands in the database is handed in.

mod before;
mod object;
mod story;

use crate::{
    http::{page::object_version, status::Resource},
    model::{access::Reach, object::Key},
    store::events::{Cursor, Logged},
    v1alpha1::API_VERSION,
};
use axum::body::Bytes;
pub use before::{Before, Missed};
pub use object::{Id, Look, Object};
use serde_json::json;
use std::collections::HashMap;
use story::Around;
pub(super) use story::Story;
use uuid::Uuid;

/// What became of an object.
#[derive(Debug)]
pub struct Change {
    /// Of which kind.
    pub resource: Resource,
    /// What it is known by.
    pub id: Id,
    /// Where it is or was.
    pub key: Key,
    /// What selectors and authorization look at now, or did at last.
    pub look: Look,
    /// It is gone.
    pub gone: bool,
    /// A later row brings it, or its end: only whoever has to let go of it by this row is told anything.
    pub passed: bool,
    /// What it looked like on both sides of this row; none when this row made it what it is, or changed nothing of that.
    around: Option<Box<Around>>,
    /// What it was before, transaction by transaction, the oldest first: states that a watcher may know it in.
    chain: Vec<Before>,
    /// The whole object on the wire.
    pub json: Bytes,
}

/// What a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is there, and was not before, for this watcher.
    Added,
    /// It is there, and another than before.
    Modified,
    /// It is gone, or gone from what this watcher sees.
    Deleted,
}

impl Told {
    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Change {
    /// What a watcher is told who reaches this much and `selects` such objects, who has followed the tail since it `joined` there,
    /// and who has `missed` these earlier transactions of it. What came to be before it joined is nothing new to it, whatever the
    /// tail has not told yet: it is in its list, or it was told by itself, or it has missed it. When in doubt, too much, of
    /// what is or was within reach: clients bear an ADDED for what they know and a DELETED for what they do not.
    pub fn told(&self, missed: &[Before], joined: Cursor, reach: &Reach, selects: impl Fn(&Look) -> bool) -> Option<Told> {
        let mut look = self.look.clone();
        let sees = |look: &Look| reach.covers(look.owner.as_deref()) && selects(look);
        let now = sees(&look);
        let was_let_go = self.around.as_ref().is_some_and(|around| {
            let Around { was, became, is_certain } = around.as_ref();
            let reached = [was, became].iter().any(|look| reach.covers(look.owner.as_deref()));
            if *is_certain { sees(was) && !sees(became) } else { reached }
        });
        if self.passed {
            return (was_let_go && !now).then_some(Told::Deleted);
        }
        let (mut created, mut known) = (false, false);
        for (chain, since) in [(self.chain.as_slice(), joined), (missed, Cursor::START)] {
            let mut was_shown = false;
            for before in chain.iter().rev() {
                if let Some(shown) = before.shown() {
                    was_shown |= sees(shown);
                    known |= was_shown;
                    continue;
                }
                let is_new = before.created_after(since) && !was_shown;
                created |= is_new;
                known |= before.may_be_known(is_new, &mut look, reach, &selects);
            }
        }
        if self.chain.is_empty() && missed.is_empty() {
            known = now;
        }
        known |= was_let_go;
        match (self.gone, now) {
            (true, now) => (now || known).then_some(Told::Deleted),
            (false, true) => Some(if known && !created { Told::Modified } else { Told::Added }),
            (false, false) => known.then_some(Told::Deleted),
        }
    }

    /// The same for a watcher who sees every object, of what is not passed: what this one looked like before makes no difference
    /// then, and is not laid out again for each of a thousand watchers.
    pub fn told_to_all(&self, missed: &[Before], joined: Cursor) -> Told {
        let mut created = false;
        let mut known = self.chain.is_empty() && missed.is_empty();
        for (chain, since) in [(self.chain.as_slice(), joined), (missed, Cursor::START)] {
            for before in chain.iter().rev() {
                if before.shown().is_some() {
                    known = true; // whatever came before it is nothing new
                    break;
                }
                let is_new = before.created_after(since);
                created |= is_new;
                known |= before.is_known_to_all(is_new);
            }
        }
        match self.gone {
            true => Told::Deleted,
            false if known && !created => Told::Modified,
            false => Told::Added,
        }
    }

    /// Of an object that is gone, whose last state cannot be read: what else the event of its deletion says.
    fn of_unread(event: &Logged, id: Id, mut chain: Vec<Before>) -> Self {
        let within = |object: &str, field: &str| Some(event.payload.get(object)?.get(field)?.as_str()?.to_owned());
        let owner = match &id {
            Id::Chat(_) => within("chat", "owner"),
            Id::Agent(_) => within("agent", "service_account"),
            Id::Snapshot(_) => event.payload.get("serviceAccount").and_then(|owner| Some(owner.as_str()?.to_owned())),
        };
        chain.push(Before::unread());
        let key = Key::new(&event.namespace, &event.name);
        let json = bare(id.resource(), &key, event.subject, &object_version(event.cursor.rv));
        Self {
            resource: id.resource(),
            id,
            look: Look { owner, ..Look::default() },
            gone: true,
            passed: false,
            around: None,
            chain,
            json,
            key,
        }
    }

    /// The object with nothing but its identity.
    pub fn bare(&self, version: &str) -> Bytes {
        bare(self.resource, &self.key, None, version)
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let around = |around: &Around| around.was.size() + around.became.size();
        self.json.len() + 512 + self.around.as_deref().map_or(0, around)
    }
}

fn bare(resource: Resource, key: &Key, uid: Option<Uuid>, version: &str) -> Bytes {
    let mut metadata = json!({"namespace": key.namespace, "name": key.name, "resourceVersion": version});
    if let Some(uid) = uid {
        metadata["uid"] = json!(uid);
    }
    let object = json!({"apiVersion": API_VERSION, "kind": resource.kind(), "metadata": metadata, "spec": {}});
    object.to_string().into()
}

/// What an event says of the last state of its object.
#[derive(Debug)]
pub(super) enum Gone {
    /// It does not say that it is gone.
    No,
    /// This was it.
    As(Box<Object>),
    /// It is gone; as what cannot be read.
    Unread,
}

/// Whether what an object looked like on both sides of this row is not to be seen from how it stands: then its [`Story`] is needed to
/// [`resolve`] the row.
pub(super) fn needs_story(event: &Logged, objects: &HashMap<Id, Object>) -> bool {
    let stands = |id: &Id| objects.get(id).is_some_and(|object| object.rv() <= event.cursor.rv);
    Id::of(event).is_some_and(|id| !stands(&id)) && Before::read(event).changes_look()
}

/// Resolves a row of the log: what is to be told of its object, if anything. `objects` are as they stand, read after the rows;
/// `stories` are of those that rows need; `gone` is what the event says is gone.
pub(super) fn resolve(
    event: &Logged,
    gone: Gone,
    horizon: i64,
    objects: &HashMap<Id, Object>,
    stories: &HashMap<Id, Story>,
    missed: &mut Missed,
) -> Option<Change> {
    let id = Id::of(event)?;
    let before = Before::read(event);
    let rv = event.cursor.rv;
    let make = |object: &Object, gone: bool, passed: bool, around: Option<Around>, chain: Vec<Before>| Change {
        resource: id.resource(),
        key: object.key(),
        look: object.look(),
        gone,
        passed,
        around: around.map(Box::new),
        chain,
        json: object.json(rv),
        id: id.clone(),
    };
    match gone {
        Gone::As(last) => return Some(make(&last, true, false, None, missed.take(&id))),
        Gone::Unread => {
            let chain = missed.take(&id);
            return Some(Change::of_unread(event, id.clone(), chain));
        }
        Gone::No => {}
    }
    let story = stories.get(&id).filter(|_| before.changes_look());
    let around = |object: &Object| story.map(|story| story.around(event.cursor, &before, object.look()));
    let object = match objects.get(&id) {
        Some(object) if object.rv() <= rv || object.rv() >= horizon => object,
        overtaken => {
            let stands = overtaken.or(story.and_then(|story| story.last.as_ref()));
            let letting_go = stands.and_then(|object| Some(make(object, false, true, Some(around(object)?), Vec::new())));
            missed.note(id, before);
            return letting_go;
        }
    };
    let around = if object.rv() > rv { around(object) } else { None };
    let mut chain = missed.take(&id);
    chain.push(before);
    if object.rv() >= horizon {
        // What it shows is ahead of this row, so what it was before this row is needed once more; but whoever is shown it now
        // knows it then.
        for before in &chain {
            missed.note(id.clone(), before.clone());
        }
        missed.note(id.clone(), Before::of_shown(object.look()));
    }
    Some(make(object, false, false, around, chain))
}

#[cfg(test)]
mod tests;
