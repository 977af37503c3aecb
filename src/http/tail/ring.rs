//! The newest part of the log, kept once for all watchers of the process, within bounds. A watcher has a place in it; whoever
//! is too slow and falls behind its first entry is cut off, and can resume from the database.

use super::{
    change::Change,
    pieces::{Part, Piece, Pieces, Sharing},
};
use crate::{
    metrics::METRICS,
    store::events::{Cursor, Logged, weight},
};
use axum::body::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock, RwLock},
};
use tokio::sync::watch;

/// Most entries.
const ENTRIES_MAX: usize = 16_384;
/// Most bytes, about.
const BYTES_MAX: usize = 48 << 20;

/// A row of the log, and what became of its object.
#[derive(Debug)]
pub struct Entry {
    /// The row.
    pub event: Logged,
    /// Whose it is.
    pub owner: Option<String>,
    /// What is to be told of the object, if anything.
    pub change: Option<Change>,
    /// The row as it is written to those who watch transitions: once for all of them.
    pub lines: Lines,
    size: usize,
}

/// A row of the log as it is written, as soon as somebody has asked for it.
#[derive(Debug, Default)]
pub struct Lines {
    /// As a ContextEvent.
    pub context: OnceLock<Bytes>,
    /// As a core/v1 Event.
    pub core: OnceLock<Bytes>,
}

/// About how many bytes an entry takes, without its change: the row, and its lines.
const ENTRY: usize = 2_048;

impl Entry {
    /// A row, whose it is, and what is to be told.
    pub fn new(event: Logged, owner: Option<String>, change: Option<Change>) -> Self {
        let size = ENTRY + weight(&event.payload) + change.as_ref().map_or(0, Change::size);
        Self { event, owner, change, lines: Lines::default(), size }
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// How far the tail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Counts the times that the tail began again.
    pub generation: u64,
    /// Everything up to this has been read; none before the first read.
    pub through: Option<Cursor>,
}

/// A watcher's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    generation: u64,
    next: u64,
}

impl Place {
    /// Gives back the last so many of the entries that were taken.
    pub fn give_back(&mut self, entries: usize) {
        self.next -= entries as u64;
    }
}

/// What a watcher takes from its place.
#[derive(Debug)]
pub enum Taken {
    /// Entries, none when there are no new ones.
    Entries(Vec<Arc<Entry>>),
    /// It was too slow: what it has not taken is not here any more.
    TooSlow,
    /// The ring was begun again: what lies between is to be read from the database, if the log still has it.
    Restarted,
}

#[derive(Debug)]
struct Inner {
    generation: u64,
    /// What is before the first entry.
    start: Option<Cursor>,
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The number of the first entry that was added since [`Ring::forget`].
    fresh: u64,
}

impl Inner {
    /// What begins after this one, which was the first.
    fn pass(&mut self, oldest: &Entry) {
        self.bytes -= oldest.size();
        self.first += 1;
        self.start = Some(oldest.event.cursor);
    }

    fn clear(&mut self) {
        self.first += self.entries.len() as u64;
        self.entries.clear();
        self.bytes = 0;
        METRICS.cache("events", 0);
    }
}

/// The ring.
#[derive(Debug)]
pub struct Ring {
    inner: RwLock<Inner>,
    progress: watch::Sender<Progress>,
    pieces: Pieces,
    entries_max: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self::with_room_for(ENTRIES_MAX)
    }
}

impl Ring {
    /// One of at most so many entries.
    pub fn with_room_for(entries_max: usize) -> Self {
        let inner = Inner { generation: 0, start: None, first: 0, entries: VecDeque::new(), bytes: 0, fresh: 0 };
        Self {
            inner: RwLock::new(inner),
            progress: watch::Sender::new(Progress { generation: 0, through: None }),
            pieces: Pieces::default(),
            entries_max,
        }
    }

    /// Begins after `start`; `anew` when the log does, so that every watcher has to.
    pub fn begin(&self, start: Cursor, anew: bool) {
        let mut inner = self.write();
        inner.generation += u64::from(anew);
        inner.clear();
        inner.start = Some(start);
        let progress = Progress { generation: inner.generation, through: Some(start) };
        drop(inner);
        if anew {
            self.pieces.clear();
        }
        self.progress.send_replace(progress);
    }

    /// Nobody reads on: nobody may join until it begins again.
    pub fn pause(&self) {
        let mut inner = self.write();
        inner.generation += 1; // a watcher that came in between has a place to which nothing would be added
        inner.clear();
        inner.start = None;
        let generation = inner.generation;
        drop(inner);
        self.pieces.clear();
        self.progress.send_replace(Progress { generation, through: None });
    }

