//! The few statements that look across namespaces: unlocked peeks, and counts for metrics. Nothing here decides anything.

pub mod census;
pub mod objects;

use super::error::{Named, StoreError};
use sqlx::PgConnection;
use uuid::Uuid;

/// How many days of event partitions are made ahead.
pub const PARTITIONS_AHEAD: i32 = 7;

/// How many namespaces one peek finds at most.
pub const NAMESPACES_MAX: i64 = 64;

/// Namespaces after `after` with chats that are due, in order. DISTINCT, because a bare LIMIT would show one busy namespace only.
pub async fn namespaces_with_due_chats(connection: &mut PgConnection, after: &str) -> Result<Vec<String>, StoreError> {
    const NAME: &str = "db.chats.peek";
    sqlx::query_scalar!(
        "SELECT DISTINCT namespace FROM chats
         WHERE namespace > $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= now())
         ORDER BY namespace LIMIT $2",
        after,
        NAMESPACES_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// Namespaces after `after` with agents that are due, in order.
pub async fn namespaces_with_due_agents(connection: &mut PgConnection, after: &str) -> Result<Vec<String>, StoreError> {
    const NAME: &str = "db.agents.peek";
    sqlx::query_scalar!(
        "SELECT DISTINCT namespace FROM agents
         WHERE namespace > $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= now())
         ORDER BY namespace LIMIT $2",
        after,
        NAMESPACES_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// An agent of whose snapshots some may be superfluous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hoard {
    /// Where.
    pub namespace: String,
    /// The agent, which may be gone.
    pub agent: Uuid,
    /// The highest revision that it had when it was looked at. What comes later is for the next look.
    pub newest: i64,
}

/// Agents with more snapshots than their limit and the latest, and agents that are gone and have left any: at most 64, in the
/// order of (namespace, agent), after `after`. Pins are not looked at here.
pub async fn hoards(connection: &mut PgConnection, after: Option<&Hoard>) -> Result<Vec<Hoard>, StoreError> {
    const NAME: &str = "db.snapshots.hoards";
    // Said of the agents as well: of a join in the order of both, PostgreSQL would else read the agents from the first on.
    let (namespace, agent) = after.map_or(("", Uuid::nil()), |after| (after.namespace.as_str(), after.agent));
    sqlx::query_as!(
        Hoard,
        r#"SELECT s.namespace, s.agent_id AS agent, max(s.revision) AS "newest!"
           FROM snapshots s
           LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id AND (a.namespace, a.id) > ($1, $2)
           WHERE (s.namespace, s.agent_id) > ($1, $2)
           GROUP BY s.namespace, s.agent_id, a.revision_history_limit
           HAVING count(*) > coalesce(a.revision_history_limit + 1, 0)
           ORDER BY s.namespace, s.agent_id LIMIT 64"#,
        namespace,
        agent
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}
