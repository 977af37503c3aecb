//! `…/agentsnapshots`: read-only.

use super::{
    AppState,
    address::Path,
    auth::{Asked, Identity},
    lists::Listed,
    page::{Order, Place, object_version},
    status::{ApiError, Resource},
    table::Form,
};
use crate::{
    model::{
        access::Reach,
        object::Key,
        snapshot::{Snapshot, SnapshotWithManifest},
    },
    store::{self, StoreError, lists::Slice},
    v1alpha1::AgentSnapshot,
};
use axum::{extract::State, response::Response};
use sqlx::PgConnection;

const RESOURCE: Resource = Resource::AgentSnapshots;

fn wire(snapshot: &SnapshotWithManifest) -> AgentSnapshot {
    AgentSnapshot::from_model(snapshot, object_version(snapshot.snapshot.rv))
}

/// Snapshots, as they are listed.
pub enum Listing {}

impl Listed for Listing {
    const RESOURCE: Resource = RESOURCE;
    type Row = Snapshot;
    type Wire = AgentSnapshot;

    async fn rows(
        moment: &mut PgConnection,
        reach: &Reach,
        slice: &Slice<'_>,
        _: Order,
        after: Option<&Place>,
    ) -> Result<Vec<Snapshot>, StoreError> {
        store::lists::snapshots(moment, reach, slice, after.and_then(Place::key)).await
    }

    fn place(row: &Snapshot, _: Order) -> Place {
        Place::Name(Key::new(&row.namespace, &row.name))
    }

    /// Adds what each snapshot lists; one namespace at a time.
    async fn wire(moment: &mut PgConnection, rows: Vec<Snapshot>) -> Result<Vec<AgentSnapshot>, StoreError> {
        let mut found = Vec::with_capacity(rows.len());
        for of_namespace in rows.chunk_by(|a, b| a.namespace == b.namespace) {
            let ids: Vec<_> = of_namespace.iter().map(|snapshot| snapshot.id).collect();
            let mut manifests = store::snapshots::manifests(moment, &of_namespace[0].namespace, &ids).await?;
            found.extend(of_namespace.iter().map(|snapshot| {
                let manifest = manifests.remove(&snapshot.id).expect("a moment shows the same rows twice");
                wire(&SnapshotWithManifest { snapshot: snapshot.clone(), manifest })
            }));
        }
        Ok(found)
    }
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
    let asked = Asked { verb: "get", resource: RESOURCE, subresource: None, namespace: &key.namespace, name: &key.name };
    let Some(found) = found else {
        drop(connection);
        return Err(identity.missing(&asked).await);
    };
    let account = store::snapshots::service_account(&mut connection, &key.namespace, found.snapshot.agent_id).await?;
    drop(connection); // nobody is asked while it is held
    identity.check(&asked, account.as_deref()).await?;
    form.answer(RESOURCE, &wire(&found), state.clock().now())
}
