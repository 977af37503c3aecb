//! What writes answer with: what a read of the same object has, so that a client that compares the two sees what changed and
//! nothing else. kubectl does: for `(no change)`, and for `diff`.

use crate::support::{
    api::{Api, Caller, digest, file, settled},
    postgres::{TestDb, database},
};
use reqwest::Method;
use serde_json::{Value, json};

/// Two chats of one agent, which has reported something else since they were moored.
async fn drifted(db: &TestDb) -> Api {
    let api = Api::start(db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for name in ["fix", "guide"] {
        api.create_chat(name, json!({"title": "T", "agentRef": {"name": "ws"}})).await;
    }
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    settled(db).await;
    api
}

async fn operate(api: &Caller, path: &str, operations: Value) -> Value {
    api.send_raw(Method::PATCH, path, "application/json-patch+json", operations.to_string()).await.expect(200)
}

#[tokio::test]
async fn every_write_of_a_chat_answers_with_what_a_read_of_it_has() {
    let db = database().await;
    let api = drifted(&db).await;
    let patient = api.with("prefer", "wait=10");
    let read = api.chat("fix").await;
    for field in ["latest", "drift"] {
        assert!(read["status"][field].is_object(), "the chat has drifted: {read}");
    }
    let whole = json!({"metadata": {"name": "fix", "labels": {"a": "b"}}, "spec": read["spec"]});
    let titled = json!([{"op": "test", "path": "/status/latest/hash", "value": read["status"]["latest"]["hash"]},
                        {"op": "replace", "path": "/spec/title", "value": "B"}]);
    for answer in [
        patient.patch("chats/fix", &json!({"spec": {"title": "A"}})).await.expect(200),
        operate(&patient, "chats/fix", titled).await,
        patient.put("chats/fix", &whole).await.expect(200),
        patient.patch("chats/fix/status", &json!({"status": {"state": "Running"}})).await.expect(200),
    ] {
        assert_eq!(
            (&answer["status"]["latest"], &answer["status"]["drift"]),
            (&read["status"]["latest"], &read["status"]["drift"])
        );
    }
    settled(&db).await;
    let last = patient.patch("chats/fix", &json!({"metadata": {"annotations": {"note": "x"}}})).await.expect(200);
    assert_eq!(last, api.chat("fix").await);
    let refreshed = api.put("chats/fix/context", &json!({})).await.expect(200);
    assert_eq!(refreshed, api.chat("fix").await);
    assert_eq!(refreshed["status"]["latest"]["hash"], refreshed["status"]["pinned"]["hash"]);
    let made = api.create_chat("new", json!({"agentRef": {"name": "ws"}})).await;
    assert_eq!(made, api.chat("new").await);
    assert_eq!(made["status"]["latest"], read["status"]["latest"]);
}

#[tokio::test]
async fn a_patch_that_changes_nothing_answers_with_the_object_as_it_is() {
    let db = database().await;
    let api = drifted(&db).await;
    let before = digest(&db).await;
    let (chat, agent) = (api.chat("fix").await, api.agent("ws").await);
    for (path, body, read) in [
        ("chats/fix", json!({"spec": {"title": "T"}}), &chat),
        ("chats/fix", chat.clone(), &chat),
        ("chats/fix/status", json!({"status": {"state": "Waiting"}}), &chat),
        ("agents/ws", json!({"spec": {"suspend": false}}), &agent),
        ("agents/ws", agent.clone(), &agent),
    ] {
        assert_eq!(&api.patch(path, &body).await.expect(200), read, "{path} {body}");
    }
    let same = json!([{"op": "replace", "path": "/spec/title", "value": "T"}]);
    assert_eq!(operate(&api, "chats/fix", same).await, chat);
    assert_eq!(api.put("chats/fix", &chat).await.expect(200), chat);
    assert_eq!(api.put("agents/ws", &agent).await.expect(200), agent);
    settled(&db).await;
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn a_rehearsal_differs_from_what_is_there_in_what_it_would_change_and_has_no_version_of_its_own() {
    let db = database().await;
    let api = drifted(&db).await;
    let before = digest(&db).await;
    for (path, spec, field, value) in [
        ("chats/fix", json!({"title": "Other", "agentRef": {"name": "ws"}}), "/spec/title", json!("Other")),
        ("agents/ws", json!({"build": 3}), "/spec/build", json!(3)),
    ] {
        let mut wanted = api.get(path).await.expect(200);
        let name = wanted["metadata"]["name"].clone();
        wanted["spec"][field.trim_start_matches("/spec/")] = value.clone();
        wanted["metadata"]["generation"] = json!(wanted["metadata"]["generation"].as_i64().unwrap() + 1);
        let rehearsed = format!("{path}?dryRun=All");
        assert_eq!(api.patch(&rehearsed, &json!({"spec": spec})).await.expect(200), wanted);
        let put = json!({"metadata": {"name": name}, "spec": wanted["spec"]});
        assert_eq!(api.put(&rehearsed, &put).await.expect(200), wanted);
        assert_eq!(operate(&api, &rehearsed, json!([{"op": "add", "path": field, "value": value}])).await, wanted);
    }
    let mut wanted = api.chat("fix").await;
    wanted["status"]["state"] = json!("Running");
    let running = json!({"status": {"state": "Running"}});
    assert_eq!(api.patch("chats/fix/status?dryRun=All", &running).await.expect(200), wanted);
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let refreshed = api.put("chats/fix/context?dryRun=All", &json!({"token": "t"})).await.expect(200);
    assert_eq!(version(&refreshed), version(&wanted));
    let gone = api.delete("agents/ws?dryRun=All").await.expect(200);
    assert_eq!(version(&gone), version(&api.agent("ws").await));
    for kind in ["chats", "agents"] {
        let made = api.post(&format!("{kind}?dryRun=All"), &json!({"metadata": {"name": "new"}})).await.expect(201);
        assert_eq!(made["metadata"].get("resourceVersion"), None, "nothing was made that could have a version: {made}");
    }
    let bound = json!({"metadata": {"name": "new"}, "spec": {"agentRef": {"name": "ws"}}});
    let made = api.post("chats?dryRun=All", &bound).await.expect(201);
    assert_eq!(made["status"]["latest"], wanted["status"]["latest"]);
    settled(&db).await;
    assert_eq!(digest(&db).await, before);
}
