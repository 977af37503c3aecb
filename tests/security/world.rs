//! A cluster with service accounts and RBAC, a Moorline that asks it, and what is planted there: objects whose names, labels and
//! titles have one word, and bodies with another, so that either can be looked for wherever something is answered.

use super::matrix::Deed;
use crate::support::{
    envtest::{ControlPlane, User},
    postgres::{TestDb, database},
    serve::{Replica, push_of},
    until::until,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    fs::{self, File},
    process::Stdio,
};
use tempfile::TempDir;

/// Stands in the names, labels and titles of what is planted, and in the sources of its resources.
pub const NAME: &str = "zanzibar";
/// Stands in the bodies of what is planted.
pub const BODY: &str = "xylophone";

/// All of it.
pub struct World {
    pub cluster: &'static ControlPlane,
    pub namespace: String,
    pub replica: Replica,
    users: HashMap<&'static str, (User, String)>,
    http: reqwest::Client,
    runs: HashMap<String, Value>,
    snapshots: [String; 2],
    began: String,
    home: TempDir,
    _db: TestDb,
}

/// What a Moorline needs of a cluster to know its callers.
pub fn delegator() -> Value {
    json!([
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ])
}

/// The rules of the roles.
pub fn rules(role: &str) -> Value {
    let ours =
        |resources: &[&str], verbs: &[&str]| json!({"apiGroups": ["moorline.dev"], "resources": resources, "verbs": verbs});
    let see = ["get", "list", "watch"];
    let all = ["chats", "chats/status", "agents", "agentsnapshots", "contextevents"];
    let mut rules = vec![ours(&all, &see), json!({"apiGroups": [""], "resources": ["events"], "verbs": see})];
    match role {
        "viewer" => {}
        "reader" => rules.push(ours(&["chats/context", "chats/diff"], &["get"])),
        "editor" => {
            rules.push(ours(&["chats", "agents", "chats/status"], &["create", "update", "patch", "delete"]));
            rules.push(ours(&["agents/runs"], &["create"]));
            rules.push(ours(&["agents/snapshot", "chats/context"], &["update"]));
        }
        "everything" => rules = vec![json!({"apiGroups": ["moorline.dev", ""], "resources": ["*"], "verbs": ["*"]})],
        _ => panic!("there is no role {role}"),
    }
    rules.into()
}

impl World {
    /// With these flags besides.
    pub async fn begin(flags: &[&str]) -> Self {
        let cluster = ControlPlane::shared().await;
        let namespace = cluster.namespace_of_its_own().await;
        let moorline = cluster.user(&namespace, "moorline", &delegator()).await;
        let kubeconfig = cluster.access(&namespace).of(&moorline).kubeconfig();
        Self::begin_by(cluster, namespace, &kubeconfig, flags).await
    }

    /// The same by another way to the cluster.
    pub async fn begin_by(cluster: &'static ControlPlane, namespace: String, kubeconfig: &str, flags: &[&str]) -> Self {
        let other = cluster.namespace_of_its_own().await;
        let mut users = HashMap::new();
        for name in ["owner", "stranger", "keeper", "viewer", "reader", "editor", "admin", "neighbour", "other-robot"] {
            let home = if matches!(name, "neighbour" | "other-robot") { &other } else { &namespace };
            let everywhere = if name == "admin" { rules("everything") } else { json!([]) };
            let user = cluster.user(home, name, &everywhere).await;
            match name {
                "viewer" | "reader" | "editor" => cluster.allow_in(&namespace, &user, &rules(name)).await,
                "neighbour" => cluster.allow_in(&other, &user, &rules("everything")).await,
                _ => {}
            }
            let token = cluster.token_for(&user, "moorline").await;
            users.insert(name, (user, token));
        }
        let (db, home) = (database().await, tempfile::tempdir().unwrap());
        fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        let file = |name: &str| home.path().join(name).display().to_string();
        let (kubeconfig, audit) = (file("kubeconfig"), file("audit"));
        let mut all = vec!["--auth=kubernetes", "--kubernetes=off", "--kubeconfig", &kubeconfig, "--audit-log", &audit];
        if !flags.contains(&"--rate-limit") {
            all.push("--rate-limit=10000");
        }
        all.extend(flags);
        let log = Stdio::from(File::create(file("log")).unwrap());
        let replica = Replica::telling(&db.url, &all, log).await;
        let http = reqwest::Client::new();
        let (runs, snapshots, began) = (HashMap::new(), [String::new(), String::new()], String::new());
        let mut it = Self { cluster, namespace, replica, users, http, runs, snapshots, began, home, _db: db };
        it.plant().await;
        it
    }

