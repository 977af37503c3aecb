//! What was made through the API, and what a cluster shows of it: its labels and its spec are the record's, whoever else has a hand on
//! the object, and what happens to it is told of it and of nothing else.

use crate::support::{cluster::Front, envtest::ControlPlane, until::until};
use serde_json::{Value, json};

/// A chat that is made through the API.
fn record(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name, "labels": labels},
           "spec": {"owner": "alice", "agentRef": {"name": "ws"}}})
}

async fn until_labels(front: &Front<'_>, labels: &Value) {
    until(&format!("the labels are {labels}"), || async {
        let said = front.kubectl(&["get", "chat/fix", "-o", "json"]).await;
        let object: Value = serde_json::from_str(&said.out).ok()?;
        (object["metadata"]["labels"] == *labels).then_some(())
    })
    .await;
}

#[tokio::test]
async fn labels_of_a_record_that_change_are_shown_and_those_of_others_stay() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &["--mirror=all"]).await;
    assert_eq!(front.send("POST", "chats", Some(record("fix", &json!({"team": "red", "old": "1"})))).await.0, 201);
    until_labels(&front, &json!({"team": "red", "old": "1"})).await;
    front.kubectl(&["label", "chat/fix", "theirs=1"]).await.out();
    let change = json!({"metadata": {"labels": {"team": "blue", "old": null, "new": "1"}}});
    assert_eq!(front.send("PATCH", "chats/fix", Some(change)).await.0, 200);
    until_labels(&front, &json!({"team": "blue", "new": "1", "theirs": "1"})).await;
    front.kubectl(&["label", "--overwrite", "chat/fix", "team=green", "new-"]).await.out();
    until_labels(&front, &json!({"team": "blue", "new": "1", "theirs": "1"})).await;
    front.settled().await;
    let mark = control_plane.mark();
    front.settled().await;
    let mut writes = control_plane.writes_since(mark).await;
    writes.retain(|it| it.namespace == front.namespace && it.name == "fix");
    assert_eq!(writes, [], "then it is as it should be");
}

/// The Events about an object, by reason.
async fn events(front: &Front<'_>, name: &str) -> Vec<(String, String)> {
    let list = front.get("events.events.k8s.io").await;
    let of = list["items"].as_array().unwrap().iter().filter(|event| event["regarding"]["name"] == name);
    of.map(|event| (event["reason"].as_str().unwrap().to_owned(), event["type"].as_str().unwrap().to_owned())).collect()
}

#[tokio::test]
async fn who_applies_a_manifest_over_an_object_of_the_mirror_is_told_that_it_is_set_back() {
    let front = Front::start(ControlPlane::shared().await, &["--mirror=all"]).await;
    assert_eq!(front.send("POST", "chats", Some(record("fix", &json!({"team": "red"})))).await.0, 201);
    until_labels(&front, &json!({"team": "red"})).await;
    assert_eq!(front.send("PATCH", "chats/fix", Some(json!({"spec": {"title": "theirs"}}))).await.0, 200);
    until("the record's title is shown", || async { (front.get("chat/fix").await["spec"]["title"] == "theirs").then_some(()) })
        .await;
    assert_eq!(events(&front, "fix").await, [], "a change through the API is nothing that is set back");
    let manifest = json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"title": "mine", "agentRef": {"name": "ws"}}});
    front.apply(&manifest).await;
    until("it is told", || async {
        events(&front, "fix").await.contains(&("OwnedByApi".into(), "Warning".into())).then_some(())
    })
    .await;
    until("it is set back", || async {
        let spec = front.get("chat/fix").await["spec"].clone();
        (spec["title"] == "theirs").then_some(())
    })
    .await;
    assert_eq!(front.record("chats", "fix").await.unwrap()["spec"]["title"], "theirs");
}

#[tokio::test]
async fn what_happens_to_a_record_of_the_api_is_not_told_of_the_manifest_that_it_stands_in_the_way_of() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    assert_eq!(front.send("POST", "chats", Some(record("fix", &json!({})))).await.0, 201);
    for name in ["fix", "other"] {
        front.apply(&json!({"kind": "Chat", "metadata": {"name": name}, "spec": {"agentRef": {"name": "ws"}}})).await;
    }
    front.until_shown("chat/fix", "Ready", "False", "OwnedByApi").await;
    front.push("ws", "one").await;
    front.until_shown("chat/other", "Ready", "True", "Pinned").await;
    front.push("ws", "two").await;
    until("the other's drift is told, and whatever was to be told before", || async {
        events(&front, "other").await.iter().any(|(reason, _)| reason == "ContextDrifted").then_some(())
    })
    .await;
    let pinned = front.record("chats", "fix").await.unwrap()["status"]["dirty"] == true;
    assert!(pinned, "the record itself has drifted");
    assert_eq!(events(&front, "fix").await, [("OwnedByApi".to_owned(), "Warning".to_owned())]);
}

#[tokio::test]
async fn a_front_that_is_to_show_nothing_tells_nothing_of_what_happens() {
    let front = Front::start(ControlPlane::shared().await, &["--mirror=off"]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}})).await;
    front.push("ws", "one").await;
    until("the record is pinned", || async {
        front.record("chats", "fix").await?["status"]["pinned"]["snapshot"].is_string().then_some(())
    })
    .await;
    // What a person has to know is told all the same, and after what happened before.
    assert_eq!(front.send("POST", "chats", Some(record("api", &json!({})))).await.0, 201);
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "api"}, "spec": {}})).await;
    until("it is told", || async {
        events(&front, "api").await.contains(&("OwnedByApi".into(), "Warning".into())).then_some(())
    })
    .await;
    assert_eq!((events(&front, "fix").await, events(&front, "ws").await), (vec![], vec![]));
}
