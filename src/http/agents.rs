//! `…/agents`, their runs and their pushes.

use super::{
    AppState,
    address::{Path, Query},
    audit,
    auth::Identity,
    lists::Listed,
    negotiate::{self, Json, NulAllowed},
    objects::{self, WriteQuery, answer},
    page::{Order, Place, object_version},
    records::{self, How, Record, Update, asked, find_allowed, find_now, settle, write},
    status::{ApiError, Resource},
    typed::Typed,
    wait::{self, Patience, Seen},
};
use crate::{
    metrics::METRICS,
    model::{
        access::Reach,
        agent::AgentView,
        fault::Fault,
        object::{Key, Metadata, Progress, Source},
        push::Push,
    },
    store::{self, StoreError, Write, lists::Slice, rehearse, transact},
    trace::{self, Step, Story},
    v1alpha1::{
        Agent,
        push::{PushRequest, PushResponse, RunResponse, SnapshotRef},
    },
    writes::{
        Preconditions, Refusal, WriteError,
        agents::{CreateAgent, DeleteAgent, RegisterRun, UpdateAgent, Wanted},
        push::{AcceptPush, PushAnswer, take_repeated},
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use sqlx::PgConnection;
use std::time::Instant;

const RESOURCE: Resource = Resource::Agents;
type Names = Path<(String, String)>;

fn wire(view: &AgentView) -> Agent {
    Agent::from_view(view, object_version(view.agent.meta.rv))
}

/// Agents, as they are listed.
pub enum Listing {}

impl Listed for Listing {
    const RESOURCE: Resource = RESOURCE;
    type Row = AgentView;
    type Wire = Agent;

    async fn rows(
        moment: &mut PgConnection,
        reach: &Reach,
        slice: &Slice<'_>,
        _: Order,
        after: Option<&Place>,
    ) -> Result<Vec<AgentView>, StoreError> {
        store::lists::agents(moment, reach, slice, after.and_then(Place::key)).await
    }

    fn place(row: &AgentView, _: Order) -> Place {
        Place::Name(Key::new(&row.agent.meta.namespace, &row.agent.meta.name))
    }

    async fn wire(_: &mut PgConnection, rows: Vec<AgentView>) -> Result<Vec<Agent>, StoreError> {
        Ok(rows.iter().map(wire).collect())
    }
}

impl Record for AgentView {
    const RESOURCE: Resource = RESOURCE;
    type Wire = Agent;
    type Wanted = Wanted;

    fn meta(&self) -> &Metadata {
        &self.agent.meta
    }

    fn progress(&self) -> &Progress {
        &self.agent.progress
    }

    fn user(&self) -> Option<&str> {
        self.agent.spec.service_account.as_deref()
    }

    fn wire(&self) -> Agent {
        wire(self)
    }

    async fn read(connection: &mut PgConnection, key: &Key) -> Result<Option<Self>, StoreError> {
        store::agents::get(connection, key).await
    }

    /// It has nothing that lists do not have.
    async fn detailed(&self, _: &mut PgConnection) -> Result<Agent, StoreError> {
        Ok(wire(self))
    }

    fn wanted(&self, object: &Agent) -> Result<Wanted, Vec<Fault>> {
        let desired = object.desired()?;
        Ok(Wanted { spec: desired.spec, labels: desired.labels, annotations: desired.annotations })
    }

    fn user_after<'a>(&'a self, wanted: &'a Wanted) -> Option<&'a str> {
        wanted.spec.service_account.as_deref()
    }

    fn names_anew(&self, _: &Wanted) -> bool {
        false
    }

    fn update<'a>(
        update: &'a Update<'a>,
        known: Preconditions,
        wanted: &'a Wanted,
    ) -> impl Write<Output = Self, Error = WriteError> + 'a {
        UpdateAgent { key: update.key, known, wanted, reach: update.reach, asks: Source::Api }
    }
}

