//! `…/agents`, their runs and their pushes.

use super::{
    AppState,
    address::{Path, Query},
    auth::{Asked, Identity},
    lists::Listed,
    negotiate::{self, Json, NulAllowed},
    objects::{self, PATCH_TRIES, WriteQuery, answer},
    page::{Order, Place, object_version},
    patch::Patch,
    status::{ApiError, Resource},
    table::Form,
    wait::{self, Patience, Seen},
};
use crate::{
    metrics::METRICS,
    model::{
        access::Reach,
        agent::AgentView,
        fault::Fault,
        object::{Key, Source},
        push::Push,
    },
    store::{self, StoreError, Write, lists::Slice, rehearse, transact},
    v1alpha1::{
        Agent,
        push::{PushRequest, PushResponse, RunResponse, SnapshotRef},
    },
    writes::{
        Preconditions, Refusal, WriteError,
        agents::{CreateAgent, DeleteAgent, RegisterRun, UpdateAgent, Wanted},
        push::AcceptPush,
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use sqlx::PgConnection;

const RESOURCE: Resource = Resource::Agents;
type Names = Path<(String, String)>;

fn asked<'a>(verb: &'static str, subresource: Option<&'static str>, key: &'a Key) -> Asked<'a> {
    Asked { verb, resource: RESOURCE, subresource, namespace: &key.namespace, name: &key.name }
}

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

/// One agent.
pub async fn get(
    state: State<AppState>,
    identity: Identity,
    form: Form,
    Path((namespace, name)): Names,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let view = find(&mut *store::acquire(state.pool()).await?, &key).await?;
    identity.check(&asked("get", None, &key), view.agent.spec.service_account.as_deref())?;
    form.answer(RESOURCE, &wire(&view), state.clock().now())
}

async fn find(connection: &mut PgConnection, key: &Key) -> Result<AgentView, ApiError> {
    store::agents::get(connection, key).await?.ok_or_else(|| ApiError::not_found(RESOURCE, &key.name))
}

/// Does a write, or rehearses it, and tells the loop.
async fn write<W: Write<Error = WriteError>>(
    state: &AppState,
    name: &str,
    rehearsal: bool,
    write: &W,
) -> Result<W::Output, ApiError> {
    let result = if rehearsal { rehearse(state.pool(), write).await } else { transact(state.pool(), state.clock(), write).await };
    let output = result.map_err(|error| ApiError::from_write(RESOURCE, name, error))?;
    if !rehearsal {
        state.wake().work();
        state.wake().events();
    }
    Ok(output)
}

/// Waits for the end of the lap that an agent's change begins, when the client asked to.
async fn settle(
    state: &AppState,
    headers: &HeaderMap,
    view: AgentView,
) -> Result<(AgentView, Option<(HeaderName, HeaderValue)>), ApiError> {
    let meta = &view.agent.meta;
    let (key, id, revision) = (Key::new(&meta.namespace, &meta.name), meta.id, view.agent.progress.revision);
    wait::wait(state, Patience::of(headers, None), view, || async {
        let mut connection = store::acquire(state.pool()).await?;
        let seen = store::agents::get(&mut connection, &key).await?.filter(|view| view.agent.meta.id == id);
        Ok(seen.map(|record| Seen { converged: record.agent.progress.converged_revision >= revision, record }))
    })
    .await
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
    let (mut agent, warnings) = objects::read_object::<Agent>(RESOURCE, &headers, body, validation).await?;
    objects::check_namespace(RESOURCE, &namespace)?;
    let (key, mut faults) = objects::new_name(RESOURCE, &namespace, &agent.metadata, state.clock())?;
    // Whoever may only have agents of his own means one of his own, as the owner of a chat is whoever creates it.
    if let (None, Some(user)) = (&agent.spec.service_account_name, identity.reach().user()) {
        agent.spec.service_account_name = Some(user.to_owned());
    }
    let desired = match agent.desired() {
        Ok(desired) if faults.is_empty() => desired,
        Ok(_) => return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)),
        Err(more) => {
            faults.extend(more);
            return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults));
        }
    };
    identity.check(&asked("create", None, &key), desired.spec.service_account.as_deref())?;
    let create = CreateAgent {
        clock: state.clock(),
        key: &key,
        spec: &desired.spec,
        labels: &desired.labels,
        annotations: &desired.annotations,
        reach: &identity.reach(),
        source: Source::Api,
    };
    let view = write(&state, &key.name, rehearsal, &create).await?;
    let (view, applied) = if rehearsal { (view, None) } else { settle(&state, &headers, view).await? };
    Ok(answer(StatusCode::CREATED, &wire(&view), warnings, applied))
}

/// What an object asks of an agent that exists; all faults of it. The caller must reach the agent as it is and as it would be.
fn read_update(identity: &Identity, asked: &Asked<'_>, key: &Key, agent: &Agent) -> Result<(Wanted, Preconditions), ApiError> {
    let known = objects::known(key, &agent.metadata)?;
    match (agent.desired(), known) {
        (Ok(desired), Ok(known)) => {
            identity.check(asked, desired.spec.service_account.as_deref())?;
            let wanted = Wanted { spec: desired.spec, labels: desired.labels, annotations: desired.annotations };
            Ok((wanted, known))
        }
        (desired, known) => {
            let faults: Vec<Fault> = desired.err().into_iter().flatten().chain(known.err()).collect();
            Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults))
        }
    }
}

