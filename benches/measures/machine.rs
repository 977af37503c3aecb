//! What sort of machine this is: enough to judge a figure by, and nothing that says whose it is.

use super::stats::{median, short};
use moorline::embedded::Embedded;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::time::Instant;

/// Commits that are timed.
const COMMITS: usize = 101;

/// Cores, memory, load, the server's version, and what a commit costs here.
pub async fn facts(server: &Embedded) -> anyhow::Result<Value> {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let memory = read("/proc/meminfo").lines().find_map(|line| line.strip_prefix("MemTotal:").map(|kib| kib.trim().to_owned()));
    let load = read("/proc/loadavg").split(' ').next().map(str::to_owned);
    let mut connection = PgConnection::connect_with(&server.connect_options("postgres")).await?;
    let version: String = sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await?;
    let settings: Vec<(String, String)> = sqlx::query_as(
        "SELECT name, current_setting(name) FROM pg_settings
         WHERE name IN ('fsync', 'synchronous_commit', 'full_page_writes', 'shared_buffers', 'max_wal_size', 'track_commit_timestamp')
         ORDER BY name",
    )
    .fetch_all(&mut connection)
    .await?;
    connection.execute("CREATE TABLE spent (n int)").await?;
    let (mut empty, mut commit) = (Vec::new(), Vec::new());
    for _ in 0..COMMITS {
        let began = Instant::now();
        connection.execute("SELECT 1").await?;
        empty.push(began.elapsed().as_secs_f64() * 1e6);
        let began = Instant::now();
        connection.execute("INSERT INTO spent VALUES (1)").await?;
        commit.push(began.elapsed().as_secs_f64() * 1e6);
    }
    connection.execute("DROP TABLE spent").await?;
    connection.close().await?;
    Ok(json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory": memory,
        "loadAtBegin": load,
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "postgresql": version,
        "settings": settings.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "roundTripMicroseconds": short(median(&empty)),
        "flushedCommitMicroseconds": short(median(&commit)),
    }))
}
