//! `…/chats`.

use super::{
    AppState,
    address::{Path, Query},
    audit,
    auth::{Asked, Identity},
    lists::Listed,
    negotiate::Warnings,
    objects::{self, PATCH_TRIES, WriteQuery},
    page::{Order, Place, object_version},
    patch::Patch,
    records::{self, How, Record, Update, asked, find_allowed, find_shown, write},
    status::{ApiError, Resource},
    typed::{self, Typed},
    wait,
};
use crate::{
    model::{
        access::Reach,
        chat::{ChatDetail, ChatState, ChatView, Reference},
        drift::Drift,
        fault::{Fault, FaultKind},
        object::{Key, Metadata, Progress, Source},
        snapshot::Snapshot,
    },
    store::{
        self, StoreError, Write,
        lists::{Slice, Updated},
    },
    v1alpha1::{
        Chat,
        chat::{LAST_ERROR_MAX, State as WireState},
        meta::length_fault,
    },
    writes::{
        Preconditions, WriteError,
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

const RESOURCE: Resource = Resource::Chats;
type Names = Path<(String, String)>;

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

impl Record for ChatView {
    const RESOURCE: Resource = RESOURCE;
    type Wire = Chat;
    type Wanted = Wanted;

    fn meta(&self) -> &Metadata {
        &self.chat.meta
    }

    fn progress(&self) -> &Progress {
        &self.chat.progress
    }

    fn user(&self) -> Option<&str> {
        Some(&self.chat.spec.owner)
    }

    fn wire(&self) -> Chat {
        wire(self)
    }

    async fn read(connection: &mut PgConnection, key: &Key) -> Result<Option<Self>, StoreError> {
        store::chats::get(connection, key).await
    }

    /// With what its agent points at and how that differs.
    async fn detailed(&self, connection: &mut PgConnection) -> Result<Chat, StoreError> {
        let (latest, drift) = drift(connection, self).await?;
        Ok(Chat::from_detail(&ChatDetail { view: self.clone(), latest, drift }, object_version(self.chat.meta.rv)))
    }

    fn wanted(&self, object: &Chat) -> Result<Wanted, Vec<Fault>> {
        let desired = object.desired(&self.chat.spec.owner)?;
        Ok(Wanted { spec: desired.spec, labels: desired.labels, annotations: desired.annotations })
    }

    /// Its owner is immutable.
    fn user_after<'a>(&'a self, _: &'a Wanted) -> Option<&'a str> {
        self.user()
    }

    fn names_anew(&self, wanted: &Wanted) -> bool {
        wanted.spec.reference != Reference::Unbound && wanted.spec.reference != self.chat.spec.reference
    }

    fn update<'a>(
        update: &'a Update<'a>,
        known: Preconditions,
        wanted: &'a Wanted,
    ) -> impl Write<Output = Self, Error = WriteError> + 'a {
        UpdateChat { clock: update.clock, key: update.key, known, wanted, asks: Source::Api }
    }
}

