//! The few statements that look across namespaces: unlocked peeks, and counts for metrics. Nothing here decides anything.

pub mod objects;

use super::error::{Named, StoreError};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

/// How many days of event partitions are made ahead.
pub const PARTITIONS_AHEAD: i32 = 7;

/// How many namespaces one peek finds at most.
pub const NAMESPACES_MAX: i64 = 64;

/// Namespaces after `after` with chats that are due, in order. DISTINCT, because a bare LIMIT would show one busy namespace only.
pub async fn namespaces_with_due_chats(
    connection: &mut PgConnection,
    after: &str,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    const NAME: &str = "db.chats.peek";
    sqlx::query_scalar!(
        "SELECT DISTINCT namespace FROM chats
         WHERE namespace > $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= $2)
         ORDER BY namespace LIMIT $3",
        after,
        now.to_sqlx() as _,
        NAMESPACES_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// Namespaces after `after` with agents that are due, in order.
pub async fn namespaces_with_due_agents(
    connection: &mut PgConnection,
    after: &str,
    now: Timestamp,
) -> Result<Vec<String>, StoreError> {
    const NAME: &str = "db.agents.peek";
    sqlx::query_scalar!(
        "SELECT DISTINCT namespace FROM agents
         WHERE namespace > $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= $2)
         ORDER BY namespace LIMIT $3",
        after,
        now.to_sqlx() as _,
        NAMESPACES_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// How many records are due, per lane: the depth of the queue, those that wait for their `retry_at` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Chats.
    pub chats: i64,
    /// Agents.
    pub agents: i64,
}

/// The depth of the queue.
pub async fn depth(connection: &mut PgConnection) -> Result<Depth, StoreError> {
    const NAME: &str = "db.queue.depth";
    sqlx::query_as!(
        Depth,
        r#"SELECT (SELECT count(*) FROM chats WHERE converged_revision < revision) AS "chats!",
                  (SELECT count(*) FROM agents WHERE converged_revision < revision) AS "agents!""#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}
