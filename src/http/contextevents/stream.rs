//! A watch of events. It reads what its cursor has not seen from the database, by the filter, until there is no more; then it
//! has its place in the process's one tail of the log, as the watches of objects have.

use super::{
    super::{
        AppState,
        auth::{EventList, Identity},
        page::{list_version, object_version},
        status::ApiError,
        table::{self, Form},
        tail::{
            Watching,
            change::Told,
            ring::{Entry, Place, Progress, Taken},
        },
        watch::{Asked, Leave, Style, Watched, bookmark},
    },
    PAGE, Wanted, core_v1, start,
};
use crate::{
    model::access::Reach,
    store::{
        self, StoreError,
        events::{self, Cursor, Logged, Read},
        log,
    },
    v1alpha1::{
        API_VERSION,
        event::{ContextEvent, core_event, cursor_text},
    },
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};
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

/// As what events are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// As what they are.
    ContextEvent,
    /// As core/v1 Events.
    CoreEvent,
}

/// Where a watcher is in its life.
enum Phase {
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
    bookmarks: bool,
    phase: Phase,
    cursor: Cursor,
    progress: watch::Receiver<Progress>,
    deadline: Instant,
    bookmark_at: Instant,
    _watching: Watching,
}

/// Answers with the stream of what is wanted after a cursor; without one, from the beginning of what is kept.
pub async fn serve(
    state: AppState,
    identity: Identity,
    wanted: Wanted,
    cursor: Option<Cursor>,
    shape: Shape,
    asked: &Asked,
) -> Result<Response, ApiError> {
    let frames = Frames { style: asked.style, shape };
    let list = match shape {
        Shape::ContextEvent => EventList::ContextEvents,
        Shape::CoreEvent => EventList::CoreEvents,
    };
    let leave = Leave::take(identity, Watched::Events(list), wanted.namespace.clone()).await?;
    let watching = state.tail().watch(); // before it looks
    let mut connection = store::acquire(state.pool()).await?;
    let bounds = log::bounds(&mut connection).await?;
    let cursor = start(&mut connection, cursor).await?;
    let agents = match &wanted.agent {
        Some(agent) => events::agents_named(&mut connection, wanted.namespace.as_deref(), agent).await?,
        None => Vec::new(),
    };
    drop(connection);
    let fits = (bounds.floor..=bounds.newest).contains(&cursor.rv);
    let now = Instant::now();
    let watcher = Watcher {
        reach: leave.scope().reach.clone(),
        leave,
        wanted,
        agents: agents.into_iter().collect(),
        frames,
        bookmarks: asked.bookmarks,
        phase: if fits { Phase::Reading } else { Phase::Expired },
        cursor,
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
                Phase::Reading => self.catch_up().await,
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
        if let Some(place) = state.tail().ring().join(self.cursor) {
            self.phase = Phase::Live(place);
            return None;
        }
        let turn = state.watch_reads().acquire().await.ok()?;
        // Boxed, and only now: many wait, each with the memory of what it may come to do while it does.
        let (piece, exhausted) = Box::pin(self.read()).await;
        drop(turn);
        if exhausted && piece.is_empty() && state.tail().ring().join(self.cursor).is_none() {
            // The tail begins in a moment.
            tokio::select! {
                () = state.stopping().cancelled() => self.phase = Phase::Over,
                () = tokio::time::sleep_until(self.deadline.min(Instant::now() + LOOK)) => {}
                _ = self.progress.changed() => {}
            }
        }
        (!piece.is_empty()).then_some(piece)
    }

    /// What is to be sent, if anything, and whether there is no more for now.
    async fn read(&mut self) -> (Bytes, bool) {
        let state = self.state.clone();
        let read = async {
            let mut connection = store::acquire(state.pool()).await?;
            let version = log::list_version(&mut connection).await?; // before the rows
            let read = events::read_some_after(&mut connection, self.cursor, &self.wanted.filter(), &self.reach, PAGE).await?;
            Ok::<_, StoreError>((version, read))
        };
        match read.await {
            Ok((_, Read::Expired)) => {
                self.phase = Phase::Expired;
                (Bytes::new(), false)
            }
            Ok((version, Read::Batch(batch))) => {
                let mut piece = Vec::new();
                for event in &batch.events {
                    if self.wanted.takes(event, &mut self.agents) {
                        self.frames.event(&mut piece, event, state.clock().now());
                    }
                }
                self.cursor = batch.end(self.cursor);
                if batch.exhausted {
                    // What passes the filter has all been read, up to there.
                    self.cursor = self.cursor.max(Cursor::through(version));
                }
                (piece.into(), batch.exhausted)
            }
            Err(error) => {
                self.phase = Phase::Over;
                tracing::warn!(%error, "a watch of events ends, because the database failed it");
                (self.frames.error(&ApiError::from(error)), false)
            }
        }
    }

    async fn live(&mut self, mut place: Place) -> Option<Bytes> {
        let progress = *self.progress.borrow_and_update(); // before it looks
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
            let mut piece = Vec::new();
            for entry in &entries {
                if entry.event.cursor > self.cursor {
                    self.cursor = entry.event.cursor;
                    if self.wanted.takes(&entry.event, &mut self.agents) && self.may_see(entry) {
                        self.frames.entry(&mut piece, entry, self.state.clock().now());
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
            let piece = self.frames.bookmark(self.cursor, self.bookmarks);
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

/// How the stream is written.
#[derive(Clone, Copy, Debug)]
struct Frames {
    style: Style,
    shape: Shape,
}

impl Frames {
    fn media(self) -> &'static str {
        match self.style {
            Style::Lines(_) => "application/json",
            Style::Events => "text/event-stream",
        }
    }

    /// The form of the objects. Contextevents are told as what they are.
    fn form(self) -> Form {
        match (self.shape, self.style) {
            (Shape::CoreEvent, Style::Lines(form)) => form,
            (Shape::CoreEvent, Style::Events) | (Shape::ContextEvent, _) => Form::default(),
        }
    }

    fn event(self, piece: &mut Vec<u8>, event: &Logged, now: Timestamp) {
        self.frame(piece, &self.line(event, now), Some(event.cursor));
    }

    /// The same of what all watchers share: each line is made once. A table's rows say how long ago it was: they are not shared.
    fn entry(self, piece: &mut Vec<u8>, entry: &Entry, now: Timestamp) {
        let shared = match (self.shape, self.form().wanted) {
            (Shape::CoreEvent, table::Wanted::Json) => &entry.lines.core,
            (Shape::ContextEvent, _) => &entry.lines.context,
            (Shape::CoreEvent, _) => return self.event(piece, &entry.event, now),
        };
        self.frame(piece, shared.get_or_init(|| self.line(&entry.event, now)), Some(entry.event.cursor));
    }

    fn line(self, event: &Logged, now: Timestamp) -> Bytes {
        let object = match self.shape {
            Shape::CoreEvent => self.form().object(&core_v1::COLUMNS, core_event(event, &object_version(event.cursor.rv)), now),
            Shape::ContextEvent => serde_json::to_value(ContextEvent::from_logged(event)).expect("an event is plain data"),
        };
        line(Told::Added.as_str(), &object)
    }

    fn bookmark(self, cursor: Cursor, asked: bool) -> Vec<u8> {
        let mut piece = Vec::new();
        if asked {
            let (kind, api_version) = match self.shape {
                Shape::CoreEvent => ("Event", "v1"),
                Shape::ContextEvent => ("ContextEvent", API_VERSION),
            };
            let metadata = json!({"resourceVersion": list_version(cursor.rv)});
            let object = bookmark(
                self.form().wanted,
                metadata,
                |metadata| json!({"kind": kind, "apiVersion": api_version, "metadata": metadata}),
            );
            self.frame(&mut piece, &line("BOOKMARK", &object), Some(cursor));
        } else if self.style == Style::Events {
            piece.extend_from_slice(format!("id: {}\n\n", cursor_text(cursor)).as_bytes());
        }
        piece
    }

    fn error(self, error: &ApiError) -> Bytes {
        let mut piece = Vec::new();
        self.frame(&mut piece, &line("ERROR", &error.to_status()), None);
        piece.into()
    }

    fn frame(self, piece: &mut Vec<u8>, line: &[u8], id: Option<Cursor>) {
        match self.style {
            Style::Lines(_) => {
                piece.extend_from_slice(line);
                piece.push(b'\n');
            }
            Style::Events => {
                if let Some(id) = id {
                    piece.extend_from_slice(format!("id: {}\n", cursor_text(id)).as_bytes());
                }
                piece.extend_from_slice(b"data: ");
                piece.extend_from_slice(line);
                piece.extend_from_slice(b"\n\n");
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    json!({"type": kind, "object": object}).to_string().into()
}
