//! Real `moorline serve` processes, and a client for them.

use super::{ports, postgres::TestDb, until::until};
use serde_json::{Value, json};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

/// Where a replica's log goes: nowhere, unless somebody looks for something and names a file.
pub fn log() -> Stdio {
    let named = std::env::var_os("MOORLINE_TEST_LOG");
    let file = named.map(|file| std::fs::File::options().append(true).create(true).open(file).expect("the log"));
    file.map_or_else(Stdio::null, Stdio::from)
}

/// A replica.
pub struct Replica {
    child: Child,
    pub url: String,
}

impl Replica {
    /// Starts one on a free port, and waits until it is ready.
    pub async fn start(db: &TestDb, flags: &[&str]) -> Self {
        Self::telling(&db.url, flags, log()).await
    }

    /// The same with these variables in its environment.
    #[cfg(feature = "otlp")]
    pub async fn start_in(db: &TestDb, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_moorline"));
        Self::in_an_environment(program, &[&["--database-url", &db.url], flags].concat(), variables, log()).await
    }

    /// The same on any database, with its log lines going somewhere.
    pub async fn telling(database: &str, flags: &[&str], log: Stdio) -> Self {
        Self::with(&[&["--database-url", database], flags].concat(), log).await
    }

    /// The same with nothing but these flags.
    pub async fn with(flags: &[&str], log: Stdio) -> Self {
        Self::of(Path::new(env!("CARGO_BIN_EXE_moorline")), flags, log).await
    }

    /// The same of another binary.
    pub async fn of(program: &Path, flags: &[&str], log: Stdio) -> Self {
        Self::in_an_environment(program, flags, &[], log).await
    }

    /// The same, with these variables in its environment.
    pub async fn in_an_environment(program: &Path, flags: &[&str], variables: &[(&str, &str)], log: Stdio) -> Self {
        let port = ports::free();
        let child = Command::new(program)
            .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--poll-ms", "200"])
            .args(flags)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("moorline serve");
        let replica = Self { child, url: format!("http://127.0.0.1:{port}") };
        let client = Client::new();
        // In clear, where there is such a place.
        let probes = flags.iter().position(|flag| *flag == "--health-listen").and_then(|at| flags.get(at + 1));
        let probes = probes.map_or_else(|| replica.url.clone(), |address| format!("http://{address}"));
        until("the replica is ready", || async {
            let answer = client.http.get(format!("{probes}/readyz")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
        replica
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().expect("killing it");
        self.child.wait().expect("its end");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("a signal");
    }

    /// SIGTERM; answers with the exit code.
    pub async fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        until("the replica ends", || {
            let ended = self.child.try_wait().expect("looking at it");
            async move { ended }
        })
        .await
        .code()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A client.
#[derive(Clone)]
pub struct Client {
    pub http: reqwest::Client,
}

impl Client {
    pub fn new() -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        Self { http: reqwest::Client::new() }
    }

    /// Sends a request to a path of the namespace `default`. Status 0: nobody answered.
    pub async fn send(&self, replica: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.send_in("default", replica, method, path, body).await
    }

    /// The same, of any namespace.
    pub async fn send_in(&self, namespace: &str, replica: &str, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{replica}/apis/moorline.dev/v1alpha1/namespaces/{namespace}/{path}");
        let method = method.parse::<reqwest::Method>().expect("a method");
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.http.request(method, url).header("content-type", media);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        match request.send().await {
            Err(_) => (0, Value::Null),
            Ok(answer) => {
                let code = answer.status().as_u16();
                (code, answer.json().await.unwrap_or(Value::Null))
            }
        }
    }

    pub async fn get(&self, replica: &str, path: &str) -> (u16, Value) {
        self.send(replica, "GET", path, None).await
    }

    pub async fn post(&self, replica: &str, path: &str, body: Value) -> (u16, Value) {
        self.send(replica, "POST", path, Some(body)).await
    }
}

/// A push of one instruction file.
pub fn push_of(run: &Value, seq: i64, phase: &str, body: &str) -> Value {
    json!({"runID": run["runID"], "epoch": run["epoch"], "seq": seq, "phase": phase,
           "resources": [{"kind": "InstructionFile", "source": "AGENTS.md", "sourcePath": "AGENTS.md", "body": body, "status": "Ok"}]})
}
