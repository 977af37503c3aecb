//! P2: marking very many chats of one agent dirty, marking them clean, and refreshing them, through the loop with their events, against
//! one `UPDATE` and one `INSERT … SELECT` of the same values of the same rows, on the same tables and indexes.
//!
//! Both sides are copies of one database, vacuumed and written out before each step. The push, and the tokens that ask for the
//! refresh, are written before the clock begins.

use super::{
    agent::{Agent, NAMESPACE, statements, statements_since, timed, wal},
    hand::{Outcome, copy, settled},
    plot::Bars,
    report::Report,
    setting::Setting,
    stats::ratios,
};
use sqlx::{Connection as _, Executor as _, PgPool};

/// A step: what is told of it, its event, and what somebody who knows would set. `$4` is the pin.
struct Step {
    name: &'static str,
    kind: &'static str,
    /// What is pushed before.
    version: u8,
    set: &'static str,
}

const STEPS: [Step; 3] = [
    Step { name: "dirty", kind: "ContextDrifted", version: 2, set: "dirty_since = now()" },
    Step { name: "clean", kind: "ContextConverged", version: 1, set: "dirty_since = NULL" },
    Step {
        name: "refresh",
        kind: "ContextRefreshed",
        version: 2,
        set: "snapshot_id = $4, pin_cause = 'Refreshed', pinned_at = now(), dirty_since = NULL,
              refresh_handled = refresh_requested, converged_revision = revision",
    },
];

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (count, rounds) = (setting.of(100_000, 20_000, 500), setting.of(3, 3, 2));
    let mut report = Report::default();
    let mut agent = Agent::new(setting.database("p2").await?, "agent").await?;
    // Both contexts are known; the chats are moored to the first.
    for version in [2, 1] {
        agent.push(version, 50, 512).await?;
        agent.settle().await?;
    }
    agent.chats(count).await?;
    agent.settle().await?;
    let mut connection = agent.pool.acquire().await?.detach();
    for statement in ["SET statement_timeout = 0", "VACUUM FULL ANALYZE chats"] {
        connection.execute(statement).await?;
    }
    connection.close().await?;
    agent.pool.close().await;
    report.fact("chats", count);
    let before = statements();
    let mut times = [const { (Vec::new(), Vec::new(), Vec::new()) }; 3];
    for _ in 0..rounds {
        let mut ours = agent.in_copy(copy(setting, "p2", "p2_loop").await?);
        let mut theirs = agent.in_copy(copy(setting, "p2", "p2_hand").await?);
        for (step, (loops, hands, logs)) in STEPS.iter().zip(&mut times) {
            if step.name == "refresh" {
                ready_to_refresh(&mut ours).await?;
                ready_to_refresh(&mut theirs).await?;
            } else {
                ours.push(step.version, 50, 512).await?;
                theirs.push(step.version, 50, 512).await?;
            }
            settled(&ours.pool).await?;
            let log = wal(&ours.pool).await?;
            loops.push(Box::pin(timed(ours.settle())).await?);
            let logged = wal(&ours.pool).await? - log;
            let outcome = Outcome::of(&ours.pool, "agent", step.kind, count).await?;
            settled(&theirs.pool).await?;
            let log = wal(&theirs.pool).await?;
            hands.push(timed(outcome.by_hand(&theirs.pool, "agent", step.set)).await?);
            logs.push(logged / (wal(&theirs.pool).await? - log));
            // The agent's own news, which by hand nobody tells.
            theirs.settle().await?;
        }
        ours.pool.close().await;
        theirs.pool.close().await;
    }
    let mut bars = Vec::new();
    for (Step { name, .. }, (loops, hands, logs)) in STEPS.iter().zip(times) {
        report.figure(&format!("{name}, the loop"), "s", &loops);
        report.figure(&format!("{name}, by hand"), "s", &hands);
        report.at_most(name, "ratio", &ratios(&loops, &hands), 2.0);
        report.told(&format!("{name}-wal"), "ratio", &logs);
        bars.push((format!("{name}, by hand"), hands));
        bars.push((format!("{name}, the loop"), loops));
    }
    report.fact("statements of the loop, all rounds", statements_since(&before));
    report.plots.push(Bars {
        file: "p2-fan-out",
        title: format!("{count} chats of one agent, with their events"),
        unit: "seconds",
        rows: bars,
    });
    setting.drop_database("p2_loop").await?;
    setting.drop_database("p2_hand").await?;
    Ok(report)
}

/// All have drifted, and each is asked to follow.
async fn ready_to_refresh(agent: &mut Agent) -> anyhow::Result<()> {
    agent.push(2, 50, 512).await?;
    agent.settle().await?;
    ask(&agent.pool).await
}

/// What a person's refresh of each chat does to its row.
async fn ask(pool: &PgPool) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = 0").execute(&mut *tx).await?;
    sqlx::query("UPDATE chats SET refresh_requested = 'once more', revision = revision + 1 WHERE namespace = $1")
        .bind(NAMESPACE)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}
