//! The API over real HTTP: a server of ours in this process with its loop, on a port of its own, and what clients send to it.

use super::postgres::TestDb;
use moorline::{clock, config, server::Server, wake::ListenNotify};
use reqwest::{
    Method, RequestBuilder,
    header::{HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use std::{ops::Deref, path::PathBuf, str::FromStr as _};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where objects are made unless a test says otherwise.
pub const NAMESPACE: &str = "team-a";
/// Where all paths of ours begin.
pub const BASE: &str = "/apis/moorline.dev/v1alpha1";

/// A running server. It stops when this is dropped.
pub struct Api {
    caller: Caller,
    /// `host:port`, for raw connections.
    pub address: String,
    _stop: DropGuard,
    _tokens: Option<TempDir>,
}

impl Deref for Api {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

/// How a server of ours is told to run here: on a free port, with the loop awake.
pub fn settings() -> config::Server {
    config::Server {
        listen: "127.0.0.1:0".parse().unwrap(),
        auth: config::Auth::None,
        token_auth_file: None,
        listen_notify: ListenNotify::On,
        poll_ms: 500,
        database_connections: 8,
        retention_interval: moorline::config::RETENTION_INTERVAL,
        event_retention: moorline::config::EVENT_RETENTION,
        access: config::Access::default(),
        serving: config::Serving::default(),
    }
}

impl Api {
    /// A server that takes everybody for its owner.
    pub async fn start(db: &TestDb) -> Self {
        Self::run(settings(), db.options.clone(), None).await
    }

    /// A server that knows its callers by tokens: `token,user,uid[,"group,…"]` lines.
    pub async fn with_tokens(db: &TestDb, lines: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file: PathBuf = dir.path().join("tokens.csv");
        std::fs::write(&file, lines).unwrap();
        let config = config::Server { auth: config::Auth::Token, token_auth_file: Some(file), ..settings() };
        Self::run(config, db.options.clone(), Some(dir)).await
    }

    /// A server on a database of another kind.
    pub async fn run(config: config::Server, options: PgConnectOptions, tokens: Option<TempDir>) -> Self {
        let server = Server::bind(config, options, clock::system()).await.unwrap();
        let address = server.address().to_string();
        let stop = CancellationToken::new();
        tokio::spawn(server.run(stop.clone()));
        let caller = Caller::new(&format!("http://{address}"));
        Self { caller, address, _stop: stop.drop_guard(), _tokens: tokens }
    }
}

/// Somebody who sends requests, always with the same headers.
#[derive(Clone)]
pub struct Caller {
    /// Of the server.
    pub url: String,
    client: reqwest::Client,
    headers: HeaderMap,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    /// `Null` when the body is no JSON.
    pub json: Value,
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }

    /// A refusal, which must be a whole `Status` object with this code and reason.
    #[track_caller]
    pub fn refused(self, code: u16, reason: &str) -> Refused {
        let Self { status, headers, text, json } = self;
        let (got, named) = (status, json["reason"].as_str().unwrap_or_default());
        assert_eq!((got, named), (code, reason), "{text}");
        for (field, wanted) in [("kind", json!("Status")), ("apiVersion", json!("v1")), ("status", json!("Failure"))] {
            assert_eq!(json[field], wanted, "{text}");
        }
        assert_eq!(json["code"], json!(code), "{text}");
        let type_ = headers.get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!(type_, Some("application/json"), "{text}");
        let message = json["message"].as_str().expect("a refusal has a message").to_owned();
        assert!(!message.is_empty());
        let text_of = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
        let causes = json["details"]["causes"].as_array().into_iter().flatten();
        let causes = causes.map(|cause| Cause {
            reason: text_of(cause, "reason"),
            field: text_of(cause, "field"),
            message: text_of(cause, "message"),
        });
        Refused { message, causes: causes.collect(), headers }
    }

    /// One header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// All warnings.
    pub fn warnings(&self) -> Vec<String> {
        self.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

/// Why not.
#[derive(Clone, Debug)]
pub struct Refused {
    pub message: String,
    pub causes: Vec<Cause>,
    pub headers: HeaderMap,
}

/// One of the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub field: String,
    pub message: String,
}

impl Refused {
    /// The fields that are at fault, in order.
    pub fn fields(&self) -> Vec<&str> {
        self.causes.iter().map(|cause| cause.field.as_str()).collect()
    }

    /// The one cause that is of this reason.
    #[track_caller]
    pub fn cause(&self, reason: &str) -> &Cause {
        let mut of = self.causes.iter().filter(|cause| cause.reason == reason);
        let only = of.next().unwrap_or_else(|| panic!("no cause {reason} in {self:?}"));
        assert!(of.next().is_none(), "more than one cause {reason} in {self:?}");
        only
    }
}

impl Caller {
    /// Somebody without a name.
    pub fn new(url: &str) -> Self {
        // Whichever test is first; the others find it done.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url: url.to_owned(), client, headers: HeaderMap::new() }
    }

    /// Somebody without a name, who trusts the servers that this authority vouches for, and no others.
    pub fn trusting(url: &str, authority: &str) -> Self {
        let nobody = Self::new(url);
        let authority = reqwest::Certificate::from_pem_bundle(authority.as_bytes()).unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only(authority).build().unwrap();
        Self { client, ..nobody }
    }

    /// The same, with another header.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut other = self.clone();
        other.headers.insert(HeaderName::from_str(name).unwrap(), HeaderValue::from_str(value).unwrap());
        other
    }

    /// The same, as somebody whose token this is.
    pub fn as_token(&self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// A path that begins with `/` is taken as it is; others are of our namespace.
    pub fn to(&self, path: &str) -> String {
        if path.starts_with('/') {
            format!("{}{path}", self.url)
        } else {
            format!("{}{BASE}/namespaces/{NAMESPACE}/{path}", self.url)
        }
    }

    /// A request that is not sent yet.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.to(path)).headers(self.headers.clone())
    }

    /// Sends it.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole answer");
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status, headers, text, json }
    }

    /// Sends a body as it is, of this type.
    pub async fn send_raw(&self, method: Method, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(self.request(method, path).header("content-type", content_type).body(body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.patient(Method::PUT, path).json(body)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.patient(Method::POST, path).json(body)).await
    }

    /// What is answered when the loop has caught up waits 30 s for it, unless this caller prefers otherwise. The five seconds that it
    /// waits unasked are long for a server, and short for a disk that other tests fill and stop at the same time.
    fn patient(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.request(method, path);
        let waits = path == "chats" || path.ends_with("/context");
        if waits && !self.headers.contains_key("prefer") { request.header("prefer", "wait=30") } else { request }
    }

    /// A merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send_raw(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Creates an agent.
    pub async fn create_agent(&self, name: &str, spec: Value) -> Value {
        self.post("agents", &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201)
    }

    /// Creates a chat, and waits for the loop.
    pub async fn create_chat(&self, name: &str, spec: Value) -> Value {
        self.post("chats", &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201)
    }

    /// Registers a run.
    pub async fn register_run(&self, agent: &str) -> Run {
        let run = self.post(&format!("agents/{agent}/runs"), &json!({})).await.expect(201);
        Run { agent: agent.to_owned(), id: run["runID"].as_str().unwrap().to_owned(), epoch: run["epoch"].as_i64().unwrap() }
    }

    /// An agent with a run.
    pub async fn running_agent(&self, name: &str) -> Run {
        self.create_agent(name, json!({})).await;
        self.register_run(name).await
    }

    /// Pushes a body.
    pub async fn push(&self, agent: &str, body: &Value) -> Answer {
        self.put(&format!("agents/{agent}/snapshot"), body).await
    }

    /// Pushes resources as a complete report, which must be taken.
    pub async fn pushed(&self, run: &Run, seq: i64, resources: Value) -> Value {
        self.push(&run.agent, &run.report(seq, resources)).await.expect(200)
    }

    /// A chat as it is.
    pub async fn chat(&self, name: &str) -> Value {
        self.get(&format!("chats/{name}")).await.expect(200)
    }

    /// An agent as it is.
    pub async fn agent(&self, name: &str) -> Value {
        self.get(&format!("agents/{name}")).await.expect(200)
    }
}

/// A run of an agent.
#[derive(Clone, Debug)]
pub struct Run {
    pub agent: String,
    pub id: String,
    pub epoch: i64,
}

impl Run {
    /// A complete report.
    #[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in its place")]
    pub fn report(&self, seq: i64, resources: Value) -> Value {
        json!({"runID": self.id, "epoch": self.epoch, "seq": seq, "phase": "Complete", "resources": resources})
    }
}

/// An instruction file, as it is pushed.
pub fn file(source: &str, body: &str) -> Value {
    json!({"kind": "InstructionFile", "source": source, "sourcePath": source, "body": body, "status": "Ok"})
}

/// Everything that the database holds, in one number: two are equal when every row of every table is.
pub async fn digest(db: &TestDb) -> String {
    let mut rows = Vec::new();
    for table in ["agents", "chats", "snapshots", "blobs", "events", "log_state"] {
        let all =
            format!("SELECT coalesce(md5(string_agg(t::text, E'\\n' ORDER BY t::text)), '') || ' ' || count(*) FROM {table} t");
        let row: String = sqlx::query_scalar(sqlx::AssertSqlSafe(all)).fetch_one(&db.pool).await.unwrap();
        rows.push(format!("{table} {row}"));
    }
    rows.join("\n")
}

/// Waits until the loop has nothing left to do.
pub async fn settled(db: &TestDb) {
    super::until::until("the loop has nothing left to do", || async {
        let due = "SELECT (SELECT count(*) FROM agents WHERE converged_revision < revision)
                        + (SELECT count(*) FROM chats WHERE converged_revision < revision)";
        let due: i64 = sqlx::query_scalar(due).fetch_one(&db.pool).await.unwrap();
        (due == 0).then_some(())
    })
    .await;
}
