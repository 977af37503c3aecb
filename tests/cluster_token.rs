//! A token that expires is a cluster that is away until there is another.

use crate::support::{
    cluster::Front,
    envtest::ControlPlane,
    until::{until, until_within},
};
use serde_json::json;
use std::{fs, time::Duration};

/// Files with tokens are read again once a minute.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test]
async fn a_replica_whose_token_expires_goes_on_without_the_cluster_and_recovers_by_itself_when_the_file_has_another() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let user = control_plane.user(&namespace, "moorline", &everything).await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("token");
    fs::write(&file, control_plane.token_that_lasts(&user, Duration::from_secs(15)).await).unwrap();
    let kubeconfig = control_plane.access(&namespace).kubeconfig_with_token_in(&file);
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}})).await;
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;

    until_within(PATIENCE, "its token has expired", || async {
        (front.metric("leader_election_master_status").await == 0).then_some(())
    })
    .await;
    let (mark, pinned) = (control_plane.mark(), front.record("chats", "fix").await.unwrap()["status"]["pinned"].clone());
    front.push("ws", "two").await;
    until("the loop sees to it all the same", || async {
        (front.record("chats", "fix").await?["status"]["dirty"] == true).then_some(())
    })
    .await;
    let written = control_plane.writes_since(mark).await;
    assert!(written.iter().all(|write| write.user != user.name || write.code == 401), "{written:?}");
    assert_eq!(front.get("chat/fix").await["status"]["dirty"], false);

    fs::write(&file, &user.token).unwrap();
    until_within(PATIENCE, "it holds the Lease again", || async {
        (front.metric("leader_election_master_status").await == 1).then_some(())
    })
    .await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    front.kubectl(&["annotate", "chat/fix", "moorline.dev/refresh-requested-at=now"]).await.out();
    front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
    assert_ne!(front.record("chats", "fix").await.unwrap()["status"]["pinned"], pinned);
}
