//! What statements cost, as PostgreSQL counts it: calls, time, pages, bytes of log. And whether the loop has anything left to do.

use anyhow::ensure;
use sqlx::{Executor as _, PgPool};
use std::time::{Duration, Instant};

/// Waits until the loop has nothing to do, for so long at most.
pub async fn settled(pool: &PgPool, within: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let due: i64 = sqlx::query_scalar(
            "SELECT /* bench */ (SELECT count(*) FROM agents WHERE converged_revision < revision)
                  + (SELECT count(*) FROM chats WHERE converged_revision < revision)",
        )
        .fetch_one(pool)
        .await?;
        if due == 0 {
            return Ok(());
        }
        ensure!(began.elapsed() < within, "{due} records are due still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Counts the statements of one database from a moment on, but for the bench's own (`/* bench */`).
pub struct Statements {
    pool: PgPool,
}

/// What all statements of a database cost together.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub struct Total {
    /// How many were run.
    pub calls: f64,
    /// Pages touched, of the cache or not.
    pub pages: f64,
    /// Bytes of log.
    pub wal: f64,
}

impl Statements {
    /// Begins to count.
    pub async fn begin(pool: &PgPool) -> anyhow::Result<Self> {
        pool.execute("SELECT pg_stat_statements_reset()").await?;
        Ok(Self { pool: pool.clone() })
    }

    /// So far.
    pub async fn total(&self) -> anyhow::Result<Total> {
        let sql = "SELECT coalesce(sum(calls), 0)::float8 AS calls, coalesce(sum(shared_blks_hit + shared_blks_read), 0)::float8 AS pages,
                          coalesce(sum(wal_bytes), 0)::float8 AS wal
                   FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%/* bench */%'";
        Ok(sqlx::query_as(sql).fetch_one(&self.pool).await?)
    }

    /// By the operation, of which so many were done: all in calls, and the twelve statements that took longest.
    pub async fn each(&self, operations: f64) -> anyhow::Result<Vec<String>> {
        let Total { calls, pages, wal } = self.total().await?;
        let mut rows = vec![format!(
            "{:.1} statements, {:.0} pages, {:.0} bytes of log",
            calls / operations,
            pages / operations,
            wal / operations
        )];
        let sql = "SELECT calls::float8, total_exec_time::float8, left(regexp_replace(query, '\\s+', ' ', 'g'), 90)
                   FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%/* bench */%'
                   ORDER BY total_exec_time DESC LIMIT 16";
        let statements: Vec<(f64, f64, String)> = sqlx::query_as(sql).fetch_all(&self.pool).await?;
        rows.extend(statements.into_iter().map(|(calls, took, text)| {
            format!("{:>6.2} times, {:>8.1} µs: {text}", calls / operations, took * 1e3 / operations)
        }));
        Ok(rows)
    }
}
