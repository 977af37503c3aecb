//! Resource bounds: a day of a large company, compressed, on a real PostgreSQL and a real `moorline serve`. Every few seconds it is
//! looked how large everything is; in the end each thing is compared with its bound (docs/testing.md), and the curves are drawn.
//!
//! Started by hand (`make bounds`), stops by itself: `CHATS=` (1,000,000), `AGENTS=` (10,000), `HOLD=` seconds that another
//! session holds an old snapshot (600), `OUT=` where the curves go. It measures no speed, and how long it takes depends on the machine.

#![expect(clippy::cast_precision_loss, reason = "numbers for a picture")]

#[path = "bounds/day.rs"]
mod day;
#[path = "bounds/sample.rs"]
mod sample;
#[path = "bounds/svg.rs"]
mod svg;
#[expect(dead_code, unused_imports, reason = "of the tests' trace this needs its resources alone")]
#[path = "../tests/support/trace.rs"]
mod trace;

use anyhow::{Context as _, ensure};
use moorline::{
    embedded::{self, Embedded},
    store,
};
use sample::{Sample, Server, due, look};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use svg::{Panel, Span, human};
use tokio::{task::AbortHandle, time::sleep};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(2);
/// Snapshots that an agent keeps besides the pinned ones and its latest.
pub const HISTORY: i64 = 2;
/// How many pushes are under way at once, and how many watchers there are.
pub const PUSHERS: usize = 4;
/// See above.
pub const WATCHERS: usize = 20;
/// Connections that a replica has to its database: the pool, and two for wake-ups.
const CONNECTIONS: f64 = 18.0;

/// Tasks of a server that nobody asks: lanes, timers, and what PostgreSQL and the kernel are listened to with.
const TASKS: f64 = 48.0;
/// Bytes of the newest events that watchers read from, and of the encoded contexts that were read last (docs/metrics.md).
const RECENT: f64 = (48 << 20) as f64;
/// See above.
const CONTEXTS: f64 = (8 << 20) as f64;
/// `max_wal_size` of the server, in bytes.
const WAL: f64 = 4_096.0 * 1024.0 * 1024.0;

/// A process that ends with this.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn asked(name: &str, or: u64) -> anyhow::Result<u64> {
    match std::env::var(name) {
        Ok(text) if !text.is_empty() => text.trim_end_matches('s').parse().with_context(|| format!("{name}={text}")),
        Ok(_) | Err(_) => Ok(or),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (chats, agents, hold) = (asked("CHATS", 1_000_000)?, asked("AGENTS", 10_000)?, asked("HOLD", 600)?);
    let server = postgres().await?;
    let outcome = run(&server, chats, agents, Duration::from_secs(hold)).await;
    server.stop().await?;
    outcome
}

async fn postgres() -> anyhow::Result<Embedded> {
    let settings = [("shared_buffers", "512MB"), ("max_wal_size", "4GB"), ("autovacuum_naptime", "15s"), ("track_counts", "on")];
    let data_dir = tempfile::tempdir()?.keep().join("data");
    let parent = data_dir.parent().context("a folder")?.to_owned();
    std::fs::set_permissions(&parent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    Ok(embedded::start(embedded::Options { data_dir, pg_bin: None, ephemeral: true, settings }).await?)
}

/// Counts of a table's writes so far.
async fn updates(pool: &PgPool, table: &str) -> anyhow::Result<f64> {
    let count: i64 =
        sqlx::query_scalar("SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = $1").bind(table).fetch_one(pool).await?;
    Ok(count as f64)
}

async fn number(pool: &PgPool, sql: &'static str) -> anyhow::Result<f64> {
    let number: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(number as f64)
}

const TRANSITIONS: &str = "SELECT count(*) FROM events WHERE chat_id IS NOT NULL";

async fn until_nothing_is_due(pool: &PgPool) -> anyhow::Result<()> {
    let began = Instant::now();
    while due(pool).await? > 0.0 {
        ensure!(began.elapsed() < Duration::from_mins(60), "an hour, and {} records are still due", due(pool).await?);
        sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// What was looked at so far, by a task of its own.
fn looking(server: &Server, began: Instant) -> (Arc<Mutex<Vec<Sample>>>, AbortHandle) {
    let samples = Arc::new(Mutex::new(Vec::new()));
    let (kept, server) = (samples.clone(), server.clone());
    let task = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            match look(&server, began.elapsed().as_secs_f64()).await {
                Ok(sample) => kept.lock().expect("nobody panics with it").push(sample),
                Err(error) => eprintln!("bounds: looking failed: {error:#}"),
            }
        }
    });
    (samples, task.abort_handle())
}

