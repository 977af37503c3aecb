//! Chats, one at a time or by the subtree: reading them, and writing their desired and reported columns.

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
    rows::{At, chat_query},
};
use crate::model::{
    chat::{Chat, ChatView, PinCause},
    hash::{ContentHash, ContextHash},
    object::Key,
    resource::ResourceMeta,
    snapshot::SnapshotId,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use std::collections::HashMap;
use uuid::Uuid;

/// A chat by name.
pub async fn get(connection: &mut PgConnection, key: &Key) -> Result<Option<ChatView>, StoreError> {
    const NAME: &str = "db.chats.get";
    let row = chat_query!("WHERE c.namespace = $1 AND c.name = $2", key.namespace, key.name);
    row.fetch_optional(connection).named(NAME).await?.map(ChatView::try_from).transpose()
}

/// A chat by id.
pub async fn get_by_id(connection: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Option<ChatView>, StoreError> {
    const NAME: &str = "db.chats.get_by_id";
    let row = chat_query!("WHERE c.namespace = $1 AND c.id = $2", namespace, id);
    row.fetch_optional(connection).named(NAME).await?.map(ChatView::try_from).transpose()
}

/// Locks a chat. What the statement that waited saw must not be decided from: read it again afterwards.
pub async fn lock(tx: &mut PgConnection, key: &Key) -> Result<Option<Uuid>, StoreError> {
    const NAME: &str = "db.chats.lock";
    sqlx::query_scalar!("SELECT id FROM chats WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE", key.namespace, key.name)
        .fetch_optional(tx)
        .named(NAME)
        .await
}

/// A chat that is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// Its id.
    pub id: Uuid,
    /// Where its row stands (`ctid`): there for as long as it is locked and not written. Looked up there a chat costs one page,
    /// while an index leads to every version of it that is not cleaned up yet. The namespace beside it is compared as POSIX, for which there
    /// is no index: of a namespace that statistics do not know yet PostgreSQL thinks that it has one chat, and would rather read all it has.
    pub place: String,
}

/// Locks chats in the order of their ids, and waits for whoever holds one. Returns those that are still there.
pub async fn lock_all(tx: &mut PgConnection, namespace: &str, ids: &[Uuid]) -> Result<Vec<Locked>, StoreError> {
    const NAME: &str = "db.chats.lock_all";
    sqlx::query_as!(
        Locked,
        r#"SELECT id, ctid::text AS "place!" FROM chats WHERE namespace = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE"#,
        namespace,
        ids
    )
    .fetch_all(tx)
    .named(NAME)
    .await
}

/// The ids of a chat and everything below it, in no order. As wherever a tree is walked, each chat is looked up by the namespace of its
/// parent and not by the parameter: of a namespace that statistics do not know PostgreSQL would go through all chats for each.
pub async fn subtree(connection: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Vec<Uuid>, StoreError> {
    const NAME: &str = "db.chats.subtree";
    sqlx::query_scalar!(
        r#"
        WITH RECURSIVE tree AS (
            SELECT c.namespace, c.id FROM chats c WHERE c.namespace = $1 AND c.id = $2
            UNION
            SELECT c.namespace, c.id FROM chats c JOIN tree ON c.namespace = tree.namespace AND c.parent_id = tree.id
        )
        SELECT id AS "id!" FROM tree
        "#,
        namespace,
        id
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// Locks a chat and everything below it in id order, looks again in a new statement, and asks for another try when the
/// tree grew meanwhile.
pub async fn lock_subtree(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Vec<Uuid>, StoreError> {
    let found = subtree(tx, namespace, id).await?;
    let locked: Vec<Uuid> = lock_all(tx, namespace, &found).await?.into_iter().map(|chat| chat.id).collect();
    let again = subtree(tx, namespace, id).await?;
    if again.iter().all(|id| locked.binary_search(id).is_ok()) {
        return Ok(locked.into_iter().filter(|id| again.contains(id)).collect());
    }
    Err(StoreError::Guard { query: "db.chats.lock_subtree", expected: again.len() as u64, got: locked.len() as u64 })
}

/// Inserts a chat with the desired columns of `chat`, and with its pin, if it inherits one. False when the name is taken.
pub async fn insert(tx: &mut PgConnection, chat: &Chat) -> Result<bool, StoreError> {
    const NAME: &str = "db.chats.insert";
    let Chat { meta, spec, inherited_archived, source, paused, parent_id, root_id, created_by, .. } = chat;
    let pin = chat.pin.as_ref();
    let inserted = sqlx::query_scalar!(
        "INSERT INTO chats (namespace, id, name, labels, annotations, rv, owner, title, agent, workspace, refresh_policy, suspend,
                            archived, inherited_archived, refresh_requested, reconcile_requested, paused, parent_id, root_id,
                            deletion_policy, source, created_by, created_at, updated_at, snapshot_id, pin_cause, pinned_at,
                            event_seq)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $23,
                 $24, $25, $26, $27)
         ON CONFLICT (namespace, name) DO NOTHING
         RETURNING id",
        meta.namespace,
        meta.id,
        meta.name,
        Json(&meta.labels) as _,
        Json(&meta.annotations) as _,
        meta.rv,
        spec.owner,
        spec.title,
        spec.reference.agent(),
        spec.reference.workspace(),
        spec.refresh_policy.as_str(),
        spec.suspend,
        spec.archived,
        inherited_archived,
        chat.refresh_requested,
        meta.annotations.get(crate::model::object::RECONCILE_ANNOTATION),
        paused,
        *parent_id,
        root_id,
        spec.deletion_policy.as_str(),
        source.as_str(),
        created_by,
        meta.created_at.to_sqlx() as _,
        pin.map(|pin| pin.snapshot.0),
        pin.map(|pin| pin.cause.as_str()),
        pin.map(|pin| pin.at.to_sqlx()) as _,
        chat.event_seq,
    )
    .fetch_optional(tx)
    .named(NAME)
    .await?;
    Ok(inserted.is_some())
}

/// Writes the desired and reported columns of a chat that is locked, with its new generation, revision and event number. A new
/// revision may mend what the loop failed on, so it is not waited with.
pub async fn update(tx: &mut PgConnection, chat: &Chat) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.update";
    let Chat { meta, spec, .. } = chat;
    let done = sqlx::query!(
        "UPDATE chats SET labels = $3, annotations = $4, generation = $5, rv = $6, title = $7, agent = $8, workspace = $9,
                          refresh_policy = $10, suspend = $11, archived = $12, refresh_requested = $13,
                          reconcile_requested = $14, paused = $15, deletion_policy = $16, updated_at = $17, state = $18,
                          last_error = $19, revision = $20, event_seq = $21,
                          attempts = CASE WHEN revision = $20 THEN attempts ELSE 0 END,
                          retry_at = CASE WHEN revision = $20 THEN retry_at END
         WHERE namespace = $1 AND id = $2 AND rv <= $6",
        meta.namespace,
        meta.id,
        Json(&meta.labels) as _,
        Json(&meta.annotations) as _,
        meta.generation,
        meta.rv,
        spec.title,
        spec.reference.agent(),
        spec.reference.workspace(),
        spec.refresh_policy.as_str(),
        spec.suspend,
        spec.archived,
        chat.refresh_requested,
        meta.annotations.get(crate::model::object::RECONCILE_ANNOTATION),
        chat.paused,
        spec.deletion_policy.as_str(),
        chat.updated_at.to_sqlx() as _,
        chat.state.as_str(),
        chat.last_error,
        chat.progress.revision,
        chat.event_seq,
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Asks for a refresh of a chat that is locked. Nothing that the object shows changes, so neither does its version.
pub async fn request_refresh(tx: &mut PgConnection, namespace: &str, id: Uuid, token: &str) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.request_refresh";
    let done = sqlx::query!(
        "UPDATE chats SET refresh_requested = $3, revision = revision + 1, attempts = 0, retry_at = NULL
         WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        token
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Recomputes the inherited flag of everything below these chats, whose own flags are as they should be: below an archived chat
/// everything is archived; below any other, what has no archived ancestor is not. All of the subtree is locked. Those that
/// change become due; nothing that they show changes here.
pub async fn spread_archived(tx: &mut PgConnection, namespace: &str, ids: &[Uuid]) -> Result<u64, StoreError> {
    const NAME: &str = "db.chats.spread_archived";
    let done = sqlx::query!(
        "WITH RECURSIVE tree AS (
             SELECT c.namespace, c.id, c.archived OR c.inherited_archived AS below FROM chats c
             WHERE c.namespace = $1 AND c.id = ANY($2)
             UNION ALL
             SELECT c.namespace, c.id, c.archived OR tree.below
             FROM chats c JOIN tree ON c.namespace = tree.namespace AND c.parent_id = tree.id
         ), flags AS (
             SELECT c.namespace, c.id, parent.below AS inherited
             FROM chats c JOIN tree parent ON c.namespace = parent.namespace AND c.parent_id = parent.id
         )
         UPDATE chats c SET inherited_archived = flags.inherited, revision = c.revision + 1, attempts = 0, retry_at = NULL
         FROM flags
         WHERE c.namespace = flags.namespace AND c.id = flags.id AND c.inherited_archived <> flags.inherited",
        namespace,
        ids
    )
    .execute(tx)
    .named(NAME)
    .await?;
    Ok(done.rows_affected())
}

/// Lets the children of a chat go, all of which are locked: each becomes the root of its own subtree, with an event.
pub async fn orphan_children(
    tx: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    children: &[Uuid],
    log: &mut TxLog,
) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.orphan";
    const EVENTS: &str = "db.chats.orphan_events";
    let done = sqlx::query!(
        "UPDATE chats SET parent_id = NULL, root_id = id, inherited_archived = false, generation = generation + 1,
                          revision = revision + 1, attempts = 0, retry_at = NULL, event_seq = event_seq + 1, rv = $3
         WHERE namespace = $1 AND parent_id = $2 AND rv <= $3",
        namespace,
        id,
        log.rv
    )
    .execute(&mut *tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, children.len(), done.rows_affected())?;
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, chat_seq, payload)
         SELECT c.namespace, c.rv, $3 + u.o::integer, 'ChatUpdated', c.id, c.name, c.id, c.event_seq, '{}'
         FROM chats c JOIN unnest($2::uuid[]) WITH ORDINALITY AS u (id, o) ON u.id = c.id
         WHERE c.namespace = $1 AND c.rv = $4",
        namespace,
        children,
        log.written,
        log.rv
    )
    .execute(tx)
    .named(EVENTS)
    .await?;
    expect_rows(EVENTS, children.len(), done.rows_affected())?;
    log.written += i32::try_from(children.len()).unwrap_or(i32::MAX);
    Ok(())
}

/// Gives everything below chats that became roots the new root.
pub async fn reroot(tx: &mut PgConnection, namespace: &str, roots: &[Uuid]) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.reroot";
    sqlx::query!(
        "WITH RECURSIVE tree AS (
             SELECT c.namespace, c.id, c.id AS root FROM chats c WHERE c.namespace = $1 AND c.id = ANY($2)
             UNION
             SELECT c.namespace, c.id, tree.root FROM chats c JOIN tree ON c.namespace = tree.namespace AND c.parent_id = tree.id
         )
         UPDATE chats c SET root_id = tree.root FROM tree
         WHERE c.namespace = tree.namespace AND c.id = tree.id AND c.root_id <> tree.root",
        namespace,
        roots
    )
    .execute(tx)
    .named(NAME)
    .await?;
    Ok(())
}

