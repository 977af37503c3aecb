//! `/api/v1/…/events`: contextevents as core/v1 Events, read-only, because that is where `kubectl describe`, `kubectl events` and
//! `kubectl get events` look. Tables of them have the columns that a kube-apiserver prints events in (kubernetes,
//! pkg/printers/internalversion).

use super::{
    super::{
        AppState,
        address::{Path, Query},
        auth::{EventList, Identity},
        objects,
        page::{list_version, object_version},
        status::{ApiError, Resource},
        table::{Form, Tabular, human},
        watch::IfWatch,
    },
    EventQuery, Wanted, begin,
    frames::Shape,
    stream,
};
use crate::{
    model::{access::Reach, event::EventKind},
    store::{
        self, StoreError,
        events::{self, About, Logged},
        log,
    },
    v1alpha1::{API_VERSION, event::core_event},
};
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// How many are shown: the newest.
const MAX: i64 = 500;

/// What a core/v1 Event is about, by field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Involved {
    name: Option<String>,
    kind: Option<String>,
    uid: Option<Uuid>,
    reason: Option<String>,
    /// Nothing is asked for that any event of ours has.
    nothing: bool,
}

impl Involved {
    /// Nothing is left out.
    pub fn is_anything(&self) -> bool {
        *self == Self::default()
    }

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

    /// The newest events about that, as of a list of this version, the oldest of them first.
    pub async fn newest(
        &self,
        connection: &mut PgConnection,
        namespace: Option<&str>,
        reach: &Reach,
        version: i64,
    ) -> Result<Vec<Logged>, StoreError> {
        let about = About { namespace, name: self.name.as_deref(), subject: self.uid, through: Some(version) };
        let mut found = events::newest(connection, &about, reach, MAX).await?;
        found.retain(|event| self.takes(event));
        Ok(found)
    }

    /// Whether an event is about that.
    pub fn takes(&self, event: &Logged) -> bool {
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

/// Of every namespace.
pub async fn list_all(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    form: Result<Form, ApiError>,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    answer(state.0, identity, watch, form, None, query.0).await
}

/// Of one namespace.
pub async fn list(
    state: State<AppState>,
    identity: Identity,
    watch: IfWatch,
    form: Result<Form, ApiError>,
    Path(namespace): Path<String>,
    query: Query<EventQuery>,
) -> Result<Response, ApiError> {
    objects::check_namespace(Resource::Chats, &namespace)?;
    answer(state.0, identity, watch, form, Some(namespace), query.0).await
}

async fn answer(
    state: AppState,
    identity: Identity,
    IfWatch(watch): IfWatch,
    form: Result<Form, ApiError>,
    mut namespace: Option<String>,
    query: EventQuery,
) -> Result<Response, ApiError> {
    let involved = Involved::read(query.field_selector.as_deref().unwrap_or_default(), &mut namespace)?;
    if let Some(asked) = watch {
        let begin = begin(&asked, None)?;
        let wanted = Wanted { namespace, about: Some(involved), ..Wanted::default() };
        return stream::serve(state, identity, wanted, begin, Shape::CoreEvent, &asked).await;
    }
    let form = form?;
    let scope = identity.event_scope("list", EventList::CoreEvents, namespace.as_deref()).await?;
    let mut connection = store::acquire(state.pool()).await?;
    let version = log::list_version(&mut connection).await?; // before the rows
    let found = involved.newest(&mut connection, namespace.as_deref(), &scope.reach, version).await?;
    let items: Vec<Value> = found.iter().map(|event| core_event(event, &object_version(event.cursor.rv))).collect();
    let metadata = json!({"resourceVersion": list_version(version)});
    let list = json!({"kind": "EventList", "apiVersion": "v1", "metadata": metadata, "items": items});
    Ok(axum::Json(form.list(&COLUMNS, list, state.clock().now())).into_response())
}

/// The columns of core/v1 Events.
pub const COLUMNS: Columns = Columns;

/// See [`COLUMNS`].
#[derive(Clone, Copy, Debug)]
pub struct Columns;

/// Name, type, priority (1: only with `-o wide`), and what it says.
const DEFINITIONS: [(&str, &str, i32, &str); 10] = [
    ("Last Seen", "string", 0, "How long ago it happened last."),
    ("Type", "string", 0, "Normal: nothing here is a warning."),
    ("Reason", "string", 0, "The type of the transition."),
    ("Object", "string", 0, "The object that it is about."),
    ("Subobject", "string", 1, "The part of the object; empty, because these are about whole objects."),
    ("Source", "string", 1, "Who says it."),
    ("Message", "string", 0, "What happened, in a sentence."),
    ("First Seen", "string", 1, "How long ago it happened first."),
    ("Count", "string", 1, "How often it happened: each transition is told by itself."),
    ("Name", "string", 1, "The event's own name, which ends with its cursor."),
];

impl Tabular for Columns {
    fn definitions(&self) -> Value {
        let definition = |(name, type_, priority, about): &(&str, &str, i32, &str)| json!({"name": name, "type": type_, "format": "", "priority": priority, "description": about});
        DEFINITIONS.iter().map(definition).collect()
    }

    fn cells(&self, event: &Value, now: Timestamp) -> Value {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let age = |pointer: &str| text(pointer).parse().map_or_else(|_| "<unknown>".to_owned(), |then| human(then, now));
        let object = format!("{}/{}", text("/involvedObject/kind").to_lowercase(), text("/involvedObject/name"));
        json!([
            age("/lastTimestamp"),
            text("/type"),
            text("/reason"),
            object,
            text("/involvedObject/fieldPath"),
            text("/source/component"),
            text("/message").trim(),
            age("/firstTimestamp"),
            event["count"],
            text("/metadata/name"),
        ])
    }
}
