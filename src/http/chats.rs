//! `…/chats`.

use super::{
    AppState,
    address::{Path, Query},
    auth::{Asked, Identity},
    lists::Listed,
    negotiate::Warnings,
    objects::{self, PATCH_TRIES, WriteQuery, answer},
    page::{Order, Place, object_version},
    patch::Patch,
    status::{ApiError, Resource},
    table::Form,
    wait::{self, Patience, Seen},
};
use crate::{
    model::{
        access::Reach,
        chat::{ChatDetail, ChatView, Reference},
        drift::Drift,
        fault::{Fault, FaultKind},
        object::{Key, Metadata, Source},
    },
    store::{
        self, StoreError, Write,
        lists::{Slice, Updated},
        rehearse, transact,
    },
    v1alpha1::{
        Chat,
        chat::{LAST_ERROR_MAX, State as WireState},
        meta::length_fault,
    },
    writes::{
        WriteError,
        chats::{CreateChat, DeleteChat, Propagation, ReportChat, UpdateChat, Wanted},
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use sqlx::PgConnection;
use std::time::Duration;

const RESOURCE: Resource = Resource::Chats;
type Names = Path<(String, String)>;

fn asked<'a>(verb: &'static str, subresource: Option<&'static str>, key: &'a Key) -> Asked<'a> {
    Asked { verb, resource: RESOURCE, subresource, namespace: &key.namespace, name: &key.name }
}

fn wire(view: &ChatView) -> Chat {
    Chat::from_view(view, object_version(view.chat.meta.rv))
}

/// Chats, as they are listed.
pub enum Listing {}

impl Listed for Listing {
    const RESOURCE: Resource = RESOURCE;
    type Row = ChatView;
    type Wire = Chat;

    async fn rows(
        moment: &mut PgConnection,
        reach: &Reach,
        slice: &Slice<'_>,
        order: Order,
        after: Option<&Place>,
    ) -> Result<Vec<ChatView>, StoreError> {
        match order {
            Order::Name => store::lists::chats(moment, reach, slice, after.and_then(Place::key)).await,
            Order::Updated => store::lists::chats_updated(moment, reach, slice, after.and_then(Place::updated)).await,
        }
    }

    fn place(row: &ChatView, order: Order) -> Place {
        let Metadata { namespace, name, id, .. } = &row.chat.meta;
        match order {
            Order::Name => Place::Name(Key::new(namespace, name)),
            Order::Updated => Place::Updated(Updated { at: row.chat.updated_at, id: *id }),
        }
    }

    async fn wire(_: &mut PgConnection, rows: Vec<ChatView>) -> Result<Vec<Chat>, StoreError> {
        Ok(rows.iter().map(wire).collect())
    }
}

/// One chat, with what its agent points at and how that differs, as of now.
pub async fn get(
    state: State<AppState>,
    identity: Identity,
    form: Form,
    Path((namespace, name)): Names,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let mut tx = store::one_moment(state.pool()).await?;
    let view = find(&mut tx, &key).await?;
    identity.check(&asked("get", None, &key), Some(&view.chat.spec.owner))?;
    let detail = detail(&mut tx, view).await?;
    drop(tx);
    let chat = Chat::from_detail(&detail, object_version(detail.view.chat.meta.rv));
    form.answer(RESOURCE, &chat, state.clock().now())
}

pub(super) async fn find(connection: &mut PgConnection, key: &Key) -> Result<ChatView, ApiError> {
    store::chats::get(connection, key).await?.ok_or_else(|| ApiError::not_found(RESOURCE, &key.name))
}

async fn detail(connection: &mut PgConnection, view: ChatView) -> Result<ChatDetail, ApiError> {
    let namespace = view.chat.meta.namespace.clone();
    let target = match &view.chat.spec.reference {
        Reference::Unbound => None,
        Reference::Agent(name) => store::agents::get(connection, &Key::new(&namespace, name)).await?,
        Reference::Workspace(workspace) => store::agents::current(connection, &namespace, workspace).await?,
    };
    let latest = target.filter(|target| target.agent.deletion_timestamp.is_none()).and_then(|target| target.latest);
    let differs = view.pinned.as_ref().zip(latest.as_ref());
    let differs = differs.filter(|(pinned, latest)| pinned.agent_id == latest.agent_id && pinned.hash != latest.hash);
    let drift = match differs {
        None => None,
        Some((pinned, latest)) => {
            let manifests = store::snapshots::manifests(connection, &namespace, &[pinned.id, latest.id]).await?;
            manifests.get(&pinned.id).zip(manifests.get(&latest.id)).map(|(from, to)| Drift::between(from, to))
        }
    };
    Ok(ChatDetail { view, latest, drift })
}