/// The direct children of a chat, in the order of their ids.
pub async fn children(connection: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Vec<Uuid>, StoreError> {
    const NAME: &str = "db.chats.children";
    sqlx::query_scalar!("SELECT id FROM chats WHERE namespace = $1 AND parent_id = $2 ORDER BY id", namespace, id)
        .fetch_all(connection)
        .named(NAME)
        .await
}

/// Deletes chats that are locked, each with an event that holds its last state: the event first, then the row.
pub async fn delete(tx: &mut PgConnection, namespace: &str, ids: &[Uuid], log: &mut TxLog) -> Result<(), StoreError> {
    const EVENTS: &str = "db.chats.delete_events";
    const NAME: &str = "db.chats.delete";
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         SELECT c.namespace, $3, $4 + u.o::integer, 'ChatDeleted', c.id, c.name, c.id, s.agent_id, c.event_seq + 1,
                jsonb_build_object('chat', to_jsonb(c), 'snapshot', to_jsonb(s) - 'manifest', 'parent', p.name)
         FROM chats c
         JOIN unnest($2::uuid[]) WITH ORDINALITY AS u (id, o) ON u.id = c.id
         LEFT JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
         LEFT JOIN chats p ON p.namespace = c.namespace AND p.id = c.parent_id
         WHERE c.namespace = $1",
        namespace,
        ids,
        log.rv,
        log.written
    )
    .execute(&mut *tx)
    .named(EVENTS)
    .await?;
    expect_rows(EVENTS, ids.len(), done.rows_affected())?;
    log.written += i32::try_from(ids.len()).unwrap_or(i32::MAX);
    let done = sqlx::query!("DELETE FROM chats WHERE namespace = $1 AND id = ANY($2) AND rv <= $3", namespace, ids, log.rv)
        .execute(tx)
        .named(NAME)
        .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())
}

