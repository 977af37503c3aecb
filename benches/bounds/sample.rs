//! What is looked at every few seconds: the process, what it says of itself, and what PostgreSQL says of its tables.

use anyhow::{Context as _, ensure};
use sqlx::PgPool;
use std::fs;

/// One look.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Seconds since the first.
    pub at: f64,
    /// Of the process: memory in bytes, open files and sockets, threads.
    pub resident: f64,
    pub files: f64,
    pub threads: f64,
    /// Tasks of its runtime, and bytes that it keeps so as not to read them again.
    pub tasks: f64,
    pub contexts: f64,
    pub recent: f64,
    /// Bytes, indexes and large values included.
    pub chats: f64,
    pub agents: f64,
    pub snapshots: f64,
    pub blobs: f64,
    pub events: f64,
    /// Bytes of PostgreSQL's write-ahead log.
    pub wal: f64,
    /// Row versions that nobody needs and nobody has removed.
    pub dead_chats: f64,
    pub dead_agents: f64,
    /// What the loop has before it.
    pub due: f64,
}

/// Whom to look at.
#[derive(Clone)]
pub struct Server {
    pub pid: u32,
    /// Where it serves.
    pub url: String,
    pub http: reqwest::Client,
    /// Of its database.
    pub pool: PgPool,
}

/// Looks at everything.
pub async fn look(server: &Server, at: f64) -> anyhow::Result<Sample> {
    let Server { pid, url, http, pool } = server;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process runs")?;
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
    };
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let sizes: Vec<(String, f64)> = sqlx::query_as(
        "SELECT CASE WHEN relname LIKE 'events%' THEN 'events' ELSE relname::text END, sum(pg_total_relation_size(oid))::float8
         FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace GROUP BY 1",
    )
    .fetch_all(pool)
    .await?;
    let size = |table: &str| sizes.iter().find(|(name, _)| name == table).map_or(0.0, |(_, bytes)| *bytes);
    let dead: Vec<(String, f64)> =
        sqlx::query_as("SELECT relname::text, n_dead_tup::float8 FROM pg_stat_user_tables WHERE relname IN ('chats', 'agents')")
            .fetch_all(pool)
            .await?;
    let dead_in = |table: &str| dead.iter().find(|(name, _)| name == table).map_or(0.0, |(_, rows)| *rows);
    let wal: f64 = sqlx::query_scalar("SELECT sum(size)::float8 FROM pg_ls_waldir()").fetch_one(pool).await?;
    let told = http.get(format!("{url}/metrics")).send().await?.text().await?;
    // A cache that nothing was put into is not told of.
    let metric = |name: &str| -> anyhow::Result<f64> {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(Ok(0.0), |rest| rest.trim().parse().with_context(|| format!("{name}{rest}")))
    };
    let tasks = metric("moorline_tasks ")?;
    ensure!(tasks > 0.0, "a server has tasks");
    Ok(Sample {
        at,
        tasks,
        contexts: metric("moorline_cache_bytes{cache=\"contexts\"} ")?,
        recent: metric("moorline_cache_bytes{cache=\"events\"} ")?,
        wal,
        resident: field("VmRSS:") * 1024.0,
        threads: field("Threads:"),
        files: u32::try_from(files)?.into(),
        chats: size("chats"),
        agents: size("agents"),
        snapshots: size("snapshots"),
        blobs: size("blobs"),
        events: size("events"),
        dead_chats: dead_in("chats"),
        dead_agents: dead_in("agents"),
        due: due(pool).await?,
    })
}

/// How many records are due.
pub async fn due(pool: &PgPool) -> anyhow::Result<f64> {
    let due: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM chats WHERE converged_revision < revision)
              + (SELECT count(*) FROM agents WHERE converged_revision < revision)",
    )
    .fetch_one(pool)
    .await?;
    #[expect(clippy::cast_precision_loss, reason = "a count of rows, for a picture")]
    Ok(due as f64)
}
