//! What retention reads and writes within one namespace: superfluous snapshots, their blobs, and old events that have no
//! partition of their own.
//!
//! What makes it safe: the agent is locked first, so no push can return to a snapshot that is about to go; the snapshots are
//! locked next, which keeps every new pin away; only then, in a new statement, is it read which of them nobody is pinned to.
//! The foreign keys say the same once more.

use super::{
    across::Hoard,
    error::{Named, StoreError, expect_rows},
    log::TxLog,
};
use crate::model::snapshot::SnapshotId;
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// Rows that one transaction may delete: of snapshots with their blobs, or of events. No snapshot has more resources.
pub const BATCH_MAX: i64 = 1_000;

/// A snapshot beyond its agent's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superfluous {
    /// Which.
    pub id: SnapshotId,
    /// How many resources it has: it has no more blobs than that.
    pub resources: i32,
}

/// Snapshots of an agent beyond its limit, the oldest first, at most [`BATCH_MAX`]. The latest and those that a chat is pinned to
/// are neither counted nor in it. Of an agent that is gone: all that nobody is pinned to. Those that came after `newest` are counted, and
/// not in it.
pub async fn superfluous(connection: &mut PgConnection, hoard: &Hoard) -> Result<Vec<Superfluous>, StoreError> {
    const NAME: &str = "db.snapshots.superfluous";
    let rows = sqlx::query!(
        r#"SELECT x.id, x.resource_count
           FROM (SELECT s.id, s.revision, s.resource_count, row_number() OVER (ORDER BY s.revision DESC) AS place,
                        coalesce(a.revision_history_limit, 0) AS keep
                 FROM snapshots s
                 LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
                 WHERE s.namespace = $1 AND s.agent_id = $2 AND s.id IS DISTINCT FROM a.latest_snapshot_id
                   AND NOT EXISTS (SELECT FROM chats c WHERE c.namespace = s.namespace AND c.snapshot_id = s.id)) x
           WHERE x.place > x.keep AND x.revision <= $4 ORDER BY x.place DESC LIMIT $3"#,
        hoard.namespace,
        hoard.agent,
        BATCH_MAX,
        hoard.newest
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    Ok(rows.into_iter().map(|row| Superfluous { id: SnapshotId(row.id), resources: row.resource_count }).collect())
}

/// Locks an agent by id, or, when it is gone, what it has left: nobody pushes then, but another replica may be at it.
pub async fn lock(tx: &mut PgConnection, namespace: &str, agent: Uuid) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.lock_by_id";
    const GONE: &str = "db.agents.lock_gone";
    let locked =
        sqlx::query_scalar!("SELECT id FROM agents WHERE namespace = $1 AND id = $2 FOR NO KEY UPDATE", namespace, agent);
    if locked.fetch_optional(&mut *tx).named(NAME).await?.is_none() {
        let what = format!("moorline.retention/{namespace}/{agent}");
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", what).execute(tx).named(GONE).await?;
    }
    Ok(())
}

/// Locks snapshots in the order of their ids, against new pins too. One that is being pinned at this moment is left out.
pub async fn lock_snapshots(
    tx: &mut PgConnection,
    namespace: &str,
    snapshots: &[SnapshotId],
) -> Result<BTreeSet<SnapshotId>, StoreError> {
    const NAME: &str = "db.snapshots.lock";
    let locked = sqlx::query_scalar!(
        "SELECT id FROM snapshots WHERE namespace = $1 AND id = ANY($2) ORDER BY id FOR UPDATE SKIP LOCKED",
        namespace,
        &numbers(snapshots)
    );
    Ok(locked.fetch_all(tx).named(NAME).await?.into_iter().map(SnapshotId).collect())
}

