//! P3: a push over HTTP of 50 resources of 4 KiB, one of them changed, against pgbench running the least statements that could
//! record it (`p3/pgbench.rs`), with one client and with 16. And an unchanged push, against a changed one. What is told besides: the
//! same statements run by a server that takes the same pushes over HTTP and decides nothing (`p3/bare.rs`), against pgbench and
//! against ours. No server of this kind on this machine comes nearer to pgbench than that one.
//!
//! Each client pushes as an agent of its own, to `moorline serve`; its loop converges the agents meanwhile, which pgbench does not.
//! Server, database, clients and pgbench share the machine. All run turn about, a slice of time each.

pub mod bare;
mod pgbench;

use super::{
    agent::noise,
    place::{Place, Process, reachable},
    plot::Bars,
    report::Report,
    setting::Setting,
    sql::Statements,
    stats::ratios,
    wire::Wire,
};
use anyhow::{Context as _, ensure};
use pgbench::Pgbench;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

const RESOURCES: usize = 50;
const RESOURCE_SIZE: usize = 4096;
const CLIENTS: usize = 16;

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (rounds, slice) = (setting.of(9, 5, 2), setting.of(3, 2, 1));
    let mut report = Report::default();
    let pool = setting.database("p3").await?;
    // Retention's first pass comes at a random moment of its interval: beyond this measure.
    let rarely = |command: &mut Command| {
        command.args(["--retention-interval", "12h"]);
        Ok(())
    };
    let place = Place::start_with(&setting.server, "p3", rarely).await?;
    let mut pushers = Vec::new();
    for n in 0..CLIENTS {
        pushers.push(Pusher::new(&place, n).await?);
    }
    for namespace in ["pgbench", "bare"] {
        agents(&pool, namespace).await?;
    }
    let pgbench = Pgbench::prepare(setting, "p3")?;
    let bare = Process::start(|address| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bare", &address.to_string(), &setting.server.url("p3"), &CLIENTS.to_string()]);
        Ok(command)
    })?;
    reachable(bare.address).await?;
    let mut bare_pushers: Vec<_> =
        (0..CLIENTS).map(|n| Pusher::of(format!("/{n}"), json!({"runID": uuid::Uuid::nil(), "epoch": 1}), n)).collect();
    let time = Duration::from_secs(slice);
    let (ours, floor) = (place.process.address, bare.address);
    // With one client, and with all of them.
    let [mut one, mut many] = [1, CLIENTS].map(|clients| Sides { clients, ..Sides::default() });
    for round in 0..=rounds {
        if round == 1 {
            // As autovacuum does within a minute of a table's life. Until then every plan rests on a guess.
            sqlx::query("VACUUM ANALYZE").execute(&pool).await?;
        }
        for sides in [&mut one, &mut many] {
            let clients = sides.clients;
            let pushed = |pushers: &mut [Pusher], address, changed| {
                tokio::task::block_in_place(|| rate(&mut pushers[..clients], address, changed, time))
            };
            // Whoever is first in one round is last in the next.
            let mut order = [Turn::Changed, Turn::Pgbench, Turn::Bare, Turn::Unchanged];
            if round % 2 == 1 {
                order.reverse();
            }
            for turn in order {
                let (of, rate) = match turn {
                    Turn::Changed => (&mut sides.changed, pushed(&mut pushers, ours, true)?),
                    Turn::Pgbench => (&mut sides.pgbench, pgbench.rate(clients, slice)?),
                    Turn::Bare => (&mut sides.bare, pushed(&mut bare_pushers, floor, true)?),
                    Turn::Unchanged => (&mut sides.unchanged, pushed(&mut pushers, ours, false)?),
                };
                // The first is for caches to fill.
                if round > 0 {
                    of.push(rate);
                }
            }
        }
    }
    for (sides, clients) in [(&one, "1 client"), (&many, "16 clients")] {
        for (name, rates) in sides.named() {
            report.figure(&format!("{name}, {clients}"), "push/s", rates);
        }
    }
    for changed in [true, false] {
        let statements = Statements::begin(&pool).await?;
        let before = place.process.cost()?.cpu;
        let pushed = tokio::task::block_in_place(|| some(&mut pushers[0], &place, changed, 200))?;
        let cpu = (place.process.cost()?.cpu - before) * 1e3 / pushed;
        let what = if changed { "changed" } else { "unchanged" };
        report.fact(&format!("statements of a push, {what}, its loop included"), statements.each(pushed).await?);
        report.fact(&format!("the server's CPU of a push, {what} (ms)"), cpu);
    }
    report.at_least("changed-push", "ratio", &ratios(&one.changed, &one.pgbench), 0.6);
    report.at_least("changed-push-16", "ratio", &ratios(&many.changed, &many.pgbench), 0.6);
    report.at_least("unchanged-push", "ratio", &ratios(&one.unchanged, &one.changed), 5.0);
    report.told("unchanged-push-16", "ratio", &ratios(&many.unchanged, &many.changed));
    report.told("bare-push", "ratio", &ratios(&one.bare, &one.pgbench));
    report.told("bare-push-16", "ratio", &ratios(&many.bare, &many.pgbench));
    report.told("changed-push-of-bare", "ratio", &ratios(&one.changed, &one.bare));
    report.told("changed-push-of-bare-16", "ratio", &ratios(&many.changed, &many.bare));
    let rows = |sides: &Sides, clients: &str| -> Vec<_> {
        sides.named().map(|(name, rates)| (format!("{name}, {clients}"), rates.clone())).into()
    };
    report.plots.push(Bars {
        file: "p3-push",
        title: "Pushes of 50 resources of 4 KiB over HTTP".to_owned(),
        unit: "a second",
        rows: [rows(&one, "1 client"), rows(&many, "16 clients")].concat(),
    });
    drop(bare);
    drop(place);
    pool.close().await;
    setting.drop_database("p3").await?;
    Ok(report)
}