/// What a chat's agent points at, and how that differs from the pin.
async fn drift(connection: &mut PgConnection, view: &ChatView) -> Result<(Option<Snapshot>, Option<Drift>), StoreError> {
    let namespace = view.chat.meta.namespace.as_str();
    let target = match &view.chat.spec.reference {
        Reference::Unbound => None,
        Reference::Agent(name) => store::agents::get(connection, &Key::new(namespace, name)).await?,
        Reference::Workspace(workspace) => store::agents::current(connection, namespace, workspace).await?,
    };
    let latest = target.filter(|target| target.agent.deletion_timestamp.is_none()).and_then(|target| target.latest);
    let differs = view.pinned.as_ref().zip(latest.as_ref());
    let differs = differs.filter(|(pinned, latest)| pinned.agent_id == latest.agent_id && pinned.hash != latest.hash);
    let drift = match differs {
        None => None,
        Some((pinned, latest)) => {
            let manifests = store::snapshots::manifests(connection, namespace, &[pinned.id, latest.id]).await?;
            manifests.get(&pinned.id).zip(manifests.get(&latest.id)).map(|(from, to)| Drift::between(from, to))
        }
    };
    Ok((latest, drift))
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
    let how = How { rehearsal, headers: &headers, unasked: Some(wait::UNASKED) };
    let Typed { object: chat, warnings, faults } = objects::read_object::<Chat>(RESOURCE, &headers, body, validation).await?;
    objects::check_namespace(RESOURCE, &namespace)?;
    let of_namespace = Asked { verb: "create", resource: RESOURCE, subresource: None, namespace: &namespace, name: "" };
    let reach = identity.creates(&of_namespace).await?;
    // A child is given its parent's pin, and so all that may be read of the parent's context.
    let contexts = Asked { verb: "get", subresource: Some("context"), ..of_namespace };
    let parents = if chat.spec.parent_ref.is_some() { identity.reach(&contexts).await } else { reach.clone() };
    let generated = chat.metadata.name.as_deref().is_none_or(str::is_empty);
    for last in [false, false, true] {
        let (key, of_name) = objects::new_name(RESOURCE, &namespace, &chat.metadata, state.clock())?;
        let mut faults: Vec<Fault> = of_name.into_iter().chain(faults.iter().cloned()).collect();
        let desired = match chat.desired(&identity.user) {
            Ok(desired) if faults.is_empty() => desired,
            Ok(_) => return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults)),
            Err(more) => {
                faults.extend(more);
                return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults));
            }
        };
        if !reach.covers(Some(&desired.spec.owner)) {
            return Err(identity.forbidden(&asked::<ChatView>("create", None, &key)));
        }
        let create = CreateChat {
            clock: state.clock(),
            key: &key,
            spec: &desired.spec,
            labels: &desired.labels,
            annotations: &desired.annotations,
            created_by: &identity.user,
            reach: &parents,
            source: Source::Api,
        };
        match write(&state, rehearsal, &create).await {
            Err(WriteError::AlreadyExists) if generated && !last => {}
            Err(error) => return Err(ApiError::from_write(RESOURCE, &key.name, error)),
            Ok(view) => return records::answer(&state, how, StatusCode::CREATED, view, None, warnings).await,
        }
    }
    Err(ApiError::internal())
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
    query.validation()?; // there is no choice here; what is no word of it is refused all the same
    let how = How { rehearsal: query.rehearsal()?, headers: &headers, unasked: None };
    let patch = Patch::read(&headers, body).await?;
    let asked = asked::<ChatView>("patch", Some("status"), &key);
    let mut tries = 0;
    loop {
        let (old, shown) = find_shown::<ChatView>(&state, &identity, &asked, &key).await?;
        let said = patch.says(RESOURCE, &key.name, &shown)?;
        let report = read_report(&said).map_err(|faults| ApiError::invalid(RESOURCE.kind(), &key.name, &faults))?;
        let meta = said.get("metadata").cloned().unwrap_or_else(|| serde_json::json!({}));
        let meta = serde_json::from_value(meta).map_err(|error| ApiError::bad_request(format!("metadata: {error}")))?;
        let known = objects::known(&key, &meta)?.map_err(|fault| ApiError::invalid(RESOURCE.kind(), &key.name, &[fault]))?;
        let (id, rv) = (old.chat.meta.id, old.chat.meta.rv);
        let known = if patch.is_conditional() { known.or_as_seen(id, rv) } else { known.or_the_same(id) };
        let (to, last_error) = (report.0.map(Into::into), report.1.as_deref());
        let report = ReportChat { clock: state.clock(), key: &key, known, state: to, last_error };
        tries += 1;
        match write(&state, how.rehearsal, &report).await {
            Err(WriteError::Changed) if patch.is_conditional() && !patch.versioned && tries < PATCH_TRIES => {}
            Err(error) => return Err(ApiError::from_write(RESOURCE, &key.name, error)),
            Ok(view) => return records::answer(&state, how, StatusCode::OK, view, Some(rv), Warnings::default()).await,
        }
    }
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
                let words: Vec<serde_json::Value> = ChatState::ALL.iter().map(|state| state.as_str().into()).collect();
                let message = typed::not_supported(value, &words.iter().collect::<Vec<_>>());
                faults.push(Fault::new("status.state", FaultKind::NotSupported, message));
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
    let old: ChatView = find_allowed(&state, &identity, &asked::<ChatView>("delete", None, &key), &key).await?;
    let propagation = if deletion.orphan { Propagation::Orphan } else { Propagation::Background };
    let known = deletion.known.or_the_same(old.chat.meta.id);
    let delete = DeleteChat { key: &key, known, propagation, asks: Source::Api };
    let deleted = write(&state, deletion.rehearsal, &delete).await;
    let last = deleted.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?;
    Ok(audit::written(objects::deleted(RESOURCE, &key.name, &last.chat.meta.id.to_string()), &last.chat.meta))
}
