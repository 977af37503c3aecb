//! Parts of the log, resolved: what each row says became of its object.
//!
//! A row of which no sense can be made, or whose object cannot be read, is told of as far as it can be, and keeps nobody from what
//! comes after it.

use super::{
    change::{Gone, Id, Missed, Object, Story, needs_story, resolve},
    ring::Entry,
};
use crate::model::event::EventKind;
use crate::store::{
    Deleted, Retry, StoreError,
    across::objects::{self, Concern},
    events::{Cursor, Logged, Read, Subject, read_after, read_befores, read_deletions, read_kinds_after},
};
use sqlx::PgConnection;
use std::{
    collections::{HashMap, HashSet},
    iter::Peekable,
};
use uuid::Uuid;

/// How many rows are read at once.
const BATCH: i64 = 500;
/// Of how many rows the objects are loaded at once.
const GROUP: usize = 100;
/// How many of them may be of snapshots, which have their manifests with them.
const SNAPSHOTS: usize = 8;

/// A resolved part of the log.
#[derive(Debug)]
pub enum Part {
    /// Its entries.
    Entries {
        /// In the order of the log.
        entries: Vec<Entry>,
        /// Everything up to here has been read.
        through: Cursor,
        /// Nothing more can be read yet.
        exhausted: bool,
    },
    /// The cursor is from before the floor.
    Expired,
}

/// Reads and resolves what comes after `cursor`, about as much as there is room for, in bytes. `missed` belongs to the reader, from
/// one part to the next.
pub async fn read(connection: &mut PgConnection, cursor: Cursor, missed: &mut Missed, room: usize) -> Result<Part, StoreError> {
    let read = read_after(connection, cursor, BATCH).await?;
    resolved(connection, read, cursor, missed, room).await
}

/// The same of what is about a kind of object, and of one namespace, or of every one; for whoever reads history by himself.
pub async fn read_of(
    connection: &mut PgConnection,
    cursor: Cursor,
    of: (&[EventKind], Option<&str>),
    missed: &mut Missed,
    room: usize,
) -> Result<Part, StoreError> {
    let (kinds, namespace) = of;
    let read = read_kinds_after(connection, cursor, kinds, namespace, BATCH).await?;
    resolved(connection, read, cursor, missed, room).await
}

async fn resolved(
    connection: &mut PgConnection,
    read: Read,
    cursor: Cursor,
    missed: &mut Missed,
    room: usize,
) -> Result<Part, StoreError> {
    let batch = match read {
        Read::Batch(batch) => batch,
        Read::Expired => return Ok(Part::Expired),
    };
    let (through, exhausted, horizon) = (batch.end(cursor), batch.exhausted, batch.horizon);
    let mut events = batch.events.into_iter().peekable();
    let (mut entries, mut size) = (Vec::new(), 0);
    let mut sent: HashSet<(Id, i64)> = HashSet::new();
    while events.peek().is_some() {
        let group = group(&mut events);
        let objects = load(connection, &group).await?; // after the rows
        let mut told: Vec<(Logged, Gone, Option<String>)> = Vec::with_capacity(group.len());
        for event in group {
            let gone = gone(&event);
            let owner = match &gone {
                Gone::As(last) => last.look().owner,
                Gone::No | Gone::Unread => Id::of(&event).and_then(|id| objects.get(&id)).and_then(|object| object.look().owner),
            };
            told.push((event, gone, owner));
        }
        owners(connection, &mut told, &objects).await?;
        let stories = stories(connection, told.iter().map(|(event, _, _)| event), &objects).await?;
        for (event, gone, owner) in told {
            let rv = event.cursor.rv;
            let change = resolve(&event, gone, horizon, &objects, &stories, missed);
            let change = change.filter(|change| change.passed || sent.insert((change.id.clone(), rv)));
            let entry = Entry::new(event, owner, change);
            size += entry.size();
            entries.push(entry);
        }
        if size >= room
            && events.peek().is_some()
            && let Some(last) = entries.last()
        {
            let through = last.event.cursor;
            return Ok(Part::Entries { entries, through, exhausted: false });
        }
    }
    Ok(Part::Entries { entries, through, exhausted })
}

/// The next rows whose objects are loaded at once.
fn group(events: &mut Peekable<impl Iterator<Item = Logged>>) -> Vec<Logged> {
    let (mut group, mut snapshots) = (Vec::new(), 0);
    while let Some(event) = events.next_if(|_| group.len() < GROUP && snapshots < SNAPSHOTS) {
        snapshots += usize::from(matches!(Id::of(&event), Some(Id::Snapshot(_))));
        group.push(event);
    }
    group
}

/// Loads some objects at once; when one of them cannot be read, each alone, and that one not.
macro_rules! readable {
    ($keys:ident, |$some:ident| $load:block) => {
        let keys: Vec<_> = $keys.into_iter().collect();
        let mut groups: Vec<&[_]> = if keys.is_empty() { Vec::new() } else { vec![&keys] };
        while let Some($some) = groups.pop() {
            let loaded: Result<(), StoreError> = async {
                $load
                Ok(())
            }
            .await;
            match loaded {
                Ok(()) => {}
                Err(error) if error.retry() != Retry::Poison => return Err(error),
                Err(error) if $some.len() == 1 => {
                    tracing::warn!(%error, "an object cannot be read; its watchers are not told what became of it");
                }
                Err(_) => groups.extend($some.chunks(1)),
            }
        }
    };
}

