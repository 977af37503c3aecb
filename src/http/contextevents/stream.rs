//! A watch of events. It reads what its cursor has not seen from the database, by the filter, until there is no more; then it
//! has its place in the process's one tail of the log, as the watches of objects have. One of core/v1 Events that asks for no
//! version is told what a list would tell first.

use super::{
    super::{
        AppState,
        auth::{EventList, Identity},
        status::ApiError,
        tail::{
            Watching,
            pieces::{Piece, Sharing, Writing},
            ring::{Entry, Place, Progress, Taken},
        },
        watch::{Asked, Leave, Start, Watched, turn},
    },
    PAGE, Wanted,
    frames::{Frames, Shape},
};
use crate::{
    model::access::Reach,
    store::{
        self, StoreError,
        events::{self, Cursor, Logged, Read},
        log,
    },
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use sqlx::PgConnection;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

/// How many entries of the tail are taken at once.
const TAKE: usize = 256;
/// How often a bookmark or a comment is sent.
const BOOKMARK: Duration = Duration::from_mins(1);
/// How often to look again for what comes in a moment.
const LOOK: Duration = Duration::from_millis(50);
/// A watch without `timeoutSeconds` lasts at least this, and at most twice as long.
const TIMEOUT: Duration = Duration::from_mins(30);

/// Where a watcher is in its life.
enum Phase {
    /// It sends the newest events, as a list does.
    Listing,
    /// It reads what its cursor has not seen, by the filter.
    Reading,
    /// It has its place in the tail.
    Live(Place),
    /// Its cursor is too old, or of another log.
    Expired,
    /// Nothing more comes.
    Over,
}

struct Watcher {
    state: AppState,
    reach: Reach,
    leave: Leave,
    wanted: Wanted,
    agents: HashSet<Uuid>,
    frames: Frames,
    /// It is sent what all others are who see every event of its namespace, or of all, written so.
    shares: Option<Writing>,
    bookmarks: bool,
    phase: Phase,
    cursor: Cursor,
    /// What there is must be as new as this before its end is told of; none when that was not asked for, or has been done.
    end: Option<i64>,
    progress: watch::Receiver<Progress>,
    deadline: Instant,
    bookmark_at: Instant,
    _watching: Watching,
}

/// Answers with the stream of what is wanted. Everything that there is: of contextevents all that is kept, of core/v1 Events the
/// newest.
pub async fn serve(
    state: AppState,
    identity: Identity,
    wanted: Wanted,
    start: Start,
    shape: Shape,
    asked: &Asked,
) -> Result<Response, ApiError> {
    let frames = Frames::new(asked.style, shape);
    let list = match shape {
        Shape::ContextEvent => EventList::ContextEvents,
        Shape::CoreEvent => EventList::CoreEvents,
    };
    let leave = Leave::take(identity, Watched::Events(list), wanted.namespace.clone()).await?;
    let watching = state.tail().watch(); // before it looks
    let mut connection = store::acquire(state.pool()).await?;
    let bounds = log::bounds(&mut connection).await?;
    let (cursor, since) = match start {
        Start::Everything { since } => (events::beginning(&mut connection).await?, since),
        Start::After(cursor) => (cursor, None),
    };
    let agents = agents_named(&mut connection, &wanted).await?;
    drop(connection);
    let phase = match start {
        Start::Everything { since } if since.is_some_and(|since| since > bounds.newest) => Phase::Expired,
        Start::Everything { .. } if shape == Shape::CoreEvent => Phase::Listing,
        Start::Everything { .. } => Phase::Reading,
        Start::After(cursor) if bounds.admit(cursor) => Phase::Reading,
        Start::After(_) => Phase::Expired,
    };
    // Whoever comes back with the place of what was heard last has heard the end of it, or goes on without.
    let resumes = asked.last_event_id().is_some_and(|id| !id.is_empty());
    let now = Instant::now();
    let reach = leave.scope().reach.clone();
    let watcher = Watcher {
        shares: frames.writing().filter(|_| reach == Reach::Everything && wanted.is_everything()),
        reach,
        leave,
        wanted,
        agents,
        frames,
        bookmarks: asked.bookmarks,
        phase,
        cursor,
        end: (asked.sends_initial() && !resumes).then_some(since.unwrap_or_default()),
        progress: state.tail().ring().progress(),
        deadline: now + asked.timeout.unwrap_or_else(|| TIMEOUT.mul_f64(1.0 + state.clock().random())),
        bookmark_at: now + BOOKMARK,
        _watching: watching,
        state,
    };
    let pieces = stream::unfold(watcher, |mut watcher| async move {
        let piece = watcher.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), watcher))
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(frames.media()));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// The agents that have or had the name that is wanted.
async fn agents_named(connection: &mut PgConnection, wanted: &Wanted) -> Result<HashSet<Uuid>, StoreError> {
    let Some(agent) = &wanted.agent else { return Ok(HashSet::new()) };
    let named = events::agents_named(connection, wanted.namespace.as_deref(), agent).await?;
    Ok(named.into_iter().map(|agent| agent.id).collect())
}

