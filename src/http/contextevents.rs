//! `…/contextevents`: the typed transitions, in the order of the log, each exactly once after a cursor. The same as core/v1 Events
//! are in `core_v1`, watches of both in `stream`.

pub mod core_v1;
mod frames;
mod stream;

use super::{
    AppState,
    address::{Path, Query},
    auth::{EventList, Identity},
    objects,
    page::list_version,
    status::{ApiError, Resource},
    watch::{Asked, IfWatch, Start},
};
use crate::{
    model::{access::Reach, event::EventKind},
    store::{
        self,
        events::{self, Cursor, Filter, Logged, Read},
        log,
    },
    v1alpha1::{
        API_VERSION,
        event::{ContextEvent, cursor_text, read_cursor},
    },
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use frames::Shape;
use serde::Deserialize;
use serde_json::json;
use std::collections::HashSet;

use uuid::Uuid;

/// How many events a page has when nothing else is asked for, and at most.
const PAGE: i64 = 500;
/// How many windows of the log a page is looked for in; then it comes short, and says where to go on.
const WINDOWS: u32 = 50;

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
    resource_version_match: Option<String>,
}

impl EventQuery {
    /// A list has no use for it, but refuses what it can never be, as a watch does.
    fn check_match(&self) -> Result<(), ApiError> {
        match self.resource_version_match.as_deref().unwrap_or_default() {
            "" | "Exact" | "NotOlderThan" => Ok(()),
            other => Err(ApiError::bad_request(format!("resourceVersionMatch: must be Exact or NotOlderThan, got {other:?}"))),
        }
    }

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
        None => {
            let limit = query.limit()?;
            query.check_match()?;
            let scope = identity.event_scope("list", EventList::ContextEvents, filter.namespace.as_deref()).await?;
            page(&state, &scope.reach, &filter, cursor, limit).await
        }
        Some(asked) => {
            let begin = begin(&asked, cursor)?;
            stream::serve(state, identity, filter, begin, Shape::ContextEvent, &asked).await
        }
    }
}

/// Where a watch begins: after what its client has heard of last, or after a cursor, or as any watch does.
fn begin(asked: &Asked, cursor: Option<Cursor>) -> Result<Start, ApiError> {
    if let Some(id) = asked.last_event_id().filter(|id| !id.is_empty()) {
        let bad = || ApiError::bad_request(format!("Last-Event-ID: is not a cursor of this server, got {id:?}"));
        return read_cursor(id).map(Start::After).ok_or_else(bad);
    }
    match cursor {
        Some(cursor) => Ok(Start::After(cursor)),
        None => asked.start(),
    }
}

/// Which events.
#[derive(Clone, Debug, Default)]
struct Wanted {
    namespace: Option<String>,
    chat: Option<String>,
    agent: Option<String>,
    /// Of core/v1 Events: what they are about.
    about: Option<core_v1::Involved>,
}

impl Wanted {
    /// Nothing of its namespace, or of all, is left out.
    fn is_everything(&self) -> bool {
        let Self { namespace: _, chat, agent, about } = self;
        chat.is_none() && agent.is_none() && about.as_ref().is_none_or(core_v1::Involved::is_anything)
    }

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
    let mut at = match cursor {
        Some(cursor) => cursor,
        None => events::beginning(&mut connection).await?,
    };
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