    /// What belongs to `keeper` and to an agent whose service account is nobody's here, with the words in it; and the same of
    /// `owner`, without them. Both chats are pinned, and their agents have reported something else since.
    async fn plant(&mut self) {
        let before: Value = serde_json::from_str(&self.get_as("admin", &self.path("events")).await.1).unwrap();
        before["metadata"]["resourceVersion"].as_str().unwrap().clone_into(&mut self.began);
        for (agent, account, chat, owner, word, body) in [
            (format!("{NAME}-agent"), "other-robot", format!("{NAME}-chat"), "keeper", NAME, BODY),
            ("robots".into(), "owner", "owns".into(), "owner", "plain", "plain"),
        ] {
            let labels = json!({"word": word});
            let body_of = json!({"metadata": {"name": agent, "labels": labels}, "spec": {"serviceAccountName": account}});
            self.must("admin", "POST", "agents", body_of).await;
            let run = self.must("admin", "POST", &format!("agents/{agent}/runs"), json!({})).await;
            let push = |seq| push(&run, seq, word, body);
            self.must("admin", "PUT", &format!("agents/{agent}/snapshot"), push(1)).await;
            let owner = &self.user(owner).name;
            let spec = json!({"title": word, "owner": owner, "agentRef": {"name": agent}});
            self.must("admin", "POST", "chats", json!({"metadata": {"name": chat, "labels": labels}, "spec": spec})).await;
            until("the chat is pinned", || self.is(&chat, "/status/pinned/hash", Value::is_string)).await;
            self.must("admin", "PUT", &format!("agents/{agent}/snapshot"), push(2)).await;
            until("the chat is dirty", || self.is(&chat, "/status/dirty", |dirty| *dirty == json!(true))).await;
            self.runs.insert(agent, run);
        }
        let snapshots: Value = serde_json::from_str(&self.get_as("admin", &self.path("agentsnapshots")).await.1).unwrap();
        let of = |agent: &str| {
            let mut items = snapshots["items"].as_array().unwrap().iter();
            let found = items.find(|item| item["spec"]["agentRef"]["name"] == agent).unwrap();
            found["metadata"]["name"].as_str().unwrap().to_owned()
        };
        self.snapshots = [of(&format!("{NAME}-agent")), of("robots")];
    }

    async fn is(&self, chat: &str, pointer: &str, so: impl Fn(&Value) -> bool) -> Option<()> {
        let (_, text) = self.get_as("admin", &self.path(&format!("chats/{chat}"))).await;
        serde_json::from_str::<Value>(&text).ok()?.pointer(pointer).filter(|value| so(value)).map(|_| ())
    }

    /// Whom the cluster knows by a name.
    pub fn user(&self, name: &str) -> &User {
        &self.users[name].0
    }

    /// A path below the namespace.
    pub fn path(&self, rest: &str) -> String {
        let base = if rest.starts_with("events") { "/api/v1" } else { "/apis/moorline.dev/v1alpha1" };
        format!("{base}/namespaces/{}/{rest}", self.namespace)
    }

    /// The planted object that a deed is done with.
    pub fn planted(&self, deed: &Deed) -> &str {
        self.object(deed, [concat!("zanzibar", "-chat"), concat!("zanzibar", "-agent")], 0)
    }

    /// The one of `owner`.
    pub fn own(&self, deed: &Deed) -> &str {
        self.object(deed, ["owns", "robots"], 1)
    }