    /// Adds what was read, up to `through`. What is added stays, whatever its size: a watcher that has taken all that was here
    /// has not been slow.
    pub fn extend(&self, entries: Vec<Entry>, through: Cursor) {
        let mut inner = self.write();
        let added = entries.len();
        for entry in entries {
            inner.bytes += entry.size();
            inner.entries.push_back(Arc::new(entry));
        }
        while inner.entries.len() > added && (inner.entries.len() > self.entries_max || inner.bytes > BYTES_MAX) {
            let Some(oldest) = inner.entries.pop_front() else { break };
            inner.pass(&oldest);
        }
        METRICS.cache("events", inner.bytes);
        let progress = Progress { generation: inner.generation, through: Some(through) };
        drop(inner);
        self.progress.send_if_modified(|known| {
            let changed = *known != progress;
            *known = progress;
            changed
        });
    }

    /// Forgets what was here already when this was called last, but for the newest transaction: who comes back after an event of it
    /// finds all that follows. Called now and then, it leaves nothing of a busy hour.
    pub fn forget(&self) {
        let mut inner = self.write();
        let newest = inner.entries.back().map(|newest| newest.event.cursor.rv);
        while inner.first < inner.fresh
            && let Some(oldest) = inner.entries.pop_front_if(|oldest| Some(oldest.event.cursor.rv) != newest)
        {
            inner.pass(&oldest);
        }
        inner.fresh = inner.first + inner.entries.len() as u64;
        METRICS.cache("events", inner.bytes);
        drop(inner);
        self.pieces.forget();
    }

