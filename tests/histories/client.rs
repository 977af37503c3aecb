//! One client: sends its operations one after another and writes down what came back. It never tries again, and what it cannot
//! know it calls *maybe*.

use super::{
    contents,
    history::{Done, Outcome, Record, Stopwatch, Target, mark},
    operation::{Op, Script},
    servers::Servers,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it rests when nobody has answered: a server that is away refuses thousands of connections in a second.
const BREATH: Duration = Duration::from_millis(50);

/// A run that this client has registered.
#[derive(Clone)]
struct Run {
    id: Value,
    epoch: Value,
    seq: u64,
}

/// A client.
pub struct Client {
    number: usize,
    clock: Stopwatch,
    http: reqwest::Client,
    servers: Servers,
    script: Script,
    runs: HashMap<Target, Run>,
    sent: u64,
    pub records: Vec<Record>,
}

/// How many operations a client did at a time.
pub struct Step {
    pub sent: u64,
    pub acknowledged: u64,
}

impl Step {
    fn of(records: &[Record]) -> Self {
        let acknowledged = records.iter().filter(|record| matches!(record.outcome, Outcome::Done(_))).count();
        Self { sent: records.len() as u64, acknowledged: acknowledged as u64 }
    }
}

/// What an answer was.
enum Answer {
    Good(Value),
    Other(Outcome),
}

impl Client {
    pub fn new(number: usize, script: Script, servers: Servers, clock: Stopwatch) -> Self {
        rustls::crypto::ring::default_provider().install_default().ok();
        let http = reqwest::Client::builder().timeout(PATIENCE).build().unwrap();
        Self { number, clock, http, servers, script, runs: HashMap::new(), sent: 0, records: Vec::new() }
    }

    /// Does the next operation of its script, and a run before it if it needs one.
    pub async fn step(&mut self) -> Step {
        let before = self.records.len();
        let (target, op) = self.script.next();
        if matches!(op, Op::Push { .. }) && !self.runs.contains_key(&target) {
            self.perform(target.clone(), Op::Run).await;
            if !self.runs.contains_key(&target) {
                return Step::of(&self.records[before..]);
            }
        }
        self.perform(target, op).await;
        Step::of(&self.records[before..])
    }

    async fn perform(&mut self, target: Target, op: Op) {
        let number = self.sent;
        self.sent += 1;
        let invoked = self.clock.now();
        let outcome = self.outcome(&target, &op, &mark(self.number, number)).await;
        let returned = self.clock.now();
        let lost = matches!(outcome, Outcome::Maybe(_));
        self.records.push(Record { client: self.number, number, op, target, invoked, returned, outcome });
        if lost {
            tokio::time::sleep(BREATH).await;
        }
    }

    async fn outcome(&mut self, target: &Target, op: &Op, mark: &str) -> Outcome {
        let labelled = |spec: Value| json!({"metadata": {"labels": {"op": mark}}, "spec": spec});
        let chat = format!("chats/{}", target.name);
        let agent = format!("agents/{}", target.name);
        let named = |mut object: Value| {
            object["metadata"]["name"] = json!(target.name);
            object
        };
        let (method, path, body) = match op {
            Op::CreateChat { reference, parent, follows } => {
                let mut spec = reference.patch();
                spec["refreshPolicy"] = json!(if *follows { "OnDrift" } else { "Manual" });
                if let Some(parent) = parent {
                    spec["parentRef"] = json!({"name": parent});
                }
                (Method::POST, "chats".to_owned(), named(labelled(spec)))
            }
            Op::Mark => (Method::PATCH, chat, labelled(json!({"title": mark}))),
            Op::Suspend(suspend) => (Method::PATCH, chat, labelled(json!({"suspend": suspend}))),
            Op::Archive(archived) => (Method::PATCH, chat, labelled(json!({"archived": archived}))),
            Op::Follow(follows) => {
                (Method::PATCH, chat, labelled(json!({"refreshPolicy": if *follows { "OnDrift" } else { "Manual" }})))
            }
            Op::Rebind(reference) => (Method::PATCH, chat, labelled(reference.patch())),
            Op::Report(state) => (Method::PATCH, format!("{chat}/status"), json!({"status": {"state": state}})),
            Op::Refresh => (Method::PUT, format!("{chat}/context"), json!({"token": mark})),
            Op::DeleteChat { orphan } => {
                (Method::DELETE, chat, json!({"propagationPolicy": if *orphan { "Orphan" } else { "Background" }}))
            }
            Op::Read => return self.read(target, self.sent.is_multiple_of(2)).await,
            Op::CreateAgent { workspace, build } => (
                Method::POST,
                "agents".to_owned(),
                named(labelled(json!({"workspace": workspace, "build": build, "revisionHistoryLimit": 1}))),
            ),
            Op::MoveAgent { workspace, build } => {
                (Method::PATCH, agent, labelled(json!({"workspace": workspace, "build": build})))
            }
            Op::RefreshAgent => {
                let metadata = json!({"labels": {"op": mark}, "annotations": {"moorline.dev/refresh-requested-at": mark}});
                (Method::PATCH, agent, json!({"metadata": metadata}))
            }
            Op::DeleteAgent => (Method::DELETE, agent, json!({})),
            Op::Run => {
                let answer = self.send(Method::POST, &target.namespace, &format!("{agent}/runs"), Some(json!({}))).await;
                return match answer {
                    Answer::Good(run) => {
                        self.runs.insert(target.clone(), Run { id: run["runID"].clone(), epoch: run["epoch"].clone(), seq: 0 });
                        Outcome::Done(Done::default())
                    }
                    Answer::Other(outcome) => outcome,
                };
            }
            Op::Push { content, complete } => return self.push(target, *content, *complete).await,
        };
        match self.send(method, &target.namespace, &path, Some(body)).await {
            Answer::Good(object) => Outcome::Done(done(&object)),
            Answer::Other(outcome) => outcome,
        }
    }

    async fn push(&mut self, target: &Target, content: u64, complete: bool) -> Outcome {
        let run = self.runs.get_mut(target).unwrap();
        run.seq += 1; // whatever becomes of it, the number has been used
        let body = json!({"runID": run.id, "epoch": run.epoch, "seq": run.seq,
                          "phase": if complete { "Complete" } else { "Pending" }, "resources": contents::resources(target, content)});
        let path = format!("agents/{}/snapshot", target.name);
        match self.send(Method::PUT, &target.namespace, &path, Some(body)).await {
            Answer::Good(answer) => {
                let hash = answer["snapshot"]["hash"].as_str().map(ToOwned::to_owned);
                Outcome::Done(Done { hash, changed: answer["changed"] == true, ..Done::default() })
            }
            Answer::Other(refused) => {
                if matches!(refused, Outcome::Refused(404 | 409, _)) {
                    self.runs.remove(target); // another client's run has come after it, or the agent is another
                }
                refused
            }
        }
    }

    async fn read(&self, target: &Target, context: bool) -> Outcome {
        let what = if context { "/context" } else { "" };
        match self.send(Method::GET, &target.namespace, &format!("chats/{}{what}", target.name), None).await {
            Answer::Good(object) if context => {
                let hash = object.pointer("/pinned/hash").and_then(Value::as_str).map(ToOwned::to_owned);
                Outcome::Done(Done { hash, fault: contents::fault_of(&object), ..done(&object) })
            }
            Answer::Good(object) => {
                let hash = object.pointer("/status/pinned/hash").and_then(Value::as_str).map(ToOwned::to_owned);
                Outcome::Done(Done { hash, ..done(&object) })
            }
            Answer::Other(outcome) => outcome,
        }
    }

    /// Sends one request, to one of the servers in turn.
    async fn send(&self, method: Method, namespace: &str, path: &str, body: Option<Value>) -> Answer {
        let server = self.servers.of(self.number as u64 + self.sent);
        let url = format!("{server}/apis/moorline.dev/v1alpha1/namespaces/{namespace}/{path}");
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.http.request(method, url).header("content-type", media).header("prefer", "respond-async");
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Answer::Other(Outcome::Maybe(error.to_string())),
        };
        let status = answer.status();
        match answer.json::<Value>().await {
            Ok(object) if status.is_success() => Answer::Good(object),
            Ok(refusal) if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
                Answer::Other(Outcome::Refused(status.as_u16(), refusal["reason"].as_str().unwrap_or_default().to_owned()))
            }
            Ok(failure) => Answer::Other(Outcome::Maybe(failure.to_string())),
            Err(error) => Answer::Other(Outcome::Maybe(error.to_string())),
        }
    }
}

/// What an object in an answer says of itself; of a deletion, its uid only.
fn done(object: &Value) -> Done {
    let metadata = &object["metadata"];
    let uid = [&metadata["uid"], &object["details"]["uid"]].into_iter().find_map(Value::as_str);
    let version = metadata["resourceVersion"].as_str().and_then(|version| version.parse::<i64>().ok());
    Done { uid: uid.and_then(|uid| uid.parse().ok()), rv: version.map(|version| version / 2), ..Done::default() }
}
