//! P4: from the commit of a push until a watcher has what came of it, against the same in plain SQL on the same server.
//!
//! `agent`: the push's own event, against commit + NOTIFY → listener. `chat`: the transition that the loop makes of it, against
//! commit + NOTIFY → a listener that commits + NOTIFYs → a second listener. That listener's transaction is four round trips, as a
//! program's is; what is told besides is the same with one (a script in one message), which nobody who reads before they write can have. When a transaction committed is what PostgreSQL says
//! of it (`track_commit_timestamp`): both sides begin at the same moment of a commit, before it is on the disk.

use super::{
    clients::now,
    place::{BASE, Place},
    plot::Bars,
    report::Report,
    setting::Setting,
    stats,
    stream::Stream,
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgListener};
use std::{net::SocketAddr, time::Duration};
use tokio::sync::mpsc;

/// How long anything may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the ratio of the medians may be.
const P50: f64 = 4.0;
/// What the ratio of the 99th percentiles may be.
const P99: f64 = 10.0;

/// What a watcher has got: the version on the wire, and when.
type Arrival = (i64, u64);

/// Measures: blocks, of each of which the ratios are taken, of laps: one push, one commit and one relayed commit each.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (blocks, laps) = (setting.of(7, 5, 1), setting.of(200, 120, 10));
    let pool = setting.database("p4").await?;
    let place = Place::start(&setting.server, "p4").await?;
    let mut agent = place.agent("latency", 1).await?;
    let address = place.process.address;
    let mut agents = watch(address, "agents?watch=1&fieldSelector=metadata.name%3Dlatency").await?;
    let mut chats = watch(address, "chats?watch=1&fieldSelector=metadata.name%3Dlatency-chat-0").await?;
    let mut plain = Plain::new(&pool).await?;
    let mut sides: [Side; 5] = Default::default();
    let mut texts = ["two", "one"].into_iter().cycle();
    for block in 0..=blocks {
        let mut times: [Vec<f64>; 5] = Default::default();
        for lap in 0..laps {
            // Not in step with anything that ticks.
            tokio::time::sleep(Duration::from_micros(12_000 + 137 * (lap % 53))).await;
            while agents.try_recv().is_ok() || chats.try_recv().is_ok() {}
            agent.push(&place, texts.next().context("it cycles")?, false).await?;
            let (version, heard) = tokio::time::timeout(PATIENCE, agents.recv()).await?.context("the agent's watch ended")?;
            let (_, chat_heard) = tokio::time::timeout(PATIENCE, chats.recv()).await?.context("the chat's watch ended")?;
            let committed = committed(&mut plain.asks, (version / 2) & ((1 << 44) - 1)).await?;
            tokio::time::sleep(Duration::from_millis(12)).await;
            let hop = plain.hop().await?;
            tokio::time::sleep(Duration::from_millis(12)).await;
            let relayed = plain.relay().await?;
            tokio::time::sleep(Duration::from_millis(12)).await;
            let scripted = plain.script().await?;
            let all = [heard.saturating_sub(committed), hop, chat_heard.saturating_sub(committed), relayed, scripted];
            #[expect(clippy::cast_precision_loss, reason = "microseconds")]
            times.iter_mut().zip(all).for_each(|(times, took)| times.push(took as f64));
        }
        // The first is for caches to fill.
        if block > 0 {
            for (side, mut times) in sides.iter_mut().zip(times) {
                times.sort_by(f64::total_cmp);
                side.p50.push(stats::percentile(&times, 50));
                side.p99.push(stats::percentile(&times, 99));
            }
        }
    }
    let mut report = Report::default();
    let [agents, hops, chats, relays, scripts] = &sides;
    let names = [
        "the agent's event",
        "one hop of SQL",
        "the chat's event, by the loop",
        "two hops of SQL",
        "two hops, the second one message",
    ];
    for (name, side) in names.iter().zip(&sides) {
        report.figure(&format!("{name}, p50 of a block"), "µs", &side.p50);
        report.figure(&format!("{name}, p99 of a block"), "µs", &side.p99);
    }
    report.at_most("agent-p50", "ratio", &stats::ratios(&agents.p50, &hops.p50), P50);
    report.at_most("agent-p99", "ratio", &stats::ratios(&agents.p99, &hops.p99), P99);
    report.at_most("chat-p50", "ratio", &stats::ratios(&chats.p50, &relays.p50), P50);
    report.at_most("chat-p99", "ratio", &stats::ratios(&chats.p99, &relays.p99), P99);
    report.told("chat-p50-one-message", "ratio", &stats::ratios(&chats.p50, &scripts.p50));
    report.plots.push(Bars {
        file: "p4-latency",
        title: "From a commit until it is heard of, medians of blocks".to_owned(),
        unit: "µs",
        rows: names.iter().zip(&sides).map(|(name, side)| ((*name).to_owned(), side.p50.clone())).collect(),
    });
    // The pool is not closed: the listeners have connections of it for good.
    drop(place);
    Ok(report)
}

