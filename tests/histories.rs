//! Histories: many clients at once against three real processes and one PostgreSQL, and watchers that are cut off again and
//! again. What everybody was told is compared with the log, the last state and a sequential model (DESIGN.md §2).
//!
//! A seed decides what each client does, one operation after another. It does not decide how the clients interleave: a seed that
//! has found something makes it likelier, not certain. What this cannot find: docs/testing.md.

mod check;
mod client;
mod contents;
pub mod history;
mod load;
mod log;
pub mod operation;
mod servers;
mod spoilt;
mod state;
mod watchers;

pub use self::{
    check::{Evidence, Violation, check},
    load::Load,
    log::Log,
    servers::Servers,
    state::State,
    watchers::{Seen, Shared, Watchers},
};
use crate::support::{postgres::database, serve::Replica, until::until_within};
use sqlx::PgPool;
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// How many clients there are.
const CLIENTS: usize = 12;
/// Retention is at work all the time.
const FLAGS: [&str; 2] = ["--retention-interval", "1s"];
/// How many operations `make test` does.
const SHORT: u64 = 20_000;

/// Waits until nothing is due, no deletion is under way, and retention has nothing to take: from then on nothing happens.
pub async fn quiet(pool: &PgPool) {
    until_within(Duration::from_mins(1), "nothing is due", || async {
        let due: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM chats WHERE converged_revision < revision)
                  + (SELECT count(*) FROM agents WHERE converged_revision < revision OR deletion_timestamp IS NOT NULL)
                  + (SELECT count(*) FROM (
                         SELECT row_number() OVER (PARTITION BY s.agent_id ORDER BY s.revision DESC) AS nth, a.revision_history_limit AS keeps
                         FROM snapshots s LEFT JOIN agents a ON a.id = s.agent_id
                         WHERE s.id IS DISTINCT FROM a.latest_snapshot_id AND NOT EXISTS (SELECT FROM chats c WHERE c.snapshot_id = s.id)) spare
                     WHERE nth > coalesce(keeps, 0))",
        )
        .fetch_one(pool)
        .await
        .ok()?;
        (due == 0).then_some(())
    })
    .await;
}

/// The log and the rows, as they are at one moment: retention may be at work.
pub async fn account(pool: &PgPool) -> (Log, State) {
    let mut moment = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.unwrap();
    (Log::read(&mut moment).await, State::read(&mut moment).await)
}

/// How much there was, in a line.
pub fn report(evidence: &Evidence) -> String {
    let (done, refused, maybe) = evidence.history.outcomes();
    let told: usize = evidence.seen.iter().map(Seen::lines).sum();
    let cuts: u32 = evidence.seen.iter().map(|seen| seen.cuts).sum();
    let lists: usize = evidence.seen.iter().map(|seen| seen.stretches.len()).sum();
    format!(
        "{} operations ({done} acknowledged, {refused} refused, {maybe} unknown), {} events, {told} lines to {} watchers in {lists} stretches and {cuts} cuts, {} chats and {} agents left",
        evidence.history.records.len(),
        evidence.log.events.len(),
        evidence.seen.len(),
        evidence.state.chats.len(),
        evidence.state.agents.len(),
    )
}

fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Says once a minute how far it is. Ends it when its time is over, or when somebody asks for it (Ctrl-C): what has been done by then is
/// looked at.
async fn long(load: Load, watchers: Shared, minutes: u64) {
    for minute in 1..=minutes {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            () = tokio::time::sleep(Duration::from_mins(1)) => {
                let (done, told) = (load.done.load(Ordering::SeqCst), watchers.told());
                println!("histories: {minute} min, {done} operations, {told} lines told");
            }
        }
    }
    load.stop.cancel();
}

/// So many operations on three replicas and a database of their own, and everything that there is to compare; and how long the
/// operations took. `kills`: one of the replicas is killed in the middle of it, and comes back elsewhere.
async fn one_history(count: u64, seed: u64, kills: bool) -> (Evidence, Duration) {
    let db = database().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&db, &FLAGS).await);
    }
    let servers = Servers::new(replicas.iter().map(|replica| replica.url.clone()).collect());
    let watchers = Watchers::start(&servers, seed, 3, 6);
    let load = Load::new(CLIENTS, seed, count, &servers);
    if let Some(minutes) = asked("MOORLINE_HISTORIES_MINUTES") {
        tokio::spawn(long(load.clone(), watchers.shared.clone(), minutes));
    }
    let began = Instant::now();
    let running = tokio::spawn({
        let load = load.clone();
        async move { load.run().await }
    });
    if kills {
        until_within(Duration::from_mins(5), "half of it is done", || async {
            (load.done.load(Ordering::SeqCst) >= count / 2).then_some(())
        })
        .await;
        replicas[2].kill();
        replicas[2] = Replica::start(&db, &FLAGS).await;
        servers.moved(2, replicas[2].url.clone());
    }
    let history = running.await.unwrap();
    let took = began.elapsed();
    quiet(&db.pool).await;
    let over = Instant::now();
    let seen = watchers.finish(&servers).await;
    println!("histories: the watchers have been told of everything {:.0?} after the end", over.elapsed());
    let (log, state) = account(&db.pool).await;
    (Evidence { history, log, state, seen }, took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_many_clients_do_at_once_is_one_history_to_everybody() {
    let (count, seed) = (asked("MOORLINE_HISTORIES_OPS").unwrap_or(SHORT), asked("MOORLINE_HISTORIES_SEED").unwrap_or(1));
    let (evidence, took) = one_history(count, seed, false).await;
    let violations = check(&evidence);
    println!("histories: seed {seed}, {CLIENTS} clients, {:.0} s: {}", took.as_secs_f64(), report(&evidence));
    for violation in violations.iter().take(50) {
        println!("  {violation}");
    }
    assert!(violations.is_empty(), "{} violations, the first: {}", violations.len(), violations[0]);
    let expired: u32 = evidence.seen.iter().map(|seen| seen.expired).sum();
    assert_eq!(expired, 0, "nobody was told to begin again");
    let (done, _, _) = evidence.history.outcomes();
    assert!(done > evidence.history.records.len() / 4, "of what is asked, much can be done");
}
