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
    pub mod p10;
    pub mod p11;
    pub mod p12;
    pub mod p13;
    pub mod p2;
    pub mod p3;
    pub mod p4;
    pub mod p5;
    pub mod p6;
    pub mod p7;
    pub mod p8;
    pub mod p9;
    pub mod plot;
    pub mod report;
    pub mod results;
    pub mod seed;
    pub mod serve;
    pub mod setting;
    pub mod sql;
    pub mod stats;
    pub mod wire;

    #[path = "../watch/clients.rs"]
    pub mod clients;
    #[path = "../watch/fanout.rs"]
    pub mod fanout;
    #[path = "../watch/floor.rs"]
    pub mod floor;
    #[path = "../watch/got.rs"]
    pub mod got;
    #[path = "../watch/idle.rs"]
    pub mod idle;
    #[path = "../watch/place.rs"]
    pub mod place;
    #[path = "../watch/stream.rs"]
    pub mod stream;
}

use anyhow::{bail, ensure};
use futures::future::LocalBoxFuture;
use measures::{
    clients, fanout, floor, idle, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13,
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
    run: for<'a> fn(&'a Setting) -> LocalBoxFuture<'a, anyhow::Result<Report>>,
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
    Measure {
        id: "P3",
        name: "push",
        what: "a push over HTTP of 50 resources of 4 KiB, one of them changed, with one client and with 16, against pgbench running the least statements that record it",
        goal: "≥ 0.6; an unchanged push ≥ 5 times faster than a changed one",
        run: |setting| Box::pin(p3::run(setting)),
    },
    Measure {
        id: "P4",
        name: "latency",
        what: "from the commit of a push until a watcher has its event, and the event of what the loop makes of it, against commit + `NOTIFY` → a listener, and → a second commit + `NOTIFY` → a listener, in plain SQL",
        goal: "≤ 4 (median), ≤ 10 (99th percentile)",
        run: |setting| Box::pin(p4::run(setting)),
    },
    Measure {
        id: "P5",
        name: "large",
        what: "converge an agent's 100 chats in a database of 1,000,000 chats and 10,000,000 events, against one of 10,000 chats",
        goal: "≤ 1.1",
        run: |setting| Box::pin(p5::run(setting)),
    },
    Measure {
        id: "P6",
        name: "idle",
        what: "a server on 1,000,000 chats that has nothing to do, for ten minutes",
        goal: "0 row versions, ≤ 3 statements a second, < 1 % of a core",
        run: |setting| Box::pin(p6::run(setting)),
    },
    Measure {
        id: "P7",
        name: "memory",
        what: "RSS of a server on 1,000,000 chats, two minutes after fan-outs, pushes, watches, lists and contexts",
        goal: "≤ 60 MB",
        run: |setting| Box::pin(p7::run(setting)),
    },
    Measure {
        id: "P8",
        name: "lists",
        what: "the middle and the last page of 500 of lists of 1,000,000 chats, by each filter, against the first",
        goal: "≤ 1.2",
        run: |setting| Box::pin(p8::run(setting)),
    },
    Measure {
        id: "P9",
        name: "held-back",
        what: "converge 100 chats under load while a transaction has been open for three minutes, against the same without",
        goal: "≤ 2",
        run: |setting| Box::pin(p9::run(setting)),
    },
    Measure {
        id: "P10",
        name: "replicas",
        what: "1, 2 and 4 replicas that share the same work on one database",
        goal: "nothing is done twice",
        run: |setting| Box::pin(p10::run(setting)),
    },
    Measure {
        id: "P11",
        name: "context",
        what: "a chat's context of 50 × 4 KiB, and of one that the client has (304), against a static answer of the same size by the same server",
        goal: "≥ 0.6",
        run: |setting| Box::pin(p11::run(setting)),
    },
    Measure {
        id: "P12",
        name: "replay",
        what: "148 real changes of a context, of each of 1,000 agents with ten chats each, against the least statements that record what came of it",
        goal: "≤ 2",
        run: |setting| Box::pin(p12::run(setting)),
    },
    Measure {
        id: "P13",
        name: "start",
        what: "from the start until it is ready: `serve` on 1,000,000 chats, `dev` in a new directory",
        goal: "≤ 1 s, ≤ 3 s",
        run: |setting| Box::pin(p13::run(setting)),
    },
    Measure {
        id: "W1",
        name: "watchers",
        what: "1,000 watchers and 1,000 transitions a second: how late, at which cost; then as fast as it goes, against a bare server that sends the same bytes",
        goal: "≤ 250 ms (99th percentile), ≤ 1 core; ≥ 0.5",
        run: |setting| Box::pin(fanout::run(setting)),
    },
    Measure {
        id: "W2",
        name: "watchers-idle",
        what: "memory of the server for 10,000 watchers to whom nothing happens",
        goal: "≤ 200 MiB",
        run: |setting| Box::pin(idle::run(setting)),
    },
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // Processes of measures, which are this program.
    match args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("clients", rest)) => return clients::main(rest),
        Some(("floor", rest)) => return floor::main(rest),
        Some(("bare", rest)) => return p3::bare::main(rest),
        Some(_) | None => {}
    }
    rustls::crypto::ring::default_provider().install_default().ok();
    let mut size = Size::Full;
    for flag in args.iter().filter(|arg| arg.starts_with('-')) {
        size = match flag.as_str() {
            "--quick" => Size::Quick,
            "--tiny" => Size::Tiny,
            _ => bail!("{flag:?} is not known: --quick, --tiny"),
        };
    }
    let only: Vec<String> =
        args.iter().filter(|arg| !arg.starts_with('-')).flat_map(|arg| arg.split(',')).map(str::to_uppercase).collect();
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
