//! Objects as large as a cluster takes them, and larger than leaves room for what Moorline has to write on them.

use crate::support::{
    cluster::Front,
    envtest::ControlPlane,
    until::{until, until_within},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Beside whatever else runs.
const PATIENCE: Duration = Duration::from_mins(2);
/// As etcd has it, in bytes.
const LARGE: usize = 1_400_000;

/// A chat with so many labels, which are what a cluster has no other limit for.
fn chat(name: &str, labels: usize) -> Value {
    let text = |n: usize| format!("{n:0>60}");
    let labels: serde_json::Map<_, _> = (0..labels).map(|n| (text(n), json!(text(n)))).collect();
    json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name, "labels": labels},
        "spec": {"owner": "alice", "agentRef": {"name": "ws"}},
    })
}

fn path(front: &Front<'_>) -> String {
    format!("/apis/moorline.dev/v1alpha1/namespaces/{}/chats", front.namespace)
}

/// Makes one in the cluster, if that takes it, and answers with how large it is there.
async fn made(front: &Front<'_>, name: &str, labels: usize) -> Option<usize> {
    let (status, object) = front.control_plane.answer("POST", &path(front), Some(&chat(name, labels))).await.unwrap();
    (status == 201).then(|| object.to_string().len())
}

async fn with_agent(control_plane: &ControlPlane) -> Front<'_> {
    let front = Front::start(control_plane, &["--mirror=all"]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.push("ws", "one").await;
    front
}

/// Waits by one watch: to ask for such an object again and again takes the processor from whoever has to make it so.
async fn until_true(front: &Front<'_>, what: &str, condition: &str, reason: &str) {
    let condition_is_true = format!("--for=condition={condition}");
    front.kubectl(&["wait", &condition_is_true, what, &format!("--timeout={}s", PATIENCE.as_secs())]).await.out();
    front.until_shown(what, condition, "True", reason).await;
}

#[tokio::test]
async fn a_manifest_of_1_4_megabytes_is_taken_over_and_shown_as_any_other() {
    let front = with_agent(ControlPlane::shared().await).await;
    let one = made(&front, "small", 1_000).await.unwrap() / 1_000;
    let size = made(&front, "large", LARGE / one).await.unwrap();
    assert!((LARGE - 100_000..LARGE + 100_000).contains(&size), "{size}");
    until_true(&front, "chat/large", "Ready", "Pinned").await;
    front.push("ws", "two").await;
    until_true(&front, "chat/large", "Drifted", "ContentChanged").await;
    let record = front.record("chats", "large").await.unwrap();
    assert_eq!(record["metadata"]["labels"], chat("large", LARGE / one)["metadata"]["labels"]);
    front.kubectl(&["delete", "chat/large", "--timeout=60s"]).await.out();
    assert_eq!(front.record("chats", "large").await, None);
}

/// Makes one that leaves room for less than a finalizer: labels first, and the rest in an annotation. How long that may be is found
/// out in a namespace that nobody watches.
async fn made_full(front: &Front<'_>, name: &str) {
    let padded = |labels: usize, pad: usize| {
        let mut chat = chat(name, labels);
        chat["metadata"]["annotations"] = json!({"pad": "x".repeat(pad)});
        chat
    };
    let elsewhere = front.control_plane.namespace_of_its_own().await;
    let elsewhere = format!("/apis/moorline.dev/v1alpha1/namespaces/{elsewhere}/chats");
    let has_room = async |chat: &Value| {
        let (status, said) = front.control_plane.answer("POST", &elsewhere, Some(chat)).await.unwrap();
        if status == 201 {
            front.control_plane.send("DELETE", &format!("{elsewhere}/{name}"), None).await.unwrap();
        } else {
            assert!(said.to_string().contains("too large"), "{status} {said}");
        }
        status == 201
    };
    let (mut labels, mut fits, mut too_long) = (7_000, 0, 255_000);
    while has_room(&padded(labels, too_long)).await {
        labels += 500;
    }
    while too_long - fits > 50 {
        let pad = usize::midpoint(fits, too_long);
        if has_room(&padded(labels, pad)).await {
            fits = pad;
        } else {
            too_long = pad;
        }
    }
    assert!(fits > 0, "as many labels are too many");
    front.control_plane.send("POST", &path(front), Some(&padded(labels, fits))).await.unwrap();
}

#[tokio::test]
async fn a_manifest_that_leaves_no_room_is_tried_again_and_holds_nobody_up_and_is_taken_over_when_it_is_smaller() {
    let front = with_agent(ControlPlane::shared().await).await;
    made_full(&front, "full").await;
    until("it is counted", || async { (front.metric("moorline_mirror_errors_total").await > 0).then_some(()) }).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}})).await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    assert_eq!(front.record("chats", "full").await, None, "first the finalizer, then the record");
    assert_eq!(front.get("chat/full").await["metadata"]["finalizers"], Value::Null);
    let smaller = json!({"metadata": {"annotations": {"pad": null}}});
    front.control_plane.send("PATCH", &format!("{}/full", path(&front)), Some(&smaller)).await.unwrap();
    until_true(&front, "chat/full", "Ready", "Pinned").await;
    assert!(front.record("chats", "full").await.is_some());
}

/// Pushes more than a cluster's object can hold.
async fn push_much(front: &Front<'_>, agent: &str, count: usize) {
    let (code, run) = front.send("POST", &format!("agents/{agent}/runs"), Some(json!({}))).await;
    assert_eq!(code, 201, "{run}");
    let resource = |n: usize| {
        let source = format!("{n}-{}", "s".repeat(1_000));
        let error = "é".repeat(200);
        json!({"kind": "InstructionFile", "source": source, "sourcePath": "p".repeat(2_000), "status": "Unreadable", "error": error})
    };
    let resources: Vec<Value> = (0..count).map(resource).collect();
    let push = json!({"runID": run["runID"], "epoch": run["epoch"], "seq": 1, "phase": "Complete", "resources": resources});
    let (code, said) = front.send("PUT", &format!("agents/{agent}/snapshot"), Some(push)).await;
    assert_eq!(code, 200, "{said}");
}

#[tokio::test]
async fn a_snapshot_of_a_thousand_resources_is_shown_cut_and_a_chat_moors_to_it() {
    let front = with_agent(ControlPlane::shared().await).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "much"}, "spec": {}})).await;
    until("the agent has a record", || async { front.record("agents", "much").await }).await;
    push_much(&front, "much", 1_000).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "much"}}})).await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    let pinned = front.get("chat/fix").await["status"]["pinned"].clone();
    assert_eq!(pinned["resourceCount"], 1_000);
    let name = format!("agentsnapshot/{}", pinned["snapshot"].as_str().unwrap());
    let shown = until_within(PATIENCE, "the snapshot is shown", || async {
        let said = front.kubectl(&["get", &name, "-o", "json"]).await;
        serde_json::from_str::<Value>(&said.out).ok()
    })
    .await;
    let spec = &shown["spec"];
    assert_eq!((&spec["truncated"], spec["resources"].as_array().unwrap().len()), (&json!(true), 500));
    assert!(shown.to_string().len() < 1_000_000, "{}", shown.to_string().len());
}
