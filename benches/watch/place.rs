//! A `moorline serve` of its own process on the bench's database, what it costs, and what is asked of it.

use anyhow::{Context as _, ensure};
use moorline::embedded::Embedded;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Where the paths of the bench's objects begin.
pub const BASE: &str = "/apis/moorline.dev/v1alpha1/namespaces/bench";
/// Ticks a second in `/proc/PID/stat`, which Linux promises to be this, whatever the kernel's own are.
const TICKS: f64 = 100.0;

/// Lets this process and those that it starts have so many files open.
pub fn files(wanted: u64) -> anyhow::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        ensure!(maximum.is_none_or(|maximum| maximum >= wanted), "{wanted} open files are needed: ulimit -Hn {wanted}");
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })?;
    }
    Ok(())
}

/// What a process has cost so far.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Processor time in seconds.
    pub cpu: f64,
    /// Memory in bytes.
    pub rss: u64,
}

impl Cost {
    /// Of a process that runs.
    pub fn of(process: u32) -> anyhow::Result<Self> {
        let of = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
        let (stat, status) = (of("stat")?, of("status")?);
        let after = stat.rsplit_once(')').context("the name of a process")?.1;
        let mut ticks = after.split_whitespace().skip(11).map(str::parse::<f64>);
        let (user, system) = (ticks.next().context("utime")??, ticks.next().context("stime")??);
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: u64 = rss.trim().trim_end_matches(" kB").parse()?;
        Ok(Self { cpu: (user + system) / TICKS, rss: kib << 10 })
    }
}

/// A process that serves.
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts what listens on the address that it is given.
    pub fn start(command: impl FnOnce(SocketAddr) -> anyhow::Result<Command>) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { child: command(address)?.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?, address })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(began.elapsed() < patience, "it does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// What it has cost so far.
    pub fn cost(&self) -> anyhow::Result<Cost> {
        Cost::of(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Waits until somebody listens there.
pub async fn reachable(address: SocketAddr) -> anyhow::Result<()> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        ensure!(began.elapsed() < Duration::from_secs(10), "the bare server does not answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// A server, and who asks it.
pub struct Place {
    /// Its process.
    pub process: Process,
    http: reqwest::Client,
}

impl Place {
    /// Starts one on a migrated database, and returns when it is ready.
    pub async fn start(server: &Embedded, database: &str) -> anyhow::Result<Self> {
        Self::start_with(server, database, |_| Ok(())).await
    }

    /// The same, with whatever else its command is to have.
    pub async fn start_with(
        server: &Embedded,
        database: &str,
        more: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let url = server.url(database);
        let process = Process::start(|address| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
            command.args(["serve", "--listen", &address.to_string(), "--database-url", &url]);
            command.env("RUST_LOG", "warn");
            more(&mut command)?;
            Ok(command)
        })?;
        let place = Self { process, http: reqwest::Client::builder().build()? };
        let began = Instant::now();
        loop {
            if place.text("readyz").await.is_ok() {
                return Ok(place);
            }
            ensure!(began.elapsed() < Duration::from_secs(30), "the server does not become ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it says of itself, if it is well.
    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        Ok(self.http.get(format!("http://{}/{path}", self.process.address)).send().await?.error_for_status()?.text().await?)
    }

    /// Asks for something below the namespace.
    pub async fn ask(&self, method: reqwest::Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("http://{}{BASE}/{path}", self.process.address);
        let request = self.http.request(method, url).header("content-type", "application/json");
        let answer = request.body(if body.is_null() { String::new() } else { body.to_string() }).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    /// An agent with a run, and so many chats bound to it.
    pub async fn agent(&self, name: &str, chats: usize) -> anyhow::Result<Agent> {
        let post = reqwest::Method::POST;
        let api = "moorline.dev/v1alpha1";
        let agent = json!({"apiVersion": api, "kind": "Agent", "metadata": {"name": name}, "spec": {}});
        self.ask(post.clone(), "agents", &agent).await?;
        let run = self.ask(post.clone(), &format!("agents/{name}/runs"), &json!({})).await?;
        for n in 0..chats {
            let chat = json!({"apiVersion": api, "kind": "Chat", "metadata": {"name": format!("{name}-chat-{n}")},
                              "spec": {"owner": "bench", "agentRef": {"name": name}}});
            self.ask(post.clone(), "chats", &chat).await?;
        }
        let mut agent = Agent { name: name.to_owned(), run, seq: 0 };
        // Both contexts are known before anything is measured; the chats are moored to the first.
        for text in ["one", "two", "one"] {
            agent.push(self, text, true).await?;
        }
        Ok(agent)
    }
}

/// An agent that pushes.
pub struct Agent {
    name: String,
    run: Value,
    seq: u64,
}

impl Agent {
    /// Pushes a context of one file; returns when the loop has told the chats, if that is to be waited for.
    pub async fn push(&mut self, place: &Place, text: &str, wait: bool) -> anyhow::Result<()> {
        self.seq += 1;
        let resource =
            json!({"kind": "InstructionFile", "source": "AGENTS.md", "sourcePath": "AGENTS.md", "body": text, "status": "Ok"});
        let push = json!({"runID": self.run["runID"], "epoch": self.run["epoch"], "seq": self.seq, "phase": "Complete",
                          "resources": [resource]});
        let url = format!("http://{}{BASE}/agents/{}/snapshot", place.process.address, self.name);
        let mut request = place.http.put(url).header("content-type", "application/json").body(push.to_string());
        if wait {
            request = request.header("prefer", "wait=20");
        }
        let answer = request.send().await?;
        let applied = answer.headers().contains_key("preference-applied");
        let status = answer.status();
        ensure!(status.is_success() && (applied || !wait), "a push: {status} {}", answer.text().await?);
        Ok(())
    }
}
