//! Caches of the Kubernetes clients: kube-rs's reflectors, in this process, and client-go's shared informers, in one of
//! their own; each both by list and watch and by streaming lists. And the table that they are caches of.

use super::{envtest::programs, postgres::TestDb};
use futures::StreamExt as _;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt as _, reflector,
        reflector::store::{Store, Writer},
        utils::Backoff,
        watcher,
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::{Instant, interval, timeout},
};

/// What is watched: the plural and the kind.
pub const KINDS: [(&str, &str); 3] = [("agents", "Agent"), ("agentsnapshots", "AgentSnapshot"), ("chats", "Chat")];

/// Objects by kind, namespace and name.
pub type Objects = BTreeMap<String, Value>;

/// How a client gets its first state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    ListWatch,
    StreamingList,
}

/// One client's cache of everything, in all namespaces.
pub struct Cache {
    /// For messages.
    pub name: String,
    kept: Kept,
}

enum Kept {
    KubeRs { stores: Vec<(&'static str, Store<DynamicObject>)>, _watching: JoinSet<()> },
    ClientGo(Box<Informers>),
}

/// Again soon, whatever happened: tests are short.
struct Soon(Duration);

impl Iterator for Soon {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.0)
    }
}

impl Backoff for Soon {
    fn reset(&mut self) {}
}

/// kube-rs's client of a server.
pub fn kube_client(url: &str) -> Client {
    let mut config = kube::Config::new(url.parse().unwrap());
    // What is retried is to be seen.
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// A kind of ours, as kube-rs calls it.
pub fn resource(plural: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("moorline.dev", "v1alpha1", kind), plural)
}

impl Cache {
    /// kube-rs's: `watcher` into `reflector`.
    pub fn kube_rs(url: &str, by: By) -> Self {
        let mut watching = JoinSet::new();
        let stores = KINDS.map(|(plural, kind)| {
            let resource = resource(plural, kind);
            let api: Api<DynamicObject> = Api::all_with(kube_client(url), &resource);
            let config = match by {
                By::ListWatch => watcher::Config::default().page_size(7),
                By::StreamingList => watcher::Config::default().streaming_lists(),
            };
            let writer = Writer::new(resource);
            let store = writer.as_reader();
            let events = reflector(writer, watcher(api, config)).backoff(Soon(Duration::from_millis(50)));
            // It tells of errors, and goes on; what counts is what it comes to.
            watching.spawn(events.for_each(async |_| ()));
            (plural, store)
        });
        Self { name: format!("kube-rs {by:?}"), kept: Kept::KubeRs { stores: stores.into(), _watching: watching } }
    }

    /// client-go's: a `SharedInformer` for each kind.
    pub fn client_go(url: &str, by: By) -> Self {
        Self { name: format!("client-go {by:?}"), kept: Kept::ClientGo(Box::new(Informers::start(url, by))) }
    }

    /// What it holds; none while it has not had its first state.
    pub async fn objects(&mut self) -> Option<Objects> {
        match &mut self.kept {
            Kept::KubeRs { stores, .. } => {
                let mut all = Objects::new();
                for (plural, store) in stores {
                    // Ready at once, or not yet.
                    timeout(Duration::ZERO, store.wait_until_ready()).await.ok()?.ok()?;
                    for object in store.state() {
                        insert(&mut all, plural, serde_json::to_value(&*object).unwrap());
                    }
                }
                Some(all)
            }
            Kept::ClientGo(informers) => informers.look().await,
        }
    }
}

