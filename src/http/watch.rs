//! Watching a kind: the objects there are, then what becomes of them, as JSON lines or as Server-Sent Events. The rules, each with
//! the failure that forced it, are in docs/event-log.md; docs/watch.md is for who uses it.
//!
//! A watcher keeps its place in the process's one tail of the log; one that starts before what that keeps reads history from
//! the database first. It holds at most one piece of the stream: the client's pace is its pace, and when it falls behind the
//! tail it is cut off, and resumes.

mod asked;
mod first;
mod frame;
mod kinds;
mod leave;
mod turn;

use super::{
    AppState,
    auth::Identity,
    page::{list_version, object_version},
    status::{ApiError, Resource},
    tail::{
        self, Part, Watching,
        change::{Before, Missed, Object, Told},
        ring::{Entry, Place, Progress, Taken},
    },
};
use crate::{
    model::{access::Reach, object::Key},
    store::{self, StoreError, events::Cursor, log},
};
use asked::Selection;
pub use asked::{Asked, IfWatch, Start, Style, place};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use first::list_piece;
use frame::Frames;
pub use frame::bookmark;
use futures::stream;
use kinds::{changes_the_list, kinds};
pub use leave::{Leave, Watched};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};
pub use turn::turn;

/// How many entries of the tail are taken at once.
const TAKE: usize = 256;
/// About how many bytes a piece of the stream has at most.
const ROOM: usize = 1 << 20;
/// How often a bookmark is sent to whoever wants them; to Server-Sent Events, else, a comment, so that proxies keep the stream.
const BOOKMARK: Duration = Duration::from_mins(1);
/// How often to look again for what comes in a moment.
const LOOK: Duration = Duration::from_millis(50);
/// A watch without `timeoutSeconds` lasts at least this, and at most twice as long, as with a kube-apiserver.
const TIMEOUT: Duration = Duration::from_mins(30);

/// Answers with the stream.
pub async fn serve(
    state: &AppState,
    identity: &Identity,
    resource: Resource,
    namespace: Option<&str>,
    asked: Asked,
) -> Result<Response, ApiError> {
    asked.selection(resource, namespace)?; // whether it can be read comes before who reads it
    let leave = Leave::take(identity.clone(), Watched::Objects(resource), namespace.map(str::to_owned)).await?;
    let selection = asked.selection(resource, leave.scope().namespace.as_deref())?;
    let start = asked.start()?;
    let frames = Frames::new(resource, asked.style);
    let watching = state.tail().watch(); // before it looks, so that the tail does not begin after what it sees
    let mut connection = store::acquire(state.pool()).await?;
    let bounds = log::bounds(&mut connection).await?;
    drop(connection);
    let (phase, cursor) = match start {
        Start::Everything { since } if since.is_none_or(|since| since <= bounds.newest) => (Phase::Listing(None), None),
        Start::After(cursor) if bounds.admit(cursor) => (Phase::Replaying, Some(cursor)),
        Start::Everything { .. } | Start::After(_) => (Phase::Expired, None),
    };
    let now = Instant::now();
    let patience = asked.timeout.unwrap_or_else(|| TIMEOUT.mul_f64(1.0 + state.clock().random()));
    let reach = leave.scope().reach.clone();
    let watcher = Watcher {
        state: state.clone(),
        sees_all: reach == Reach::Everything && selection.is_everything(),
        reach,
        leave,
        resource,
        selection,
        frames,
        bookmarks: asked.bookmarks,
        tells_end: asked.sends_initial(),
        waits_for: if let Start::Everything { since } = start { since } else { None },
        phase,
        cursor: cursor.unwrap_or(Cursor::START),
        joined: Cursor::START,
        missed: Missed::default(),
        progress: state.tail().ring().progress(),
        deadline: now + patience,
        bookmark_at: now + BOOKMARK.mul_f64(0.5 + state.clock().random() / 2.0),
        _watching: watching,
    };
    let media = frames.media();
    let pieces = stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), watcher))
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Where a watcher is in its life.
enum Phase {
    /// It sends the objects there are; the last one sent.
    Listing(Option<Key>),
    /// It reads what happened before the tail's newest part.
    Replaying,
    /// It has its place in the tail.
    Live(Place),
    /// It began too early, or in the future: it is told so.
    Expired,
    /// Nothing more comes.
    Over,
}

/// What reading the database came to.
enum Done {
    /// What is to be sent, if anything; go on.
    Piece(Bytes),
    /// The same, and there is nothing more for a moment.
    Wait(Bytes),
}

struct Watcher {
    state: AppState,
    reach: Reach,
    leave: Leave,
    resource: Resource,
    selection: Selection,
    /// Neither its reach nor its selection leaves anything out of its namespace.
    sees_all: bool,
    frames: Frames,
    bookmarks: bool,
    tells_end: bool,
    /// The list must be at least as new as this.
    waits_for: Option<i64>,
    phase: Phase,
    /// What it has been told, up to here.
    cursor: Cursor,
    /// From here on the tail told it; before, the list and its own reading did.
    joined: Cursor,
    missed: Missed,
    progress: watch::Receiver<Progress>,
    deadline: Instant,
    bookmark_at: Instant,
    _watching: Watching,
}