/// Creates an agent.
pub async fn create(
    State(state): State<AppState>,
    identity: Identity,
    Path(namespace): Path<String>,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (validation, rehearsal) = (query.validation()?, query.rehearsal()?);
    let Typed { object: mut agent, warnings, faults } =
        objects::read_object::<Agent>(RESOURCE, &headers, body, validation).await?;
    objects::check_namespace(RESOURCE, &namespace)?;
    let (key, of_name) = objects::new_name(RESOURCE, &namespace, &agent.metadata, state.clock())?;
    let mut faults: Vec<Fault> = of_name.into_iter().chain(faults).collect();
    // Whoever may only have agents of his own means one of his own, as the owner of a chat is whoever creates it.
    let asked = asked::<AgentView>("create", None, &key);
    let reach = identity.creates(&asked).await?;
    if agent.spec.service_account_name.is_none() {
        agent.spec.service_account_name = identity.default_owner(RESOURCE, &namespace, &reach);
    }
    let desired = match agent.desired() {
        Ok(desired) if faults.is_empty() => desired,
        Ok(_) => return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)),
        Err(more) => {
            faults.extend(more);
            return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults));
        }
    };
    if !reach.covers(desired.spec.service_account.as_deref()) {
        return Err(identity.forbidden(&asked));
    }
    let create = CreateAgent {
        clock: state.clock(),
        key: &key,
        spec: &desired.spec,
        labels: &desired.labels,
        annotations: &desired.annotations,
        reach: &reach,
        source: Source::Api,
    };
    let view = write(&state, rehearsal, &create).await.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?;
    let how = How { rehearsal, headers: &headers, unasked: None };
    records::answer(&state, how, StatusCode::CREATED, view, None, warnings).await
}

/// Asks for an agent's deletion. It is shown with a deletion timestamp until the loop has let its chats go; they keep their pins.
pub async fn delete(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let deletion = objects::read_deletion(RESOURCE, &key.name, &query, &headers, body).await?;
    let old: AgentView = find_allowed(&state, &identity, &asked::<AgentView>("delete", None, &key), &key).await?;
    let known = deletion.known.or_the_same(old.agent.meta.id);
    let delete = DeleteAgent { clock: state.clock(), key: &key, known, asks: Source::Api };
    let deleted = write(&state, deletion.rehearsal, &delete).await;
    let mut view = deleted.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?;
    if deletion.rehearsal {
        view.agent.meta.rv = old.agent.meta.rv; // it was given none
    } else {
        // Most agents are gone within milliseconds; whoever asks again next then sees that at once.
        let id = view.agent.meta.id;
        let patience = Patience::of(&headers, Some(wait::UNASKED));
        wait::wait(&state, patience, (), || async {
            let seen = store::agents::get(&mut *store::acquire(state.pool()).await?, &key).await?;
            let there = seen.is_some_and(|view| view.agent.meta.id == id);
            Ok(there.then_some(Seen { record: (), converged: false }))
        })
        .await?;
    }
    Ok(audit::written(axum::Json(wire(&view)).into_response(), &view.agent.meta))
}

/// Registers a run: the fencing epoch of this process.
pub async fn register_run(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let rehearsal = query.rehearsal()?;
    negotiate::expect_json(&headers)?;
    let bytes = negotiate::read_body(&headers, body, negotiate::BODY_MAX).await?;
    if !Json::parse(&bytes, NulAllowed::Nowhere)?.value.is_object() {
        return Err(ApiError::bad_request("the request's body must be a JSON object, which may be empty, or nothing"));
    }
    let old: AgentView = find_allowed(&state, &identity, &asked::<AgentView>("create", Some("runs"), &key), &key).await?;
    let registered = write(&state, rehearsal, &RegisterRun { clock: state.clock(), key: &key }).await;
    let run = registered.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?;
    let answer = (StatusCode::CREATED, axum::Json(RunResponse::new(run.id, run.epoch))).into_response();
    Ok(audit::written(answer, &old.agent.meta))
}

/// Takes a push.
pub async fn push(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (key, began) = (Key::new(namespace, name), Instant::now());
    let result = take_push(&state, &identity, &key, &query, &headers, body, began).await;
    let (Ok((_, label)) | Err((_, label))) = &result;
    METRICS.pushed(label, began.elapsed());
    result.map(|(response, _)| response).map_err(|(error, _)| error)
}

