//! What records remember of the manifests they were made from. Locks nothing: whoever writes here has locked the record.

use super::{
    across::objects::halves,
    error::{Named, StoreError, expect_rows},
};
use crate::model::{
    manifest::Manifest,
    object::{Key, Source},
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, types::Json};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Where a record comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The record.
    pub id: Uuid,
    /// Who owns its spec.
    pub source: Source,
    /// The manifest that does, or, with the source `api`, one that did and is gone.
    pub manifest: Option<Manifest>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

fn source(word: &str) -> Source {
    if word == Source::Manifest.as_str() { Source::Manifest } else { Source::Api } // a CHECK knows no third
}

macro_rules! origin {
    ($row:ident) => {
        Origin {
            id: $row.id,
            source: source(&$row.source),
            manifest: $row.manifest.map(|manifest| manifest.0),
            deleting: $row.deleting,
        }
    };
}

/// Where a chat comes from.
pub async fn of_chat(connection: &mut PgConnection, key: &Key) -> Result<Option<Origin>, StoreError> {
    const NAME: &str = "db.manifests.of_chat";
    let row = sqlx::query!(
        r#"SELECT id, source, manifest AS "manifest: Json<Manifest>", false AS "deleting!" FROM chats WHERE namespace = $1 AND name = $2"#,
        key.namespace,
        key.name
    );
    Ok(row.fetch_optional(connection).named(NAME).await?.map(|row| origin!(row)))
}

/// Where an agent comes from.
pub async fn of_agent(connection: &mut PgConnection, key: &Key) -> Result<Option<Origin>, StoreError> {
    const NAME: &str = "db.manifests.of_agent";
    let row = sqlx::query!(
        r#"SELECT id, source, manifest AS "manifest: Json<Manifest>", deletion_timestamp IS NOT NULL AS "deleting!"
           FROM agents WHERE namespace = $1 AND name = $2"#,
        key.namespace,
        key.name
    );
    Ok(row.fetch_optional(connection).named(NAME).await?.map(|row| origin!(row)))
}

/// A chat that is locked has the manifest's spec now.
pub async fn remember_chat(tx: &mut PgConnection, namespace: &str, id: Uuid, manifest: &Manifest) -> Result<(), StoreError> {
    const NAME: &str = "db.manifests.remember_chat";
    let done = sqlx::query!(
        "UPDATE chats SET manifest = $3, source = 'manifest' WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        Json(manifest) as _
    );
    expect_rows(NAME, 1, done.execute(tx).named(NAME).await?.rows_affected())
}

/// An agent that is locked has the manifest's spec now.
pub async fn remember_agent(tx: &mut PgConnection, namespace: &str, id: Uuid, manifest: &Manifest) -> Result<(), StoreError> {
    const NAME: &str = "db.manifests.remember_agent";
    let done = sqlx::query!(
        "UPDATE agents SET manifest = $3, source = 'manifest' WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        Json(manifest) as _
    );
    expect_rows(NAME, 1, done.execute(tx).named(NAME).await?.rows_affected())
}

/// The manifest of a chat that is locked is gone, and the chat stays. Answers its new event number.
pub async fn release_chat(tx: &mut PgConnection, namespace: &str, id: Uuid, rv: i64, now: Timestamp) -> Result<i64, StoreError> {
    const NAME: &str = "db.manifests.release_chat";
    let seq = sqlx::query_scalar!(
        "UPDATE chats SET source = 'api', rv = $3, updated_at = greatest(updated_at, $4), event_seq = event_seq + 1
         WHERE namespace = $1 AND id = $2 AND rv <= $3 RETURNING event_seq",
        namespace,
        id,
        rv,
        now.to_sqlx() as _
    );
    let seq = seq.fetch_optional(tx).named(NAME).await?;
    seq.ok_or(StoreError::Guard { query: NAME, expected: 1, got: 0 })
}

/// The manifest of an agent that is locked is gone, and the agent stays.
pub async fn release_agent(tx: &mut PgConnection, namespace: &str, id: Uuid, rv: i64) -> Result<(), StoreError> {
    const NAME: &str = "db.manifests.release_agent";
    let done = sqlx::query!(
        "UPDATE agents SET source = 'api', rv = $3 WHERE namespace = $1 AND id = $2 AND rv <= $3",
        namespace,
        id,
        rv
    );
    expect_rows(NAME, 1, done.execute(tx).named(NAME).await?.rows_affected())
}

/// A record whose manifest is to be somewhere in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Where it is.
    pub key: Key,
    /// The manifest's uid.
    pub uid: Uuid,
}

