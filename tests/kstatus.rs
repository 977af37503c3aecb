//! What kstatus (cli-utils) makes of every state that a chat or an agent can be in, over real HTTP. The tables are those of
//! docs/conditions.md, and the doc is held to them.

use crate::support::{
    api::{Api, file},
    postgres::database,
    until::until,
};
use serde_json::{Value, json};
use sqlx::Executor as _;
use std::collections::BTreeMap;

/// State, then Ready, Drifted, ResourcesDegraded, Reconciling or Stalled, and what kstatus says.
type Row = [&'static str; 6];

const CHATS: &[Row] = &[
    ["changed, not yet seen by the loop", "True/Unbound", "–", "–", "–", "InProgress"],
    ["names no agent", "True/Unbound", "–", "–", "–", "Current"],
    ["names an agent that does not exist", "False/AgentNotFound", "–", "–", "–", "InProgress"],
    ["names a workspace without an agent", "False/AgentNotFound", "–", "–", "–", "InProgress"],
    ["its agent has never run", "Unknown/WaitingForSnapshot", "–", "–", "–", "InProgress"],
    ["its agent has pushed Pending only", "Unknown/WaitingForSnapshot", "–", "–", "–", "InProgress"],
    ["pinned", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["pinned, a resource could not be used", "True/Pinned", "False/UpToDate", "True/ResourcesExcluded", "–", "Current"],
    ["pinned, the agent's scan failed", "True/Pinned", "False/UpToDate", "True/ScanFailed", "–", "Current"],
    ["drifted", "True/PinnedStale", "True/ContentChanged", "False/AllOk", "–", "Current"],
    ["drifted, refreshPolicy OnDrift", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["archived, never pinned", "True/Archived", "–", "–", "–", "Current"],
    ["archived while drifted", "True/Archived", "True/ContentChanged", "False/AllOk", "–", "Current"],
    ["below an archived chat", "True/Archived", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["suspended", "True/Suspended", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["paused by annotation", "True/Suspended", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["suspended, never pinned", "True/Suspended", "–", "–", "–", "Current"],
    ["ended, never pinned", "True/Terminal", "–", "–", "–", "Current"],
    ["ended well, pinned", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["ended in error, pinned", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["ended, then its agent moved on", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["pinned, its agent is gone", "False/AgentNotFound", "Unknown/NoSnapshot", "False/AllOk", "–", "InProgress"],
    ["ended, then its agent was deleted", "True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"],
    ["pinned, names no agent any more", "True/Unbound", "Unknown/NoSnapshot", "False/AllOk", "–", "Current"],
    [
        "pinned, its rebuilt workspace has not reported",
        "Unknown/WaitingForSnapshot",
        "Unknown/NoSnapshot",
        "False/AllOk",
        "–",
        "InProgress",
    ],
    ["the loop failed on it and tries again", "–", "–", "–", "Reconciling/ProgressingWithRetry", "InProgress"],
    ["the loop fails on it again and again", "–", "–", "–", "Stalled/ReconcileFailed", "Failed"],
];

const AGENTS: &[Row] = &[
    ["changed, not yet seen by the loop", "Unknown/NeverReported", "–", "–", "–", "InProgress"],
    ["has never run", "Unknown/NeverReported", "–", "–", "–", "InProgress"],
    ["runs, has not reported", "Unknown/NeverReported", "–", "–", "–", "InProgress"],
    ["has pushed Pending only", "Unknown/NeverReported", "–", "–", "–", "InProgress"],
    ["Complete", "True/Reporting", "–", "False/AllOk", "–", "Current"],
    ["Complete, then a new run", "True/Reporting", "–", "False/AllOk", "–", "Current"],
    ["a resource could not be used", "True/Reporting", "–", "True/ResourcesExcluded", "–", "Current"],
    ["its scan failed", "True/Reporting", "–", "True/ScanFailed", "–", "Current"],
    ["suspended", "True/Suspended", "–", "False/AllOk", "–", "Current"],
    ["paused by annotation", "True/Suspended", "–", "False/AllOk", "–", "Current"],
    ["suspended, never ran", "True/Suspended", "–", "–", "–", "Current"],
    ["being deleted, letting its chats go", "True/Reporting", "–", "False/AllOk", "–", "Terminating"],
    ["the loop failed on it and tries again", "–", "–", "–", "Reconciling/ProgressingWithRetry", "InProgress"],
    ["the loop fails on it again and again", "–", "–", "–", "Stalled/ReconcileFailed", "Failed"],
];

/// The rules of kstatus, in its order (cli-utils, pkg/kstatus/status/generic.go; kubernetes.md §1.1).
pub fn kstatus(object: &Value) -> &'static str {
    if object["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null()) {
        return "Terminating";
    }
    let observed = &object["status"]["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return "InProgress";
    }
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    for condition in &conditions {
        match (condition["type"].as_str(), condition["status"].as_str()) {
            (Some("Reconciling"), Some("True")) => return "InProgress",
            (Some("Stalled"), Some("True")) => return "Failed",
            _ => {}
        }
    }
    match conditions.iter().find(|condition| condition["type"] == "Ready").map(|ready| ready["status"].as_str()) {
        Some(Some("True")) | None => "Current",
        Some(_) => "InProgress",
    }
}

fn row(object: &Value) -> [String; 5] {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let find = |type_: &str| conditions.iter().find(|condition| condition["type"] == type_);
    let said = |type_: &str| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        find(type_).map_or("–".into(), |found| format!("{}/{}", text(&found["status"]), text(&found["reason"])))
    };
    let mut others = Vec::new();
    for type_ in ["Reconciling", "Stalled"] {
        if let Some(found) = find(type_) {
            assert_eq!(found["status"], "True", "{type_} is present only when it is True: {object}");
            others.push(format!("{type_}/{}", found["reason"].as_str().unwrap()));
        }
    }
    for condition in &conditions {
        assert_eq!(condition["observedGeneration"], object["status"]["observedGeneration"], "{object}");
        assert!(condition["lastTransitionTime"].is_string() && condition["message"].is_string(), "{object}");
    }
    let other = if others.is_empty() { "–".into() } else { others.join(" ") };
    [said("Ready"), said("Drifted"), said("ResourcesDegraded"), other, kstatus(object).to_owned()]
}

/// Each state with its object, once it shows what the table says; panics with what it shows instead.
async fn hold(api: &Api, table: &[Row], objects: &BTreeMap<&str, String>) {
    for [state, wanted @ ..] in table {
        let path = objects.get(state).unwrap_or_else(|| panic!("no object is {state:?}"));
        if path.is_empty() {
            continue; // seen when it was so
        }
        settle(api, path, wanted).await;
    }
    assert_eq!(table.len(), objects.len(), "a state of the test is missing in the table");
}

async fn settle(api: &Api, path: &str, wanted: &[&str]) {
    let last = std::sync::Mutex::new(Value::Null);
    let what = format!("{path} shows {wanted:?}");
    let looking = until(&what, || async {
        let object = api.get(path).await.expect(200);
        let shown = row(&object);
        *last.lock().unwrap() = object;
        shown.iter().eq(wanted.iter()).then_some(())
    });
    if tokio::time::timeout(std::time::Duration::from_secs(20), looking).await.is_err() {
        let last = last.into_inner().unwrap();
        panic!("{path} shows {:?} instead of {wanted:?}: {last}", row(&last));
    }
}

/// The tables of the doc, row by row.
#[test]
fn the_doc_has_these_tables() {
    let doc = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/conditions.md")).expect("the doc");
    let rows = |heading: &str| {
        let (_, section) = doc.split_once(heading).unwrap_or_else(|| panic!("no heading {heading:?}"));
        let table = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
        table.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect::<Vec<Vec<_>>>()
    };
    assert_eq!(rows("## Every state of a chat"), CHATS.iter().map(|row| row.map(str::to_owned).to_vec()).collect::<Vec<_>>());
    let without_drift = |row: &Row| [0, 1, 3, 4, 5].map(|n: usize| row[n].to_owned()).to_vec();
    assert_eq!(rows("## Every state of an agent"), AGENTS.iter().map(without_drift).collect::<Vec<_>>());
}

fn unusable() -> Value {
    json!([file("AGENTS.md", "ok"), {"kind": "Skill", "source": "skills/x", "sourcePath": "skills/x/SKILL.md", "status": "Oversize", "error": "too large"}])
}

#[tokio::test]
async fn kstatus_of_every_state_of_a_chat() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut of: BTreeMap<&str, String> = BTreeMap::new();
    let mut is = |state: &'static str, chat: &str| of.insert(state, format!("chats/{chat}"));
    let one = || json!([file("AGENTS.md", "one")]);
    let two = || json!([file("AGENTS.md", "two")]);
    let on = |agent: &str| json!({"agentRef": {"name": agent}});
    let state = async |chat: &str, state: &str| {
        api.patch(&format!("chats/{chat}/status"), &json!({"status": {"state": state}})).await.expect(200);
    };
    let spec = async |chat: &str, spec: Value| {
        api.patch(&format!("chats/{chat}"), &json!({"spec": spec})).await.expect(200);
    };

    api.create_chat("unbound", json!({})).await;
    is("names no agent", "unbound");
    api.create_chat("unseen", json!({})).await;
    settle(&api, "chats/unseen", &["True/Unbound", "–", "–", "–", "Current"]).await;
    db.pool.execute("UPDATE chats SET generation = generation + 1 WHERE name = 'unseen'").await.expect("a change");
    is("changed, not yet seen by the loop", "unseen");

    let quick = api.with("prefer", "respond-async");
    let waiting = async |name: &str, spec: Value| {
        quick.post("chats", &json!({"metadata": {"name": name}, "spec": spec})).await.expect(201);
    };
    waiting("nobody", on("nobody")).await;
    is("names an agent that does not exist", "nobody");
    waiting("nowhere", json!({"workspaceRef": {"name": "nowhere"}})).await;
    is("names a workspace without an agent", "nowhere");
    api.create_agent("asleep", json!({})).await;
    waiting("early", on("asleep")).await;
    is("its agent has never run", "early");
    let half = api.running_agent("half").await;
    let mut pending = half.report(1, one());
    pending["phase"] = json!("Pending");
    api.push("half", &pending).await.expect(200);
    waiting("half-way", on("half")).await;
    is("its agent has pushed Pending only", "half-way");

    let still = api.running_agent("still").await;
    api.pushed(&still, 1, one()).await;
    for (state, name) in [("pinned", "pinned"), ("suspended", "suspended"), ("paused by annotation", "paused")] {
        api.create_chat(name, on("still")).await;
        is(state, name);
    }
    spec("suspended", json!({"suspend": true})).await;
    api.patch("chats/paused", &json!({"metadata": {"annotations": {"moorline.dev/paused": "true"}}})).await.expect(200);
    api.create_chat("parent", on("still")).await;
    api.create_chat("child", json!({"parentRef": {"name": "parent"}})).await;
    spec("parent", json!({"archived": true})).await;
    is("below an archived chat", "child");
    waiting("shelved", json!({"agentRef": {"name": "nobody"}, "archived": true})).await;
    is("archived, never pinned", "shelved");
    waiting("held", json!({"agentRef": {"name": "nobody"}, "suspend": true})).await;
    is("suspended, never pinned", "held");
    waiting("aborted", on("nobody")).await;
    state("aborted", "Completed").await;
    is("ended, never pinned", "aborted");
    for (word, name, title) in [("Completed", "done", "ended well, pinned"), ("Error", "failed", "ended in error, pinned")] {
        api.create_chat(name, on("still")).await;
        state(name, word).await;
        is(title, name);
    }
    api.create_chat("loose", on("still")).await;
    spec("loose", json!({"agentRef": null})).await;
    is("pinned, names no agent any more", "loose");

    let sick = api.running_agent("sick").await;
    api.pushed(&sick, 1, unusable()).await;
    api.create_chat("degraded", on("sick")).await;
    is("pinned, a resource could not be used", "degraded");
    let blind = api.running_agent("blind").await;
    let mut report = blind.report(1, one());
    report["error"] = json!("permission denied");
    api.push("blind", &report).await.expect(200);
    api.create_chat("scanless", on("blind")).await;
    is("pinned, the agent's scan failed", "scanless");

    let moving = api.running_agent("moving").await;
    api.pushed(&moving, 1, one()).await;
    for name in ["drifted", "shelved-drifted", "over"] {
        api.create_chat(name, on("moving")).await;
    }
    api.create_chat("follows", json!({"agentRef": {"name": "moving"}, "refreshPolicy": "OnDrift"})).await;
    state("over", "Completed").await;
    settle(&api, "chats/over", &["True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"]).await;
    api.pushed(&moving, 2, two()).await;
    settle(&api, "chats/shelved-drifted", &["True/PinnedStale", "True/ContentChanged", "False/AllOk", "–", "Current"]).await;
    spec("shelved-drifted", json!({"archived": true})).await;
    is("drifted", "drifted");
    is("drifted, refreshPolicy OnDrift", "follows");
    is("archived while drifted", "shelved-drifted");
    is("ended, then its agent moved on", "over");

    let leaving = api.running_agent("leaving").await;
    api.pushed(&leaving, 1, one()).await;
    api.create_chat("left", on("leaving")).await;
    api.create_chat("left-done", on("leaving")).await;
    state("left-done", "Completed").await;
    settle(&api, "chats/left-done", &["True/Pinned", "False/UpToDate", "False/AllOk", "–", "Current"]).await;
    api.delete("agents/leaving").await.expect(200);
    is("pinned, its agent is gone", "left");
    is("ended, then its agent was deleted", "left-done");

    api.create_agent("build-1", json!({"workspace": "w", "build": 1})).await;
    let run = api.register_run("build-1").await;
    api.push("build-1", &run.report(1, one())).await.expect(200);
    api.create_chat("rebuilt", json!({"workspaceRef": {"name": "w"}})).await;
    api.create_agent("build-2", json!({"workspace": "w", "build": 2})).await;
    is("pinned, its rebuilt workspace has not reported", "rebuilt");

    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR NOT conditions ? 'Ready')")
        .await
        .expect("a constraint");
    waiting("bad", json!({})).await;
    let [_, failing @ ..] = CHATS[CHATS.len() - 2];
    settle(&api, "chats/bad", &failing).await;
    is("the loop failed on it and tries again", "bad");
    is("the loop fails on it again and again", "bad");
    of.insert("the loop failed on it and tries again", String::new());
    hold(&api, CHATS, &of).await;
}

#[tokio::test]
async fn kstatus_of_every_state_of_an_agent() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut of: BTreeMap<&str, String> = BTreeMap::new();
    let mut is = |state: &'static str, agent: &str| of.insert(state, format!("agents/{agent}"));
    let one = || json!([file("AGENTS.md", "one")]);
    api.create_agent("new", json!({})).await;
    is("has never run", "new");
    api.create_agent("unseen", json!({})).await;
    settle(&api, "agents/unseen", &["Unknown/NeverReported", "–", "–", "–", "InProgress"]).await;
    until("the loop is done with it", || async {
        let agent = api.agent("unseen").await;
        (agent["status"]["observedGeneration"] == 1).then_some(())
    })
    .await;
    db.pool.execute("UPDATE agents SET generation = generation + 1 WHERE name = 'unseen'").await.expect("a change");
    is("changed, not yet seen by the loop", "unseen");
    api.running_agent("begun").await;
    is("runs, has not reported", "begun");
    let half = api.running_agent("half").await;
    let mut pending = half.report(1, one());
    pending["phase"] = json!("Pending");
    api.push("half", &pending).await.expect(200);
    is("has pushed Pending only", "half");
    for (state, name) in [
        ("Complete", "complete"),
        ("Complete, then a new run", "again"),
        ("suspended", "suspended"),
        ("paused by annotation", "paused"),
        ("being deleted, letting its chats go", "leaving"),
    ] {
        let run = api.running_agent(name).await;
        api.pushed(&run, 1, one()).await;
        is(state, name);
    }
    api.register_run("again").await;
    api.patch("agents/suspended", &json!({"spec": {"suspend": true}})).await.expect(200);
    api.patch("agents/paused", &json!({"metadata": {"annotations": {"moorline.dev/paused": "true"}}})).await.expect(200);
    api.create_agent("shut", json!({"suspend": true})).await;
    is("suspended, never ran", "shut");
    let sick = api.running_agent("sick").await;
    api.pushed(&sick, 1, unusable()).await;
    is("a resource could not be used", "sick");
    let blind = api.running_agent("blind").await;
    let mut report = blind.report(1, one());
    report["error"] = json!("permission denied");
    api.push("blind", &report).await.expect(200);
    is("its scan failed", "blind");

    db.pool
        .execute("ALTER TABLE agents ADD CONSTRAINT refused CHECK (name <> 'bad' OR NOT conditions ? 'Ready')")
        .await
        .expect("a constraint");
    api.create_agent("bad", json!({})).await;
    let [_, failing @ ..] = AGENTS[AGENTS.len() - 2];
    settle(&api, "agents/bad", &failing).await;
    is("the loop failed on it and tries again", "bad");
    is("the loop fails on it again and again", "bad");
    of.insert("the loop failed on it and tries again", String::new());
    let [_, stalled @ ..] = AGENTS[AGENTS.len() - 1];
    settle(&api, "agents/bad", &stalled).await;

    api.create_chat("holds", json!({"agentRef": {"name": "leaving"}})).await;
    settle(&api, "agents/leaving", &["True/Reporting", "–", "False/AllOk", "–", "Current"]).await;
    let mut holding = db.pool.begin().await.expect("a session");
    holding.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    holding.execute("SELECT FROM chats WHERE name = 'holds' FOR NO KEY UPDATE").await.expect("a lock");
    api.delete("agents/leaving").await.expect(200);
    hold(&api, AGENTS, &of).await;
    holding.commit().await.expect("let go");
    until("the agent is gone", || async { (api.get("agents/leaving").await.status == 404).then_some(()) }).await;
}

#[tokio::test]
async fn a_transition_time_is_that_of_the_transition() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let first = api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    // As if it had been so for long.
    let long_ago = json!("2020-01-01T00:00:00Z");
    let age = "UPDATE chats SET conditions = conditions || '{\"Ready@\": \"2020-01-01T00:00:00Z\", \"Drifted@\": \"2020-01-01T00:00:00Z\"}'";
    db.pool.execute(age).await.expect("an old chat");
    let since = |chat: &Value, type_: &str| {
        let conditions = chat["status"]["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == type_).unwrap()["lastTransitionTime"].clone()
    };
    assert_ne!(since(&first, "Ready"), long_ago);
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    settle(&api, "chats/fix", &["True/PinnedStale", "True/ContentChanged", "False/AllOk", "–", "Current"]).await;
    let drifted = api.chat("fix").await;
    assert_eq!(since(&drifted, "Ready"), long_ago, "another reason is no transition");
    assert_ne!(since(&drifted, "Drifted"), long_ago);
    let begun = since(&drifted, "Drifted");
    api.pushed(&run, 3, json!([file("AGENTS.md", "three")])).await;
    api.patch("chats/fix", &json!({"spec": {"title": "x"}})).await.expect(200);
    until("the loop has seen it", || async { (api.chat("fix").await["status"]["observedGeneration"] == 2).then_some(()) }).await;
    assert_eq!(since(&api.chat("fix").await, "Drifted"), begun);
}
