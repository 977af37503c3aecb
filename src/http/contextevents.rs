//! `…/contextevents`: the typed transitions, in the order of the log, each exactly once after a cursor; and `/api/v1/…/events`: the
//! same as core/v1 Events, read-only, because that is where `kubectl describe` and `kubectl events` look.
//!
//! A watch reads what its cursor has not seen from the database, by the filter, until there is no more; then it has its place in
//! the process's one tail of the log, as the watches of objects have.

use super::{
    AppState,
    address::{Path, Query},
    auth::Identity,
    objects,
    page::{list_version, object_version},
    status::{ApiError, Resource},
    tail::ring::{Entry, Place, Progress, Taken},
    tail::{Watching, change::Told},
    watch::{EventFrames, IfWatch, Style},
};
use crate::{
    model::{access::Reach, event::EventKind},
    store::{
        self, StoreError,
        events::{self, About, Cursor, Filter, Logged, Read},
        log,
    },
    v1alpha1::{
        API_VERSION,
        event::{ContextEvent, core_event, cursor_text, read_cursor},
    },
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::{collections::HashSet, time::Duration};
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

/// How many events a page has when nothing else is asked for, and at most.
const PAGE: i64 = 500;
/// How many windows of the log a page is looked for in; then it comes short, and says where to go on.
const WINDOWS: u32 = 50;
/// How many core/v1 Events are shown: the newest.
const CORE_MAX: i64 = 500;
/// How many entries of the tail are taken at once.
const TAKE: usize = 256;
/// How often a bookmark or a comment is sent.
const BOOKMARK: Duration = Duration::from_mins(1);
/// How often to look again for what comes in a moment.
const LOOK: Duration = Duration::from_millis(50);
/// A watch without `timeoutSeconds` lasts at least this, and at most twice as long.
const TIMEOUT: Duration = Duration::from_mins(30);

/// The query of a list or a watch of contextevents.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventQuery {
    chat: Option<String>,
    agent: Option<String>,
    cursor: Option<String>,
    limit: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
    field_selector: Option<String>,
}

impl EventQuery {
    fn limit(&self) -> Result<i64, ApiError> {
        match self.limit.as_deref() {
            None | Some("" | "0") => Ok(PAGE),
            Some(text) => match text.parse::<i64>() {
                Ok(limit) if limit > 0 => Ok(limit.min(PAGE)),
                _ => Err(ApiError::bad_request(format!("limit: must be a whole number from 0, got {text:?}"))),
            },
        }
    }

    /// Where it begins; none for the beginning of what is kept.
    fn cursor(&self) -> Result<Option<Cursor>, ApiError> {
        let given = [("cursor", &self.cursor), ("continue", &self.continue_)];
        for (field, text) in given {
            if let Some(text) = text.as_deref().filter(|text| !text.is_empty()) {
                let bad = || ApiError::bad_request(format!("{field}: is not a cursor of this server, got {text:?}"));
                return read_cursor(text).map(Some).ok_or_else(bad);
            }
        }
        Ok(None)
    }
}

/// Of every namespace.
pub async fn list_all(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    answer(state.0, identity, watch, None, query.0).await
}

/// Of one namespace.
pub async fn list(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    Path(namespace): Path<String>,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    objects::check_namespace(Resource::Chats, &namespace)?;
    answer(state.0, identity, watch, Some(namespace), query.0).await
}

async fn answer(
    state: AppState,
    identity: Identity,
    IfWatch(watch): IfWatch,
    namespace: Option<String>,
    query: EventQuery,
) -> Result<Response, ApiError> {
    let cursor = query.cursor()?;
    let filter = Wanted { namespace, chat: query.chat.clone(), agent: query.agent.clone(), about: None };
    match watch {
        None => page(&state, &identity.reach(), &filter, cursor, query.limit()?).await,
        Some(asked) => {
            let last = asked.last_event_id().map(|id| {
                read_cursor(id)
                    .ok_or_else(|| ApiError::bad_request(format!("Last-Event-ID: is not a cursor of this server, got {id:?}")))
            });
            let cursor = match last.transpose()?.or(cursor) {
                Some(cursor) => Some(cursor),
                None => asked.after()?,
            };
            let frames = EventFrames { style: asked.style, core: false };
            serve(state, identity.reach(), filter, cursor, frames, asked.timeout, asked.bookmarks).await
        }
    }
}

/// Which events.
#[derive(Clone, Debug, Default)]
struct Wanted {
    namespace: Option<String>,
    chat: Option<String>,
    agent: Option<String>,
    /// Of core/v1 Events: what they are about.
    about: Option<Involved>,
}