/// Chats that are made from manifests, in the order of (namespace, name), after this one.
pub async fn chats_made(connection: &mut PgConnection, after: &Key, limit: i64) -> Result<Vec<Made>, StoreError> {
    const NAME: &str = "db.manifests.chats_made";
    let rows = sqlx::query!(
        r#"SELECT namespace, name, (manifest ->> 'uid')::uuid AS "uid!" FROM chats
           WHERE source = 'manifest' AND manifest IS NOT NULL AND (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3"#,
        after.namespace,
        after.name,
        limit
    );
    let rows = rows.fetch_all(connection).named(NAME).await?.into_iter();
    Ok(rows.map(|row| Made { key: Key::new(row.namespace, row.name), uid: row.uid }).collect())
}

/// Agents that are made from manifests, in the order of (namespace, name), after this one.
pub async fn agents_made(connection: &mut PgConnection, after: &Key, limit: i64) -> Result<Vec<Made>, StoreError> {
    const NAME: &str = "db.manifests.agents_made";
    let rows = sqlx::query!(
        r#"SELECT namespace, name, (manifest ->> 'uid')::uuid AS "uid!" FROM agents
           WHERE source = 'manifest' AND manifest IS NOT NULL AND (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3"#,
        after.namespace,
        after.name,
        limit
    );
    let rows = rows.fetch_all(connection).named(NAME).await?.into_iter();
    Ok(rows.map(|row| Made { key: Key::new(row.namespace, row.name), uid: row.uid }).collect())
}

/// Where chats come from, by name.
pub async fn of_chats_named(connection: &mut PgConnection, keys: &[Key]) -> Result<HashMap<Key, Origin>, StoreError> {
    const NAME: &str = "db.manifests.of_chats_named";
    let (namespaces, names) = halves(keys);
    let rows = sqlx::query!(
        r#"SELECT namespace, name, id, source, manifest AS "manifest: Json<Manifest>", false AS "deleting!" FROM chats
           WHERE (namespace, name) IN (SELECT u.namespace, u.name FROM unnest($1::text[], $2::text[]) AS u (namespace, name))"#,
        &namespaces,
        &names
    );
    let rows = rows.fetch_all(connection).named(NAME).await?.into_iter();
    Ok(rows.map(|row| (Key::new(row.namespace, row.name), origin!(row))).collect())
}

/// Where agents come from, by name.
pub async fn of_agents_named(connection: &mut PgConnection, keys: &[Key]) -> Result<HashMap<Key, Origin>, StoreError> {
    const NAME: &str = "db.manifests.of_agents_named";
    let (namespaces, names) = halves(keys);
    let rows = sqlx::query!(
        r#"SELECT namespace, name, id, source, manifest AS "manifest: Json<Manifest>", deletion_timestamp IS NOT NULL AS "deleting!"
           FROM agents
           WHERE (namespace, name) IN (SELECT u.namespace, u.name FROM unnest($1::text[], $2::text[]) AS u (namespace, name))"#,
        &namespaces,
        &names
    );
    let rows = rows.fetch_all(connection).named(NAME).await?.into_iter();
    Ok(rows.map(|row| (Key::new(row.namespace, row.name), origin!(row))).collect())
}

/// A page of keys of one kind of record, in the order of (namespace, name).
macro_rules! keys_after {
    ($name:ident, $doc:literal, $query:literal, $sql:literal) => {
        #[doc = $doc]
        pub async fn $name(connection: &mut PgConnection, after: &Key, limit: i64) -> Result<Vec<Key>, StoreError> {
            let rows = sqlx::query!($sql, after.namespace, after.name, limit).fetch_all(connection).named($query).await?;
            Ok(rows.into_iter().map(|row| Key::new(row.namespace, row.name)).collect())
        }
    };
}

keys_after!(
    chats_after,
    "All chats after this one.",
    "db.manifests.chats_after",
    "SELECT namespace, name FROM chats WHERE (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3"
);
keys_after!(
    agents_after,
    "All agents after this one.",
    "db.manifests.agents_after",
    "SELECT namespace, name FROM agents WHERE (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3"
);
keys_after!(
    snapshots_after,
    "All snapshots after this one.",
    "db.manifests.snapshots_after",
    "SELECT namespace, name FROM snapshots WHERE (namespace, name) > ($1, $2) ORDER BY namespace, name LIMIT $3"
);

/// Which of these agents were made from manifests.
pub async fn made_agents(
    connection: &mut PgConnection,
    namespaces: &[String],
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, StoreError> {
    const NAME: &str = "db.manifests.made_agents";
    let ids = sqlx::query_scalar!(
        "SELECT id FROM agents WHERE source = 'manifest'
         AND (namespace, id) IN (SELECT u.namespace, u.id FROM unnest($1::text[], $2::uuid[]) AS u (namespace, id))",
        namespaces,
        ids
    );
    Ok(ids.fetch_all(connection).named(NAME).await?.into_iter().collect())
}
