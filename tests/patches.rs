//! JSON patches (RFC 6902) and what patches may not touch: a refusal says what and why, and nothing has changed.

use crate::support::{
    api::{Answer, Api, Caller, digest, settled},
    postgres::database,
};
use reqwest::Method;
use serde_json::{Value, json};

const JSON_PATCH: &str = "application/json-patch+json";

async fn operate(api: &Api, path: &str, operations: Value) -> Answer {
    api.send_raw(Method::PATCH, path, JSON_PATCH, operations.to_string()).await
}

#[tokio::test]
async fn operations_change_chats_agents_and_what_a_runner_reports() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    api.create_chat("fix", json!({"title": "old"})).await;
    let patched = operate(
        &api,
        "chats/fix",
        json!([{"op": "test", "path": "/spec/title", "value": "old"},
               {"op": "replace", "path": "/spec/title", "value": "new"},
               {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}},
               {"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/labels/moorline.dev~1c"},
               {"op": "add", "path": "/spec/agentRef", "value": {"name": "ws"}}]),
    )
    .await
    .expect(200);
    assert_eq!((&patched["spec"]["title"], &patched["spec"]["agentRef"]["name"]), (&json!("new"), &json!("ws")));
    assert_eq!(patched["metadata"]["labels"], json!({"a": "b", "moorline.dev/c": "b"}));
    assert_eq!(patched["metadata"]["generation"], 2);
    let removed = operate(&api, "chats/fix", json!([{"op": "remove", "path": "/spec/agentRef"}])).await.expect(200);
    assert_eq!(removed["spec"].get("agentRef"), None);
    let nulled =
        operate(&api, "chats/fix", json!([{"op": "replace", "path": "/metadata/labels", "value": null}])).await.expect(200);
    assert_eq!(nulled["metadata"].get("labels"), None);

    let agent = operate(&api, "agents/ws", json!([{"op": "add", "path": "/spec/build", "value": 7}])).await.expect(200);
    assert_eq!(agent["spec"]["build"], 7);

    let state = |op: &str, state: &str| json!([{"op": op, "path": "/status/state", "value": state}]);
    let reported = operate(&api, "chats/fix/status", state("replace", "Running")).await.expect(200);
    assert_eq!(reported["status"]["state"], "Running");
    let mut both = state("test", "Running");
    both.as_array_mut().unwrap().push(json!({"op": "add", "path": "/status/lastError", "value": "none yet"}));
    assert_eq!(operate(&api, "chats/fix/status", both).await.expect(200)["status"]["lastError"], "none yet");
    let cleared = operate(&api, "chats/fix/status", json!([{"op": "remove", "path": "/status/lastError"}])).await.expect(200);
    assert_eq!(cleared["status"].get("lastError"), None);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_whole() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    api.create_chat("top", json!({})).await;
    api.create_chat("fix", json!({"title": "old", "parentRef": {"name": "top"}})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let add = |path: &str, value: Value| json!([{"op": "add", "path": "/spec/title", "value": "half"}, {"op": "add", "path": path, "value": value}]);
    for (path, operations, field, says) in [
        (
            "chats/fix",
            json!([{"op": "add", "path": "/spec/title", "value": "x"}, {"op": "test", "path": "/spec/title", "value": "y"}]),
            "spec.title",
            "operation 1",
        ),
        ("chats/fix", json!([{"op": "remove", "path": "/spec/nothing"}]), "spec.nothing", "path is invalid"),
        ("chats/fix", json!([{"op": "move", "from": "/spec", "path": "/spec/title"}]), "spec.title", "inside itself"),
        ("chats/fix", add("/spec/owner", json!("bob")), "spec.owner", "immutable"),
        ("chats/fix", json!([{"op": "remove", "path": "/spec/parentRef"}]), "spec.parentRef", "immutable: it is \"top\""),
        ("chats/fix", json!([{"op": "replace", "path": "/spec/parentRef/name", "value": "fix"}]), "spec.parentRef", "immutable"),
        ("chats/fix", add("/status/state", json!("Running")), "status.state", "…/status"),
        ("chats/fix", add("/status/dirty", json!(true)), "status.dirty", "the loop"),
        ("chats/fix", json!([{"op": "remove", "path": "/status"}]), "status", "not written with the object"),
        ("agents/ws", add("/status/phase", json!("Complete")), "status.phase", "pushes"),
        ("chats/fix/status", json!([{"op": "add", "path": "/status/dirty", "value": true}]), "status.dirty", "only status.state"),
        ("chats/fix/status", json!([{"op": "add", "path": "/spec/title", "value": "x"}]), "spec", "only status.state"),
        ("chats/fix/status", json!([{"op": "remove", "path": "/status/state"}]), "status.state", "supported values"),
        (
            "chats/fix/status",
            json!([{"op": "test", "path": "/status/state", "value": "Error"}, {"op": "replace", "path": "/status/state", "value": "Running"}]),
            "status.state",
            "expects \"Error\"",
        ),
    ] {
        let refused = operate(&api, path, operations.clone()).await.refused(422, "Invalid");
        assert_eq!(refused.fields(), [field], "{operations}");
        assert!(refused.message.contains(says), "{}", refused.message);
    }
    for (path, body, field) in [
        ("chats/fix", json!({"spec": {"owner": "bob"}}), "spec.owner"),
        ("chats/fix", json!({"spec": {"title": "x"}, "status": {"pinned": {"snapshot": "mine"}}}), "status.pinned"),
        ("agents/ws", json!({"status": null}), "status"),
    ] {
        assert_eq!(api.patch(path, &body).await.refused(422, "Invalid").fields(), [field]);
    }
    for nonsense in [
        "{}",
        "[1]",
        "[{\"op\":\"swap\",\"path\":\"/a\"}]",
        "[{\"op\":\"add\",\"path\":\"/a\"}]",
        "nonsense",
        "[{\"op\":\"replace\",\"path\":\"\",\"value\":1}]",
    ] {
        api.send_raw(Method::PATCH, "chats/fix", JSON_PATCH, nonsense).await.refused(400, "BadRequest");
    }
    let many = json!(vec![json!({"op": "add", "path": "/spec/title", "value": "x"}); 10_001]);
    let refused = operate(&api, "chats/fix", many).await.refused(413, "RequestEntityTooLarge");
    assert!(refused.message.contains("10000, got 10001"), "{}", refused.message);
    assert_eq!(digest(&db).await, before);
    let most = json!(vec![json!({"op": "add", "path": "/spec/title", "value": "x"}); 10_000]);
    operate(&api, "chats/fix", most).await.expect(200);
}

