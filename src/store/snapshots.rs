//! Snapshots and the bodies they name.

use super::{
    error::{Named, StoreError},
    rows::snapshot_query,
};
use crate::model::{
    hash::{ContentHash, ContextHash},
    object::Key,
    resource::ResourceMeta,
    snapshot::{Snapshot, SnapshotId, SnapshotWithManifest},
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, types::Json};
use std::collections::HashMap;
use uuid::Uuid;

/// A snapshot by name, with its resources.
pub async fn get(connection: &mut PgConnection, key: &Key) -> Result<Option<SnapshotWithManifest>, StoreError> {
    const NAME: &str = "db.snapshots.get";
    let row = snapshot_query!("WHERE s.namespace = $1 AND s.name = $2", key.namespace, key.name);
    let Some(row) = row.fetch_optional(&mut *connection).named(NAME).await? else { return Ok(None) };
    let snapshot = Snapshot::try_from(row)?;
    let mut manifests = manifests(connection, &key.namespace, &[snapshot.id]).await?;
    Ok(manifests.remove(&snapshot.id).map(|manifest| SnapshotWithManifest { snapshot, manifest }))
}

/// What snapshots list.
pub async fn manifests(
    connection: &mut PgConnection,
    namespace: &str,
    ids: &[SnapshotId],
) -> Result<HashMap<SnapshotId, Vec<ResourceMeta>>, StoreError> {
    const NAME: &str = "db.snapshots.manifests";
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"SELECT id, manifest AS "manifest: Json<Vec<ResourceMeta>>" FROM snapshots WHERE namespace = $1 AND id = ANY($2)"#,
        namespace,
        &ids
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    Ok(rows.into_iter().map(|row| (SnapshotId(row.id), row.manifest.0)).collect())
}

/// Who may push as the agents that made a snapshot: the owner that a reader of it must be.
pub async fn service_account(connection: &mut PgConnection, namespace: &str, agent: Uuid) -> Result<Option<String>, StoreError> {
    const NAME: &str = "db.snapshots.service_account";
    let account = sqlx::query_scalar!("SELECT service_account FROM agents WHERE namespace = $1 AND id = $2", namespace, agent);
    Ok(account.fetch_optional(connection).named(NAME).await?.flatten())
}

/// A snapshot to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewSnapshot<'a> {
    /// Where.
    pub namespace: &'a str,
    /// The agent that reported it.
    pub agent_id: Uuid,
    /// Its name.
    pub agent_name: &'a str,
    /// The agent's next revision.
    pub revision: i64,
    /// The hash of the resources.
    pub hash: &'a ContextHash,
    /// What the agent says is wrong with its scan.
    pub error: &'a str,
    /// The resources, in (kind, source) order.
    pub manifest: &'a [ResourceMeta],
    /// Those of their bodies that the agent did not have.
    pub bodies: &'a [(ContentHash, &'a [u8])],
    /// When.
    pub now: Timestamp,
    /// The version of the transaction.
    pub rv: i64,
}

/// Makes a snapshot of this name, and keeps its bodies, in one statement; the agent is locked. None when the name is taken: then the bodies are
/// kept all the same. That the agent's row is there, without which they would not be, is seen when the push is recorded in it.
pub async fn insert(tx: &mut PgConnection, name: &str, new: &NewSnapshot<'_>) -> Result<Option<SnapshotId>, StoreError> {
    const NAME: &str = "db.snapshots.insert";
    let NewSnapshot { namespace, agent_id, agent_name, revision, hash, error, manifest, bodies, now, rv } = new;
    let degraded = crate::model::resource::count_degraded(*manifest);
    let size: u64 = manifest.iter().map(|resource| resource.size_bytes).sum();
    let hashes: Vec<&[u8]> = bodies.iter().map(|(hash, _)| &hash.as_bytes()[..]).collect();
    let bytes: Vec<&[u8]> = bodies.iter().map(|(_, body)| *body).collect();
    let id = sqlx::query_scalar!(
        "WITH kept AS (
             INSERT INTO blobs (namespace, agent_id, hash, bytes)
             SELECT a.namespace, a.id, u.hash, u.bytes
             FROM agents a JOIN unnest($14::bytea[], $15::bytea[]) AS u (hash, bytes) ON true
             WHERE a.namespace = $1 AND a.id = $2
         )
         INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, error, resource_count,
                                degraded_count, size_bytes, created_at, rv)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (namespace, name) DO NOTHING
         RETURNING id",
        namespace,
        agent_id,
        agent_name,
        name,
        revision,
        &hash.as_bytes()[..],
        Json(manifest) as _,
        error,
        i32::try_from(manifest.len()).unwrap_or(i32::MAX),
        i32::try_from(degraded).unwrap_or(i32::MAX),
        i64::try_from(size).unwrap_or(i64::MAX),
        now.to_sqlx() as _,
        rv,
        &hashes as _,
        &bytes as _
    )
    .fetch_optional(tx)
    .named(NAME)
    .await?;
    Ok(id.map(SnapshotId))
}

/// Bodies of an agent, by the hash of their content.
pub async fn bodies(
    connection: &mut PgConnection,
    namespace: &str,
    agent: Uuid,
    hashes: &[ContentHash],
) -> Result<HashMap<ContentHash, Vec<u8>>, StoreError> {
    const NAME: &str = "db.blobs.get";
    let hashes: Vec<Vec<u8>> = hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect();
    let rows = sqlx::query!(
        "SELECT hash, bytes FROM blobs WHERE namespace = $1 AND agent_id = $2 AND hash = ANY($3)",
        namespace,
        agent,
        &hashes
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    Ok(rows.into_iter().filter_map(|row| Some((ContentHash::from_slice(&row.hash)?, row.bytes))).collect())
}
