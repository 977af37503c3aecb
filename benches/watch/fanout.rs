//! 1,000 watchers, and 1,000 transitions a second for ten seconds: does each get each once, how late, and what does it cost?
//! Then the same again for watchers that begin before all of it, as fast as it goes, against a bare server that sends the same
//! bytes to as many.
//!
//! That each got each once: one watcher's lines are compared with the log, by cursor, and every other's bytes with those.

use super::{
    clients::{Clients, Told},
    got::Wanted,
    place::{self, BASE, Place, Process, reachable},
    plot::Bars,
    report::Report,
    setting::Setting,
    sql::settled,
    stats,
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sqlx::PgPool;
use std::{
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
/// The lag of the 99th percentile, in milliseconds, at most.
const LAG_MS: f64 = 250.0;
/// Cores of the server, at most.
const CORES: f64 = 1.0;
/// What the ratio to the bare server is asked to be.
const FLOOR: f64 = 0.5;
/// How long the loop may take for what has been pushed.
const SETTLE: Duration = Duration::from_secs(30);

/// A row of the log: its cursor on the wire, and when its transaction committed.
type Row = (String, i64);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    place::files(11_000)?;
    let mut report = Report::default();
    let (watchers, rounds) = (setting.of(WATCHERS, WATCHERS, 50), setting.of(ROUNDS, 1, 1));
    let pool = setting.database("w1").await?;
    let place = &Place::start(&setting.server, "w1").await?;
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push(place.agent(&format!("fanout-{n}"), setting.of(CHATS, CHATS, 5)).await?);
    }
    let start: (i64, i32) =
        sqlx::query_as("SELECT rv, seq FROM events ORDER BY rv DESC, seq DESC LIMIT 1").fetch_one(&pool).await?;
    let path = format!("{BASE}/contextevents?watch=1&cursor={}-{}", start.0, start.1);
    let file = setting.file("paced");
    // The tail forgets what it has when nobody watches for a moment, and all who come next would read the database: one stays to the end.
    let _held = blocking(|| Clients::open(place.process.address, &path, 1, setting.file("held")))?;
    let mut clients = blocking(|| Clients::open(place.process.address, &path, watchers, file.clone()))?;

    // They are answered before they are live, and are let in a few at a time: nothing is timed before each has been told of something.
    for text in ["two", "one"] {
        agents[0].push(place, text, true).await?;
    }
    let first = logged(&pool, start).await?.len();
    blocking(|| clients.told(Wanted::Lines(first as u64)))?;

    let (before, began) = (place.process.cost()?, Instant::now());
    let each = Duration::from_secs(1) / u32::try_from(AGENTS)?;
    let mut ticks = tokio::time::interval(each);
    for n in 0..AGENTS * setting.of(SECONDS, SECONDS, 2) as usize {
        ticks.tick().await;
        agents[n % AGENTS].push(place, if (n / AGENTS).is_multiple_of(2) { "two" } else { "one" }, false).await?;
    }
    let rows = logged(&pool, start).await?;
    let told = blocking(|| clients.told(Wanted::Lines(rows.len() as u64)))?;
    let (took, cost) = (began.elapsed(), place.process.cost()?.cpu - before.cpu);
    once(&told, &clients.witness()?, &rows)?;
    drop(clients);
    let transitions = rows.len();
    let mut lags = lags(&told, &rows, first)?;
    lags.sort_unstable();
    let (p50, p99) = (percentile(&lags, 50), percentile(&lags, 99));
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    let rate = (transitions - first) as f64 / took.as_secs_f64();
    let cores = cost / took.as_secs_f64();
    report.fact(
        "events to each watcher",
        format!("{} to each of {watchers} in {took:.1?} ({rate:.0} a second), each once", transitions - first),
    );
    report.fact("cut off, and went on", told.resumed);
    report.told("lag-p50", "ms", &[ms(p50)]);
    report.at_most("lag-p99", "ms", &[ms(p99)], LAG_MS);
    report.at_most("cpu", "cores", &[cores], CORES);

    let floor = Process::start(|address| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", &address.to_string()]).arg(&file).arg(PIECE.to_string());
        Ok(command)
    })?;
    reachable(floor.address).await?;
    let [mut ours, mut bares, mut costs] = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        let mut sides = Vec::new();
        for (process, path) in [(&place.process, path.as_str()), (&floor, "/")] {
            let before = process.cost()?;
            let file = setting.file("fast");
            let mut clients = blocking(|| Clients::open(process.address, path, watchers, file))?;
            let told = blocking(|| clients.told(Wanted::Lines(rows.len() as u64)))?;
            once(&told, &clients.witness()?, &rows)?;
            #[expect(clippy::cast_precision_loss, reason = "rates for people")]
            let rate = (transitions * watchers) as f64 / told.took;
            sides.push((rate, process.cost()?.cpu - before.cpu));
        }
        if round > 0 {
            ours.push(sides[0].0);
            bares.push(sides[1].0);
            costs.push(sides[0].1 / sides[1].1);
        }
    }
    report.figure("as fast as it goes", "event/s", &ours);
    report.figure("the same by a bare server", "event/s", &bares);
    report.at_least("rate", "ratio", &stats::ratios(&ours, &bares), FLOOR);
    report.told("rate-cpu", "ratio", &costs);
    report.plots.push(Bars {
        file: "w1-fan-out",
        title: format!("{transitions} events to each of {watchers} watchers"),
        unit: "events delivered a second",
        rows: vec![("Moorline".to_owned(), ours), ("a bare server".to_owned(), bares)],
    });
    pool.close().await;
    Ok(report)
}

/// The clients speak by pipes.
fn blocking<T>(f: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    tokio::task::block_in_place(f)
}

/// The log after `start`, once the loop has nothing to do.
async fn logged(pool: &PgPool, start: (i64, i32)) -> anyhow::Result<Vec<Row>> {
    settled(pool, SETTLE).await?;
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

/// How long after its commit each event came, to each watcher that says, in microseconds; but for the first of them.
fn lags(told: &Told, rows: &[Row], first: usize) -> anyhow::Result<Vec<u64>> {
    let mut lags = Vec::new();
    for arrivals in &told.arrivals {
        let mut from = 0;
        for (lines, at) in arrivals {
            let to = usize::try_from(*lines)?;
            for (_, committed) in rows.get(from.max(first)..to.max(first)).context("more lines than rows")? {
                lags.push(at.saturating_sub(u64::try_from(*committed)?));
            }
            from = to;
        }
    }
    Ok(lags)
}

fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last * percent).div_ceil(100)).copied().unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "a time for people")]
fn ms(micros: u64) -> f64 {
    micros as f64 / 1e3
}