/// The process of `tests/envtest/clients/informers`.
struct Informers {
    _child: Child,
    ask: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Informers {
    fn start(url: &str, by: By) -> Self {
        let mut command = Command::new(programs().join("informers"));
        command.env("KUBE_FEATURE_WatchListClient", (by == By::StreamingList).to_string()).env("NO_PROXY", "*");
        command.args(["--server", url]).args(KINDS.map(|(plural, _)| plural));
        // What it logs of every cut connection is not of interest; that it ends by itself would be.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { ask: child.stdin.take().unwrap(), answers, _child: child }
    }

    async fn look(&mut self) -> Option<Objects> {
        self.ask.write_all(b"look\n").await.expect("the informers run");
        let line = self.answers.next_line().await.unwrap().expect("the informers answer");
        let mut told: Value = serde_json::from_str(&line).unwrap();
        if told["synced"] != true {
            return None;
        }
        let mut all = Objects::new();
        for (plural, _) in KINDS {
            let Value::Array(objects) = told["objects"][plural].take() else { panic!("no {plural}: {line}") };
            for object in objects {
                insert(&mut all, plural, object);
            }
        }
        Some(all)
    }
}

/// Keeps an object under its key, as it is but for what a client adds to it or takes from it itself.
fn insert(all: &mut Objects, plural: &str, mut object: Value) {
    let metadata = &object["metadata"];
    let key = format!("{plural} {}/{}", metadata["namespace"].as_str().unwrap(), metadata["name"].as_str().unwrap());
    let fields = object.as_object_mut().unwrap();
    fields.remove("apiVersion");
    fields.remove("kind");
    assert!(all.insert(key.clone(), object).is_none(), "two of {key}");
}

/// What there is: the rows' uids and versions from the database, and the objects as the API lists them, which must agree.
/// None when they do not, because somebody is writing.
pub async fn table(db: &TestDb, url: &str) -> Option<Objects> {
    let rows = || async {
        let rows: Vec<(String, String, i64)> = sqlx::query_as(
            "SELECT 'agents ' || namespace || '/' || name, id::text, rv FROM agents
             UNION ALL SELECT 'chats ' || namespace || '/' || name, id::text, rv FROM chats
             UNION ALL SELECT 'agentsnapshots ' || namespace || '/' || name, '', rv FROM snapshots ORDER BY 1",
        )
        .fetch_all(&db.pool)
        .await
        .ok()?;
        Some(rows)
    };
    let before = rows().await?;
    let mut all = Objects::new();
    for (plural, _) in KINDS {
        let answer = super::api::Caller::new(url).get(&format!("{}/{plural}", super::api::BASE)).await;
        if answer.status != 200 {
            return None;
        }
        for object in answer.json["items"].as_array().unwrap() {
            insert(&mut all, plural, object.clone());
        }
    }
    if rows().await? != before {
        return None;
    }
    assert_eq!(all.len(), before.len(), "a list without a limit is complete");
    for (key, uid, rv) in &before {
        let shown = &all.get(key).unwrap_or_else(|| panic!("{key} is in no list"))["metadata"];
        assert_eq!(shown["resourceVersion"], (2 * rv).to_string(), "{key}");
        assert!(uid.is_empty() || shown["uid"] == uid.as_str(), "{key}: {shown}");
    }
    Some(all)
}

/// Waits until every cache holds what the table holds, and says which of them lack what when they do not come to it.
pub async fn all_equal(caches: &mut [Cache], db: &TestDb, url: &str, patience: Duration) {
    let until = Instant::now() + patience;
    let mut ticks = interval(Duration::from_millis(50));
    loop {
        ticks.tick().await;
        let mut wrong = Vec::new();
        match table(db, url).await {
            None => wrong.push("the table does not come to rest".to_owned()),
            Some(table) => {
                for cache in &mut *caches {
                    match cache.objects().await {
                        None => wrong.push(format!("{} has no state yet", cache.name)),
                        Some(held) => wrong.extend(differences(&cache.name, &held, &table)),
                    }
                }
            }
        }
        if wrong.is_empty() {
            return;
        }
        assert!(Instant::now() < until, "after {patience:?} the caches are not what the table is:\n{}", wrong.join("\n"));
    }
}

fn differences(name: &str, held: &Objects, table: &Objects) -> Vec<String> {
    let mut wrong = Vec::new();
    for key in held.keys().filter(|key| !table.contains_key(*key)) {
        wrong.push(format!("{name} still holds {key}, {}", held[key]["metadata"]["resourceVersion"]));
    }
    for (key, object) in table {
        match held.get(key) {
            None => wrong.push(format!("{name} lacks {key}, {}", object["metadata"]["resourceVersion"])),
            Some(other) if other != object => wrong.push(format!("{name} holds {key} as\n  {other}\ninstead of\n  {object}")),
            Some(_) => {}
        }
    }
    wrong
}