/// The agents that a floor pushes as, one a client.
async fn agents(pool: &PgPool, namespace: &str) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO agents (namespace, id, name, rv, created_at, converged_revision, revision, epoch, run_id, run_started_at)
         SELECT $2, gen_random_uuid(), 'agent-' || n, log_rv(), now(), 9000000000, 9000000000, 1, gen_random_uuid(), now()
         FROM generate_series(0, $1 - 1) n",
    )
    .bind(i32::try_from(CLIENTS)?)
    .bind(namespace)
    .execute(pool)
    .await?;
    Ok(())
}

/// Whose turn it is.
enum Turn {
    Changed,
    Pgbench,
    Bare,
    Unchanged,
}

/// Pushes a second of so many clients, of each side.
#[derive(Default)]
struct Sides {
    clients: usize,
    pgbench: Vec<f64>,
    bare: Vec<f64>,
    changed: Vec<f64>,
    unchanged: Vec<f64>,
}

impl Sides {
    fn named(&self) -> [(&'static str, &Vec<f64>); 4] {
        [("pgbench", &self.pgbench), ("a bare server", &self.bare), ("changed", &self.changed), ("unchanged", &self.unchanged)]
    }
}

/// A client that pushes as an agent of its own.
struct Pusher {
    path: String,
    run: Value,
    seq: u64,
    version: u64,
    /// The resources that never change, ready to be sent.
    fixed: Vec<u8>,
}

impl Pusher {
    async fn new(place: &Place, n: usize) -> anyhow::Result<Self> {
        let (post, name) = (reqwest::Method::POST, format!("pusher-{n}"));
        let agent = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": {}});
        place.ask(post.clone(), "agents", &agent).await?;
        let run = place.ask(post, &format!("agents/{name}/runs"), &json!({})).await?;
        Ok(Self::of(format!("{}/agents/{name}/snapshot", super::place::BASE), run, n))
    }

    /// To a path, by a run.
    fn of(path: String, run: Value, n: usize) -> Self {
        let fixed: Vec<String> = (1..RESOURCES).map(|at| resource(at, (n * RESOURCES + at) as u64)).collect();
        Self { path, run, seq: 0, version: 0, fixed: format!(",{}]}}", fixed.join(",")).into_bytes() }
    }

    /// One push, of a content that never was or of the last one.
    fn push(&mut self, wire: &mut Wire, changed: bool) -> anyhow::Result<()> {
        self.seq += 1;
        self.version += u64::from(changed);
        // Which one changes is the first: of many bytes, all but these are ready.
        let first = resource(0, (self.version << 16) + 1);
        let begin = format!(
            "{{\"runID\":{},\"epoch\":{},\"seq\":{},\"phase\":\"Complete\",\"resources\":[{first}",
            self.run["runID"], self.run["epoch"], self.seq
        );
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{begin}",
            self.path,
            begin.len() + self.fixed.len()
        );
        let (status, body) = wire.ask(&[head.as_bytes(), &self.fixed])?;
        ensure!(status == 200, "a push: {status} {}", String::from_utf8_lossy(body));
        let answer: Value = serde_json::from_slice(body)?;
        ensure!(answer["changed"] == changed, "a push that changed {changed}: {answer}");
        Ok(())
    }
}

/// A skill of 4 KiB.
fn resource(at: usize, seed: u64) -> String {
    let text = hex::encode(noise(RESOURCE_SIZE / 2, seed));
    let source = format!("skills/skill-{at:02}");
    json!({"kind": "Skill", "source": source, "sourcePath": format!("{source}/SKILL.md"), "body": text, "status": "Ok"})
        .to_string()
}

/// Pushes a second of so many clients at once.
fn rate(pushers: &mut [Pusher], address: SocketAddr, changed: bool, time: Duration) -> anyhow::Result<f64> {
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let wires = pushers.iter().map(|_| Wire::open(address)).collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (pushers.iter_mut().zip(wires))
            .map(|(pusher, mut wire)| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        pusher.push(&mut wire, changed)?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        let began = Instant::now();
        std::thread::sleep(time);
        let (pushed, took) = (count.load(Ordering::Relaxed), began.elapsed());
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().ok().context("a client panicked")??;
        }
        ensure!(pushed > 0, "no push within {time:?}");
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        Ok(pushed as f64 / took.as_secs_f64())
    })
}

/// So many pushes of one client. Returns how many.
fn some(pusher: &mut Pusher, place: &Place, changed: bool, count: u32) -> anyhow::Result<f64> {
    let mut wire = Wire::open(place.process.address)?;
    (0..count).try_for_each(|_| pusher.push(&mut wire, changed))?;
    Ok(f64::from(count))
}
