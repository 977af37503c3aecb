//! The day: agents that report what a public repository's context was over some commits, chats on them, and watchers.
//!
//! An active day of the trace has between four and five commits; each agent pushes [`PUSHES`] steps that follow one another, and
//! begins where its number says, so that no two neighbours have the same context at once.

use super::{HISTORY, PUSHERS, WATCHERS, trace::Trace};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use moorline::model::resource::Resource;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinSet;

/// How many pushes each agent makes in the day.
const PUSHES: usize = 5;
/// How many agents a namespace has, and how many of them share a workspace with none: each has its own.
const NAMESPACE: u64 = 100;

/// Agents, and what they report.
pub struct Day {
    url: String,
    http: reqwest::Client,
    agents: u64,
    /// The resources of each step, as they are sent.
    steps: Vec<String>,
    /// Of each agent: run and epoch.
    runs: Mutex<Vec<(String, i64)>>,
    /// Watches that were refused or cut off.
    cuts: Arc<AtomicU64>,
}

fn namespace(agent: u64) -> String {
    format!("team-{:03}", agent / NAMESPACE)
}

fn sent(resource: &Resource) -> Value {
    let meta = &resource.meta;
    let body = resource.body.as_deref().map(String::from_utf8_lossy);
    json!({"kind": meta.kind, "source": meta.source, "sourcePath": meta.source_path, "status": meta.status, "body": body})
}

impl Day {
    /// Nothing is sent yet.
    pub fn new(url: String, agents: u64) -> anyhow::Result<Self> {
        rustls::crypto::ring::default_provider().install_default().ok();
        let trace = Trace::read();
        let step = |step| serde_json::to_string(&trace.resources(step).iter().map(sent).collect::<Vec<_>>());
        let steps = trace.steps().map(step).collect::<Result<_, _>>()?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { url, http, agents, steps, runs: Mutex::default(), cuts: Arc::default() })
    }

    /// Waits for the server.
    pub async fn ready(&self) -> anyhow::Result<()> {
        for _ in 0..600 {
            let asked = self.http.get(format!("{}/readyz", self.url)).send().await;
            if asked.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("the server is not ready after a minute")
    }

    async fn send(&self, method: reqwest::Method, agent: u64, path: &str, body: String) -> anyhow::Result<Value> {
        let url = format!("{}/apis/moorline.dev/v1alpha1/namespaces/{}/{path}", self.url, namespace(agent));
        let answer = self.http.request(method, url).header("content-type", "application/json").body(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// Makes the agents, each with a run and its first context.
    pub async fn make_agents(&self) -> anyhow::Result<()> {
        let made: Vec<(String, i64)> = stream::iter(0..self.agents)
            .map(|agent| async move {
                let spec = json!({"workspace": format!("ws-{agent}"), "revisionHistoryLimit": HISTORY});
                let object = json!({"metadata": {"name": format!("agent-{agent}")}, "spec": spec});
                self.send(reqwest::Method::POST, agent, "agents", object.to_string()).await?;
                let run = self.send(reqwest::Method::POST, agent, &format!("agents/agent-{agent}/runs"), "{}".into()).await?;
                let id = run["runID"].as_str().context("a run")?.to_owned();
                anyhow::Ok((id, run["epoch"].as_i64().context("an epoch")?))
            })
            .buffered(PUSHERS)
            .try_collect()
            .await?;
        *self.runs.lock().expect("nobody panics with it") = made;
        self.pushes(0..1).await.map(drop)
    }

    /// All pushes of the day: one of every agent, then the next of every agent. Answers with how many.
    pub async fn push_all(&self) -> anyhow::Result<usize> {
        self.pushes(1..=PUSHES).await
    }

    async fn pushes(&self, numbers: impl Iterator<Item = usize> + Send) -> anyhow::Result<usize> {
        let all = numbers.flat_map(|number| (0..self.agents).map(move |agent| (number, agent)));
        let sent = stream::iter(all).map(|(number, agent)| self.push(number, agent)).buffer_unordered(PUSHERS);
        sent.try_fold(0, async |count, ()| Ok(count + 1)).await
    }

    async fn push(&self, number: usize, agent: u64) -> anyhow::Result<()> {
        let at = usize::try_from(agent)?;
        let (run, epoch) = self.runs.lock().expect("nobody panics with it")[at].clone();
        let step = &self.steps[(at * 7 + number) % self.steps.len()];
        let head = json!({"runID": run, "epoch": epoch, "seq": number + 1, "phase": "Complete"}).to_string();
        let body = format!("{},\"resources\":{step}}}", head.trim_end_matches('}'));
        self.send(reqwest::Method::PUT, agent, &format!("agents/agent-{agent}/snapshot"), body).await.map(drop)
    }

    /// How often a watch was refused or cut off.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Watchers of chats, of a namespace each, who read as fast as it comes. They end with this.
    pub fn watch(&self) -> JoinSet<()> {
        let mut watching = JoinSet::new();
        for n in 0..WATCHERS as u64 {
            let namespace = namespace(n * NAMESPACE % self.agents);
            let url = format!("{}/apis/moorline.dev/v1alpha1/namespaces/{namespace}/contextevents?watch=1", self.url);
            let (http, cuts) = (self.http.clone(), self.cuts.clone());
            watching.spawn(async move {
                loop {
                    match http.get(&url).send().await {
                        Ok(mut answer) if answer.status().is_success() => while let Ok(Some(_)) = answer.chunk().await {},
                        Ok(_) | Err(_) => {}
                    }
                    cuts.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
        }
        watching
    }
}

/// Makes the chats in SQL, due: the loop moors them. Every fourth names the workspace, every twentieth follows by itself.
pub async fn make_chats(pool: &PgPool, chats: u64, agents: u64) -> anyhow::Result<()> {
    const BATCH: i64 = 50_000;
    let (chats, agents) = (i64::try_from(chats)?, i64::try_from(agents)?);
    for from in (0..chats).step_by(50_000) {
        sqlx::query(
            "INSERT INTO chats (namespace, id, name, rv, owner, title, agent, workspace, root_id, created_by, created_at, updated_at,
                                refresh_policy)
             SELECT 'team-' || lpad((x.agent / $4)::text, 3, '0'), x.id, 'chat-' || x.n, log_rv(), 'user-' || x.n % 100, 'Chat number ' || x.n,
                    CASE WHEN x.n / $3 % 4 > 0 THEN 'agent-' || x.agent END, CASE WHEN x.n / $3 % 4 = 0 THEN 'ws-' || x.agent END,
                    x.id, 'bounds', now(), now(), CASE WHEN x.n % 20 = 0 THEN 'OnDrift' ELSE 'Manual' END
             FROM (SELECT n, n % $3 AS agent, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
                   FROM generate_series($1, $2) n) x",
        )
        .bind(from)
        .bind((from + BATCH).min(chats) - 1)
        .bind(agents)
        .bind(i64::try_from(NAMESPACE)?)
        .execute(pool)
        .await?;
    }
    Ok(())
}