/// What was measured of one side, a figure a block, in microseconds.
#[derive(Default)]
struct Side {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Watches, and says of each change after the first list which version it is of and when it came.
async fn watch(address: SocketAddr, path: &str) -> anyhow::Result<mpsc::UnboundedReceiver<Arrival>> {
    let mut stream = Stream::open(address, &format!("{BASE}/{path}")).await?;
    let (tell, told) = mpsc::unbounded_channel();
    let (mut text, mut first) = (Vec::new(), true);
    let (listed, mut ready) = mpsc::unbounded_channel::<()>();
    let follow = async move {
        loop {
            let more = stream.read(|bytes| text.extend_from_slice(bytes)).await?;
            let at = now();
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                let version = event["object"]["metadata"]["resourceVersion"].as_str().context("a version")?.parse()?;
                ensure!(event["type"] != "ERROR", "{event}");
                if std::mem::take(&mut first) {
                    listed.send(()).ok();
                } else {
                    tell.send((version, at)).ok();
                }
            }
            if !more {
                return anyhow::Ok(());
            }
        }
    };
    tokio::spawn(async move { follow.await.inspect_err(|error| eprintln!("a watch ended: {error:#}")) });
    tokio::time::timeout(PATIENCE, ready.recv()).await?.context("the watch ended")?;
    Ok(told)
}

/// When a transaction committed, in microseconds since 1970.
async fn committed(connection: &mut PgConnection, xid: i64) -> anyhow::Result<u64> {
    let at: i64 = sqlx::query_scalar("SELECT (extract(epoch FROM pg_xact_commit_timestamp($1::text::xid)) * 1000000)::bigint")
        .bind(xid.to_string())
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(at)?)
}

/// The same in plain SQL: rows changed, committed and told of.
struct Plain {
    asks: PgConnection,
    writes: PgConnection,
    hears: PgListener,
    hears_second: PgListener,
    hears_third: PgListener,
}

impl Plain {
    async fn new(pool: &PgPool) -> anyhow::Result<Self> {
        pool.execute("CREATE TABLE IF NOT EXISTS plain (id int PRIMARY KEY, n int NOT NULL, at xid8)").await?;
        pool.execute("INSERT INTO plain VALUES (1, 0, NULL), (2, 0, NULL), (3, 0, NULL), (4, 0, NULL) ON CONFLICT DO NOTHING")
            .await?;
        let options = (*pool.connect_options()).clone();
        let connect = async || PgConnection::connect_with(&options).await;
        let listener = async |channel: &'static str| {
            let mut listener = PgListener::connect_with(pool).await?;
            listener.listen(channel).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        let (hears, hears_second, hears_third) =
            (listener("plain_one").await?, listener("plain_three").await?, listener("plain_five").await?);
        let (mut relays, mut relay) = (listener("plain_two").await?, connect().await?);
        tokio::spawn(async move {
            while relays.recv().await.is_ok() {
                if commit(&mut relay, 3, "plain_three").await.is_err() {
                    break;
                }
            }
        });
        let (mut scripted, mut script) = (listener("plain_four").await?, connect().await?);
        tokio::spawn(async move {
            let at_once = "BEGIN; UPDATE plain SET n = n + 1, at = pg_current_xact_id() WHERE id = 4; NOTIFY plain_five; COMMIT";
            while scripted.recv().await.is_ok() {
                if script.execute(at_once).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { asks: connect().await?, writes: connect().await?, hears, hears_second, hears_third })
    }

    /// A commit, told to one listener.
    async fn hop(&mut self) -> anyhow::Result<u64> {
        let (done, heard) = tokio::join!(commit(&mut self.writes, 1, "plain_one"), heard(&mut self.hears));
        done?;
        self.since(1, heard?).await
    }

    /// A commit, told to one who commits and tells another.
    async fn relay(&mut self) -> anyhow::Result<u64> {
        let (done, heard) = tokio::join!(commit(&mut self.writes, 2, "plain_two"), heard(&mut self.hears_second));
        done?;
        self.since(2, heard?).await
    }

    /// The same, by one who sends their whole transaction as one message.
    async fn script(&mut self) -> anyhow::Result<u64> {
        let (done, heard) = tokio::join!(commit(&mut self.writes, 2, "plain_four"), heard(&mut self.hears_third));
        done?;
        self.since(2, heard?).await
    }

    async fn since(&mut self, id: i32, heard: u64) -> anyhow::Result<u64> {
        let xid: String =
            sqlx::query_scalar("SELECT at::text FROM plain WHERE id = $1").bind(id).fetch_one(&mut self.asks).await?;
        Ok(heard.saturating_sub(committed(&mut self.asks, xid.parse()?).await?))
    }
}

/// When the next notification came: stamped as it comes, whatever else is waited for.
async fn heard(listener: &mut PgListener) -> anyhow::Result<u64> {
    tokio::time::timeout(PATIENCE, listener.recv()).await??;
    Ok(now())
}

/// One transaction that changes one row, and tells of it as it commits: nothing in SQL is heard of sooner.
async fn commit(connection: &mut PgConnection, id: i32, channel: &str) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query("UPDATE plain SET n = n + 1, at = pg_current_xact_id() WHERE id = $1").bind(id).execute(&mut *tx).await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(channel).execute(&mut *tx).await?;
    tx.commit().await
}
