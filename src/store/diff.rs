//! A chat's pin beside what its target points at.

use super::{
    error::{Named, StoreError},
    rows::At,
};
use crate::model::{hash::ContextHash, object::Key, resource::ResourceMeta, snapshot::SnapshotId};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// A chat, and both ends of a comparison, as one statement saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Ends {
    /// The chat's uid.
    pub chat_id: Uuid,
    /// The chat's owner.
    pub owner: String,
    /// The chat's version.
    pub rv: i64,
    /// Whether the chat names an agent, or a workspace.
    pub names_one: bool,
    /// The agent it names now, if that is there.
    pub target: Option<String>,
    /// The pin; none while the chat has no pin.
    pub pinned: Option<End>,
    /// What the target points at; none before its first complete push.
    pub latest: Option<End>,
}

/// One end: a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// What pins refer to.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// Its hash.
    pub hash: ContextHash,
    /// The agent it came from.
    pub agent_id: Uuid,
    /// That agent's name.
    pub agent_name: String,
    /// Its resources, in (kind, source) order. Empty when both ends have one hash: then there is nothing to compare.
    pub manifest: Vec<ResourceMeta>,
}

struct EndRow {
    id: Option<i64>,
    name: Option<String>,
    hash: Option<Vec<u8>>,
    agent_id: Option<Uuid>,
    agent_name: Option<String>,
    manifest: Option<Json<Vec<ResourceMeta>>>,
}

impl EndRow {
    fn into_end(self, namespace: &str) -> Result<Option<End>, StoreError> {
        let Self {
            id: Some(id),
            name: Some(name),
            hash: Some(hash),
            agent_id: Some(agent_id),
            agent_name: Some(agent_name),
            manifest,
        } = self
        else {
            return Ok(None);
        };
        let hash = At { table: "snapshots", namespace, name: &name }.hash("context_hash", &hash)?;
        let manifest = manifest.map(|manifest| manifest.0).unwrap_or_default();
        Ok(Some(End { id: SnapshotId(id), name, hash, agent_id, agent_name, manifest }))
    }
}

/// Both ends, of one moment.
pub async fn ends(connection: &mut PgConnection, key: &Key) -> Result<Option<Ends>, StoreError> {
    const NAME: &str = "db.diff.ends";
    let row = sqlx::query!(
        r#"
        SELECT c.id, c.owner, c.rv, c.agent IS NOT NULL OR c.workspace IS NOT NULL AS "names_one!", t.name AS "target?",
               s.id AS "s_id?", s.name AS "s_name?", s.context_hash AS "s_hash?", s.agent_id AS "s_agent_id?",
               s.agent_name AS "s_agent_name?",
               CASE WHEN s.context_hash <> l.context_hash THEN s.manifest END AS "s_manifest: Json<Vec<ResourceMeta>>",
               l.id AS "l_id?", l.name AS "l_name?", l.context_hash AS "l_hash?", l.agent_id AS "l_agent_id?",
               l.agent_name AS "l_agent_name?",
               CASE WHEN s.context_hash <> l.context_hash THEN l.manifest END AS "l_manifest: Json<Vec<ResourceMeta>>"
        FROM chats c
        LEFT JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
        LEFT JOIN LATERAL (
            SELECT a.name, a.latest_snapshot_id FROM agents a
            WHERE a.namespace = c.namespace AND a.name = c.agent AND a.deletion_timestamp IS NULL
            UNION ALL
            (SELECT a.name, a.latest_snapshot_id FROM agents a
             WHERE a.namespace = c.namespace AND a.workspace = c.workspace AND a.deletion_timestamp IS NULL
             ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1)
        ) t ON true
        LEFT JOIN snapshots l ON l.namespace = c.namespace AND l.id = t.latest_snapshot_id
        WHERE c.namespace = $1 AND c.name = $2
        "#,
        key.namespace,
        key.name
    )
    .fetch_optional(connection)
    .named(NAME)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let pinned = EndRow {
        id: row.s_id,
        name: row.s_name,
        hash: row.s_hash,
        agent_id: row.s_agent_id,
        agent_name: row.s_agent_name,
        manifest: row.s_manifest,
    };
    let latest = EndRow {
        id: row.l_id,
        name: row.l_name,
        hash: row.l_hash,
        agent_id: row.l_agent_id,
        agent_name: row.l_agent_name,
        manifest: row.l_manifest,
    };
    Ok(Some(Ends {
        chat_id: row.id,
        owner: row.owner,
        rv: row.rv,
        names_one: row.names_one,
        target: row.target,
        pinned: pinned.into_end(&key.namespace)?,
        latest: latest.into_end(&key.namespace)?,
    }))
}