impl Wanted {
    fn filter(&self) -> Filter<'_> {
        Filter { namespace: self.namespace.as_deref(), chat: self.chat.as_deref(), agent: self.agent.as_deref(), through: None }
    }

    /// Whether an event is wanted. `agents` are the uids that have or had the agent's name, as far as is known.
    fn takes(&self, event: &Logged, agents: &mut HashSet<Uuid>) -> bool {
        if let (Some(agent), EventKind::AgentCreated, Some(id)) = (&self.agent, event.kind, event.agent)
            && *agent == event.name
        {
            agents.insert(id);
        }
        self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace)
            && self.chat.as_ref().is_none_or(|chat| event.chat.is_some() && *chat == event.name)
            && (self.agent.is_none() || event.agent.is_some_and(|id| agents.contains(&id)))
            && self.about.as_ref().is_none_or(|about| about.takes(event))
    }
}

async fn page(
    state: &AppState,
    reach: &Reach,
    wanted: &Wanted,
    cursor: Option<Cursor>,
    limit: i64,
) -> Result<Response, ApiError> {
    let _turn = state.watch_reads().acquire().await;
    let mut connection = store::acquire(state.pool()).await?;
    let version = log::list_version(&mut connection).await?; // before the rows
    let filter = Filter { through: Some(version), ..wanted.filter() };
    let mut at = start(&mut connection, cursor).await?;
    let expired = || ApiError::expired("the cursor is too old: what came after it may be gone; start again without it");
    let mut metadata = json!({"resourceVersion": list_version(version)});
    let mut items: Vec<ContextEvent> = Vec::new();
    for window in 1.. {
        let room = limit - i64::try_from(items.len()).unwrap_or(limit);
        let batch = match events::read_some_after(&mut connection, at, &filter, reach, room).await? {
            Read::Batch(batch) => batch,
            Read::Expired => return Err(expired()),
        };
        at = batch.end(at);
        items.extend(batch.events.iter().map(ContextEvent::from_logged));
        if batch.exhausted {
            break;
        }
        if window >= WINDOWS || i64::try_from(items.len()).is_ok_and(|found| found >= limit) {
            metadata["continue"] = json!(cursor_text(at));
            break;
        }
    }
    let list = json!({"kind": "ContextEventList", "apiVersion": API_VERSION, "metadata": metadata, "items": items});
    Ok(axum::Json(list).into_response())
}

async fn start(connection: &mut PgConnection, cursor: Option<Cursor>) -> Result<Cursor, StoreError> {
    match cursor {
        Some(cursor) => Ok(cursor),
        None => events::beginning(connection).await,
    }
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
    wanted: Wanted,
    agents: HashSet<Uuid>,
    frames: EventFrames,
    bookmarks: bool,
    phase: Phase,
    cursor: Cursor,
    progress: watch::Receiver<Progress>,
    deadline: Instant,
    bookmark_at: Instant,
    _watching: Watching,
}

async fn serve(
    state: AppState,
    reach: Reach,
    wanted: Wanted,
    cursor: Option<Cursor>,
    frames: EventFrames,
    timeout: Option<Duration>,
    bookmarks: bool,
) -> Result<Response, ApiError> {
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
        reach,
        wanted,
        agents: agents.into_iter().collect(),
        frames,
        bookmarks,
        phase: if fits { Phase::Reading } else { Phase::Expired },
        cursor,
        progress: state.tail().ring().progress(),
        deadline: now + timeout.unwrap_or_else(|| TIMEOUT.mul_f64(1.0 + state.clock().random())),
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
                        self.frames.event(&mut piece, event);
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
                        self.frames.event(&mut piece, &entry.event);
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
        let until = self.deadline.min(self.bookmark_at.max(Instant::now() + Duration::from_secs(1)));
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
        self.reach.covers(entry.owner.as_deref())
    }
}

/// What a core/v1 Event is about, by field selector.
#[derive(Clone, Debug, Default)]
struct Involved {
    name: Option<String>,
    kind: Option<String>,
    uid: Option<Uuid>,
    reason: Option<String>,
    /// Nothing is asked for that any event of ours has.
    nothing: bool,
}

