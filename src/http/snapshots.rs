//! `…/agentsnapshots`: read-only.

use super::{
    AppState,
    address::{Path, Query},
    auth::{Asked, Identity},
    objects,
    page::{self, Continue, ListQuery, object_version},
    status::{ApiError, Resource},
    table::Form,
    watch::{self, IfWatch},
};
use crate::{
    model::{
        object::Key,
        snapshot::{Snapshot, SnapshotWithManifest},
    },
    store::{self, lists::Slice},
    v1alpha1::AgentSnapshot,
};
use axum::{extract::State, response::Response};
use sqlx::PgConnection;

const RESOURCE: Resource = Resource::AgentSnapshots;

fn wire(snapshot: &SnapshotWithManifest) -> AgentSnapshot {
    AgentSnapshot::from_model(snapshot, object_version(snapshot.snapshot.rv))
}

/// Of every namespace: the list, or a watch.
pub async fn list_all(
    State(state): State<AppState>,
    identity: Identity,
    IfWatch(watch): IfWatch,
    form: Result<Form, ApiError>,
    query: Query<ListQuery>,
) -> Result<Response, ApiError> {
    match watch {
        Some(watch) => watch::serve(&state, &identity, RESOURCE, None, watch).await,
        None => page(&state, &identity, form?, None, query.0).await,
    }
}

/// Of one namespace: the list, or a watch.
pub async fn list(
    State(state): State<AppState>,
    identity: Identity,
    IfWatch(watch): IfWatch,
    form: Result<Form, ApiError>,
    Path(namespace): Path<String>,
    query: Query<ListQuery>,
) -> Result<Response, ApiError> {
    objects::check_namespace(RESOURCE, &namespace)?;
    match watch {
        Some(watch) => watch::serve(&state, &identity, RESOURCE, Some(&namespace), watch).await,
        None => page(&state, &identity, form?, Some(&namespace), query.0).await,
    }
}

async fn page(
    state: &AppState,
    identity: &Identity,
    form: Form,
    namespace: Option<&str>,
    query: ListQuery,
) -> Result<Response, ApiError> {
    let wanted = query.read(RESOURCE)?;
    let mut connection = store::acquire(state.pool()).await?;
    let version = page::first_version(&mut connection, &wanted).await?;
    let namespace = wanted.namespace(namespace);
    let reach = identity.reach();
    let mut items: Vec<AgentSnapshot> = Vec::new();
    let mut after = wanted.continued.as_ref().map(Continue::key);
    let more = loop {
        let limit = page::next(wanted.limit, items.len());
        let slice = Slice { namespace, labels: &wanted.labels, fields: &wanted.fields, after: after.as_ref(), limit: limit + 1 };
        let mut rows = store::lists::snapshots(&mut connection, &reach, &slice).await?;
        let more = page::cut(&mut rows, limit);
        if let Some(last) = rows.last() {
            after = Some(Key::new(&last.namespace, &last.name));
        }
        items.extend(with_manifests(&mut connection, rows).await?.iter().map(wire));
        if !more || page::is_full(wanted.limit, items.len()) {
            break more;
        }
    };
    let continued = after.filter(|_| more).map(|last| Continue::after(&last, version, &wanted).encode());
    let list = objects::list(RESOURCE.kind(), &items, &page::list_version(version), continued);
    Ok(form.answer_list(RESOURCE, list, state.clock().now()))
}

/// Adds what each snapshot lists; one namespace at a time.
async fn with_manifests(connection: &mut PgConnection, rows: Vec<Snapshot>) -> Result<Vec<SnapshotWithManifest>, ApiError> {
    let mut found = Vec::with_capacity(rows.len());
    for of_namespace in rows.chunk_by(|a, b| a.namespace == b.namespace) {
        let ids: Vec<_> = of_namespace.iter().map(|snapshot| snapshot.id).collect();
        let mut manifests = store::snapshots::manifests(connection, &of_namespace[0].namespace, &ids).await?;
        // A snapshot that retention took between the two statements is not there any more.
        found.extend(of_namespace.iter().filter_map(|snapshot| {
            let manifest = manifests.remove(&snapshot.id)?;
            Some(SnapshotWithManifest { snapshot: snapshot.clone(), manifest })
        }));
    }
    Ok(found)
}

/// One snapshot.
pub async fn get(
    State(state): State<AppState>,
    identity: Identity,
    form: Form,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let mut connection = store::acquire(state.pool()).await?;
    let found = store::snapshots::get(&mut connection, &key).await?;
    let found = found.ok_or_else(|| ApiError::not_found(RESOURCE, &key.name))?;
    let account = store::snapshots::service_account(&mut connection, &key.namespace, found.snapshot.agent_id).await?;
    let asked = Asked { verb: "get", resource: RESOURCE, subresource: None, namespace: &key.namespace, name: &key.name };
    identity.check(&asked, account.as_deref())?;
    form.answer(RESOURCE, &wire(&found), state.clock().now())
}