/// What an event says of the last state of its object.
fn gone(event: &Logged) -> Gone {
    match Deleted::read(event) {
        Ok(None) => Gone::No,
        Ok(Some(last)) => Gone::As(Box::new(last.into())),
        Err(error) => {
            tracing::warn!(%error, "the last state of an object that is gone cannot be read; its watchers are told its name only");
            Gone::Unread
        }
    }
}

/// The objects that events are about, as they stand; but for those that cannot be read.
async fn load(connection: &mut PgConnection, events: &[Logged]) -> Result<HashMap<Id, Object>, StoreError> {
    let (mut chats, mut agents, mut snapshots) = (HashSet::new(), HashSet::new(), HashSet::new());
    for event in events {
        match Id::of(event) {
            Some(Id::Chat(id)) => drop(chats.insert((event.namespace.clone(), id))),
            Some(Id::Agent(id)) => drop(agents.insert((event.namespace.clone(), id))),
            Some(Id::Snapshot(key)) => drop(snapshots.insert(key)),
            None => {}
        }
    }
    let mut found: Vec<Object> = Vec::new();
    readable!(chats, |some| {
        let (namespaces, ids): (Vec<String>, Vec<Uuid>) = some.iter().cloned().unzip();
        let chats = objects::chats(connection, &namespaces, &ids).await?;
        found.extend(chats.into_iter().map(|chat| Object::Chat(Box::new(chat))));
    });
    readable!(agents, |some| {
        let (namespaces, ids): (Vec<String>, Vec<Uuid>) = some.iter().cloned().unzip();
        let agents = objects::agents(connection, &namespaces, &ids).await?;
        found.extend(agents.into_iter().map(|agent| Object::Agent(Box::new(agent))));
    });
    readable!(snapshots, |some| {
        let snapshots = objects::snapshots(connection, some).await?;
        found.extend(snapshots.into_iter().map(|snapshot| Object::Snapshot(Box::new(snapshot))));
    });
    Ok(found.into_iter().map(|object| (object.id(), object)).collect())
}

/// What became of those objects of which a row cannot be resolved without it. Of one that is not to be seen at all there is none.
async fn stories<'a>(
    connection: &mut PgConnection,
    events: impl Iterator<Item = &'a Logged> + Clone,
    objects: &HashMap<Id, Object>,
) -> Result<HashMap<Id, Story>, StoreError> {
    let wanted: HashSet<Id> = events.clone().filter(|event| needs_story(event, objects)).filter_map(Id::of).collect();
    let mut stories: HashMap<Id, (Story, Subject)> = HashMap::new();
    for event in events {
        if let (Some(of), Some(id)) = (Id::of(event).filter(|id| wanted.contains(id)), event.subject) {
            let through = objects.get(&of).map_or(0, Object::rv);
            let subject =
                || Subject { namespace: event.namespace.clone(), name: event.name.clone(), id, after: event.cursor, through };
            let (story, subject) = stories.entry(of).or_insert_with(|| (Story::default(), subject()));
            story.add(event);
            subject.after = event.cursor;
        }
    }
    let over: Vec<Subject> =
        stories.iter().filter(|(id, _)| !objects.contains_key(id)).map(|(_, (_, subject))| subject.clone()).collect();
    if !over.is_empty() {
        for event in read_deletions(connection, &over).await? {
            if let (Gone::As(last), Some((story, subject))) = (gone(&event), Id::of(&event).and_then(|id| stories.get_mut(&id))) {
                (story.last, subject.through) = (Some(*last), event.cursor.rv);
            }
        }
    }
    stories.retain(|_, (_, subject)| subject.through > 0);
    if !stories.is_empty() {
        let subjects: Vec<Subject> = stories.values().map(|(_, subject)| subject.clone()).collect();
        let befores = read_befores(connection, &subjects).await?;
        for ((id, (story, _)), befores) in stories.iter_mut().zip(befores) {
            story.goes_on(&befores, matches!(id, Id::Agent(_)));
        }
    }
    Ok(stories.into_iter().map(|(id, (story, _))| (id, story)).collect())
}

/// Whose events are, of which the objects do not say it: those that are gone by now, or cannot be read.
async fn owners(
    connection: &mut PgConnection,
    told: &mut [(Logged, Gone, Option<String>)],
    objects: &HashMap<Id, Object>,
) -> Result<(), StoreError> {
    let lacks = |(event, gone, owner): &(Logged, Gone, Option<String>)| {
        let stands = Id::of(event).is_some_and(|id| objects.contains_key(&id)) && matches!(gone, Gone::No);
        owner.is_none() && !stands
    };
    let at: Vec<usize> = (0..told.len()).filter(|at| lacks(&told[*at])).collect();
    if at.is_empty() {
        return Ok(());
    }
    let concern =
        |event: &Logged| Concern { namespace: event.namespace.clone(), chat: event.chat.map(|(id, _)| id), agent: event.agent };
    let concerns: Vec<Concern> = at.iter().map(|at| concern(&told[*at].0)).collect();
    for (at, owner) in at.into_iter().zip(objects::owners(connection, &concerns).await?) {
        told[at].2 = owner;
    }
    Ok(())
}
