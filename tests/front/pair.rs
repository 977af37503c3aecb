//! The two servers in step: a real kube-apiserver with our custom resource definitions, and Moorline.
//!
//! Every line is typed on both. The kube-apiserver has no controller, so after every line the status that Moorline's loop
//! came to is written there through the status subresource: then both have the same objects to show.

use super::{
    listed::Difference,
    side::{Running, Said, Side},
};
use crate::support::{
    api::{Api, BASE, NAMESPACE, settled},
    envtest::ControlPlane,
    kubectl::kubeconfig,
    postgres::{TestDb, database},
    stream::all_readable,
};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};
use std::{fs, time::Duration};
use tokio::sync::Mutex;

/// How long a watching command is given to say what it should.
const PATIENCE: Duration = Duration::from_secs(20);

/// The two.
pub struct Pair {
    db: TestDb,
    /// Ours.
    pub api: Api,
    kubernetes: ControlPlane,
    ours: Side,
    theirs: Side,
    /// Where they said different things.
    pub differences: Vec<Difference>,
    steps: Vec<String>,
}

impl Pair {
    /// Starts both, with the same empty namespace.
    pub async fn start() -> Self {
        let db = database().await;
        let (api, kubernetes) = tokio::join!(Api::start(&db), ControlPlane::start());
        kubernetes.namespace(NAMESPACE).await;
        let ours = Side::new(&kubeconfig(&json!({"server": api.url}), &json!({}), NAMESPACE));
        let theirs = Side::new(&kubernetes.kubeconfig(NAMESPACE));
        Self { db, api, kubernetes, ours, theirs, differences: Vec::new(), steps: Vec::new() }
    }

    /// Puts a file where commands run, on both sides.
    pub fn file(&self, name: &str, text: &str) {
        for side in [&self.ours, &self.theirs] {
            fs::write(side.file(name), text).unwrap();
        }
    }

    /// Types a line on both, and compares what comes back.
    pub async fn types(&mut self, line: &str) {
        let (ours, theirs) = tokio::join!(self.ours.run(line), self.theirs.run(line));
        self.compare(line, &theirs, &ours);
        self.mirror().await;
    }

