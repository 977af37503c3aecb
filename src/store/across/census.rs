//! Numbers for metrics. Each statement reads an index, or what PostgreSQL counts anyway.

use crate::store::error::{Named, StoreError};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// How many records are due in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// All of them, those that wait for their `retry_at` included.
    pub due: i64,
    /// Of them, those on which the loop has failed.
    pub aside: i64,
}

/// How many chats are due.
pub async fn chats_due(connection: &mut PgConnection) -> Result<Depth, StoreError> {
    const NAME: &str = "db.census.chats_due";
    sqlx::query_as!(
        Depth,
        r#"SELECT count(*) AS "due!", count(*) FILTER (WHERE attempts > 0) AS "aside!" FROM chats WHERE converged_revision < revision"#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// How many agents are due.
pub async fn agents_due(connection: &mut PgConnection) -> Result<Depth, StoreError> {
    const NAME: &str = "db.census.agents_due";
    sqlx::query_as!(
        Depth,
        r#"SELECT count(*) AS "due!", count(*) FILTER (WHERE attempts > 0) AS "aside!" FROM agents WHERE converged_revision < revision"#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// A record that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Due {
    /// Which.
    pub id: Uuid,
    /// What it has converged to: another number means that it is due anew.
    pub converged: i64,
    /// The last chat of an agent's running lap that has been told.
    pub place: Option<Uuid>,
}

/// How many records one look at those that wait takes.
pub const WAITING_MAX: i64 = 1_000;

/// The first chats that are due and on which the loop has not failed.
pub async fn chats_waiting(connection: &mut PgConnection) -> Result<Vec<Due>, StoreError> {
    const NAME: &str = "db.census.chats_waiting";
    sqlx::query_as!(
        Due,
        r#"SELECT id, converged_revision AS converged, NULL::uuid AS place FROM chats
           WHERE converged_revision < revision AND attempts = 0 ORDER BY namespace, id LIMIT $1"#,
        WAITING_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// The first agents that are due and on which the loop has not failed. A lap over many chats is work, and not waiting: an
/// agent whose place in its lap has moved counts as another.
pub async fn agents_waiting(connection: &mut PgConnection) -> Result<Vec<Due>, StoreError> {
    const NAME: &str = "db.census.agents_waiting";
    sqlx::query_as!(
        Due,
        r#"SELECT id, converged_revision AS converged, fanout_cursor AS place FROM agents
           WHERE converged_revision < revision AND attempts = 0 ORDER BY namespace, id LIMIT $1"#,
        WAITING_MAX
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// How many chats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chats {
    /// All.
    pub all: i64,
    /// With a pin.
    pub with_pin: i64,
    /// That have drifted.
    pub drifted: i64,
}

/// How many chats there are: three counts of indexes.
pub async fn chats(connection: &mut PgConnection) -> Result<Chats, StoreError> {
    const NAME: &str = "db.census.chats";
    sqlx::query_as!(
        Chats,
        r#"SELECT (SELECT count(*) FROM chats) AS "all!",
                  (SELECT count(*) FROM chats WHERE snapshot_id IS NOT NULL) AS "with_pin!",
                  (SELECT count(*) FROM chats WHERE dirty_since IS NOT NULL) AS "drifted!""#
    )
    .fetch_one(connection)
    .named(NAME)
    .await
}

/// The tables whose dead rows are counted.
pub const TABLES: [&str; 5] = ["agents", "blobs", "chats", "events", "snapshots"];

/// How much of each of [`TABLES`] is dead rows, of at least a thousand; the log's partitions together. Small tables, which
/// nobody vacuums, are not worth a word.
pub async fn dead(connection: &mut PgConnection) -> Result<[(&'static str, f64); 5], StoreError> {
    const NAME: &str = "db.census.dead";
    let rows = sqlx::query!(
        r#"SELECT CASE WHEN relname ~ '^events_' THEN 'events' ELSE relname::text END AS "name!",
                  (sum(n_dead_tup) / greatest(sum(n_dead_tup + n_live_tup), 1000))::double precision AS "ratio!"
           FROM pg_stat_user_tables
           WHERE schemaname = current_schema() AND (relname IN ('agents', 'blobs', 'chats', 'snapshots') OR relname ~ '^events_')
           GROUP BY 1"#
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    Ok(TABLES.map(|table| (table, rows.iter().find(|row| row.name == table).map_or(0.0, |row| row.ratio))))
}

/// How old the oldest transaction is that keeps dead rows of this database from being removed: of a session that holds a
/// snapshot or has an id, or a prepared one. What our role may not see of others' sessions does not count; neither does vacuum,
/// which holds nobody back.
pub async fn oldest_xmin(connection: &mut PgConnection) -> Result<Duration, StoreError> {
    const NAME: &str = "db.census.oldest_xmin";
    let seconds = sqlx::query_scalar!(
        r#"SELECT coalesce(max(extract(epoch FROM clock_timestamp() - o.began)), 0)::double precision AS "seconds!"
           FROM (SELECT a.xact_start AS began FROM pg_stat_activity a
                 WHERE a.datname = current_database() AND (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
                   AND a.pid <> pg_backend_pid() AND a.backend_type <> 'autovacuum worker'
                 UNION ALL
                 SELECT p.prepared FROM pg_prepared_xacts p WHERE p.database = current_database()) o"#
    )
    .fetch_one(connection)
    .named(NAME)
    .await?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