impl Watcher {
    /// The next piece of the stream; none when it is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if Instant::now() >= self.deadline {
                self.phase = Phase::Over;
            }
            if self.leave.is_over() && !self.leave.renew().await {
                self.phase = Phase::Over;
            }
            let piece = match &self.phase {
                Phase::Over => return None,
                Phase::Expired => {
                    self.phase = Phase::Over;
                    let error = ApiError::expired("too old resource version: list again, and watch from there");
                    Some(self.frames.error(&error))
                }
                Phase::Listing(_) | Phase::Replaying => self.read().await,
                Phase::Live(place) => {
                    let place = *place;
                    self.live(place).await
                }
            };
            if let Some(piece) = piece {
                return Some(piece);
            }
        }
    }

    /// Ends with an error that the client may try again after.
    fn failed(&mut self, error: StoreError) -> Bytes {
        self.phase = Phase::Over;
        tracing::warn!(%error, "a watch ends, because the database failed it");
        self.frames.error(&ApiError::from(error))
    }

    /// Reads the database, when it is its turn.
    async fn read(&mut self) -> Option<Bytes> {
        let state = self.state.clone();
        let listing = match &self.phase {
            Phase::Listing(after) => Some(after.clone()),
            Phase::Replaying => {
                if let Some(place) = state.tail().ring().join(self.cursor) {
                    self.phase = Phase::Live(place);
                    self.joined = self.cursor;
                    return None;
                }
                None
            }
            Phase::Live(_) | Phase::Expired | Phase::Over => return None,
        };
        let Some(turn) = turn(&state, self.deadline).await else {
            self.phase = Phase::Over;
            return None;
        };
        // Boxed, and only now: ten thousand watchers wait, each with the memory of what it may come to do while it does.
        let done = match listing {
            Some(after) => Box::pin(self.list(after)).await,
            None => Box::pin(self.replay()).await,
        };
        drop(turn);
        match done {
            Done::Piece(piece) => (!piece.is_empty()).then_some(piece),
            Done::Wait(piece) => {
                if piece.is_empty() {
                    self.pause().await;
                    return None;
                }
                Some(piece)
            }
        }
    }

    /// Until the tail has come further, or it is worth another look.
    async fn pause(&mut self) {
        tokio::select! {
            () = self.state.stopping().cancelled() => self.phase = Phase::Over,
            () = tokio::time::sleep_until(self.deadline.min(Instant::now() + LOOK)) => {}
            _ = self.progress.changed() => {}
        }
    }

    async fn list(&mut self, after: Option<Key>) -> Done {
        let state = self.state.clone();
        let first = after.is_none() && self.cursor.rv == 0;
        let mut connection = match store::acquire_whole(state.pool()).await {
            Ok(connection) => connection,
            Err(error) => return Done::Piece(self.failed(error)),
        };
        let read = async {
            let mut moment = store::lists::moment(&mut connection).await?;
            if first {
                let version = log::list_version(&mut moment).await?; // before the rows
                if self.waits_for.is_some_and(|wanted| version < wanted) {
                    return Ok(None);
                }
                self.cursor = Cursor::through(version);
            }
            list_piece(&mut moment, self.resource, &self.reach, &self.selection, after.as_ref(), ROOM).await.map(Some)
        };
        let read = store::patiently(store::PATIENCE, read).await;
        if read.is_ok() {
            connection.give_back(); // else it may never answer, and is closed
        }
        let (objects, done) = match read {
            Ok(Some(piece)) => piece,
            // A writer that began earlier is still open: the list would not yet show what the client has seen.
            Ok(None) => return Done::Wait(Bytes::new()),
            Err(error) => return Done::Piece(self.failed(error)),
        };
        let mut piece = Vec::new();
        for object in objects.iter().filter(|object| self.sees(&object.look())) {
            self.frames.object(&mut piece, Told::Added, &object.json(object.rv()), None, self.state.clock().now());
        }
        if done {
            self.phase = Phase::Replaying;
            let version = list_version(self.cursor.rv);
            if self.tells_end {
                self.frames.bookmark(&mut piece, &version, true);
            } else {
                self.frames.mark(&mut piece, &version);
            }
        } else {
            self.phase = Phase::Listing(objects.last().map(Object::key));
        }
        Done::Piece(piece.into())
    }

    /// Reads history until the tail has all that follows.
    async fn replay(&mut self) -> Done {
        let state = self.state.clone();
        let mut connection = match store::acquire(state.pool()).await {
            Ok(connection) => connection,
            Err(error) => return Done::Piece(self.failed(error)),
        };
        let of = (kinds(self.resource, &self.reach), self.selection.namespace());
        let read = tail::read_of(&mut connection, self.cursor, of, &mut self.missed, ROOM);
        let read = store::patiently(store::PATIENCE, read).await;
        if read.is_err() {
            drop(connection.detach()); // it may never answer
        }
        match read {
            Ok(Part::Expired) => {
                self.phase = Phase::Expired;
                Done::Piece(Bytes::new())
            }
            Ok(Part::Entries { entries, through, exhausted }) => {
                let mut piece = Vec::new();
                for entry in &entries {
                    if self.has_to_list_again(entry) {
                        self.phase = Phase::Expired;
                        return Done::Piece(piece.into());
                    }
                    self.tell(&mut piece, entry, &[], Cursor::START);
                }
                self.cursor = self.cursor.max(through);
                if exhausted && self.state.tail().ring().join(self.cursor).is_none() {
                    return Done::Wait(piece.into()); // the tail begins in a moment
                }
                Done::Piece(piece.into())
            }
            Err(error) => Done::Piece(self.failed(error)),
        }
    }

    async fn live(&mut self, mut place: Place) -> Option<Bytes> {
        let progress = *self.progress.borrow_and_update(); // before it looks
        let entries = match self.state.tail().ring().take(&mut place, TAKE) {
            Taken::Entries(entries) => entries,
            Taken::TooSlow => {
                tracing::debug!("a watcher was too slow and is cut off; it can resume");
                self.phase = Phase::Over;
                return None;
            }
            Taken::Restarted => {
                self.phase = Phase::Replaying; // which finds out whether the log has it still
                return None;
            }
        };
        if !entries.is_empty() {
            let mut piece = Vec::new();
            for (n, entry) in entries.iter().enumerate() {
                if piece.len() >= ROOM {
                    place.give_back(entries.len() - n);
                    break;
                }
                if entry.event.cursor <= self.cursor {
                    continue; // the client began after it
                }
                let told = entry.change.as_ref().filter(|change| !change.passed);
                let missed = told.map(|change| self.missed.take(&change.id)).unwrap_or_default();
                self.tell(&mut piece, entry, &missed, self.joined);
                self.cursor = entry.event.cursor;
                if self.has_to_list_again(entry) {
                    self.phase = Phase::Expired;
                    return (!piece.is_empty()).then(|| piece.into());
                }
            }
            self.phase = Phase::Live(place);
            return (!piece.is_empty()).then(|| piece.into());
        }
        // Everything up to here has been taken, so a bookmark may say so.
        if let Some(through) = progress.through.filter(|through| *through > self.cursor) {
            self.cursor = through;
        }
        if Instant::now() >= self.bookmark_at && self.cursor.seq == i32::MAX {
            self.bookmark_at = Instant::now() + BOOKMARK;
            let mut piece = Vec::new();
            let version = list_version(self.cursor.rv);
            if self.bookmarks {
                self.frames.bookmark(&mut piece, &version, false);
            } else {
                self.frames.mark(&mut piece, &version);
            }
            if !piece.is_empty() {
                return Some(piece.into());
            }
        }
        let until = self.leave.earlier(self.deadline.min(self.bookmark_at.max(Instant::now() + Duration::from_secs(1))));
        let stopping = self.state.stopping();
        let stopped = tokio::select! {
            () = stopping.cancelled() => true,
            () = tokio::time::sleep_until(until) => false,
            changed = self.progress.changed() => changed.is_err(),
        };
        if stopped {
            self.phase = Phase::Over;
        }
        None
    }

    fn sees(&self, look: &tail::change::Look) -> bool {
        self.reach.covers(look.owner.as_deref()) && self.selection.matches(look)
    }

    fn has_to_list_again(&self, entry: &Entry) -> bool {
        self.selection.is_of(&entry.event.namespace)
            && changes_the_list(self.resource, &self.reach, &entry.event, entry.owner.as_deref())
    }

    fn tell(&self, piece: &mut Vec<u8>, entry: &Entry, missed: &[Before], joined: Cursor) {
        let Some(change) = entry.change.as_ref().filter(|change| change.resource == self.resource) else { return };
        if !self.selection.is_of(&change.key.namespace) {
            return;
        }
        let told = if self.sees_all {
            if change.passed {
                return;
            }
            change.told_to_all(missed, joined)
        } else {
            let Some(told) = change.told(missed, joined, &self.reach, |look| self.selection.matches(look)) else { return };
            told
        };
        let version = object_version(entry.event.cursor.rv);
        let now = self.state.clock().now();
        if told == Told::Deleted && !self.reach.covers(change.look.owner.as_deref()) {
            // Whoever may see it no more learns that it went, not what it has become.
            self.frames.object(piece, told, &change.bare(&version), Some(&version), now);
        } else {
            self.frames.object(piece, told, &change.json, Some(&version), now);
        }
    }
}
