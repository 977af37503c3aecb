//! P9: the latency of converging 100 chats under load, while another transaction of the database has been open for three minutes
//! and keeps what was from being cleaned up, against the same in a database where nobody does. For half a minute from then on.
//!
//! Both databases take the same load at the same time: ten agents of 100 chats each that take turns, five pushes a second, each of
//! which makes 100 chats drift or ends that. Such a transaction holds back its own database's rows only, so that both can be
//! measured turn about. What is told are the laps of the last seventh of the time. What is told besides is the same ratio of the
//! least statements, by hand (`hand.rs`), on chats that are written as often and by nobody else: what PostgreSQL itself takes.

use super::{
    agent::{Agent, timed},
    hand::Outcome,
    plot::Bars,
    report::Report,
    setting::Setting,
    stats::{median, percentile},
};
use anyhow::Context as _;
use moorline::reconcile::Reconciler;
use sqlx::{Connection as _, Executor as _, PgPool};
use std::time::{Duration, Instant};

const AGENTS: usize = 10;
/// The agent of the chats that are written by hand.
const BY_HAND: &str = "by-hand";
const CHATS: i64 = 100;
/// The time is told in so many parts; the last begins when the other transaction has been open for three minutes.
const PARTS: u32 = 7;
/// Between two pushes.
const EVERY: Duration = Duration::from_millis(200);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let time = Duration::from_secs(setting.of(210, 70, 8));
    let mut report = Report::default();
    let (mut held, mut free) =
        (Side::new(setting.database("p9_held").await?).await?, Side::new(setting.database("p9_free").await?).await?);
    let mut holder = held.pool.acquire().await?.detach();
    holder.execute("SET idle_in_transaction_session_timeout = 0").await?;
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
    // It has a snapshot, and a number of its own.
    holder.execute("SELECT pg_current_xact_id(), count(*) FROM chats").await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut held_by_hand, mut free_by_hand) = (Vec::new(), Vec::new());
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(EVERY));
    let mut lap = 0;
    while began.elapsed() < time {
        ticks.tick().await;
        for side in [&mut held, &mut free] {
            side.push(lap).await?;
        }
        let mut order = [(&held, &mut ours), (&free, &mut theirs)];
        if lap % 2 == 1 {
            order.reverse();
        }
        for (side, times) in order {
            let took = Box::pin(timed(side.agents[0].settle_with(&side.reconciler))).await?;
            times.push((began.elapsed(), took * 1e3));
        }
        if lap.is_multiple_of(AGENTS) {
            // As the loop has just written it of the first agent's chats.
            let (kind, set) = match version(lap) {
                1 => ("ContextDrifted", "dirty_since = now()"),
                _ => ("ContextConverged", "dirty_since = NULL"),
            };
            for (side, times) in [(&held, &mut held_by_hand), (&free, &mut free_by_hand)] {
                let outcome = Outcome::of(&side.pool, "agent-0", kind, CHATS).await?;
                let took = timed(outcome.by_hand(&side.pool, BY_HAND, set)).await?;
                times.push((began.elapsed(), took * 1e3));
            }
        }
        lap += 1;
    }
    for (side, name) in [(&held, "held back"), (&free, "cleaned up")] {
        report.fact(&format!("dead rows of chats, {name}"), side.dead().await?);
    }
    holder.execute("ROLLBACK").await?;
    holder.close().await?;
    let last = |times: &[(Duration, f64)], from: u32, to: u32| -> Vec<f64> {
        let of = |part: u32| time * part / PARTS;
        times.iter().filter(|(at, _)| *at >= of(from) && *at < of(to)).map(|(_, took)| *took).collect()
    };
    for part in 0..PARTS {
        let (ours, theirs) = (median(&last(&ours, part, part + 1)), median(&last(&theirs, part, part + 1)));
        report.fact(&format!("part {} of {PARTS}: median ms held back, cleaned up", part + 1), format!("{ours:.2}, {theirs:.2}"));
    }
    let [ours, theirs, held_by_hand, free_by_hand] =
        [ours, theirs, held_by_hand, free_by_hand].map(|times| last(&times, PARTS - 1, PARTS + 1));
    let pairs = super::stats::ratios(&ours, &theirs);
    report.figure("held back", "ms", &ours);
    report.figure("cleaned up", "ms", &theirs);
    report.at_most("held-back", "ratio", &pairs, 2.0);
    report.figure("held back, by hand", "ms", &held_by_hand);
    report.figure("cleaned up, by hand", "ms", &free_by_hand);
    report.told("held-back-by-hand", "ratio", &super::stats::ratios(&held_by_hand, &free_by_hand));
    let p99 = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        percentile(&sorted, 99)
    };
    report.told("held-back-p99", "ratio", &[p99(&ours) / p99(&theirs)]);
    report.plots.push(Bars {
        file: "p9-held-back",
        title: format!("Converging {CHATS} chats after {} s of load", time.as_secs()),
        unit: "ms",
        rows: vec![("nobody holds back".to_owned(), theirs), ("a transaction is open".to_owned(), ours)],
    });
    held.pool.close().await;
    free.pool.close().await;
    setting.drop_database("p9_held").await?;
    setting.drop_database("p9_free").await?;
    Ok(report)
}

/// What is pushed in a lap: the chats are moored to the second.
fn version(lap: usize) -> u8 {
    if (lap / AGENTS).is_multiple_of(2) { 1 } else { 2 }
}

struct Side {
    pool: PgPool,
    agents: Vec<Agent>,
    reconciler: Reconciler,
}

impl Side {
    async fn new(pool: PgPool) -> anyhow::Result<Self> {
        let mut agents = Vec::new();
        for n in 0..AGENTS {
            let mut agent = Agent::new(pool.clone(), &format!("agent-{n}")).await?;
            // Both contexts are known, and the chats are moored to the second.
            agent.push(1, 10, 256).await?;
            agent.push(2, 10, 256).await?;
            agent.chats(CHATS).await?;
            agents.push(agent);
        }
        let reconciler = Reconciler::new(pool.clone(), agents[0].clock.clone());
        let mut by_hand = Agent::new(pool.clone(), BY_HAND).await?;
        by_hand.push(2, 10, 256).await?; // only who is pinned can have drifted
        by_hand.chats(CHATS).await?;
        agents[0].settle_with(&reconciler).await?;
        Ok(Self { pool, agents, reconciler })
    }

    async fn push(&mut self, lap: usize) -> anyhow::Result<()> {
        self.agents.get_mut(lap % AGENTS).context("an agent")?.push(version(lap), 10, 256).await
    }

    async fn dead(&self) -> anyhow::Result<i64> {
        self.pool.execute("SELECT pg_stat_force_next_flush()").await?;
        Ok(sqlx::query_scalar("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = 'chats'").fetch_one(&self.pool).await?)
    }
}