async fn run(server: &Embedded, chats: u64, agents: u64, hold: Duration) -> anyhow::Result<()> {
    server.ensure_database("moorline").await?;
    let mut connection = PgConnection::connect_with(&server.connect_options("moorline")).await?;
    store::MIGRATOR.run(&mut connection).await?;
    store::log::make_partitions(&mut connection, store::across::PARTITIONS_AHEAD).await?;
    connection.close().await?;
    // Not the program's: a VACUUM of everything takes longer than a statement of its may.
    let pool = PgPoolOptions::new().max_connections(4).connect_with(server.connect_options("moorline")).await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let child = Command::new(env!("CARGO_BIN_EXE_moorline"))
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--database-url", &server.url("moorline")])
        .args(["--retention-interval", "10s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let moorline = Process(child);
    let url = format!("http://127.0.0.1:{port}");
    let day = Arc::new(day::Day::new(url.clone(), agents)?);
    let began = Instant::now();
    let at = || began.elapsed().as_secs_f64();
    day.ready().await?;
    let looked_at =
        Server { pid: moorline.0.id(), url, http: reqwest::Client::builder().no_proxy().build()?, pool: pool.clone() };
    let (samples, task) = looking(&looked_at, began);
    println!("bounds: {agents} agents, {chats} chats, a snapshot held for {} s", hold.as_secs());
    day.make_agents().await?;
    day::make_chats(&pool, chats, agents).await?;
    until_nothing_is_due(&pool).await?;
    pool.execute("VACUUM ANALYZE").await?;
    println!("bounds: {:.0} s: everybody is moored", at());

    let morning = at();
    let (chats_before, agents_before) = (updates(&pool, "chats").await?, updates(&pool, "agents").await?);
    let told_before = number(&pool, TRANSITIONS).await?;
    let watching = day.watch();
    let pushing = tokio::spawn({
        let day = day.clone();
        async move { day.push_all().await }
    });
    let mut holder = PgConnection::connect_with(&server.connect_options("moorline")).await?;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM agents").await?;
    let held = at();
    let until = Instant::now() + hold;
    let pushes = pushing.await??;
    let pushed = at();
    until_nothing_is_due(&pool).await?;
    println!("bounds: {:.0} s: {pushes} pushes are told to everybody", at());
    sleep(until.saturating_duration_since(Instant::now())).await;
    holder.execute("COMMIT").await?;
    holder.close().await?;
    let released = at();
    println!("bounds: {released:.0} s: the old snapshot is let go");

    // PostgreSQL's own vacuum, and retention, have their turn.
    let live = number(&pool, "SELECT count(*) FROM chats").await?;
    let swept = 0.2 * live + 1_000.0;
    let patience = Instant::now() + Duration::from_mins(10);
    let mut last = look(&looked_at, at()).await?;
    while (last.dead_chats > swept || superfluous(&pool).await? > 0.0) && Instant::now() < patience {
        sleep(EVERY).await;
        last = look(&looked_at, at()).await?;
    }
    // What its sessions have counted, they tell within ten seconds of their last statement.
    sleep(Duration::from_secs(12)).await;
    let evening = at();
    let idle_before = (updates(&pool, "chats").await?, updates(&pool, "agents").await?);
    sleep(Duration::from_secs(20)).await;
    let idle_after = (updates(&pool, "chats").await?, updates(&pool, "agents").await?);
    task.abort();
    drop(watching);
    let samples = samples.lock().expect("nobody panics with it").clone();

    let mut judge = Judge::default();
    let told = number(&pool, TRANSITIONS).await? - told_before;
    let (chat_updates, agent_updates) = (idle_after.0 - chats_before, idle_after.1 - agents_before);
    let most = |of: fn(&Sample) -> f64| samples.iter().map(of).fold(0.0, f64::max);
    let cores = std::thread::available_parallelism()?.get() as f64;
    let files = CONNECTIONS + PUSHERS as f64 + WATCHERS as f64 + 64.0;
    let threads = 2.0 * cores + 32.0;
    judge.at_most("open files and sockets", most(|sample| sample.files), files);
    judge.at_most("threads", most(|sample| sample.threads), threads);
    let tasks = TASKS + 4.0 * (PUSHERS as f64 + WATCHERS as f64);
    judge.at_most("tasks", most(|sample| sample.tasks), tasks);
    judge.at_most("bytes of recent events in memory", most(|sample| sample.recent), RECENT);
    judge.at_most("bytes of contexts in memory", most(|sample| sample.contexts), CONTEXTS);
    judge.at_most(
        "bytes of PostgreSQL's write-ahead log (a quarter more than max_wal_size)",
        most(|sample| sample.wal),
        1.25 * WAL,
    );
    judge.at_most("watches that were refused or cut off", day.cuts() as f64, 0.0);
    // While the agents push.
    let of_day: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= morning && sample.at <= pushed).collect();
    let quarter = of_day.len() / 4;
    ensure!(quarter > 0, "{} looks while the agents pushed are too few to say anything", of_day.len());
    let early = median(of_day[quarter..2 * quarter].iter().map(|sample| sample.resident).collect());
    let late = median(of_day[3 * quarter..].iter().map(|sample| sample.resident).collect());
    judge.at_most(
        "memory in the last quarter of the pushes, bytes (1.2 times that of the second, and 4 MB)",
        late,
        1.2 * early + 4e6,
    );
    judge.at_most("updates of chats in the day (one a transition)", chat_updates, told);
    let pages = (chats as f64 / agents as f64 / 1_000.0).ceil();
    judge.at_most("updates of agents in the day (one a push, one a page of a lap)", agent_updates, pushes as f64 * (1.0 + pages));
    judge.at_most("dead chats while the snapshot was held (one an update)", most(|sample| sample.dead_chats), told + swept);
    judge.at_most("dead chats when it was let go (autovacuum's fifth)", last.dead_chats, swept);
    judge.at_most("updates while nothing happens", idle_after.0 - idle_before.0 + idle_after.1 - idle_before.1, 0.0);
    judge.at_most("snapshots beyond the history of their agent that nobody is pinned to", superfluous(&pool).await?, 0.0);
    judge.at_most("bodies that no snapshot names", number(&pool, ORPHANS).await?, 0.0);
    let events = number(&pool, "SELECT count(*) FROM events").await?;
    judge.at_most("bytes of an event", last.events / events, 1_024.0);
    let numbered = number(&pool, "SELECT coalesce(sum(event_seq), 0)::bigint FROM chats").await?;
    judge.equal("events of chats, and what the chats have counted", number(&pool, TRANSITIONS).await?, numbered);
    judge.at_most("bytes of a chat, its share of indexes and of room included", last.chats / live, 4_096.0);

    let out = std::env::var("OUT").unwrap_or_else(|_| "docs/images/bounds.svg".to_owned());
    let curve = |title: &str, of: fn(&Sample) -> f64, bound: Option<f64>| Panel {
        title: title.to_owned(),
        points: samples.iter().map(|sample| (sample.at, of(sample))).collect(),
        bound,
    };
    let panels = [
        curve("memory of moorline serve, bytes", |sample| sample.resident, None),
        curve("its open files and sockets", |sample| sample.files, Some(files)),
        curve("its threads", |sample| sample.threads, Some(threads)),
        curve("its tasks", |sample| sample.tasks, Some(tasks)),
        curve("recent events that it keeps, bytes", |sample| sample.recent, Some(RECENT)),
        curve("encoded contexts that it keeps, bytes", |sample| sample.contexts, Some(CONTEXTS)),
        curve("records that are due", |sample| sample.due, None),
        curve("table chats, bytes", |sample| sample.chats, Some(4_096.0 * live)),
        curve("table agents, bytes", |sample| sample.agents, None),
        curve("dead chats", |sample| sample.dead_chats, Some(told + swept)),
        curve("dead agents", |sample| sample.dead_agents, None),
        curve("the event log, bytes", |sample| sample.events, Some(1_024.0 * events)),
        curve("snapshots, bytes", |sample| sample.snapshots, None),
        curve("bodies, bytes", |sample| sample.blobs, None),
        curve("PostgreSQL's write-ahead log, bytes", |sample| sample.wal, Some(1.25 * WAL)),
    ];
    let spans = [
        Span { from: held, to: released, what: "another session holds an old snapshot" },
        Span { from: evening, to: evening + 20.0, what: "nothing happens" },
    ];
    let title = format!(
        "{chats} chats, {agents} agents, {pushes} pushes; shaded: an old snapshot is held for {} s, then 20 s of nothing",
        hold.as_secs()
    );
    std::fs::create_dir_all(std::path::Path::new(&out).parent().context("a folder")?)?;
    std::fs::write(&out, svg::draw(&title, &panels, &spans))?;
    println!("bounds: {} looks in {:.0} s, {told} transitions; the curves are in {out}", samples.len(), at());
    drop(moorline);
    pool.close().await;
    judge.end()
}

/// Snapshots that retention should have removed: not pinned, nobody's latest, and beyond the history of their agent.
async fn superfluous(pool: &PgPool) -> anyhow::Result<f64> {
    number(
        pool,
        "SELECT count(*) FROM (
             SELECT row_number() OVER (PARTITION BY s.namespace, s.agent_id ORDER BY s.revision DESC) AS nth, a.revision_history_limit AS keeps
             FROM snapshots s JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
             WHERE s.id <> a.latest_snapshot_id
               AND NOT EXISTS (SELECT FROM chats c WHERE c.namespace = s.namespace AND c.snapshot_id = s.id)) t
         WHERE nth > keeps",
    )
    .await
}

const ORPHANS: &str = "SELECT count(*) FROM blobs b WHERE NOT EXISTS (
    SELECT FROM snapshots s, jsonb_array_elements(s.manifest) r
    WHERE s.agent_id = b.agent_id AND s.namespace = b.namespace AND r->>'contentHash' = 'sha256:' || encode(b.hash, 'hex'))";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Compares, says what came of it, and fails in the end.
#[derive(Default)]
struct Judge {
    failed: Vec<String>,
}

impl Judge {
    fn at_most(&mut self, what: &str, got: f64, bound: f64) {
        self.say(what, got, bound, got <= bound, "at most");
    }

    fn equal(&mut self, what: &str, got: f64, other: f64) {
        self.say(what, got, other, (got - other).abs() < 0.5, "to be");
    }

    fn say(&mut self, what: &str, got: f64, bound: f64, good: bool, word: &str) {
        println!("bounds: {} {what}: {} ({word} {})", if good { "ok  " } else { "FAIL" }, human(got), human(bound));
        if !good {
            self.failed.push(what.to_owned());
        }
    }

    fn end(self) -> anyhow::Result<()> {
        ensure!(self.failed.is_empty(), "beyond the bound: {}", self.failed.join("; "));
        Ok(())
    }
}
