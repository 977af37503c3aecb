//! A cluster's objects have more owners than one: what a GitOps tool prunes and applies again, what another manager holds, and
//! what another manager takes.

use crate::support::{cluster::Front, envtest::ControlPlane, kubectl::Said, until::until};
use serde_json::{Value, json};

/// A part of what a GitOps tool applies together.
fn part(name: &str, policy: &str) -> Value {
    json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name, "labels": {"of": "the-set"}},
        "spec": {"agentRef": {"name": "ws"}, "owner": "alice", "deletionPolicy": policy},
    })
}

/// Makes the cluster hold these and none else of the set.
async fn prune(front: &Front<'_>, parts: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": parts}).to_string();
    let args =
        ["apply", "--prune", "-l", "of=the-set", "--prune-allowlist=moorline.dev/v1alpha1/Chat", "--timeout=60s", "-f", "-"];
    front.control_plane.kubectl(&front.namespace, &args, &list).await.out();
}

async fn with_agent<'a>(control_plane: &'a ControlPlane, flags: &[&str]) -> Front<'a> {
    let front = Front::start(control_plane, flags).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.push("ws", "one").await;
    front
}

#[tokio::test]
async fn what_gitops_prunes_begins_anew_when_it_is_applied_again_and_what_is_retained_has_its_pin_still() {
    let front = with_agent(ControlPlane::shared().await, &[]).await;
    let all = [part("gone", "Delete"), part("kept", "Retain"), part("stays", "Delete")];
    prune(&front, &all).await;
    for name in ["gone", "kept", "stays"] {
        front.until_shown(&format!("chat/{name}"), "Ready", "True", "Pinned").await;
    }
    let record = async |name: &str| front.record("chats", name).await.unwrap();
    let (gone, kept, stays) = (record("gone").await, record("kept").await, record("stays").await);
    front.push("ws", "two").await;
    front.until_shown("chat/stays", "Drifted", "True", "ContentChanged").await;

    prune(&front, &all[2..]).await;
    until("what was pruned is gone from the cluster", || async {
        front.kubectl(&["get", "chat/gone", "chat/kept", "--ignore-not-found"]).await.out().is_empty().then_some(())
    })
    .await;
    assert_eq!(front.record("chats", "gone").await, None, "its record went before its finalizer was taken off");
    assert_eq!(record("kept").await["status"]["pinned"], kept["status"]["pinned"]);

    prune(&front, &all).await;
    front.until_shown("chat/gone", "Drifted", "False", "UpToDate").await;
    front.until_shown("chat/kept", "Drifted", "True", "ContentChanged").await;
    front.until_shown("chat/stays", "Drifted", "True", "ContentChanged").await;
    let again = record("gone").await;
    assert_ne!(again["metadata"]["uid"], gone["metadata"]["uid"], "it is another chat");
    assert_ne!(again["status"]["pinned"]["snapshot"], gone["status"]["pinned"]["snapshot"], "moored to what is there now");
    for (name, before) in [("kept", &kept), ("stays", &stays)] {
        let after = record(name).await;
        assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{name}");
        assert_eq!(after["status"]["pinned"], before["status"]["pinned"], "{name}");
        let shown = front.get(&format!("chat/{name}")).await;
        assert_eq!(shown["status"]["pinned"]["snapshot"], before["status"]["pinned"]["snapshot"], "{name}");
    }

    // Deleted and made again at once, without a look between.
    let args = ["replace", "--force", "-f", "-"];
    front.control_plane.kubectl(&front.namespace, &args, &all[1].to_string()).await.out();
    front.until_shown("chat/kept", "Drifted", "True", "ContentChanged").await;
    assert_eq!(record("kept").await["status"]["pinned"], kept["status"]["pinned"]);
}

