//! 1,000 watchers, and 1,000 transitions a second for ten seconds: does each get each once, how late, and what does it cost?
//! Then the same again for watchers that begin before all of it, as fast as it goes, against a bare server that sends the same
//! bytes to as many.
//!
//! That each got each once: one watcher's lines are compared with the log, by cursor, and every other's bytes with those.

use super::{
    clients::{Clients, Told},
    place::{BASE, Place, Process},
    stats,
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

const WATCHERS: usize = 1_000;
const AGENTS: usize = 20;
const CHATS: usize = 50;
const SECONDS: u32 = 10;
/// How often the fast part is done, turn about with the bare server.
const ROUNDS: usize = 3;
/// Lines in a piece of the bare server: as many as a watcher takes at once.
const PIECE: usize = 256;
/// The lag of the 99th percentile, at most.
const LAG: Duration = Duration::from_millis(250);
/// Cores of the server, at most.
const CORES: f64 = 1.0;
/// What the ratio to the bare server is asked to be.
const FLOOR: f64 = 0.5;
/// How long the loop may take for what has been pushed.
const SETTLE: Duration = Duration::from_secs(30);

/// A row of the log: its cursor on the wire, and when its transaction committed.
type Row = (String, i64);

/// Measures.
pub async fn run(place: &Place, pool: &PgPool, directory: &Path) -> anyhow::Result<bool> {
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push(place.agent(&format!("fanout-{n}"), CHATS).await?);
    }
    let start: (i64, i32) =
        sqlx::query_as("SELECT rv, seq FROM events ORDER BY rv DESC, seq DESC LIMIT 1").fetch_one(pool).await?;
    let path = format!("{BASE}/contextevents?watch=1&cursor={}-{}", start.0, start.1);
    let file = directory.join("paced");
    let mut clients = blocking(|| Clients::open(place.process.address, &path, WATCHERS, file.clone()))?;

    let (before, began) = (place.process.cost()?, Instant::now());
    let each = Duration::from_secs(1) / u32::try_from(AGENTS)?;
    let mut ticks = tokio::time::interval(each);
    for n in 0..AGENTS * SECONDS as usize {
        ticks.tick().await;
        agents[n % AGENTS].push(place, if (n / AGENTS).is_multiple_of(2) { "two" } else { "one" }, false).await?;
    }
    let rows = settled(pool, start).await?;
    let told = blocking(|| clients.told(rows.len() as u64))?;
    let (took, cost) = (began.elapsed(), place.process.cost()?.cpu - before.cpu);
    once(&told, &clients.witness()?, &rows)?;
    drop(clients);
    let transitions = rows.len();
    let mut lags = lags(&told, &rows)?;
    lags.sort_unstable();
    let (p50, p99) = (stats::percentile(&lags, 50), stats::percentile(&lags, 99));
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = transitions as f64 / took.as_secs_f64();
    let cores = cost / took.as_secs_f64();
    println!("fanout: {transitions} events to each of {WATCHERS} watchers in {took:.1?} ({rate:.0} events/s), each once");
    let mut passed = stats::say(
        "fanout-lag",
        &format!("p50={:.1}ms p99={:.1}ms goal<={}ms", ms(p50), ms(p99), LAG.as_millis()),
        u128::from(p99) <= LAG.as_micros(),
    );
    passed &= stats::say("fanout-cpu", &format!("cores={cores:.2} goal<={CORES}"), cores <= CORES);

    let floor = Process::start(|address| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", &address.to_string()]).arg(&file).arg(PIECE.to_string());
        Ok(command)
    })?;
    reachable(floor.address).await?;
    // The tail goes on as long as somebody watches.
    let held = directory.join("held");
    let _held = blocking(|| Clients::open(place.process.address, &path, 1, held))?;
    let (mut ratios, mut costs) = (Vec::new(), Vec::new());
    println!(
        "fanout: the same {transitions} events to {WATCHERS} watchers that begin before them, events/s delivered (server's CPU)"
    );
    for round in 0..=ROUNDS {
        let mut sides = Vec::new();
        for (process, path) in [(&place.process, path.as_str()), (&floor, "/")] {
            let before = process.cost()?;
            let file = directory.join("fast");
            let mut clients = blocking(|| Clients::open(process.address, path, WATCHERS, file))?;
            let told = blocking(|| clients.told(rows.len() as u64))?;
            once(&told, &clients.witness()?, &rows)?;
            #[expect(clippy::cast_precision_loss, reason = "rates for people")]
            let rate = (transitions * WATCHERS) as f64 / told.took;
            sides.push((rate, process.cost()?.cpu - before.cpu));
        }
        if round > 0 {
            let ((ours, our_cpu), (bare, bare_cpu)) = (sides[0], sides[1]);
            println!("  round {round}: {ours:>10.0} ({our_cpu:.2} s)   bare server {bare:>10.0} ({bare_cpu:.2} s)");
            ratios.push(ours / bare);
            costs.push(our_cpu / bare_cpu);
        }
    }
    passed &= stats::at_least("fanout-rate", &mut ratios, FLOOR);
    costs.sort_by(f64::total_cmp);
    println!("fanout-rate-cpu ratio={:.2} (server's CPU by the bare server's; no goal)", costs[ROUNDS / 2]);
    Ok(passed)
}

/// The clients speak by pipes.
fn blocking<T>(f: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    tokio::task::block_in_place(f)
}

/// Waits until the loop has nothing to do, and reads the log after `start`.
async fn settled(pool: &PgPool, start: (i64, i32)) -> anyhow::Result<Vec<Row>> {
    let began = Instant::now();
    loop {
        let due: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM agents WHERE converged_revision < revision)
                  + (SELECT count(*) FROM chats WHERE converged_revision < revision)",
        )
        .fetch_one(pool)
        .await?;
        if due == 0 {
            break;
        }
        ensure!(began.elapsed() < SETTLE, "{due} records are due still");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rows = sqlx::query_as(
        "SELECT e.rv || '-' || e.seq, (extract(epoch FROM
                  pg_xact_commit_timestamp((e.rv & ((1::bigint << 44) - 1))::text::xid)) * 1000000)::bigint
         FROM events e WHERE (e.rv, e.seq) > ($1, $2) ORDER BY e.rv, e.seq",
    );
    Ok(rows.bind(start.0).bind(start.1).fetch_all(pool).await?)
}

/// Every watcher got every row once, in order.
fn once(told: &Told, witness: &str, rows: &[Row]) -> anyhow::Result<()> {
    ensure!(told.differ == 0, "{} watchers got something else than the witness", told.differ);
    ensure!(told.lines == rows.len() as u64, "{} lines for {} rows of the log", told.lines, rows.len());
    for (line, (cursor, _)) in witness.lines().zip(rows) {
        let event: Value = serde_json::from_str(line)?;
        ensure!(event["object"]["metadata"]["name"] == *cursor, "{line} where {cursor} should be");
    }
    Ok(())
}

/// How long after its commit each event came, to each watcher that says, in microseconds.
fn lags(told: &Told, rows: &[Row]) -> anyhow::Result<Vec<u64>> {
    let mut lags = Vec::new();
    for arrivals in &told.arrivals {
        let mut from = 0;
        for (lines, at) in arrivals {
            let to = usize::try_from(*lines)?;
            for (_, committed) in rows.get(from..to).context("more lines than rows")? {
                lags.push(at.saturating_sub(u64::try_from(*committed)?));
            }
            from = to;
        }
    }
    Ok(lags)
}

async fn reachable(address: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        ensure!(began.elapsed() < Duration::from_secs(10), "the bare server does not answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}