/// Waits for the loop, then answers with the chat.
async fn settle(
    state: &AppState,
    headers: &HeaderMap,
    unasked: Option<Duration>,
    view: ChatView,
) -> Result<(ChatView, Option<(axum::http::HeaderName, axum::http::HeaderValue)>), ApiError> {
    let meta = &view.chat.meta;
    let (key, id, revision) = (Key::new(&meta.namespace, &meta.name), meta.id, view.chat.progress.revision);
    wait::wait(state, Patience::of(headers, unasked), view, || async {
        let mut connection = store::acquire(state.pool()).await?;
        let seen = store::chats::get(&mut connection, &key).await?.filter(|view| view.chat.meta.id == id);
        Ok(seen.map(|record| Seen { converged: record.chat.progress.converged_revision >= revision, record }))
    })
    .await
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

/// Creates a chat; unless told otherwise answers when it is pinned.
pub async fn create(
    State(state): State<AppState>,
    identity: Identity,
    Path(namespace): Path<String>,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (validation, rehearsal) = (query.validation()?, query.rehearsal()?);
    let (chat, warnings) = objects::read_object::<Chat>(RESOURCE, &headers, body, validation).await?;
    objects::check_namespace(RESOURCE, &namespace)?;
    let generated = chat.metadata.name.as_deref().is_none_or(str::is_empty);
    for last in [false, false, true] {
        let (key, mut faults) = objects::new_name(RESOURCE, &namespace, &chat.metadata, state.clock())?;
        let desired = match chat.desired(&identity.user) {
            Ok(desired) if faults.is_empty() => desired,
            Ok(_) => return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)),
            Err(more) => {
                faults.extend(more);
                return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults));
            }
        };
        identity.check(&asked("create", None, &key), Some(&desired.spec.owner))?;
        let create = CreateChat {
            clock: state.clock(),
            key: &key,
            spec: &desired.spec,
            labels: &desired.labels,
            annotations: &desired.annotations,
            created_by: &identity.user,
            reach: &identity.reach(),
            source: Source::Api,
        };
        let view = match write(&state, &key.name, rehearsal, &create).await {
            Err(error) if generated && !last && error.code() == StatusCode::CONFLICT => continue,
            result => result?,
        };
        let (view, applied) = if rehearsal { (view, None) } else { settle(&state, &headers, Some(wait::UNASKED), view).await? };
        return Ok(answer(StatusCode::CREATED, &wire(&view), warnings, applied));
    }
    Err(ApiError::internal())
}

/// Replaces a chat's desired columns.
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
    let (chat, warnings) = objects::read_object::<Chat>(RESOURCE, &headers, body, validation).await?;
    let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
    identity.check(&asked("update", None, &key), Some(&old.chat.spec.owner))?;
    let (wanted, known) = read_update(&key, &chat, &old)?;
    let known = known.or_the_same(old.chat.meta.id);
    let update = UpdateChat { clock: state.clock(), key: &key, known, wanted: &wanted, asks: Source::Api };
    let view = write(&state, &key.name, rehearsal, &update).await?;
    let (view, applied) = if rehearsal { (view, None) } else { settle(&state, &headers, None, view).await? };
    Ok(answer(StatusCode::OK, &wire(&view), warnings, applied))
}

/// What an object asks of a chat that exists; all faults of it.
fn read_update(key: &Key, chat: &Chat, old: &ChatView) -> Result<(Wanted, crate::writes::Preconditions), ApiError> {
    let known = objects::known(key, &chat.metadata)?;
    match (chat.desired(&old.chat.spec.owner), known) {
        (Ok(desired), Ok(known)) => {
            let wanted = Wanted { spec: desired.spec, labels: desired.labels, annotations: desired.annotations };
            Ok((wanted, known))
        }
        (desired, known) => {
            let faults: Vec<Fault> = desired.err().into_iter().flatten().chain(known.err()).collect();
            Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults))
        }
    }
}

/// Applies a patch to a chat's desired columns. Unless the patch names a version, it is tried again when the chat changes
/// under it.
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
    let mut tries = 0;
    loop {
        let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
        identity.check(&asked("patch", None, &key), Some(&old.chat.spec.owner))?;
        let (chat, warnings) = patch.apply(RESOURCE, &key.name, &wire(&old), validation)?;
        let (wanted, known) = read_update(&key, &chat, &old)?;
        let known = known.or_as_seen(old.chat.meta.id, old.chat.meta.rv);
        let update = UpdateChat { clock: state.clock(), key: &key, known, wanted: &wanted, asks: Source::Api };
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
        let (view, applied) = settle(&state, &headers, None, view).await?;
        return Ok(answer(StatusCode::OK, &wire(&view), warnings, applied));
    }
}