#[tokio::test]
async fn a_patch_that_tests_is_done_to_what_it_has_tested_however_many_come_at_once() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("counter", json!({"title": "0"})).await;
    let patchers: Vec<_> = (0..4)
        .map(|_| {
            let api = Caller::new(&api.url);
            tokio::spawn(async move {
                let mut won = 0;
                for n in 0..20 {
                    let body = json!([{"op": "test", "path": "/spec/title", "value": n.to_string()},
                                      {"op": "replace", "path": "/spec/title", "value": (n + 1).to_string()}]);
                    let answer = api.send_raw(Method::PATCH, "chats/counter", JSON_PATCH, body.to_string()).await;
                    won += i32::from(answer.status == 200);
                    assert!(matches!(answer.status, 200 | 422 | 409), "{}", answer.text);
                }
                won
            })
        })
        .collect();
    let mut won = 0;
    for patcher in patchers {
        won += patcher.await.expect("a patcher");
    }
    let count: i32 = api.chat("counter").await["spec"]["title"].as_str().unwrap().parse().unwrap();
    assert_eq!(won, count, "every patch that was told 200 has counted, and no other");
    assert!(count > 0);

    settled(&db).await;
    let version = api.chat("counter").await["metadata"]["resourceVersion"].clone();
    let versioned = |version: &Value, title: &str| json!([{"op": "replace", "path": "/metadata/resourceVersion", "value": version}, {"op": "replace", "path": "/spec/title", "value": title}]);
    operate(&api, "chats/counter", versioned(&version, "a")).await.expect(200);
    operate(&api, "chats/counter", versioned(&version, "b")).await.refused(409, "Conflict");
}

#[tokio::test]
async fn a_token_over_64_characters_is_refused_on_every_path() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.running_agent("ws").await;
    api.create_chat("fix", json!({})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let long = "é".repeat(65);
    for key in ["moorline.dev/refresh-requested-at", "moorline.dev/reconcile-requested-at"] {
        let meta = |name: &str| json!({"metadata": {"name": name, "annotations": {key: long}}});
        let pointer = format!("/metadata/annotations/{}", key.replace('/', "~1"));
        let operations =
            json!([{"op": "add", "path": "/metadata/annotations", "value": {}}, {"op": "add", "path": pointer, "value": long}]);
        for answer in [
            api.post("chats", &meta("new")).await,
            api.put("chats/fix", &meta("fix")).await,
            api.patch("chats/fix", &meta("fix")).await,
            operate(&api, "chats/fix", operations.clone()).await,
            api.post("agents", &meta("new")).await,
            api.put("agents/ws", &meta("ws")).await,
            api.patch("agents/ws", &meta("ws")).await,
            operate(&api, "agents/ws", operations).await,
        ] {
            let refused = answer.refused(422, "Invalid");
            assert_eq!(refused.fields(), [format!("metadata.annotations[{key}]")]);
            assert!(refused.message.contains("at most 64 characters, got 65"), "{}", refused.message);
        }
    }
    let refused = api.put("chats/fix/context", &json!({"token": long})).await.refused(422, "Invalid");
    assert_eq!(refused.fields(), ["token"]);
    assert!(refused.message.contains("at most 64 characters, got 65"), "{}", refused.message);
    assert_eq!(digest(&db).await, before);
    let longest = json!({"metadata": {"annotations": {"moorline.dev/refresh-requested-at": "é".repeat(64)}}});
    api.patch("chats/fix", &longest).await.expect(200);
}

#[tokio::test]
async fn a_record_made_from_a_manifest_names_its_owner_when_it_refuses() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_agent("ws", json!({})).await;
    api.create_chat("fix", json!({})).await;
    settled(&db).await;
    sqlx::raw_sql("UPDATE chats SET source = 'manifest'; UPDATE agents SET source = 'manifest'")
        .execute(&db.pool)
        .await
        .expect("manifests");
    let before = digest(&db).await;
    for (answer, owner) in [
        (api.patch("chats/fix", &json!({"spec": {"title": "x"}})).await, "Chat team-a/fix"),
        (operate(&api, "chats/fix", json!([{"op": "add", "path": "/spec/title", "value": "x"}])).await, "Chat team-a/fix"),
        (api.delete("chats/fix").await, "Chat team-a/fix"),
        (api.patch("agents/ws", &json!({"spec": {"build": 1}})).await, "Agent team-a/ws"),
        (api.delete("agents/ws").await, "Agent team-a/ws"),
    ] {
        let refused = answer.refused(409, "Conflict");
        assert!(refused.message.contains(owner) && refused.message.contains("manifest"), "{}", refused.message);
        refused.cause("OwnedByManifest");
    }
    assert_eq!(digest(&db).await, before);
    api.patch("chats/fix/status", &json!({"status": {"state": "Running"}})).await.expect(200);
    api.patch("chats/fix", &json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
}
