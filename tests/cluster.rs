//! The front: manifests in a real cluster, status out of a real PostgreSQL. Each test has a namespace of its own.

use crate::support::{
    cluster::Front,
    envtest::ControlPlane,
    until::until,
};
use serde_json::{Value, json};

#[tokio::test]
async fn the_whole_story_is_told_in_manifests() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}, "owner": "alice"}})).await;
    front.until_shown("chat/fix", "Ready", "Unknown", "WaitingForSnapshot").await;
    front.push("ws", "one").await;
    front.kubectl(&["wait", "--for=condition=Ready", "chat/fix", "--timeout=60s"]).await.out();
    let pinned = front.get("chat/fix").await["status"]["pinned"]["snapshot"].clone();
    assert!(pinned.is_string(), "{pinned}");
    front.push("ws", "two").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    let chat = front.get("chat/fix").await;
    assert_eq!(chat["status"]["pinned"]["snapshot"], pinned, "it stays moored");
    assert_eq!(chat["status"]["observedGeneration"], chat["metadata"]["generation"]);
    front.kubectl(&["annotate", "chat/fix", "moorline.dev/refresh-requested-at=now"]).await.out();
    front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
    let chat = until("the token is echoed", || async {
        let chat = front.get("chat/fix").await;
        (chat["status"]["lastHandledRefresh"] == "now").then_some(chat)
    })
    .await;
    assert_ne!(chat["status"]["pinned"]["snapshot"], pinned, "it moved because somebody asked");
    let names = |list: &Value| list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>();
    until("both snapshots are shown", || async {
        let list = front.get("agentsnapshots").await;
        (names(&list).len() == 2).then_some(())
    })
    .await;
    front.kubectl(&["delete", "chat/fix", "agent/ws", "--timeout=60s"]).await.out();
    assert_eq!(front.record("chats", "fix").await, None, "its record went with it");
    assert_eq!(front.record("agents", "ws").await, None);
}