    /// How far it has come, to wait on.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// The place after `cursor`; none when what comes after it is not all here.
    pub fn join(&self, cursor: Cursor) -> Option<Place> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        inner.start.filter(|start| *start <= cursor)?;
        let at = inner.entries.partition_point(|entry| entry.event.cursor <= cursor);
        Some(Place { generation: inner.generation, next: inner.first + at as u64 })
    }

    /// The next entries, at most `max`; the place moves on.
    pub fn take(&self, place: &mut Place, max: usize) -> Taken {
        let inner = self.inner.read().expect("no holder of this lock panics");
        if place.generation != inner.generation {
            return Taken::Restarted;
        }
        let Some(skip) = place.next.checked_sub(inner.first) else { return Taken::TooSlow };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let entries: Vec<_> = inner.entries.iter().skip(skip).take(max).cloned().collect();
        place.next += entries.len() as u64;
        Taken::Entries(entries)
    }

    /// The same for whoever sees every event, of a namespace or of all, and has been told of what is up to `after`: as it is written, put
    /// together once for all who stand there. None when it is to be taken entry by entry, if there is anything.
    pub fn take_written(
        &self,
        place: &mut Place,
        max: usize,
        after: Cursor,
        sharing: Sharing<'_>,
        write: impl FnOnce(&[Arc<Entry>]) -> Bytes,
    ) -> Option<Piece> {
        let inner = self.inner.read().expect("no holder of this lock panics");
        if place.generation != inner.generation {
            return None;
        }
        let skip = usize::try_from(place.next.checked_sub(inner.first)?).ok()?;
        let count = inner.entries.len().saturating_sub(skip).min(max);
        let through = inner.entries.get(skip + count.checked_sub(1)?)?.event.cursor;
        if inner.entries.get(skip)?.event.cursor <= after {
            return None;
        }
        let part = Part::Ring(*place, count);
        place.next += count as u64;
        if let Some(piece) = self.pieces.find(part, sharing) {
            return Some(piece);
        }
        let is_wanted = |entry: &&Arc<Entry>| sharing.namespace.is_none_or(|namespace| namespace == entry.event.namespace);
        let entries: Vec<_> = inner.entries.range(skip..skip + count).filter(is_wanted).cloned().collect();
        drop(inner); // writing takes a while
        if entries.is_empty() {
            return Some(Piece { bytes: Bytes::new(), through }); // not worth being kept
        }
        let piece = Piece { bytes: write(&entries), through };
        self.pieces.keep(part, sharing, &piece);
        Some(piece)
    }

    /// What somebody has read of the database lately after this place, for whoever would read the same.
    pub fn read_lately(&self, after: Cursor, sharing: Sharing<'_>) -> Option<Piece> {
        self.pieces.find(Part::Log(after), sharing)
    }

    /// Keeps what has been read of the database after this place and did not come to the end of the log, unless the tail has begun again
    /// since it was this generation's: then it may not have happened.
    pub fn keep_read(&self, generation: u64, after: Cursor, sharing: Sharing<'_>, piece: &Piece) {
        let inner = self.inner.read().expect("no holder of this lock panics");
        if inner.generation == generation {
            self.pieces.keep(Part::Log(after), sharing, piece);
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::tail::pieces::Writing, model::event::EventKind};

    const ALL: Sharing<'_> = Sharing { namespace: None, writing: Writing::ContextLines };

    fn entry(rv: i64) -> Entry {
        let event = Logged {
            cursor: Cursor { rv, seq: 1 },
            namespace: "team-a".into(),
            kind: EventKind::ChatUpdated,
            subject: None,
            name: "fix".into(),
            chat: None,
            agent: None,
            payload: serde_json::Value::Null,
            at: jiff::Timestamp::UNIX_EPOCH,
        };
        Entry::new(event, None, None)
    }

    fn taken(ring: &Ring, place: &mut Place) -> Option<Vec<i64>> {
        match ring.take(place, 10) {
            Taken::Entries(entries) => Some(entries.iter().map(|entry| entry.event.cursor.rv).collect()),
            Taken::TooSlow | Taken::Restarted => None,
        }
    }

    #[test]
    fn a_watcher_joins_where_all_that_follows_is_here_and_takes_each_entry_once() {
        let ring = Ring::with_room_for(10);
        assert!(ring.join(Cursor::through(5)).is_none(), "nobody reads yet");
        ring.begin(Cursor::through(5), false);
        ring.extend(vec![entry(6), entry(7)], Cursor::through(7));
        assert!(ring.join(Cursor::through(4)).is_none(), "what follows 4 may be missing");
        let mut place = ring.join(Cursor::through(6)).expect("a place");
        assert_eq!(taken(&ring, &mut place), Some(vec![7]));
        assert_eq!(taken(&ring, &mut place), Some(vec![]));
        ring.extend(vec![entry(8)], Cursor::through(8));
        assert_eq!(taken(&ring, &mut place), Some(vec![8]));
    }

    #[test]
    fn what_is_written_once_for_all_is_what_each_would_have_taken() {
        let ring = Ring::with_room_for(10);
        ring.begin(Cursor::through(5), false);
        ring.extend((6..=9).map(entry).collect(), Cursor::through(9));
        let write = |entries: &[Arc<Entry>]| {
            Bytes::from(format!("{:?}", entries.iter().map(|entry| entry.event.cursor.rv).collect::<Vec<_>>()))
        };
        let written = |place: &mut Place, after: i64| {
            ring.take_written(place, 3, Cursor::through(after), ALL, write).map(|piece| (piece.bytes, piece.through.rv))
        };
        let mut place = ring.join(Cursor::through(5)).expect("a place");
        let start = place;
        assert!(written(&mut place, 6).is_none() && place == start, "it has been told of 6 already: it takes entry by entry");
        assert_eq!(written(&mut place, 5), Some(("[6, 7, 8]".into(), 8)));
        assert_eq!(written(&mut place, 8), Some(("[9]".into(), 9)));
        assert!(written(&mut place, 9).is_none(), "there is no more");
        assert_eq!(taken(&ring, &mut place), Some(vec![]));
        let mut other = start;
        assert_eq!(
            ring.take_written(&mut other, 3, Cursor::through(5), ALL, |_| Bytes::new()).unwrap().bytes,
            "[6, 7, 8]",
            "it is kept"
        );
        let (later, mut other) = (other, start);
        let elsewhere = Sharing { namespace: Some("team-b"), ..ALL };
        let piece = ring.take_written(&mut other, 3, Cursor::through(5), elsewhere, write).unwrap();
        assert_eq!(
            (piece.bytes, piece.through.rv, other),
            (Bytes::new(), 8, later),
            "those of its own namespace, as far as the others"
        );
        let written =
            ring.take_written(&mut start.clone(), 3, Cursor::through(5), Sharing { writing: Writing::CoreLines, ..ALL }, |_| {
                "core".into()
            });
        assert_eq!(written.unwrap().bytes, "core", "written another way it is another piece");
        ring.pause();
        assert!(ring.pieces.find(Part::Ring(start, 3), ALL).is_none(), "nobody asks for it any more");
        let mut gone = start;
        assert!(ring.take_written(&mut gone, 3, Cursor::through(5), ALL, write).is_none(), "nobody reads");
    }

    #[test]
    fn what_one_has_read_of_the_log_is_for_all_who_would_read_the_same_until_the_log_begins_anew() {
        let ring = Ring::with_room_for(10);
        ring.begin(Cursor::through(5), false);
        let piece = Piece { bytes: "1 to 3".into(), through: Cursor::through(3) };
        let generation = ring.progress().borrow().generation;
        ring.keep_read(generation, Cursor::START, ALL, &piece);
        assert_eq!(ring.read_lately(Cursor::START, ALL), Some(piece.clone()));
        assert_eq!(ring.read_lately(Cursor::through(1), ALL), None);
        assert_eq!(ring.read_lately(Cursor::START, Sharing { namespace: Some("team-a"), ..ALL }), None);
        assert_eq!(ring.read_lately(Cursor::START, Sharing { writing: Writing::CoreLines, ..ALL }), None);
        ring.begin(Cursor::through(9), true);
        assert_eq!(ring.read_lately(Cursor::START, ALL), None, "it may not have happened");
        ring.keep_read(generation, Cursor::START, ALL, &piece);
        assert_eq!(ring.read_lately(Cursor::START, ALL), None, "it was read before");
    }

    #[test]
    fn who_is_too_slow_is_cut_off_and_who_keeps_up_is_not() {
        let ring = Ring::with_room_for(3);
        ring.begin(Cursor::through(0), false);
        let (mut slow, mut quick) =
            (ring.join(Cursor::through(0)).expect("a place"), ring.join(Cursor::through(0)).expect("a place"));
        for rv in 1..=4 {
            ring.extend(vec![entry(rv)], Cursor::through(rv));
            assert_eq!(taken(&ring, &mut quick), Some(vec![rv]));
        }
        assert!(matches!(ring.take(&mut slow, 10), Taken::TooSlow));
        assert!(ring.join(Cursor::through(0)).is_none() && ring.join(Cursor::through(1)).is_some());
    }

    #[test]
    fn what_is_large_pushes_out_what_is_old_and_never_itself() {
        let large = |rv| {
            let mut entry = entry(rv).event;
            entry.payload = serde_json::json!({"snapshot": {"manifest": "x".repeat(BYTES_MAX / 3)}});
            Entry::new(entry, None, None)
        };
        let ring = Ring::with_room_for(100);
        ring.begin(Cursor::through(0), false);
        let (mut slow, mut quick) =
            (ring.join(Cursor::through(0)).expect("a place"), ring.join(Cursor::through(0)).expect("a place"));
        ring.extend(vec![entry(1)], Cursor::through(1));
        assert_eq!(taken(&ring, &mut quick), Some(vec![1]));
        ring.extend((2..=5).map(large).collect(), Cursor::through(5));
        assert!(matches!(ring.take(&mut slow, 10), Taken::TooSlow));
        assert_eq!(taken(&ring, &mut quick), Some(vec![2, 3, 4, 5]), "all at once, and it was not slow");
        quick.give_back(3);
        assert_eq!(taken(&ring, &mut quick), Some(vec![3, 4, 5]));
    }

    #[test]
    fn what_is_old_is_forgotten_whoever_has_not_taken_it_and_the_newest_transaction_stays() {
        let ring = Ring::with_room_for(10);
        ring.begin(Cursor::through(0), false);
        let (mut idle, mut quick) =
            (ring.join(Cursor::through(0)).expect("a place"), ring.join(Cursor::through(0)).expect("a place"));
        ring.extend(vec![entry(1), entry(2)], Cursor::through(2));
        assert_eq!(taken(&ring, &mut quick), Some(vec![1, 2]));
        ring.forget();
        ring.extend(vec![entry(3), entry(4), entry(4)], Cursor::through(4));
        assert!(ring.join(Cursor::through(0)).is_some(), "it was new when it was called");
        ring.forget();
        assert!(ring.join(Cursor::through(1)).is_none() && ring.join(Cursor::through(2)).is_some());
        assert_eq!(taken(&ring, &mut quick), Some(vec![3, 4, 4]), "who keeps up misses nothing");
        assert!(matches!(ring.take(&mut idle, 10), Taken::TooSlow));
        ring.forget();
        assert!(ring.join(Cursor::through(2)).is_none() && ring.join(Cursor::through(3)).is_some());
        let held = ring.write().bytes;
        ring.forget();
        assert_eq!(ring.write().bytes, held, "the newest transaction is not old, however long ago it was");
        ring.extend(vec![entry(5)], Cursor::through(5));
        assert_eq!(taken(&ring, &mut quick), Some(vec![5]));
    }

    #[test]
    fn whoever_joins_just_before_the_tail_pauses_finds_out_that_it_began_again() {
        let ring = Ring::with_room_for(3);
        ring.begin(Cursor::through(0), false);
        let mut place = ring.join(Cursor::through(0)).expect("a place");
        ring.pause();
        ring.begin(Cursor::through(9), false);
        assert!(matches!(ring.take(&mut place, 10), Taken::Restarted), "what came between 0 and 9 is not here");
    }

    #[test]
    fn when_the_log_begins_anew_everybody_has_to() {
        let ring = Ring::with_room_for(3);
        ring.begin(Cursor::through(0), false);
        let mut place = ring.join(Cursor::through(0)).expect("a place");
        ring.begin(Cursor::through(9), true);
        assert!(matches!(ring.take(&mut place, 10), Taken::Restarted));
    }
}