    /// Types a line that goes on, does something else when both have said `begun` lines, and waits until both have ended or
    /// said `whole` lines; then compares.
    pub async fn types_and(&mut self, line: &str, (begun, whole): (usize, usize), other: impl AsyncFnOnce(&Watched<'_>)) {
        let file = format!("said-{}", self.steps.len());
        let mut both = [self.ours.begin(line, &file), self.theirs.begin(line, &file)];
        said(&mut both, begun).await;
        other(&Watched { pair: self, story: Mutex::new(Story::from_now(self).await) }).await;
        said(&mut both, whole).await;
        let [ours, theirs] = both;
        let (ours, theirs) = (ours.end().await, theirs.end().await);
        let said = theirs.len();
        assert!(said >= whole, "the kube-apiserver is waited for in vain: {line} is to say {whole} lines, and says {said}");
        self.compare(line, &theirs, &ours);
        self.mirror().await;
    }

    fn compare(&mut self, line: &str, theirs: &Said, ours: &Said) {
        assert!(!self.steps.iter().any(|step| step == line), "each line is typed once, because its differences go by it: {line}");
        self.steps.push(line.to_owned());
        let (theirs, ours): (Vec<&str>, Vec<&str>) =
            (theirs.iter().map(String::as_str).collect(), ours.iter().map(String::as_str).collect());
        let diff = TextDiff::from_slices(&theirs, &ours);
        let changed = diff.iter_all_changes().filter_map(|change| match change.tag() {
            ChangeTag::Equal => None,
            ChangeTag::Delete => Some(format!("-{}", change.value())),
            ChangeTag::Insert => Some(format!("+{}", change.value())),
        });
        let lines: Vec<String> = changed.collect();
        if !lines.is_empty() {
            self.differences.push(Difference { step: line.to_owned(), lines });
        }
    }

    /// Waits until the loop has nothing to do, and gives the kube-apiserver what it came to.
    pub async fn mirror(&self) {
        settled(&self.db).await;
        all_readable(&self.db).await;
        for kind in ["agents", "agentsnapshots", "chats"] {
            let list = self.api.get(kind).await.expect(200);
            for object in list["items"].as_array().unwrap() {
                self.mirror_one(kind, object).await;
            }
        }
        self.mirror_events().await;
    }

    /// The events that Moorline tells, as a controller would have written them there.
    async fn mirror_events(&self) {
        let all = format!("/api/v1/namespaces/{NAMESPACE}/events");
        let events = self.api.get(&all).await;
        for event in events.json["items"].as_array().into_iter().flatten() {
            let path = format!("{all}/{}", event["metadata"]["name"].as_str().unwrap());
            if self.kubernetes.send("GET", &path, None).await.is_some() {
                continue;
            }
            let mut event = event.clone();
            for field in ["uid", "resourceVersion", "creationTimestamp"] {
                event["metadata"].as_object_mut().unwrap().remove(field);
            }
            // kubectl asks by uid, and the object there has one of its own.
            let about = &event["involvedObject"];
            let word = |field: &str| about[field].as_str().unwrap().to_owned();
            let object = format!("{BASE}/namespaces/{NAMESPACE}/{}s/{}", word("kind").to_lowercase(), word("name"));
            if let Some(object) = self.kubernetes.send("GET", &object, None).await {
                event["involvedObject"]["uid"] = object["metadata"]["uid"].clone();
            }
            self.kubernetes.send("POST", &all, Some(&event)).await;
        }
    }

    async fn mirror_one(&self, kind: &str, object: &Value) {
        let name = object["metadata"]["name"].as_str().unwrap();
        let all = format!("{BASE}/namespaces/{NAMESPACE}/{kind}");
        let path = format!("{all}/{name}");
        let there = self.kubernetes.send("GET", &path, None).await;
        if kind == "agentsnapshots" {
            if there.is_none() {
                let metadata = json!({"name": name, "labels": object["metadata"]["labels"]});
                let made = json!({"apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": metadata, "spec": object["spec"]});
                self.kubernetes.send("POST", &all, Some(&made)).await;
            }
            return;
        }
        // What was created on our side alone has nothing to be compared with.
        if let Some(mut there) = there.filter(|there| there["status"] != object["status"]) {
            there["status"] = object["status"].clone();
            self.kubernetes.send("PUT", &format!("{path}/status"), Some(&there)).await;
        }
    }
}

/// Waits until both have said so many lines, or have ended. In vain is no failure yet: what is missing is a difference, and
/// says more than a time that passed.
async fn said(both: &mut [Running<'_>; 2], lines: usize) {
    let enough = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while !both.iter_mut().all(|one| one.said().len() >= lines || one.ended()) {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, enough).await.ok();
}

/// The two, while something watches them.
pub struct Watched<'a> {
    pair: &'a Pair,
    story: Mutex<Story>,
}

/// What Moorline's watchers have been given: a watch of every event, from the same tail of the log.
struct Story {
    response: reqwest::Response,
    read: String,
}

impl Story {
    async fn from_now(pair: &Pair) -> Self {
        let version = pair.api.get("chats?limit=1").await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        let path = format!("contextevents?watch=1&resourceVersion={version}");
        let response = pair.api.request(reqwest::Method::GET, &path).send().await.unwrap();
        Self { response, read: String::new() }
    }

    /// Waits until the watchers have been given everything that is in the log now. What becomes of an object twice before
    /// anybody looks is told once: objects are told as levels.
    async fn catch_up(&mut self, pair: &Pair) {
        let last: Option<(i64, i32)> = sqlx::query_as("SELECT e.rv, e.seq FROM events e ORDER BY e.rv DESC, e.seq DESC LIMIT 1")
            .fetch_optional(&pair.db.pool)
            .await
            .unwrap();
        let Some((rv, seq)) = last else { return };
        let cursor = format!("\"name\":\"{rv}-{seq}\"");
        let told = async {
            while !self.read.contains(&cursor) {
                let chunk = self.response.chunk().await.unwrap().expect("the watch goes on");
                self.read.push_str(&String::from_utf8_lossy(&chunk));
            }
        };
        // In vain: nothing is new since the watch began.
        tokio::time::timeout(PATIENCE, told).await.ok();
    }
}

impl Watched<'_> {
    /// Types a line on both; what they say to it is compared elsewhere.
    pub async fn types(&self, line: &str) {
        tokio::join!(self.pair.ours.run(line), self.pair.theirs.run(line));
        self.pair.mirror().await;
        self.story.lock().await.catch_up(self.pair).await;
    }

    /// Ours, to push to.
    pub fn api(&self) -> &Api {
        &self.pair.api
    }

    /// Gives the kube-apiserver what the loop came to.
    pub async fn mirror(&self) {
        self.pair.mirror().await;
    }
}