/// What was read of the database.
struct Found {
    events: Vec<Logged>,
    /// What its client has been told, with this, up to here.
    through: Cursor,
    /// Nothing more for now: what there is has been read as of this version.
    exhausted: Option<i64>,
    agents: HashSet<Uuid>,
}

impl Watcher {
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
                    Some(self.frames.error(&ApiError::expired("too old cursor: list again, and watch from there")))
                }
                Phase::Listing | Phase::Reading => self.catch_up().await,
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

    /// Reads the database, when it is its turn, until the tail has all that follows.
    async fn catch_up(&mut self) -> Option<Bytes> {
        let state = self.state.clone();
        let has_read = matches!(self.phase, Phase::Reading) && self.end.is_none();
        if has_read && let Some(place) = state.tail().ring().join(self.cursor) {
            self.phase = Phase::Live(place);
            return None;
        }
        if state.stopping().is_cancelled() {
            self.phase = Phase::Over;
            return None;
        }
        if let Some(piece) = self.read_lately() {
            return Some(piece);
        }
        let Some(turn) = turn(&state, self.deadline).await else {
            self.phase = Phase::Over;
            return None;
        };
        // While it waited, others may have read what it would.
        if let Some(piece) = self.read_lately() {
            return Some(piece);
        }
        // Boxed, and only now: many wait, each with the memory of what it may come to do while it does.
        let (piece, exhausted) = Box::pin(self.read()).await;
        drop(turn);
        if exhausted && piece.is_empty() && (self.end.is_some() || state.tail().ring().join(self.cursor).is_none()) {
            // The tail begins, or what there is becomes new enough, in a moment.
            tokio::select! {
                () = state.stopping().cancelled() => self.phase = Phase::Over,
                () = tokio::time::sleep_until(self.deadline.min(Instant::now() + LOOK)) => {}
                _ = self.progress.changed() => {}
            }
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// With whom it shares what it is sent, if with anybody.
    fn sharing(&self) -> Option<Sharing<'_>> {
        self.shares.map(|writing| Sharing { namespace: self.wanted.namespace.as_deref(), writing })
    }

    /// What it would read next, if another has read it lately and there is something to be sent of it. Who waits to be told the end of
    /// what there is reads for itself.
    fn read_lately(&mut self) -> Option<Bytes> {
        if !matches!(self.phase, Phase::Reading) || self.end.is_some() {
            return None;
        }
        loop {
            let Piece { bytes, through } = self.state.tail().ring().read_lately(self.cursor, self.sharing()?)?;
            self.cursor = through;
            if !bytes.is_empty() {
                return Some(bytes);
            }
        }
    }

    /// What is to be sent, if anything, and whether there is no more for now.
    async fn read(&mut self) -> (Bytes, bool) {
        let state = self.state.clone();
        let generation = self.progress.borrow().generation; // before it reads
        let read = match store::acquire(state.pool()).await {
            Ok(mut connection) => {
                let read = store::patiently(store::PATIENCE, self.look(&mut connection)).await;
                if read.is_err() {
                    drop(connection.detach()); // it may never answer
                }
                read
            }
            Err(error) => Err(error),
        };
        let found = match read {
            Ok(Some(found)) => found,
            Ok(None) => {
                self.phase = Phase::Expired;
                return (Bytes::new(), false);
            }
            Err(error) => {
                self.phase = Phase::Over;
                tracing::warn!(%error, "a watch of events ends, because the database failed it");
                return (self.frames.error(&ApiError::from(error)), false);
            }
        };
        let Found { events, through, exhausted, agents } = found;
        self.agents.extend(agents);
        let mut piece = Vec::new();
        for event in &events {
            if self.wanted.takes(event, &mut self.agents) {
                self.frames.event(&mut piece, event, state.clock().now());
            }
        }
        if let (None, Some(sharing)) = (exhausted, self.sharing()) {
            let piece = Piece { bytes: piece.into_boxed_slice().into(), through };
            state.tail().ring().keep_read(generation, self.cursor, sharing, &piece);
            (self.phase, self.cursor) = (Phase::Reading, through);
            return (piece.bytes, false);
        }
        (self.phase, self.cursor) = (Phase::Reading, through);
        if let (Some(version), Some(since)) = (exhausted, self.end)
            && version >= since
        {
            self.end = None;
            self.frames.bookmark(&mut piece, self.cursor, true);
        }
        (piece.into(), exhausted.is_some())
    }

    /// Looks at the database; none when what comes after the cursor may be gone.
    async fn look(&self, connection: &mut PgConnection) -> Result<Option<Found>, StoreError> {
        let version = log::list_version(connection).await?; // before the rows
        if let (Phase::Listing, Some(about)) = (&self.phase, &self.wanted.about) {
            let events = about.newest(connection, self.wanted.namespace.as_deref(), &self.reach, version).await?;
            let through = Cursor::through(version);
            return Ok(Some(Found { events, through, exhausted: Some(version), agents: HashSet::new() }));
        }
        let batch = match events::read_some_after(connection, self.cursor, &self.wanted.filter(), &self.reach, PAGE).await? {
            Read::Batch(batch) => batch,
            Read::Expired => return Ok(None),
        };
        // After the rows: of an agent that comes later the tail tells.
        let agents = agents_named(connection, &self.wanted).await?;
        let mut through = batch.end(self.cursor);
        if batch.exhausted {
            // What passes the filter has all been read, up to there.
            through = through.max(Cursor::through(version));
        }
        Ok(Some(Found { events: batch.events, through, exhausted: batch.exhausted.then_some(version), agents }))
    }

    async fn live(&mut self, mut place: Place) -> Option<Bytes> {
        let progress = *self.progress.borrow_and_update(); // before it looks
        if let Some(sharing) = self.sharing() {
            let write = |entries: &[Arc<Entry>]| self.frames.piece(entries, self.state.clock().now());
            let piece = self.state.tail().ring().take_written(&mut place, TAKE, self.cursor, sharing, write);
            if let Some(Piece { bytes, through }) = piece {
                (self.phase, self.cursor) = (Phase::Live(place), through);
                return (!bytes.is_empty()).then_some(bytes);
            }
        }
        let entries = match self.state.tail().ring().take(&mut place, TAKE) {
            Taken::Entries(entries) => entries,
            Taken::TooSlow => {
                self.phase = Phase::Over;
                return None;
            }
            Taken::Restarted => {
                self.phase = Phase::Reading; // which finds out whether the log has it still
                return None;
            }
        };
        self.phase = Phase::Live(place);
        if !entries.is_empty() {
            let now = self.state.clock().now();
            let mut piece = Vec::new();
            for entry in &entries {
                if entry.event.cursor > self.cursor {
                    self.cursor = entry.event.cursor;
                    if self.wanted.takes(&entry.event, &mut self.agents) && self.may_see(entry) {
                        self.frames.entry(&mut piece, entry, now);
                    }
                }
            }
            return (!piece.is_empty()).then(|| piece.into());
        }
        if let Some(through) = progress.through.filter(|through| *through > self.cursor) {
            self.cursor = through;
        }
        if Instant::now() >= self.bookmark_at && self.cursor.seq == i32::MAX {
            self.bookmark_at = Instant::now() + BOOKMARK;
            let mut piece = Vec::new();
            if self.bookmarks {
                self.frames.bookmark(&mut piece, self.cursor, false);
            } else {
                self.frames.mark(&mut piece, self.cursor);
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

    fn may_see(&self, entry: &Entry) -> bool {
        (entry.event.chat.is_some() || !self.reach.is_of_chats_only()) && self.reach.covers(entry.owner.as_deref())
    }
}
