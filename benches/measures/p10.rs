//! P10: 1, 2 and 4 replicas on one database, that share the same work: pushes to many agents at once drift all their chats. How fast it
//! is done (two cores that PostgreSQL is on, too, cannot show more replicas to be faster), and what it costs: statements, rows
//! written, waits for locks.
//!
//! Done twice is what is in the log more than once, and each row of a chat that was written more often than there were transitions,
//! in transactions that were rolled back, too: it is asked to be none.

use super::{
    place::Place,
    plot::Bars,
    report::Report,
    setting::Setting,
    sql::{Statements, settled},
};
use anyhow::ensure;
use sqlx::{PgPool, Row as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often it is looked who waits for a lock.
const LOOK: Duration = Duration::from_millis(10);
/// How long the loop may take for a round.
const SETTLE: Duration = Duration::from_mins(3);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (agents, chats, rounds) = (setting.of(40, 40, 5), setting.of(500, 100, 10), setting.of(5, 3, 1));
    let mut report = Report::default();
    let pool = setting.database("p10").await?;
    let mut replicas = vec![replica(setting).await?];
    let mut pushers = Vec::new();
    for n in 0..agents {
        pushers.push(replicas[0].agent(&format!("agent-{n}"), 1).await?);
    }
    crowd(&pool, chats - 1).await?;
    let transitions = agents * chats;
    report.fact("transitions", transitions);
    let mut bars = Vec::new();
    for count in [1_usize, 2, 4] {
        while replicas.len() < count {
            replicas.push(replica(setting).await?);
        }
        let [mut rates, mut statements, mut waits] = [const { Vec::new() }; 3];
        let before = written(&pool).await?;
        // The first is for caches to fill. Pushes alternate between two contexts.
        for round in 0..rounds * 2 {
            let counted = Statements::begin(&pool).await?;
            let waiting = Waiting::begin(&pool);
            let text = if round % 2 == 0 { "two" } else { "one" };
            let began = Instant::now();
            futures::future::try_join_all(
                pushers.iter_mut().enumerate().map(|(n, pusher)| pusher.push(&replicas[n % count], text, false)),
            )
            .await?;
            settled(&pool, SETTLE).await?;
            let took = began.elapsed();
            let waited = waiting.end();
            #[expect(clippy::cast_precision_loss, reason = "figures for people")]
            if round > 0 {
                rates.push(transitions as f64 / took.as_secs_f64());
                statements.push(counted.total().await?.calls / transitions as f64);
                waits.push(waited as f64 * LOOK.as_secs_f64() / took.as_secs_f64());
            }
        }
        let (after, due) = (written(&pool).await?, transitions * rounds * 2);
        let (events, rows) = (after.0 - before.0, after.1 - before.1);
        ensure!(events >= due && rows >= due, "{events} transitions and {rows} rows written of {due}");
        report.figure(&format!("{count} replicas, statements a transition"), "each", &statements);
        report.figure(&format!("{count} replicas, sessions that wait for a lock"), "of them", &waits);
        report.told(&format!("transitions-of-{count}"), "a-second", &rates);
        #[expect(clippy::cast_precision_loss, reason = "a count of rows for people")]
        report.at_most(&format!("done-twice-of-{count}"), "rows", &[(events - due + rows - due) as f64], 0.0);
        bars.push((format!("{count} replicas"), rates));
    }
    report.plots.push(Bars {
        file: "p10-replicas",
        title: format!("{transitions} chats of {agents} agents drift, on two cores with the database"),
        unit: "transitions a second",
        rows: bars,
    });
    drop(replicas);
    pool.close().await;
    setting.drop_database("p10").await?;
    Ok(report)
}

/// One whose connections the database has also for the fourth.
async fn replica(setting: &Setting) -> anyhow::Result<Place> {
    let few = |command: &mut std::process::Command| {
        command.args(["--database-connections", "10"]);
        Ok(())
    };
    Place::start_with(&setting.server, "p10", few).await
}

/// So many more chats of each agent, moored as its first.
async fn crowd(pool: &PgPool, chats: i64) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, snapshot_id, pin_cause,
                            pinned_at, converged_revision, observed_generation, conditions)
         SELECT c.namespace, x.id, c.name || '-' || x.n, log_rv(), c.owner, c.agent, x.id, 'bench', now(), now(), c.snapshot_id,
                c.pin_cause, c.pinned_at, 1, 1, c.conditions
         FROM chats c, LATERAL (SELECT n, gen_random_uuid() AS id FROM generate_series(1, $1) n WHERE c.id IS NOT NULL) x",
    )
    .bind(chats)
    .execute(pool)
    .await?;
    sqlx::query("VACUUM ANALYZE").execute(pool).await?;
    Ok(())
}

/// Transitions in the log, and how often a row of a chat was written. What its sessions have counted, PostgreSQL has within ten seconds of
/// their last statement.
async fn written(pool: &PgPool) -> anyhow::Result<(i64, i64)> {
    tokio::time::sleep(Duration::from_secs(12)).await;
    Ok(sqlx::query_as(
        "SELECT (SELECT count(*) FROM events WHERE kind IN ('ContextDrifted', 'ContextConverged')),
                (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'chats')",
    )
    .fetch_one(pool)
    .await?)
}

/// Looks now and then how many sessions wait for a lock.
struct Waiting {
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
}

impl Waiting {
    fn begin(pool: &PgPool) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        tokio::spawn({
            let (pool, stop, seen) = (pool.clone(), Arc::clone(&stop), Arc::clone(&seen));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let sql = "SELECT /* bench */ count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
                    if let Ok(row) = sqlx::query(sql).fetch_one(&pool).await {
                        seen.fetch_add(u64::try_from(row.get::<i64, _>(0)).unwrap_or_default(), Ordering::Relaxed);
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        Self { stop, seen }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.seen.load(Ordering::Relaxed)
    }
}