/// Deletes snapshots that are locked, each with an event that holds its last state, and whose it was: the event first, then the row.
pub async fn delete(tx: &mut PgConnection, namespace: &str, snapshots: &[SnapshotId], log: &mut TxLog) -> Result<(), StoreError> {
    const EVENTS: &str = "db.snapshots.delete_events";
    const NAME: &str = "db.snapshots.delete";
    let ids = numbers(snapshots);
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
         SELECT s.namespace, $3, $4 + u.o::integer, 'SnapshotDeleted', NULL, s.name, s.agent_id,
                jsonb_build_object('snapshot', to_jsonb(s), 'serviceAccount', coalesce(a.service_account,
                    (SELECT d.payload -> 'agent' ->> 'service_account' FROM events d
                     WHERE a.id IS NULL AND d.namespace = $1 AND d.subject = s.agent_id AND d.kind IN ('ChatDeleted', 'AgentDeleted'))))
         FROM snapshots s JOIN unnest($2::bigint[]) WITH ORDINALITY AS u (id, o) ON u.id = s.id
         LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
         WHERE s.namespace = $1",
        namespace,
        &ids,
        log.rv,
        log.written
    )
    .execute(&mut *tx)
    .named(EVENTS)
    .await?;
    expect_rows(EVENTS, ids.len(), done.rows_affected())?;
    log.written += i32::try_from(ids.len()).unwrap_or(i32::MAX);
    let done = sqlx::query!("DELETE FROM snapshots WHERE namespace = $1 AND id = ANY($2) AND rv <= $3", namespace, &ids, log.rv);
    let done = done.execute(tx).named(NAME).await?;
    expect_rows(NAME, ids.len(), done.rows_affected())
}

/// Deletes up to [`BATCH_MAX`] blobs that no snapshot of the agent refers to; the agent is locked. Returns how many. It reads what all
/// snapshots of the agent refer to, so it is for when few are left.
pub async fn delete_unused_blobs(tx: &mut PgConnection, namespace: &str, agent: Uuid) -> Result<u64, StoreError> {
    const NAME: &str = "db.blobs.delete_unused";
    // EXCEPT, which is made in one go whatever PostgreSQL believes of what manifests hold.
    let done = sqlx::query!(
        "DELETE FROM blobs b
         WHERE b.namespace = $1 AND b.agent_id = $2 AND b.hash = ANY (ARRAY(
             SELECT x.hash FROM (
                 SELECT u.hash FROM blobs u WHERE u.namespace = $1 AND u.agent_id = $2
                 EXCEPT
                 SELECT decode(substr(r.item ->> 'contentHash', 8), 'hex')
                 FROM snapshots s CROSS JOIN LATERAL jsonb_array_elements(s.manifest) AS r (item)
                 WHERE s.namespace = $1 AND s.agent_id = $2
             ) x LIMIT $3))",
        namespace,
        agent,
        BATCH_MAX
    )
    .execute(tx)
    .named(NAME)
    .await?;
    Ok(done.rows_affected())
}

/// Deletes up to [`BATCH_MAX`] events of the default partition that were written before `cutoff` and are below the floor.
pub async fn delete_strays(tx: &mut PgConnection, namespace: &str, cutoff: Timestamp) -> Result<u64, StoreError> {
    const NAME: &str = "db.events.delete_strays";
    let done = sqlx::query!(
        "DELETE FROM events_default e
         USING (SELECT d.rv, d.seq, d.created_at FROM events_default d
                WHERE d.namespace = $1 AND d.created_at < $2 AND d.rv < (SELECT floor FROM log_state)
                ORDER BY d.rv, d.seq LIMIT $3) old
         WHERE e.namespace = $1 AND e.rv = old.rv AND e.seq = old.seq AND e.created_at = old.created_at",
        namespace,
        cutoff.to_sqlx() as _,
        BATCH_MAX
    )
    .execute(tx)
    .named(NAME)
    .await?;
    Ok(done.rows_affected())
}

fn numbers(snapshots: &[SnapshotId]) -> Vec<i64> {
    snapshots.iter().map(|id| id.0).collect()
}