/// As most agents push most of the time: what they pushed before. That is one statement.
async fn take(state: &AppState, accept: &AcceptPush<'_>, old: &AgentView) -> Result<PushAnswer, WriteError> {
    match take_repeated(state.pool(), accept, old).await? {
        Some(answer) => Ok(answer),
        None => transact(state.pool(), state.clock(), accept).await,
    }
}

type Labelled<T> = (T, &'static str);

async fn take_push(
    state: &AppState,
    identity: &Identity,
    key: &Key,
    query: &WriteQuery,
    headers: &HeaderMap,
    body: Body,
    began: Instant,
) -> Result<Labelled<Response>, Labelled<ApiError>> {
    let refused = |error: ApiError| (error, "refused");
    negotiate::expect_json(headers).map_err(refused)?;
    let (validation, rehearsal) =
        query.validation().and_then(|validation| Ok((validation, query.rehearsal()?))).map_err(refused)?;
    let Some(_room) = state.room_for_a_push() else { return Err((ApiError::too_many_requests(), "slowed_down")) };
    let bytes = negotiate::read_body(headers, body, negotiate::PUSH_BODY_MAX).await.map_err(refused)?;
    let json = Json::parse(&bytes, NulAllowed::InResourceBodies).map_err(refused)?;
    drop(bytes);
    let (request, warnings) = json.into_type::<PushRequest>(validation).map_err(refused)?;
    let asked = asked::<AgentView>("update", Some("snapshot"), key);
    let old: AgentView = find_allowed(state, identity, &asked, key).await.map_err(|error| {
        let label = if error.code().is_server_error() || error.code() == StatusCode::NOT_FOUND { "failed" } else { "refused" };
        (error, label)
    })?;
    let push = Push::try_from(request).map_err(|faults| refused(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)))?;
    let accept = AcceptPush { clock: state.clock(), key, push: &push };
    let answered = if rehearsal { rehearse(state.pool(), &accept).await } else { take(state, &accept, &old).await };
    let answered = answered.map_err(|error| {
        let label = match &error {
            WriteError::Refused(Refusal::StaleRun { .. }) => "stale_run",
            WriteError::Refused(Refusal::OutOfOrder { .. }) => "out_of_order",
            WriteError::Refused(Refusal::Suspended) => "suspended",
            WriteError::Store(_) => "failed",
            _ => "refused",
        };
        (ApiError::from_write(RESOURCE, &key.name, error), label)
    })?;
    let label = match (rehearsal, answered.replayed, answered.changed) {
        (true, _, _) => "rehearsed",
        (false, true, _) => "replayed",
        (false, false, true) => "changed",
        (false, false, false) => "unchanged",
    };
    if !answered.replayed && !rehearsal {
        if let (true, Some(snapshot)) = (answered.changed, &answered.snapshot) {
            let story = Story { agent: old.agent.meta.id, hash: snapshot.hash };
            let (namespace, agent) = (key.namespace.as_str(), key.name.as_str());
            trace::tell(&story, &Step::Push { namespace, agent, snapshot: &snapshot.name }, began);
        }
        // What changes nothing gives the loop no work, and watchers nothing to look for.
        if answered.shown {
            state.wake().news(&key.namespace, answered.audience);
            state.wake().events();
        }
    }
    let snapshot = answered.snapshot.map(|snapshot| SnapshotRef {
        name: snapshot.name,
        hash: snapshot.hash.to_string(),
        revision: snapshot.revision,
    });
    let applied = match Patience::of(headers, None) {
        Patience::None => None,
        Patience::Some { .. } if rehearsal => None,
        Patience::Some { .. } => match find_now::<AgentView>(state, key).await {
            Ok(view) => {
                let how = How { rehearsal, headers, unasked: None };
                settle(state, how, view).await.ok().and_then(|(_, applied)| applied)
            }
            Err(_) => None,
        },
    };
    let answer = answer(StatusCode::OK, &PushResponse::accepted(answered.changed, snapshot), warnings, applied);
    Ok((audit::written(answer, &old.agent.meta), label))
}
