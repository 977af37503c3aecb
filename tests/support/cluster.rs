//! A replica of Moorline in front of which a real cluster stands, and a namespace of the cluster for one test.

use super::{
    envtest::ControlPlane,
    kubectl::Said,
    postgres::{TestDb, database},
    serve::{Client, Replica, push_of},
    until::until,
};
use serde_json::{Value, json};
use std::{collections::HashMap, fs};
use tempfile::TempDir;

/// A replica with a cluster.
pub struct Front<'a> {
    pub control_plane: &'a ControlPlane,
    pub namespace: String,
    pub db: TestDb,
    pub replica: Replica,
    home: TempDir,
    client: Client,
    runs: tokio::sync::Mutex<HashMap<String, (Value, i64)>>,
}

impl<'a> Front<'a> {
    /// A replica on a database of its own, which watches a namespace of its own.
    pub async fn start(control_plane: &'a ControlPlane, flags: &[&str]) -> Self {
        let namespace = control_plane.namespace_of_its_own().await;
        let kubeconfig = control_plane.kubeconfig(&namespace);
        Self::start_by(control_plane, namespace, &kubeconfig, flags).await
    }

    /// The same with these variables in its environment.
    #[cfg(feature = "otlp")]
    pub async fn start_in(control_plane: &'a ControlPlane, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut front = Self::start(control_plane, flags).await;
        let file = front.home.path().join("kubeconfig").display().to_string();
        let all = Self::flags(&front.namespace, &file, flags);
        front.replica.kill();
        front.replica = Replica::start_in(&front.db, &all, variables).await;
        front
    }

    /// The same in this namespace, by another way to the cluster.
    pub async fn start_by(control_plane: &'a ControlPlane, namespace: String, kubeconfig: &str, flags: &[&str]) -> Self {
        let db = database().await;
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        let replica = Self::replica_of(&namespace, &db, home.path(), flags).await;
        Self { control_plane, namespace, db, replica, home, client: Client::new(), runs: tokio::sync::Mutex::default() }
    }

    async fn replica_of(namespace: &str, db: &TestDb, home: &std::path::Path, flags: &[&str]) -> Replica {
        let file = home.join("kubeconfig").display().to_string();
        Replica::start(db, &Self::flags(namespace, &file, flags)).await
    }