    fn object<'a>(&'a self, deed: &Deed, names: [&'a str; 2], snapshot: usize) -> &'a str {
        match deed.path.split(['/', '?']).next() {
            Some("chats") => names[0],
            Some("agents") => names[1],
            _ => &self.snapshots[snapshot],
        }
    }

    /// Does a deed with an object as somebody. What would change something is a rehearsal.
    pub async fn does(&self, who: &str, deed: &Deed, name: &str) -> (u16, String) {
        let path = deed.path.replace("{}", name).replace("resourceVersion=1&", &format!("resourceVersion={}&", self.began));
        if deed.method == "GET" {
            return self.get_as(who, &self.path(&path)).await;
        }
        let body = match (deed.method, path.rsplit('/').next().unwrap_or_default()) {
            ("POST", "chats") => Some(json!({"metadata": {"generateName": "new-"}, "spec": {"agentRef": {"name": "robots"}}})),
            ("POST", "agents") => Some(json!({"metadata": {"generateName": "new-"}})),
            ("PUT", "snapshot") => {
                let nobodys = json!({"runID": "0199d7b8-0000-7000-8000-000000000000", "epoch": 1});
                Some(push(self.runs.get(name).unwrap_or(&nobodys), 9, "plain", "plain"))
            }
            ("PATCH", "status") => Some(json!({"status": {"state": "Running"}})),
            ("PATCH", _) => Some(json!({"metadata": {"labels": {"a": "b"}}})),
            ("PUT", "context") | ("POST", _) => Some(json!({})),
            ("PUT", _) => {
                let (code, text) = self.get_as("admin", &self.path(&path)).await;
                let absent = json!({"metadata": {"name": name}, "spec": {}});
                Some(if code == 200 { serde_json::from_str(&text).unwrap() } else { absent })
            }
            _ => None,
        };
        self.send(who, deed.method, &format!("{path}?dryRun=All"), body).await
    }

    /// Sends a request below the namespace as somebody.
    pub async fn send(&self, who: &str, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let url = format!("{}{}", self.replica.url, self.path(path));
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request =
            self.http.request(method.parse().unwrap(), url).header("content-type", media).bearer_auth(&self.users[who].1);
        let request = body.iter().fold(request, |request, body| request.body(body.to_string()));
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn must(&self, who: &str, method: &str, path: &str, body: Value) -> Value {
        let (code, text) = self.send(who, method, path, Some(body)).await;
        assert!((200..300).contains(&code), "{who} {method} {path}: {code} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Reads a path as somebody.
    pub async fn get_as(&self, who: &str, path: &str) -> (u16, String) {
        self.get_with(&self.users[who].1, path).await
    }

    /// The same, whose body may be long in coming.
    pub async fn answer(&self, who: &str, path: &str) -> reqwest::Response {
        self.http.get(format!("{}{path}", self.replica.url)).bearer_auth(&self.users[who].1).send().await.unwrap()
    }

    /// The same with any token; an empty one is none.
    pub async fn get_with(&self, token: &str, path: &str) -> (u16, String) {
        let request = self.http.get(format!("{}{path}", self.replica.url));
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    /// Pushes something new to the planted agent.
    pub async fn push_anew(&self, seq: i64, body: &str) {
        let agent = format!("{NAME}-agent");
        self.must("admin", "PUT", &format!("agents/{agent}/snapshot"), push(&self.runs[&agent], seq, NAME, body)).await;
    }

    /// The lines of the audit log.
    pub fn audit(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.home.path().join("audit")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// None of these words is in the log.
    #[track_caller]
    pub fn must_not_have_logged(&self, words: &[&str]) {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap();
        for line in log.lines() {
            assert!(!words.iter().any(|word| line.contains(word)), "{line}");
        }
    }
}

impl Deed {
    /// Whether it is of a list, not of one object.
    pub fn is_of_many(&self) -> bool {
        self.method == "GET" && !self.path.contains("{}")
    }

    /// Whether it makes an object.
    pub fn is_creation(&self) -> bool {
        self.method == "POST" && !self.path.contains("{}")
    }
}

/// A push of one file and one skill.
fn push(run: &Value, seq: i64, word: &str, body: &str) -> Value {
    let mut push = push_of(run, seq, "Complete", &format!("{body} {seq}"));
    let skill = format!("skills/{word}");
    push["resources"].as_array_mut().unwrap().push(json!({
        "kind": "Skill", "source": skill, "sourcePath": format!("{skill}/SKILL.md"), "body": format!("{body} skill"), "status": "Ok",
    }));
    push
}