impl Involved {
    fn read(selector: &str, namespace: &mut Option<String>) -> Result<Self, ApiError> {
        let mut involved = Self::default();
        for term in selector.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')).filter(|_| !term.contains("!="))
            else {
                let message = format!("fieldSelector: of events only FIELD=VALUE terms are served, got {term:?}");
                return Err(ApiError::bad_request(message));
            };
            let value = value.trim().to_owned();
            match field.trim() {
                "involvedObject.name" => involved.name = Some(value),
                "involvedObject.kind" => involved.kind = Some(value),
                "involvedObject.uid" => match value.parse() {
                    Ok(uid) => involved.uid = Some(uid),
                    Err(_) => involved.nothing = true,
                },
                "involvedObject.namespace" | "metadata.namespace" => match namespace {
                    Some(known) => involved.nothing |= *known != value,
                    None => *namespace = Some(value),
                },
                "involvedObject.apiVersion" => involved.nothing |= value != API_VERSION,
                "reason" => involved.reason = Some(value),
                "type" => involved.nothing |= value != "Normal",
                "source" | "reportingComponent" => involved.nothing |= value != "moorline",
                other => {
                    let message = format!(
                        "fieldSelector: field label not supported: {other}; these are: involvedObject.name, involvedObject.kind, \
                         involvedObject.uid, involvedObject.namespace, involvedObject.apiVersion, metadata.namespace, reason, type, \
                         source, reportingComponent"
                    );
                    return Err(ApiError::bad_request(message));
                }
            }
        }
        Ok(involved)
    }

    fn takes(&self, event: &Logged) -> bool {
        let kind = match event.kind {
            EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted => "Agent",
            EventKind::SnapshotAccepted | EventKind::SnapshotDeleted => "AgentSnapshot",
            EventKind::ChatCreated
            | EventKind::ChatUpdated
            | EventKind::ChatDeleted
            | EventKind::ContextHydrated
            | EventKind::ContextDrifted
            | EventKind::ContextConverged
            | EventKind::ContextRefreshed
            | EventKind::AgentRebound
            | EventKind::ContextCleared => "Chat",
        };
        !self.nothing
            && self.name.as_ref().is_none_or(|name| *name == event.name)
            && self.kind.as_ref().is_none_or(|wanted| wanted == kind)
            && self.uid.is_none_or(|uid| event.subject == Some(uid))
            && self.reason.as_ref().is_none_or(|reason| *reason == event.kind.to_string())
    }
}

/// core/v1 Events of every namespace.
pub async fn core_all(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    core(state.0, identity, watch, None, query.0).await
}

/// core/v1 Events of one namespace.
pub async fn core_of(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    Path(namespace): Path<String>,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    objects::check_namespace(Resource::Chats, &namespace)?;
    core(state.0, identity, watch, Some(namespace), query.0).await
}

async fn core(
    state: AppState,
    identity: Identity,
    IfWatch(watch): IfWatch,
    mut namespace: Option<String>,
    query: EventQuery,
) -> Result<Response, ApiError> {
    let involved = Involved::read(query.field_selector.as_deref().unwrap_or_default(), &mut namespace)?;
    if let Some(asked) = watch {
        let after = asked.after()?;
        let after = match after {
            Some(after) => after,
            // What is there already is a list's to tell.
            None => Cursor::through(log::list_version(&mut *store::acquire(state.pool()).await?).await?),
        };
        let wanted = Wanted { namespace, about: Some(involved), ..Wanted::default() };
        let frames = EventFrames { style: asked.style, core: true };
        return serve(state, identity.reach(), wanted, Some(after), frames, asked.timeout, asked.bookmarks).await;
    }
    let mut connection = store::acquire(state.pool()).await?;
    let version = log::list_version(&mut connection).await?; // before the rows
    let about = About { namespace: namespace.as_deref(), name: involved.name.as_deref(), subject: involved.uid };
    let found = events::newest(&mut connection, &about, &identity.reach(), CORE_MAX).await?;
    let items: Vec<Value> = found
        .iter()
        .filter(|event| involved.takes(event))
        .map(|event| core_event(event, &object_version(event.cursor.rv)))
        .collect();
    let metadata = json!({"resourceVersion": list_version(version)});
    Ok(axum::Json(json!({"kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": items})).into_response())
}

impl EventFrames {
    fn media(self) -> &'static str {
        match self.style {
            Style::Lines(_) => "application/json",
            Style::Events => "text/event-stream",
        }
    }

    fn event(self, piece: &mut Vec<u8>, event: &Logged) {
        let cursor = cursor_text(event.cursor);
        let object = if self.core {
            core_event(event, &object_version(event.cursor.rv))
        } else {
            serde_json::to_value(ContextEvent::from_logged(event)).expect("an event is plain data")
        };
        self.frame(piece, Told::Added.as_str(), &object, Some(&cursor));
    }

    fn bookmark(self, cursor: Cursor, asked: bool) -> Vec<u8> {
        let mut piece = Vec::new();
        if asked {
            let (kind, api_version) = if self.core { ("Event", "v1") } else { ("ContextEvent", API_VERSION) };
            let metadata = json!({"resourceVersion": list_version(cursor.rv)});
            let object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
            self.frame(&mut piece, "BOOKMARK", &object, Some(&cursor_text(cursor)));
        } else if self.style == Style::Events {
            piece.extend_from_slice(format!("id: {}\n\n", cursor_text(cursor)).as_bytes());
        }
        piece
    }

    fn error(self, error: &ApiError) -> Bytes {
        let mut piece = Vec::new();
        self.frame(&mut piece, "ERROR", &error.to_status(), None);
        piece.into()
    }

    fn frame(self, piece: &mut Vec<u8>, kind: &str, object: &Value, id: Option<&str>) {
        let line = json!({"type": kind, "object": object}).to_string();
        match self.style {
            Style::Lines(_) => piece.extend_from_slice(format!("{line}\n").as_bytes()),
            Style::Events => {
                if let Some(id) = id {
                    piece.extend_from_slice(format!("id: {id}\n").as_bytes());
                }
                piece.extend_from_slice(format!("data: {line}\n\n").as_bytes());
            }
        }
    }
}