/// A chat's pinned resources, as one statement saw them: binding and pin are one fact.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredContext {
    /// The chat's uid.
    pub chat_id: Uuid,
    /// The chat's owner.
    pub owner: String,
    /// The chat's version.
    pub rv: i64,
    /// The pin, with its resources; none while the chat has no pin.
    pub pin: Option<StoredPin>,
}

/// The pin of a [`StoredContext`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPin {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub snapshot_name: String,
    /// Its hash.
    pub hash: ContextHash,
    /// What the agent said was wrong with its scan.
    pub error: String,
    /// The bound agent.
    pub agent_id: Uuid,
    /// Its name.
    pub agent_name: String,
    /// Why the pin is there.
    pub cause: PinCause,
    /// Since when.
    pub at: Timestamp,
    /// The resources, in (kind, source) order.
    pub manifest: Vec<ResourceMeta>,
    /// The bodies, by the hash of their content. Empty when they were not asked for.
    pub bodies: HashMap<ContentHash, Vec<u8>>,
    /// The live class of the bound agent; empty when that agent is gone.
    pub live: Value,
    /// Counts changes of the live class.
    pub live_revision: i64,
}

/// What a chat is pinned to, with bodies when asked for: one indexed read.
pub async fn context(connection: &mut PgConnection, key: &Key, bodies: bool) -> Result<Option<StoredContext>, StoreError> {
    const NAME: &str = "db.chats.context";
    let row = sqlx::query!(
        r#"
        SELECT c.id, c.owner, c.rv, c.pin_cause, c.pinned_at AS "pinned_at: jiff_sqlx::Timestamp",
               s.id AS "s_id?", s.name AS "s_name?", s.context_hash AS "s_hash?", s.error AS "s_error?",
               s.agent_id AS "s_agent_id?", s.agent_name AS "s_agent_name?", s.manifest AS "manifest?: Json<Vec<ResourceMeta>>",
               a.live_resources AS "live?", a.live_revision AS "live_revision?",
               b.hashes AS "hashes: Vec<Vec<u8>>", b.bodies AS "bodies: Vec<Vec<u8>>"
        FROM chats c
        LEFT JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
        LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
        LEFT JOIN LATERAL (
            SELECT array_agg(b.hash) AS hashes, array_agg(b.bytes) AS bodies
            FROM blobs b
            WHERE $3 AND b.namespace = s.namespace AND b.agent_id = s.agent_id AND b.hash = ANY (ARRAY(
                SELECT decode(substr(r ->> 'contentHash', 8), 'hex') FROM jsonb_array_elements(s.manifest) r
            ))
        ) b ON true
        WHERE c.namespace = $1 AND c.name = $2
        "#,
        key.namespace,
        key.name,
        bodies
    )
    .fetch_optional(connection)
    .named(NAME)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let at = At { table: "chats", namespace: &key.namespace, name: &key.name };
    let pin = match (row.s_id, row.s_name, row.s_hash, row.s_agent_id, row.s_agent_name, row.manifest) {
        (Some(id), Some(snapshot_name), Some(hash), Some(agent_id), Some(agent_name), Some(manifest)) => {
            let found = row.hashes.unwrap_or_default().into_iter().zip(row.bodies.unwrap_or_default());
            Some(StoredPin {
                snapshot: SnapshotId(id),
                snapshot_name,
                hash: at.hash("context_hash", &hash)?,
                error: row.s_error.unwrap_or_default(),
                agent_id,
                agent_name,
                cause: at.word("pin_cause", row.pin_cause.as_deref().unwrap_or_default())?,
                at: row.pinned_at.ok_or_else(|| at.bad("pinned_at", "a pin without its time"))?.to_jiff(),
                manifest: manifest.0,
                bodies: found.filter_map(|(hash, body)| Some((ContentHash::from_slice(&hash)?, body))).collect(),
                live: row.live.unwrap_or_else(|| Value::Array(Vec::new())),
                live_revision: row.live_revision.unwrap_or(0),
            })
        }
        _ => None,
    };
    Ok(Some(StoredContext { chat_id: row.id, owner: row.owner, rv: row.rv, pin }))
}
