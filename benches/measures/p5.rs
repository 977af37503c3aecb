//! P5: converging an agent's 100 chats, in a database of 1,000,000 chats and 10,000,000 rows of events, against the same in one of
//! 10,000 chats. What was pushed before the clock begins makes all of them drift, or ends that.
//!
//! Each lap is one converge of either, turn about; a block of laps gives one ratio, of the medians. Pages touched are counted as well.

use super::{
    agent::{Agent, timed},
    plot::Bars,
    report::Report,
    seed,
    setting::Setting,
    sql::Statements,
    stats::median,
};
use moorline::reconcile::Reconciler;
use sqlx::PgPool;

const CHATS: i64 = 100;

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (blocks, laps) = (setting.of(15, 9, 2), setting.of(40, 30, 6));
    let mut report = Report::default();
    let small = setting.database("p5").await?;
    seed::chats(&small, setting.of(10_000, 10_000, 1_000)).await?;
    let large = setting.million_with_events().await?;
    report.fact("chats", setting.million_chats());
    report.fact("rows of events", setting.million_events());
    let (mut ours, mut theirs) = (Side::new(large.clone()).await?, Side::new(small.clone()).await?);
    let [mut ratios, mut larges, mut smalls] = [const { Vec::new() }; 3];
    for block in 0..=blocks {
        let (mut in_large, mut in_small) = (Vec::new(), Vec::new());
        for lap in 0..laps {
            for side in [&mut ours, &mut theirs] {
                side.agent.push(lap % 2 + 1, 10, 256).await?;
            }
            // The one that goes first finds the processor's caches cold.
            let mut order = [(&ours, &mut in_large), (&theirs, &mut in_small)];
            if lap / 2 % 2 == 1 {
                order.reverse();
            }
            for (side, times) in order {
                times.push(side.converge().await? * 1e3);
            }
        }
        // The first is for caches to fill, and for statements to be planned.
        if block > 0 {
            ratios.push(median(&in_large) / median(&in_small));
            larges.extend(in_large);
            smalls.extend(in_small);
        }
    }
    let mut pages = Vec::new();
    for (side, name) in [(&mut ours, "large"), (&mut theirs, "small")] {
        let statements = Statements::begin(&side.agent.pool).await?;
        let mut touched = 0.0;
        for lap in 0..10 {
            side.agent.push(lap % 2 + 1, 10, 256).await?;
            let before = statements.total().await?;
            side.converge().await?;
            touched += statements.total().await?.pages - before.pages;
        }
        pages.push(touched / 10.0);
        report.fact(&format!("statements of a push and its converge, in the {name} one"), statements.each(10.0).await?);
    }
    report.figure("in the large one", "ms", &larges);
    report.figure("in the small one", "ms", &smalls);
    report.fact("pages touched by a converge, in the large one and in the small one", pages.clone());
    report.at_most("converge-large", "ratio", &ratios, 1.1);
    report.told("converge-large-pages", "ratio", &[pages[0] / pages[1]]);
    report.plots.push(Bars {
        file: "p5-large",
        title: format!("Converging an agent's {CHATS} chats"),
        unit: "ms",
        rows: vec![("in 10,000 chats".to_owned(), smalls), (format!("in {} chats", setting.million_chats()), larges)],
    });
    seed::forget(&large).await?;
    large.close().await;
    small.close().await;
    setting.drop_database("p5").await?;
    Ok(report)
}

struct Side {
    agent: Agent,
    reconciler: Reconciler,
}

impl Side {
    async fn new(pool: PgPool) -> anyhow::Result<Self> {
        let mut agent = Agent::new(pool, "p5").await?;
        let reconciler = Reconciler::new(agent.pool.clone(), agent.clock.clone());
        for version in [1, 2] {
            agent.push(version, 10, 256).await?;
        }
        agent.chats(CHATS).await?;
        agent.settle_with(&reconciler).await?;
        Ok(Self { agent, reconciler })
    }

    /// Seconds until nothing is due.
    async fn converge(&self) -> anyhow::Result<f64> {
        Box::pin(timed(self.agent.settle_with(&self.reconciler))).await
    }
}
