//! P7: the memory of a server on 1,000,000 chats: at rest, and after a load of each sort: fan-outs to very many chats of one agent
//! (P2), changed pushes of 200 KiB by 16 clients at once (P3), watchers and lists (P4, P8), and contexts of many agents read, more than its
//! cache holds (P11).
//!
//! The last figure is taken when the load has been over for two minutes; each before it, right after its part of the load.
//!
//! From before the fan-outs to the end 100 watch all agents, 20 all chats and 20 the transitions: what is kept for watchers is in it.
//!
//! RSS as Linux counts it, shared pages of the program included. The agents are of a namespace of their own, which is removed again.

use super::{
    agent::noise,
    place::{BASE, Place},
    report::Report,
    seed,
    setting::{MILLION, Setting},
    sql::settled,
    stream::Stream,
};
use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

const MOST: f64 = 60.0;
const CLIENTS: usize = 16;
const REST: Duration = Duration::from_secs(5);
/// What watchers read from is forgotten when it is a minute or two old (`moorline_cache_bytes`).
const FORGOTTEN: Duration = Duration::from_secs(130);
/// How long the loop may take for what is asked of it, at most.
const SETTLE: Duration = Duration::from_mins(5);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (chats, pushes, agents) = (setting.of(100_000, 20_000, 200), setting.of(40, 15, 2), setting.of(200, 120, 4));
    let mut report = Report::default();
    let pool = setting.million().await?;
    let place = Place::start(&setting.server, MILLION).await?;
    tokio::time::sleep(REST).await;
    report.figure("after the start", "MB", &[rss(&place)?]);

    let each = [("agents", 100), ("chats", 20), ("contextevents", 20)];
    let paths = each.iter().flat_map(|(path, watchers)| std::iter::repeat_n(*path, *watchers));
    let watches = futures::future::try_join_all(paths.map(|path| watch(&place, path))).await?;
    report.figure("watched", "MB", &[rss(&place)?]);
    let mut many = place.agent("many", 1).await?;
    crowd(&pool, chats).await?;
    for text in ["two", "one"] {
        many.push(&place, text, false).await?;
        settled(&pool, SETTLE).await?;
    }
    report.figure("after fan-outs", "MB", &[rss(&place)?]);

    let mut tasks = Vec::new();
    for client in 0..CLIENTS {
        let mut pusher = Pusher::new(&place, &format!("pusher-{client}")).await?;
        tasks.push(async move {
            for n in 0..pushes {
                pusher.push(n).await?;
            }
            anyhow::Ok(())
        });
    }
    futures::future::try_join_all(tasks).await?;
    settled(&pool, SETTLE).await?;
    report.figure("after pushes", "MB", &[rss(&place)?]);
    for n in 0..20 {
        place.ask(Method::GET, &format!("chats?limit=500&fieldSelector=spec.owner%3Duser-{n}"), &Value::Null).await?;
        place.ask(Method::GET, "chats?limit=500", &Value::Null).await?;
    }
    report.figure("after lists", "MB", &[rss(&place)?]);

    for n in 0..agents {
        let name = format!("context-{n}");
        let mut pusher = Pusher::new(&place, &name).await?;
        pusher.push(n).await?;
        let chat = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name},
                          "spec": {"owner": "bench", "agentRef": {"name": name}}});
        place.ask(Method::POST, "chats", &chat).await?;
        settled(&pool, SETTLE).await?;
        place.ask(Method::GET, &format!("chats/{name}/context"), &Value::Null).await?;
    }
    report.figure("after contexts", "MB", &[rss(&place)?]);
    report.told("rss-at-once", "MB", &[rss(&place)?]);
    tokio::time::sleep(setting.of(FORGOTTEN, FORGOTTEN, REST)).await;
    let peak = std::fs::read_to_string(format!("/proc/{}/status", place.process.id()))?;
    let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    report.fact("peak", peak.trim());
    report.fact("what it says that it keeps", kept(&place).await?);
    report.at_most("rss", "MB", &[rss(&place)?], MOST);
    drop(watches);
    drop(place);
    seed::forget(&pool).await?;
    pool.close().await;
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn rss(place: &Place) -> anyhow::Result<f64> {
    Ok(place.process.cost()?.rss as f64 / 1e6)
}

/// Its caches, as its metrics tell.
async fn kept(place: &Place) -> anyhow::Result<Vec<String>> {
    let text = reqwest::get(format!("http://{}/metrics", place.process.address)).await?.error_for_status()?.text().await?;
    Ok(text.lines().filter(|line| line.starts_with("moorline_cache_bytes{")).map(str::to_owned).collect())
}

/// So many more chats of the agent `many`, moored as its first.
async fn crowd(pool: &PgPool, chats: i64) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, snapshot_id, pin_cause,
                            pinned_at, converged_revision, observed_generation, conditions)
         SELECT c.namespace, x.id, 'many-more-' || x.n, log_rv(), c.owner, c.agent, x.id, 'bench', now(), now(), c.snapshot_id,
                c.pin_cause, c.pinned_at, 1, 1, c.conditions
         FROM chats c, (SELECT n, gen_random_uuid() AS id FROM generate_series(1, $1) n) x
         WHERE c.namespace = 'bench' AND c.name = 'many-chat-0'",
    )
    .bind(chats)
    .execute(pool)
    .await?;
    Ok(())
}

/// Somebody who watches all of a kind from now on, and reads.
async fn watch(place: &Place, path: &str) -> anyhow::Result<tokio_util::task::AbortOnDropHandle<()>> {
    let mut stream = Stream::open(place.process.address, &format!("{BASE}/{path}?watch=1")).await?;
    stream.answered(|_| ()).await?;
    Ok(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
        while stream.read(|_| ()).await.is_ok_and(|more| more) {}
    })))
}

/// An agent that pushes 50 resources of 4 KiB, one of which is new each time.
struct Pusher {
    http: reqwest::Client,
    url: String,
    run: Value,
    seq: usize,
    resources: Vec<Value>,
}

impl Pusher {
    async fn new(place: &Place, name: &str) -> anyhow::Result<Self> {
        let agent = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": {}});
        place.ask(Method::POST, "agents", &agent).await?;
        let run = place.ask(Method::POST, &format!("agents/{name}/runs"), &json!({})).await?;
        let resources = (0..50).map(|n| resource(n, &format!("{name} {n}"))).collect();
        let url = format!("http://{}{BASE}/agents/{name}/snapshot", place.process.address);
        Ok(Self { http: reqwest::Client::new(), url, run, seq: 0, resources })
    }

    async fn push(&mut self, n: usize) -> anyhow::Result<()> {
        self.seq += 1;
        self.resources[n % 50] = resource(n % 50, &format!("{} {}", self.url, self.seq));
        let push = json!({"runID": self.run["runID"], "epoch": self.run["epoch"], "seq": self.seq, "phase": "Complete",
                          "resources": self.resources});
        let request = self.http.put(&self.url).header("content-type", "application/json").body(push.to_string());
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

fn resource(n: usize, what: &str) -> Value {
    let seed = what.bytes().fold(n as u64, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let body = noise(2048, seed).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    json!({"kind": "Skill", "source": format!("skills/skill-{n:02}"), "sourcePath": format!("skills/skill-{n:02}/SKILL.md"),
           "body": body, "status": "Ok"})
}