#[tokio::test]
async fn applying_what_is_there_already_changes_neither_the_record_nor_the_status() {
    let control_plane = ControlPlane::shared().await;
    let front = with_agent(control_plane, &[]).await;
    let all = [part("one", "Delete"), part("two", "Retain")];
    prune(&front, &all).await;
    for name in ["one", "two"] {
        front.until_shown(&format!("chat/{name}"), "Drifted", "False", "UpToDate").await;
    }
    front.settled().await;
    let records = async || (front.record("chats", "one").await, front.record("chats", "two").await);
    let (before, mark) = (records().await, control_plane.mark());
    for _ in 0..3 {
        prune(&front, &all).await;
        front.settled().await;
    }
    assert_eq!(records().await, before);
    let mut writes = control_plane.writes_since(mark).await;
    writes.retain(|write| write.namespace == front.namespace && ["one", "two"].contains(&write.name.as_str()));
    assert_eq!(writes, []);
}

/// Applies by server-side apply, as somebody.
async fn apply_as(front: &Front<'_>, manager: &str, object: &Value, more: &[&str]) -> Said {
    let manager = format!("--field-manager={manager}");
    let mut args = vec!["apply", "--server-side", &manager, "-f", "-"];
    args.extend(more);
    front.control_plane.kubectl(&front.namespace, &args, &object.to_string()).await
}

/// Who owns a field of the top of an object.
async fn owners(front: &Front<'_>, field: &str) -> Vec<String> {
    let object = front.kubectl(&["get", "chat/fix", "--show-managed-fields", "-o", "json"]).await.out();
    let object: Value = serde_json::from_str(&object).unwrap();
    let entries = object["metadata"]["managedFields"].as_array().unwrap().iter();
    entries.filter(|entry| !entry["fieldsV1"][field].is_null()).map(|entry| entry["manager"].as_str().unwrap().into()).collect()
}

#[tokio::test]
async fn who_applies_server_side_owns_the_spec_and_moorline_the_status_and_neither_is_in_the_others_way() {
    let front = with_agent(ControlPlane::shared().await, &[]).await;
    let titled = |title: &str| {
        let mut chat = part("fix", "Delete");
        chat["spec"]["title"] = json!(title);
        chat
    };
    apply_as(&front, "gitops", &titled("first"), &[]).await.out();
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    assert_eq!(
        (owners(&front, "f:spec").await, owners(&front, "f:status").await),
        (vec!["gitops".to_owned()], vec!["moorline-controller".to_owned()])
    );
    // Without force: nothing that Moorline wrote since is in the way.
    apply_as(&front, "gitops", &titled("second"), &[]).await.out();
    front.push("ws", "two").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    apply_as(&front, "gitops", &titled("third"), &[]).await.out();
    until("the record says what was applied", || async {
        (front.record("chats", "fix").await?["spec"]["title"] == "third").then_some(())
    })
    .await;
    assert_eq!(owners(&front, "f:spec").await, ["gitops"]);
    let conflict = apply_as(&front, "theirs", &titled("fourth"), &[]).await.err();
    assert!(conflict.contains(r#"conflict with "gitops""#), "{conflict}");
}

#[tokio::test]
async fn who_takes_a_field_of_the_status_is_told_whose_it_is_and_by_force_holds_it_for_a_moment_only() {
    let front = with_agent(ControlPlane::shared().await, &[]).await;
    front.apply(&part("fix", "Delete")).await;
    front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
    let before = front.record("chats", "fix").await.unwrap();
    let theirs = json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "fix"}, "status": {"dirty": true, "state": "Running"},
    });
    let conflict = apply_as(&front, "theirs", &theirs, &["--subresource=status"]).await.err();
    assert!(conflict.contains(r#"conflicts with "moorline-controller""#) && conflict.contains(".status.dirty"), "{conflict}");
    apply_as(&front, "theirs", &theirs, &["--subresource=status", "--force-conflicts"]).await.out();
    until("the cluster shows what PostgreSQL holds", || async {
        let status = front.get("chat/fix").await["status"].clone();
        (status["dirty"] == false && status["state"] == before["status"]["state"]).then_some(())
    })
    .await;
    assert_eq!(owners(&front, "f:status").await, ["moorline-controller"], "nothing is left that is theirs");
    assert_eq!(front.record("chats", "fix").await.unwrap(), before, "and no record heard of it");
}
