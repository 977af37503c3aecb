//! The objects that a part of the log speaks of, as they stand now, whatever their namespaces: for the one tail of the log that
//! a process has. Unlocked; nothing here decides anything.

use crate::{
    model::{
        agent::AgentView,
        chat::ChatView,
        object::Key,
        resource::ResourceMeta,
        snapshot::{Snapshot, SnapshotWithManifest},
    },
    store::{
        error::{Named, StoreError},
        rows::{agent_query, chat_query},
    },
};
use jiff_sqlx::Timestamp as SqlTs;
use sqlx::{PgConnection, types::Json};
use std::collections::HashMap;
use uuid::Uuid;

/// Chats by namespace and uid.
pub async fn chats(connection: &mut PgConnection, namespaces: &[String], ids: &[Uuid]) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.across.chats";
    let rows = chat_query!(
        "WHERE (c.namespace, c.id) IN (SELECT u.namespace, u.id FROM unnest($1::text[], $2::uuid[]) AS u (namespace, id))",
        namespaces,
        ids
    );
    rows.fetch_all(connection).named(NAME).await?.into_iter().map(ChatView::try_from).collect()
}

/// Agents by namespace and uid.
pub async fn agents(connection: &mut PgConnection, namespaces: &[String], ids: &[Uuid]) -> Result<Vec<AgentView>, StoreError> {
    const NAME: &str = "db.across.agents";
    let rows = agent_query!(
        "WHERE (a.namespace, a.id) IN (SELECT u.namespace, u.id FROM unnest($1::text[], $2::uuid[]) AS u (namespace, id))",
        namespaces,
        ids
    );
    rows.fetch_all(connection).named(NAME).await?.into_iter().map(AgentView::try_from).collect()
}

/// Chats by namespace and name.
pub async fn chats_named(connection: &mut PgConnection, keys: &[Key]) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.across.chats_named";
    let (namespaces, names) = halves(keys);
    let rows = chat_query!(
        "WHERE (c.namespace, c.name) IN (SELECT u.namespace, u.name FROM unnest($1::text[], $2::text[]) AS u (namespace, name))",
        &namespaces,
        &names
    );
    rows.fetch_all(connection).named(NAME).await?.into_iter().map(ChatView::try_from).collect()
}

/// Agents by namespace and name.
pub async fn agents_named(connection: &mut PgConnection, keys: &[Key]) -> Result<Vec<AgentView>, StoreError> {
    const NAME: &str = "db.across.agents_named";
    let (namespaces, names) = halves(keys);
    let rows = agent_query!(
        "WHERE (a.namespace, a.name) IN (SELECT u.namespace, u.name FROM unnest($1::text[], $2::text[]) AS u (namespace, name))",
        &namespaces,
        &names
    );
    rows.fetch_all(connection).named(NAME).await?.into_iter().map(AgentView::try_from).collect()
}

/// Keys, as two arrays that a statement takes.
pub(in crate::store) fn halves(keys: &[Key]) -> (Vec<String>, Vec<String>) {
    keys.iter().map(|key| (key.namespace.clone(), key.name.clone())).unzip()
}

/// A snapshot, and who may push as its agent: the owner that a reader of it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnedSnapshot {
    /// The snapshot.
    pub found: SnapshotWithManifest,
    /// The service account of its agent; none when that is gone or has none.
    pub service_account: Option<String>,
}

/// Snapshots by namespace and name.
pub async fn snapshots(connection: &mut PgConnection, keys: &[Key]) -> Result<Vec<OwnedSnapshot>, StoreError> {
    const NAME: &str = "db.across.snapshots";
    let (namespaces, names) = halves(keys);
    let rows = sqlx::query!(
        r#"
        SELECT s.namespace, s.id, s.agent_id, s.agent_name, s.name, s.revision, s.context_hash, s.error, s.resource_count,
               s.degraded_count, s.size_bytes, s.created_at AS "created_at: SqlTs", s.rv,
               s.manifest AS "manifest: Json<Vec<ResourceMeta>>", a.service_account AS "service_account?"
        FROM snapshots s
        LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
        WHERE (s.namespace, s.name) IN (SELECT u.namespace, u.name FROM unnest($1::text[], $2::text[]) AS u (namespace, name))
        "#,
        &namespaces,
        &names
    );
    let rows = rows.fetch_all(connection).named(NAME).await?;
    let owned = rows.into_iter().map(|row| {
        let manifest = row.manifest.0;
        let snapshot = Snapshot::try_from(crate::store::rows::SnapshotRow {
            namespace: row.namespace,
            id: row.id,
            agent_id: row.agent_id,
            agent_name: row.agent_name,
            name: row.name,
            revision: row.revision,
            context_hash: row.context_hash,
            error: row.error,
            resource_count: row.resource_count,
            degraded_count: row.degraded_count,
            size_bytes: row.size_bytes,
            created_at: row.created_at,
            rv: row.rv,
        })?;
        Ok(OwnedSnapshot { found: SnapshotWithManifest { snapshot, manifest }, service_account: row.service_account })
    });
    owned.collect()
}

/// The owners of chats that are gone, from the events of their deletion.
pub async fn owners_of_deleted(
    connection: &mut PgConnection,
    namespaces: &[String],
    names: &[String],
    ids: &[Uuid],
) -> Result<HashMap<Uuid, String>, StoreError> {
    const NAME: &str = "db.across.owners_of_deleted";
    let rows = sqlx::query!(
        r#"
        SELECT u.id AS "id!", e.payload -> 'chat' ->> 'owner' AS owner
        FROM unnest($1::text[], $2::text[], $3::uuid[]) AS u (namespace, name, id)
        JOIN events e ON e.namespace = u.namespace AND e.name = u.name AND e.chat_id = u.id AND e.kind = 'ChatDeleted'
        "#,
        namespaces,
        names,
        ids
    );
    let rows = rows.fetch_all(connection).named(NAME).await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.id, row.owner?))).collect())
}
