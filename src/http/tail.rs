//! The one tail of the event log that a process has: reads it as it grows, for as long as somebody watches, resolves each row to
//! what became of its object, and keeps the newest part for all watchers.
//!
//! What it does not do: decide who sees what (each watcher does), or read history (a watcher that starts before what is kept reads
//! that by itself, with [`read`]).

pub mod change;
pub mod ring;

use crate::{
    clock::Clock,
    model::{event::EventKind, object::Key},
    store::{
        self, Deleted, StoreError,
        across::objects,
        error::full_jitter,
        events::{Cursor, Logged, Read, read_after},
        log,
    },
    wake::Wake,
};
use change::{Id, Missed, Object, resolve};
use ring::{Entry, Lines, Ring};
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many rows are read at once.
pub const BATCH: i64 = 500;
/// How often to look when nobody says anything.
const LOOK: Duration = Duration::from_millis(500);
/// The first pause after a failure, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause after a failure.
const PAUSE_CAP: Duration = Duration::from_secs(5);

/// The tail of the log.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Ring,
    watchers: watch::Sender<usize>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { ring: Ring::default(), watchers: watch::Sender::new(0) }
    }
}

/// Somebody watches, until this is dropped.
#[derive(Debug)]
pub struct Watching(Tail);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.watchers.send_modify(|watchers| *watchers -= 1);
        crate::metrics::METRICS.watchers(*self.0.0.watchers.borrow());
    }
}

impl Tail {
    /// Somebody watches: the log is read from now on.
    pub fn watch(&self) -> Watching {
        self.0.watchers.send_modify(|watchers| *watchers += 1);
        crate::metrics::METRICS.watchers(*self.0.watchers.borrow());
        Watching(self.clone())
    }

    /// The newest part of the log.
    pub fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// Reads until `stop`.
    pub async fn run(self, pool: PgPool, wake: Wake, clock: Clock, stop: CancellationToken) {
        let mut watchers = self.0.watchers.subscribe();
        let mut hints = wake.on_events();
        let mut reading: Option<(Cursor, Missed)> = None;
        // Kept as long as somebody watches: taking one for each look is a part of what watchers wait for.
        let mut connection = None;
        let mut failures = 0;
        loop {
            if *watchers.borrow_and_update() == 0 {
                (reading, connection) = (None, None);
                self.0.ring.pause();
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = watchers.changed() => if changed.is_err() { return },
                }
                continue;
            }
            hints.mark_unchanged(); // registered before it looks
            let pause = match self.look(&pool, &mut connection, &mut reading).await {
                Ok(true) => {
                    failures = 0;
                    LOOK
                }
                Ok(false) => {
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    connection = None;
                    let pause = full_jitter(PAUSE, PAUSE_CAP, failures, clock.random());
                    failures += 1;
                    tracing::warn!(%error, pause_ms = pause.as_millis(), failures, "reading the event log for watchers failed; it is tried again");
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                    continue;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                _ = hints.changed() => {}
                changed = watchers.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Reads what is new. Returns whether there is no more for now.
    async fn look(
        &self,
        pool: &PgPool,
        connection: &mut Option<PoolConnection<Postgres>>,
        reading: &mut Option<(Cursor, Missed)>,
    ) -> Result<bool, StoreError> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(store::acquire(pool).await?),
        };
        let Some((cursor, missed)) = reading else {
            let start = Cursor::through(log::list_version(connection).await?);
            self.0.ring.begin(start, false);
            *reading = Some((start, Missed::default()));
            return Ok(false);
        };
        match read(connection, *cursor, missed).await? {
            Part::Entries { entries, through, exhausted } => {
                *cursor = through;
                self.0.ring.extend(entries, through);
                Ok(exhausted)
            }
            Part::Expired => {
                // The log begins anew, and so does every watcher.
                let start = Cursor::through(log::list_version(connection).await?);
                tracing::info!(start = start.rv, "the event log begins anew; every watcher is told to list again");
                self.0.ring.begin(start, true);
                *reading = Some((start, Missed::default()));
                Ok(false)
            }
        }
    }
}

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

/// Reads and resolves what comes after `cursor`. `missed` belongs to the reader, from one part to the next.
pub async fn read(connection: &mut PgConnection, cursor: Cursor, missed: &mut Missed) -> Result<Part, StoreError> {
    let batch = match read_after(connection, cursor, BATCH).await? {
        Read::Batch(batch) => batch,
        Read::Expired => return Ok(Part::Expired),
    };
    let (through, exhausted, horizon) = (batch.end(cursor), batch.exhausted, batch.horizon);
    let objects = load(connection, &batch.events).await?; // after the rows
    let owners = owners(connection, &batch.events, &objects).await?;
    let mut entries = Vec::with_capacity(batch.events.len());
    let mut sent: HashSet<(Id, i64)> = HashSet::new();
    for event in batch.events {
        let gone = Deleted::read(&event)?.map(Object::from);
        let owner = match (&gone, Id::of(&event)) {
            (Some(gone), _) => gone.look().owner,
            (None, Some(id)) => objects.get(&id).map_or_else(
                || if let Id::Chat(id) = id { owners.get(&id).cloned() } else { None },
                |object| object.look().owner,
            ),
            (None, None) => None,
        };
        let change =
            resolve(&event, gone, horizon, &objects, missed).filter(|change| sent.insert((change.id.clone(), event.cursor.rv)));
        entries.push(Entry { event, owner, change, lines: Lines::default() });
    }
    Ok(Part::Entries { entries, through, exhausted })
}

/// The objects that events are about, as they stand.
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
    if !chats.is_empty() {
        let (namespaces, ids): (Vec<String>, Vec<Uuid>) = chats.into_iter().unzip();
        let chats = objects::chats(connection, &namespaces, &ids).await?;
        found.extend(chats.into_iter().map(|chat| Object::Chat(Box::new(chat))));
    }
    if !agents.is_empty() {
        let (namespaces, ids): (Vec<String>, Vec<Uuid>) = agents.into_iter().unzip();
        let agents = objects::agents(connection, &namespaces, &ids).await?;
        found.extend(agents.into_iter().map(|agent| Object::Agent(Box::new(agent))));
    }
    if !snapshots.is_empty() {
        let keys: Vec<Key> = snapshots.into_iter().collect();
        let snapshots = objects::snapshots(connection, &keys).await?;
        found.extend(snapshots.into_iter().map(|snapshot| Object::Snapshot(Box::new(snapshot))));
    }
    Ok(found.into_iter().map(|object| (object.id(), object)).collect())
}

/// The owners of chats that are gone by now.
async fn owners(
    connection: &mut PgConnection,
    events: &[Logged],
    objects: &HashMap<Id, Object>,
) -> Result<HashMap<Uuid, String>, StoreError> {
    let (mut namespaces, mut names, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        if let Some(Id::Chat(id)) = Id::of(event)
            && event.kind != EventKind::ChatDeleted
            && !objects.contains_key(&Id::Chat(id))
        {
            namespaces.push(event.namespace.clone());
            names.push(event.name.clone());
            ids.push(id);
        }
    }
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    objects::owners_of_deleted(connection, &namespaces, &names, &ids).await
}
