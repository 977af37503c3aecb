//! P12: a real history (tests/data: 148 changes of one public repository's context) replayed to 1,000 agents with ten chats each, eight
//! moored and two that follow, against the sum of the least statements that record what comes of it.
//!
//! Ours: each step is pushed as the API takes a push, and the loop is run until nothing is due. By hand: per agent and step one
//! transaction that keeps the new bodies, makes the snapshot, moves the agent and tells of both, and one that changes the chats
//! that change and tells of them; it knows beforehand which those are. Both sides use as many connections at once. Agents come in
//! groups, turn about; a group gives one ratio. When time is up, the groups that there are count.

mod hand;
mod history;

use super::{
    agent::{Agent, NAMESPACE, timed},
    plot::Bars,
    report::Report,
    setting::Setting,
    sql::Statements,
    stats::ratios,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hand::Hand;
use history::History;
use moorline::{clock, reconcile::Reconciler};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// How many chats an agent has, of which the last two follow.
pub const CHATS: usize = 10;
/// How many of them follow.
pub const FOLLOW: usize = 2;
/// Connections at once, of either side.
const AT_ONCE: usize = 4;
/// After so long no further group is begun.
const PATIENCE: Duration = Duration::from_mins(12);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (groups, agents, steps) = (setting.of(19, 3, 1), setting.of(50, 25, 3), setting.of(148, 148, 20));
    let mut report = Report::default();
    let history = History::read(steps)?;
    let (ours, theirs) = (setting.database("p12_loop").await?, setting.database("p12_hand").await?);
    let statements = Statements::begin(&ours).await?;
    let [mut loops, mut hands] = [const { Vec::new() }; 2];
    let began = Instant::now();
    for group in 0..=groups {
        let names: Vec<String> = (0..agents).map(|n| format!("agent-{group:02}-{n:02}")).collect();
        let mut replayed = Vec::new();
        for name in &names {
            replayed.push(Agent::new(ours.clone(), name).await?);
            history::chats(&ours, name).await?;
        }
        // Until they are moored to the first step, nothing counts.
        push(&mut replayed, &history, 0).await?;
        converge(&ours).await?;
        let all = timed(async {
            for step in 1..steps {
                push(&mut replayed, &history, step).await?;
                converge(&ours).await?;
            }
            Ok(())
        });
        let by_loop = Box::pin(all).await?;
        let mut hand = Hand::new(&theirs, &names, &history).await?;
        let all = timed(async {
            for step in 1..steps {
                hand.step(&history, step, AT_ONCE).await?;
            }
            Ok(())
        });
        let by_hand = Box::pin(all).await?;
        if group == 0 {
            history::same(&ours, &theirs).await?;
            // The first is compared, and for the tables to have statistics, as autovacuum makes them within a minute of their life.
            for pool in [&ours, &theirs] {
                sqlx::query("VACUUM ANALYZE").execute(pool).await?;
            }
        } else {
            loops.push(by_loop);
            hands.push(by_hand);
        }
        if began.elapsed() > PATIENCE {
            break;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let pushes = ((loops.len() + 1) * agents * steps) as f64;
    report.fact("agents", loops.len() * agents);
    report.fact("steps", steps);
    report.fact("statements by push, with what the loop made of it", statements.each(pushes).await?);
    report.figure(&format!("{agents} agents, {steps} steps"), "s", &loops);
    report.figure("the same by hand", "s", &hands);
    report.at_most("replay", "ratio", &ratios(&loops, &hands), 2.0);
    report.plots.push(Bars {
        file: "p12-replay",
        title: format!("{steps} steps of a history, {agents} agents of {CHATS} chats"),
        unit: "seconds",
        rows: vec![("the least statements".to_owned(), hands), ("pushes and the loop".to_owned(), loops)],
    });
    ours.close().await;
    theirs.close().await;
    setting.drop_database("p12_loop").await?;
    setting.drop_database("p12_hand").await?;
    Ok(report)
}

/// A step, pushed by every agent.
async fn push(agents: &mut [Agent], history: &History, step: usize) -> anyhow::Result<()> {
    stream::iter(agents.iter_mut().map(|agent| agent.send(history.steps[step].clone())))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// As many workers as connections, as replicas would do it, until nothing is due.
async fn converge(pool: &PgPool) -> anyhow::Result<()> {
    let work = |_: usize| async {
        let reconciler = Reconciler::new(pool.clone(), clock::system());
        loop {
            while reconciler.fan_out(NAMESPACE, uuid::Uuid::nil()).await?.is_some() {}
            // Which a lap makes due only when it cannot write them itself.
            if reconciler.converge_due(NAMESPACE).await?.seen == 0 {
                return anyhow::Ok(());
            }
        }
    };
    stream::iter((0..AT_ONCE).map(work)).buffer_unordered(AT_ONCE).try_collect::<()>().await
}
