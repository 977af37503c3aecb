//! How fast it is, next to what PostgreSQL and the network allow: all that docs/performance.md tells, with one command.
//!
//! `make bench`, `make bench QUICK=1`, `make bench ONLY=P3,P4`; or `cargo bench --bench measures -- [--quick|--tiny] [P3 P4 …]`.
//!
//! A measure is a row of [`MEASURES`] and a function that fills a [`Report`]. Each figure with a goal is a line, as
//! `P3 changed-push ratio=0.71 goal>=0.60 pass`. Both sides of a ratio are measured turn about, in one run, on one server.
//! All lines, what they are made of and on what sort of machine go to `target/bench/results.json`. A run of all, in full size,
//! writes the pictures and the table of docs/performance.md as well. Ends with an error, after all have run, when one misses its goal.

mod measures {
    pub mod agent;
    pub mod hand;
    pub mod machine;
    pub mod p1;
    pub mod p2;
    pub mod plot;
    pub mod report;
    pub mod results;
    pub mod seed;
    pub mod setting;
    pub mod stats;
}

use anyhow::{bail, ensure};
use futures::future::BoxFuture;
use measures::{
    p1, p2,
    report::Report,
    results::{Found, Results},
    setting::{Setting, Size},
};
use std::time::Instant;

/// One of the measures.
struct Measure {
    /// As issues and the documentation call it.
    id: &'static str,
    name: &'static str,
    /// What is measured, against what.
    what: &'static str,
    goal: &'static str,
    run: for<'a> fn(&'a Setting) -> BoxFuture<'a, anyhow::Result<Report>>,
}

const MEASURES: &[Measure] = &[
    Measure {
        id: "P1",
        name: "hydrate",
        what: "pin 10,000 chats of an agent with 50 resources of 4 KiB, by the loop, against copying the resources for each chat in SQL",
        goal: "≥ 200 times faster, ≥ 1,000 times smaller",
        run: |setting| Box::pin(p1::run(setting)),
    },
    Measure {
        id: "P2",
        name: "fan-out",
        what: "mark 100,000 chats dirty, mark them clean, refresh them, by the loop, with their events, against `UPDATE` and `INSERT … SELECT` of the same rows",
        goal: "≤ 2",
        run: |setting| Box::pin(p2::run(setting)),
    },
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    rustls::crypto::ring::default_provider().install_default().ok();
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let size = match (flag("--tiny"), flag("--quick")) {
        (true, _) => Size::Tiny,
        (false, true) => Size::Quick,
        (false, false) => Size::Full,
    };
    let only: Vec<String> =
        args.iter().filter(|arg| !arg.starts_with("--")).flat_map(|arg| arg.split(',')).map(str::to_uppercase).collect();
    if let Some(unknown) = only.iter().find(|id| !MEASURES.iter().any(|measure| measure.id == **id)) {
        bail!("there is no measure {unknown:?}: {}", MEASURES.iter().map(|measure| measure.id).collect::<Vec<_>>().join(", "));
    }
    let wanted: Vec<&Measure> =
        MEASURES.iter().filter(|measure| only.is_empty() || only.iter().any(|id| measure.id == id)).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(Box::pin(measure(&wanted, size, only.is_empty())))
}

async fn measure(wanted: &[&Measure], size: Size, all: bool) -> anyhow::Result<()> {
    let setting = Setting::start(size).await?;
    let mut results = Results::begin(&setting, std::env::args().skip(1).collect()).await?;
    for Measure { id, name, what, goal, run } in wanted {
        println!("{id} {name}: {what}; asked: {goal}");
        let began = Instant::now();
        let report = run(&setting).await;
        match &report {
            Ok(report) => report.lines.iter().for_each(|line| println!("{}", line.text(id))),
            Err(error) => println!("{id} {name} error: {error:#}"),
        }
        println!("    ({:.0?})", began.elapsed());
        results.add(Found { id, name, what, goal, took: began.elapsed(), report });
        // After each, so that a run cut short leaves what it found.
        results.write()?;
    }
    setting.stop().await?;
    if all && size == Size::Full {
        results.publish()?;
    }
    let missed = results.missed();
    ensure!(missed.is_empty(), "what is asked is missed by {}", missed.join(", "));
    Ok(())
}