/// Replaces an agent's desired columns.
pub async fn update(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let (validation, rehearsal) = (query.validation()?, query.rehearsal()?);
    let (agent, warnings) = objects::read_object::<Agent>(RESOURCE, &headers, body, validation).await?;
    let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
    let asked = asked("update", None, &key);
    identity.check(&asked, old.agent.spec.service_account.as_deref())?;
    let (wanted, known) = read_update(&identity, &asked, &key, &agent)?;
    let known = known.or_the_same(old.agent.meta.id);
    let update = UpdateAgent { key: &key, known, wanted: &wanted, reach: &identity.reach(), asks: Source::Api };
    let view = write(&state, &key.name, rehearsal, &update).await?;
    let (view, applied) = if rehearsal { (view, None) } else { settle(&state, &headers, view).await? };
    Ok(answer(StatusCode::OK, &wire(&view), warnings, applied))
}

/// Applies a patch to an agent's desired columns. Unless the patch names a version, it is tried again when the agent
/// changes under it.
pub async fn patch(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let (validation, rehearsal) = (query.validation()?, query.rehearsal()?);
    let patch = Patch::read(&headers, body).await?;
    let asked = asked("patch", None, &key);
    let mut tries = 0;
    loop {
        let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
        identity.check(&asked, old.agent.spec.service_account.as_deref())?;
        let (agent, warnings) = patch.apply(RESOURCE, &key.name, &wire(&old), validation)?;
        let (wanted, known) = read_update(&identity, &asked, &key, &agent)?;
        let known = known.or_as_seen(old.agent.meta.id, old.agent.meta.rv);
        let update = UpdateAgent { key: &key, known, wanted: &wanted, reach: &identity.reach(), asks: Source::Api };
        tries += 1;
        let result =
            if rehearsal { rehearse(state.pool(), &update).await } else { transact(state.pool(), state.clock(), &update).await };
        let view = match result {
            Err(WriteError::Changed) if !patch.versioned && tries < PATCH_TRIES => continue,
            result => result.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?,
        };
        if rehearsal {
            return Ok(answer(StatusCode::OK, &wire(&view), warnings, None));
        }
        state.wake().work();
        state.wake().events();
        let (view, applied) = settle(&state, &headers, view).await?;
        return Ok(answer(StatusCode::OK, &wire(&view), warnings, applied));
    }
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
    let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
    identity.check(&asked("delete", None, &key), old.agent.spec.service_account.as_deref())?;
    let known = deletion.known.or_the_same(old.agent.meta.id);
    let delete = DeleteAgent { clock: state.clock(), key: &key, known, asks: Source::Api };
    let view = write(&state, &key.name, deletion.rehearsal, &delete).await?;
    if !deletion.rehearsal {
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
    Ok(axum::Json(wire(&view)).into_response())
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
    negotiate::read_body(&headers, body, negotiate::BODY_MAX).await.and_then(|bytes| Json::parse(&bytes, NulAllowed::Nowhere))?;
    let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
    identity.check(&asked("create", Some("runs"), &key), old.agent.spec.service_account.as_deref())?;
    let run = write(&state, &key.name, rehearsal, &RegisterRun { clock: state.clock(), key: &key }).await?;
    Ok((StatusCode::CREATED, axum::Json(RunResponse::new(run.id, run.epoch))).into_response())
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
    let key = Key::new(namespace, name);
    let result = take_push(&state, &identity, &key, &query, &headers, body).await;
    METRICS.pushed(match &result {
        Ok((_, label)) | Err((_, label)) => label,
    });
    result.map(|(response, _)| response).map_err(|(error, _)| error)
}

type Labelled<T> = (T, &'static str);

async fn take_push(
    state: &AppState,
    identity: &Identity,
    key: &Key,
    query: &WriteQuery,
    headers: &HeaderMap,
    body: Body,
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
    let found = async { find(&mut *store::acquire(state.pool()).await?, key).await };
    let old = found.await.map_err(|error: ApiError| (error, "failed"))?;
    identity.check(&asked("update", Some("snapshot"), key), old.agent.spec.service_account.as_deref()).map_err(refused)?;
    let push = Push::try_from(request).map_err(|faults| refused(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)))?;
    let accept = AcceptPush { clock: state.clock(), key, push: &push };
    let answered =
        if rehearsal { rehearse(state.pool(), &accept).await } else { transact(state.pool(), state.clock(), &accept).await };
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
        state.wake().work();
        state.wake().events();
    }
    let snapshot = answered.snapshot.map(|snapshot| SnapshotRef {
        name: snapshot.name,
        hash: snapshot.hash.to_string(),
        revision: snapshot.revision,
    });
    let applied = match Patience::of(headers, None) {
        Patience::None => None,
        Patience::Some { .. } if rehearsal => None,
        Patience::Some { .. } => {
            let view = async { find(&mut *store::acquire(state.pool()).await?, key).await };
            match view.await {
                Ok(view) => settle(state, headers, view).await.ok().and_then(|(_, applied)| applied),
                Err(_) => None,
            }
        }
    };
    Ok((answer(StatusCode::OK, &PushResponse::accepted(answered.changed, snapshot), warnings, applied), label))
}