    fn flags<'b>(namespace: &'b str, kubeconfig: &'b str, flags: &[&'b str]) -> Vec<&'b str> {
        let mut all = vec!["--kubernetes=on", "--kubeconfig", kubeconfig, "--watch-namespaces", namespace];
        all.extend(["--lease-duration=4s", "--lease-renew-deadline=3s", "--lease-retry-period=1s"]);
        all.extend(flags);
        all
    }

    /// The same, by way of a gateway.
    pub async fn behind(control_plane: &'a ControlPlane, gateway: &super::gateway::Gateway, flags: &[&str]) -> Self {
        let namespace = control_plane.namespace_of_its_own().await;
        let kubeconfig = control_plane.access(&namespace).via(&gateway.url).kubeconfig();
        Self::start_by(control_plane, namespace, &kubeconfig, flags).await
    }

    /// Another replica on the same database, whose log goes into a file.
    pub async fn another_telling(&self, log: &std::path::Path, flags: &[&str]) -> Replica {
        let file = self.home.path().join("kubeconfig").display().to_string();
        Replica::telling(&self.db.url, &Self::flags(&self.namespace, &file, flags), fs::File::create(log).unwrap().into()).await
    }

    /// Another replica on the same database.
    pub async fn another(&self, flags: &[&str]) -> Replica {
        Self::replica_of(&self.namespace, &self.db, self.home.path(), flags).await
    }

    /// Another replica on the same database, by another way to the cluster.
    pub async fn another_by(&self, kubeconfig: &str, flags: &[&str]) -> Replica {
        let other = self.home.path().join("other");
        fs::create_dir_all(&other).unwrap();
        fs::write(other.join("kubeconfig"), kubeconfig).unwrap();
        Self::replica_of(&self.namespace, &self.db, &other, flags).await
    }

    /// The same, with its replica stopped.
    pub async fn stopped(self) -> Stopped<'a> {
        let Self { control_plane, namespace, db, replica, home, client, runs } = self;
        assert_eq!(replica.terminate().await, Some(0));
        Stopped { control_plane, namespace, db, home, client, runs }
    }

    /// Who holds the Lease.
    pub async fn holder(&self) -> String {
        self.kubectl(&["get", "leases", "-o", "jsonpath={.items[0].spec.holderIdentity}"]).await.out()
    }

    /// What the replica measures, in the format that this `Accept` asks for: the media type, and the text.
    pub async fn metrics_text(&self, accept: Option<&str>) -> (String, String) {
        let request = self.client.http.get(format!("{}/metrics", self.replica.url)).header("accept", accept.unwrap_or("*/*"));
        let answer = request.send().await.unwrap();
        let media = answer.headers()["content-type"].to_str().unwrap().to_owned();
        (media, answer.text().await.unwrap())
    }

    /// What the replica says of itself under a name, summed over its labels; or with these labels.
    pub async fn metric(&self, name: &str) -> i64 {
        let text = self.metrics_text(None).await.1;
        let of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let values = text.lines().filter(|line| of(line)).filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok());
        values.sum()
    }

    /// Makes sure that every chat of the cluster shows what its record says: no more and no less.
    pub async fn agrees(&self) -> bool {
        let (code, records) = self.send("GET", "chats", None).await;
        let said = self.kubectl(&["get", "chats", "-o", "json"]).await;
        let Ok(objects) = serde_json::from_str::<Value>(&said.out) else { return false };
        let facts = |list: &Value| {
            let fact = |item: &Value| {
                let ready =
                    item["status"]["conditions"].as_array().into_iter().flatten().find(|it| it["type"] == "Ready").cloned();
                let ready = ready.unwrap_or_default();
                json!([
                    item["metadata"]["name"],
                    item["spec"]["title"],
                    item["status"]["pinned"]["snapshot"],
                    item["status"]["dirty"],
                    item["status"]["lastHandledRefresh"],
                    ready["status"],
                    ready["reason"],
                ])
            };
            list["items"].as_array().into_iter().flatten().map(fact).collect::<Vec<_>>()
        };
        code == 200 && facts(&records) == facts(&objects)
    }

    /// Waits until the cluster has told the replica all that it had to tell, and that has been looked at: a manifest of its own is
    /// answered.
    pub async fn settled(&self) {
        let name = format!("probe-{}", moorline::clock::system().new_id().simple());
        self.apply(&json!({"kind": "Chat", "metadata": {"name": name}, "spec": {}})).await;
        self.until_shown(&format!("chat/{name}"), "Ready", "True", "Unbound").await;
        self.kubectl(&["delete", &format!("chat/{name}"), "--timeout=60s"]).await.out();
    }

    /// Applies a manifest, whose version is ours.
    pub async fn apply(&self, manifest: &Value) {
        apply(self.control_plane, &self.namespace, manifest).await;
    }

    /// Runs kubectl in the namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Said {
        self.control_plane.kubectl(&self.namespace, args, "").await
    }

    /// An object, or a list of them, as the cluster has it.
    pub async fn get(&self, what: &str) -> Value {
        let json = self.kubectl(&["get", what, "-o", "json"]).await.out();
        serde_json::from_str(&json).unwrap()
    }

    /// Waits until the cluster shows a condition.
    pub async fn until_shown(&self, what: &str, condition: &str, status: &str, reason: &str) {
        let last = Last::default();
        until(&format!("{what} shows {condition}={status} {reason}"), || async {
            let object = self.get(what).await;
            *last.0.lock().unwrap() = object.clone();
            let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            conditions.find(|it| it["type"] == condition && it["status"] == status && it["reason"] == reason).map(|_| ())
        })
        .await;
    }

    /// An agent pushes one file over HTTP, once it is there.
    pub async fn push(&self, agent: &str, body: &str) {
        let path = |rest: &str| format!("agents/{agent}/{rest}");
        let mut runs = self.runs.lock().await;
        if !runs.contains_key(agent) {
            let begun = until("the agent has a record", || async {
                let (code, run) = self.send("POST", &path("runs"), Some(json!({}))).await;
                (code == 201 || code == 200).then_some(run)
            })
            .await;
            runs.insert(agent.to_owned(), (begun, 0));
        }
        let (begun, seq) = runs.get_mut(agent).unwrap();
        *seq += 1;
        let (code, said) = self.send("PUT", &path("snapshot"), Some(push_of(begun, *seq, "Complete", body))).await;
        assert!(code == 200 || code == 201, "{code} {said}");
    }

    /// A request to Moorline, below the namespace.
    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.client.send_in(&self.namespace, &self.replica.url, method, path, body).await
    }

    /// A record, as Moorline has it.
    pub async fn record(&self, kind: &str, name: &str) -> Option<Value> {
        let (code, record) = self.send("GET", &format!("{kind}/{name}"), None).await;
        (code == 200).then_some(record)
    }
}

/// What was seen last, which is told when the test fails.
#[derive(Default)]
struct Last(std::sync::Mutex<Value>);

impl Drop for Last {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seen last: {:#}", self.0.lock().unwrap());
        }
    }
}

/// A namespace and a database whose replica is stopped.
pub struct Stopped<'a> {
    control_plane: &'a ControlPlane,
    namespace: String,
    db: TestDb,
    home: TempDir,
    client: Client,
    runs: tokio::sync::Mutex<HashMap<String, (Value, i64)>>,
}

impl<'a> Stopped<'a> {
    /// With a replica again.
    pub async fn started(self) -> Front<'a> {
        let Self { control_plane, namespace, db, home, client, runs } = self;
        let replica = Front::replica_of(&namespace, &db, home.path(), &[]).await;
        Front { control_plane, namespace, db, replica, home, client, runs }
    }

    /// Applies a manifest, whose version is ours.
    pub async fn apply(&self, manifest: &Value) {
        apply(self.control_plane, &self.namespace, manifest).await;
    }

    /// Runs kubectl in the namespace.
    pub async fn kubectl(&self, args: &[&str]) -> Said {
        self.control_plane.kubectl(&self.namespace, args, "").await
    }
}

async fn apply(control_plane: &ControlPlane, namespace: &str, manifest: &Value) {
    let mut manifest = manifest.clone();
    manifest["apiVersion"] = json!("moorline.dev/v1alpha1");
    control_plane.kubectl(namespace, &["apply", "-f", "-"], &manifest.to_string()).await.out();
}

/// A manifest of a chat, whose version is ours.
#[expect(clippy::needless_pass_by_value, reason = "a literal at each call")]
pub fn chat(name: &str, spec: Value) -> Value {
    json!({"kind": "Chat", "metadata": {"name": name}, "spec": spec})
}

/// A chat that is made through the API.
pub fn record(name: &str) -> Value {
    json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name}, "spec": {"owner": "alice"}})
}