/// What whoever runs a chat says of it: `status.state` and `status.lastError`, and nothing else.
pub async fn patch_status(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let rehearsal = query.rehearsal()?;
    let patch = Patch::read(&headers, body).await?;
    let mut tries = 0;
    let view = loop {
        let old = find(&mut *store::acquire(state.pool()).await?, &key).await?;
        identity.check(&asked("patch", Some("status"), &key), Some(&old.chat.spec.owner))?;
        let said = patch.says(RESOURCE, &key.name, &wire(&old))?;
        let report = read_report(&said).map_err(|faults| ApiError::invalid(RESOURCE.kind(), &key.name, &faults))?;
        let meta = said.get("metadata").cloned().unwrap_or_else(|| serde_json::json!({}));
        let meta = serde_json::from_value(meta).map_err(|error| ApiError::bad_request(format!("metadata: {error}")))?;
        let known = objects::known(&key, &meta)?.map_err(|fault| ApiError::invalid(RESOURCE.kind(), &key.name, &[fault]))?;
        let (id, rv) = (old.chat.meta.id, old.chat.meta.rv);
        let known = if patch.is_conditional() { known.or_as_seen(id, rv) } else { known.or_the_same(id) };
        let (to, last_error) = (report.0.map(Into::into), report.1.as_deref());
        let report = ReportChat { clock: state.clock(), key: &key, known, state: to, last_error };
        tries += 1;
        let result =
            if rehearsal { rehearse(state.pool(), &report).await } else { transact(state.pool(), state.clock(), &report).await };
        match result {
            Err(WriteError::Changed) if patch.is_conditional() && !patch.versioned && tries < PATCH_TRIES => {}
            result => break result.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?,
        }
    };
    if rehearsal {
        return Ok(answer(StatusCode::OK, &wire(&view), Warnings::default(), None));
    }
    state.wake().work();
    state.wake().events();
    let (view, applied) = settle(&state, &headers, None, view).await?;
    Ok(answer(StatusCode::OK, &wire(&view), Warnings::default(), applied))
}

/// Reads what a patch says of a status.
fn read_report(said: &serde_json::Value) -> Result<(Option<WireState>, Option<String>), Vec<Fault>> {
    let mut faults = Vec::new();
    for field in said
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::keys)
        .filter(|field| !matches!(field.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
    {
        faults.push(Fault::new(field, FaultKind::Forbidden, "only status.state and status.lastError may be written here"));
    }
    let status = said.get("status");
    if let Some(other) = status.filter(|status| !status.is_object()) {
        let message = format!("must be an object with state or lastError, got {other}");
        faults.push(Fault::new("status", FaultKind::TypeInvalid, message));
    }
    let status = status.and_then(serde_json::Value::as_object);
    for field in
        status.into_iter().flatten().map(|(field, _)| field).filter(|field| !matches!(field.as_str(), "state" | "lastError"))
    {
        let message = "only status.state and status.lastError may be written here";
        faults.push(Fault::new(format!("status.{field}"), FaultKind::Forbidden, message));
    }
    let state = match said.pointer("/status/state") {
        None => None,
        Some(value) => {
            let state = serde_json::from_value::<WireState>(value.clone()).ok();
            if state.is_none() {
                let known = crate::model::chat::ChatState::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                faults.push(Fault::new("status.state", FaultKind::NotSupported, format!("must be one of {known}, got {value}")));
            }
            state
        }
    };
    let last_error = match said.pointer("/status/lastError") {
        None => None,
        Some(serde_json::Value::Null) => Some(String::new()),
        Some(serde_json::Value::String(text)) => {
            faults.extend(length_fault("status.lastError", text, LAST_ERROR_MAX));
            Some(text.clone())
        }
        Some(other) => {
            faults.push(Fault::new("status.lastError", FaultKind::TypeInvalid, format!("must be a string, got {other}")));
            None
        }
    };
    if faults.is_empty() { Ok((state, last_error)) } else { Err(faults) }
}

/// Deletes a chat and what is below it; `propagationPolicy: Orphan` keeps that.
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
    identity.check(&asked("delete", None, &key), Some(&old.chat.spec.owner))?;
    let propagation = if deletion.orphan { Propagation::Orphan } else { Propagation::Background };
    let known = deletion.known.or_the_same(old.chat.meta.id);
    let delete = DeleteChat { key: &key, known, propagation, asks: Source::Api };
    let last = write(&state, &key.name, deletion.rehearsal, &delete).await?;
    Ok(objects::deleted(RESOURCE, &key.name, &last.chat.meta.id.to_string()))
}
