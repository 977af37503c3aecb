//! The front: manifests in a real cluster, status out of a real PostgreSQL. Each test has a namespace of its own.

use crate::kstatus::kstatus;
use crate::support::{cluster::Front, envtest::ControlPlane, until::until};
use serde_json::{Value, json};

#[tokio::test]
async fn the_whole_story_is_told_in_manifests() {
    the_story(&Front::start(ControlPlane::shared().await, &[]).await).await;
}

/// Pinned, drifted, refreshed, deleted.
pub async fn the_story(front: &Front<'_>) {
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front
        .apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}, "owner": "alice"}}))
        .await;
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
    let names =
        |list: &Value| list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>();
    until("both snapshots are shown", || async {
        let list = front.get("agentsnapshots").await;
        (names(&list).len() == 2).then_some(())
    })
    .await;
    front.kubectl(&["delete", "chat/fix", "agent/ws", "--timeout=60s"]).await.out();
    assert_eq!(front.record("chats", "fix").await, None, "its record went with it");
    assert_eq!(front.record("agents", "ws").await, None);
}

#[tokio::test]
async fn a_manifest_over_a_record_of_the_api_is_refused_until_that_is_gone_and_never_merged() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    let body = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "fix"}, "spec": {"owner": "alice", "title": "mine"}});
    let (code, _) = front.send("POST", "chats", Some(body)).await;
    assert_eq!(code, 201);
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"owner": "bob", "title": "theirs"}})).await;
    front.until_shown("chat/fix", "Ready", "False", "OwnedByApi").await;
    front.until_shown("chat/fix", "Stalled", "True", "OwnedByApi").await;
    let told = until("an Event says so", || async {
        let said = front.kubectl(&["describe", "chat/fix"]).await.out();
        said.contains("OwnedByApi").then_some(said)
    })
    .await;
    assert!(told.contains("was made through the API"), "{told}");
    let record = front.record("chats", "fix").await.unwrap();
    assert_eq!((&record["spec"]["owner"], &record["spec"]["title"]), (&json!("alice"), &json!("mine")));
    let (code, _) = front.send("DELETE", "chats/fix", None).await;
    assert_eq!(code, 200);
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    assert_eq!(front.record("chats", "fix").await.unwrap()["spec"]["owner"], "bob");
    assert!(front.get("chat/fix").await["status"]["conditions"].as_array().unwrap().iter().all(|it| it["type"] != "Stalled"));
    let (code, said) = front.send("DELETE", "chats/fix", None).await;
    assert_eq!(
        (code, &said["details"]["causes"][0]["reason"]),
        (409, &json!("OwnedByManifest")),
        "now the manifest owns it: {said}"
    );
}

#[tokio::test]
async fn a_record_that_is_retained_keeps_its_pin_and_is_taken_up_again_by_a_manifest_of_its_name() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {"deletionPolicy": "Retain"}})).await;
    let chat =
        json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}, "deletionPolicy": "Retain"}});
    front.apply(&chat).await;
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    let before = front.record("chats", "fix").await.unwrap();
    assert_eq!(front.get("chat/fix").await["metadata"]["finalizers"], Value::Null, "nothing holds it up");
    front.kubectl(&["delete", "chat/fix", "--timeout=30s"]).await.out();
    let title = json!({"spec": {"title": "mine now"}});
    until("the API may change it", || async {
        let (code, _) = front.send("PATCH", "chats/fix", Some(title.clone())).await;
        (code == 200).then_some(())
    })
    .await;
    front.push("ws", "two").await;
    front.apply(&chat).await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    let after = front.record("chats", "fix").await.unwrap();
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"]["pinned"], after["status"]["pinned"], "it is moored to what it was");
    assert_eq!(after["spec"].get("title"), None, "and the manifest says what its title is");
}

#[tokio::test]
async fn what_happened_while_nobody_looked_is_settled_by_the_list() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    for (name, policy) in [("kept", "Delete"), ("deleted", "Delete"), ("retained", "Retain"), ("again", "Delete")] {
        front
            .apply(&json!({"kind": "Chat", "metadata": {"name": name}, "spec": {"title": "old", "deletionPolicy": policy}}))
            .await;
    }
    for name in ["kept", "deleted", "retained", "again"] {
        front.until_shown(&format!("chat/{name}"), "Ready", "True", "Unbound").await;
    }
    let front = front.stopped().await;
    front
        .apply(&json!({"kind": "Chat", "metadata": {"name": "kept"}, "spec": {"title": "new", "deletionPolicy": "Delete"}}))
        .await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "made"}, "spec": {"title": "made"}})).await;
    front.kubectl(&["delete", "chat/deleted", "chat/retained", "--wait=false"]).await.out();
    // By force: its finalizer is taken off, and another object has its name.
    front.kubectl(&["patch", "chat/again", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await.out();
    front.kubectl(&["delete", "chat/again"]).await.out();
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "again"}, "spec": {"title": "again"}})).await;
    let front = front.started().await;
    front.until_shown("chat/made", "Ready", "True", "Unbound").await;
    until("the changes are there, and what was deleted is gone", || async {
        let title = |record: Option<Value>| record.map(|record| record["spec"]["title"].clone());
        let titles =
            [front.record("chats", "kept").await, front.record("chats", "again").await, front.record("chats", "deleted").await];
        (titles.map(title) == [Some(json!("new")), Some(json!("again")), None]).then_some(())
    })
    .await;
    let gone = front.kubectl(&["get", "chat/deleted", "--ignore-not-found"]).await.out();
    assert_eq!(gone, "", "its finalizer was taken off");
    assert!(front.record("chats", "retained").await.is_some(), "what is nowhere is not deleted");
    until("and belongs to the API", || async {
        let (code, _) = front.send("DELETE", "chats/retained", None).await;
        (code == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_api_made_is_shown_when_asked_for_and_comes_back_when_it_is_deleted_or_changed() {
    let front = Front::start(ControlPlane::shared().await, &["--mirror=all"]).await;
    let body = |name: &str| json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name}, "spec": {"owner": "alice", "title": "mine"}});
    assert_eq!(front.send("POST", "chats", Some(body("fix"))).await.0, 201);
    let shown = until("it is shown", || async {
        let said = front.kubectl(&["get", "chat/fix", "-o", "json"]).await;
        let object: Value = serde_json::from_str(&said.out).ok()?;
        object["status"]["conditions"].is_array().then_some(object)
    })
    .await;
    assert_eq!(shown["metadata"]["finalizers"], Value::Null, "deleting it never hangs");
    assert_eq!(shown["metadata"]["annotations"]["moorline.dev/source"], "api");
    assert_eq!(shown["spec"]["title"], "mine");
    front.kubectl(&["patch", "chat/fix", "--type=merge", "-p", r#"{"spec":{"title":"theirs"}}"#]).await.out();
    until("its spec is the record's again", || async { (front.get("chat/fix").await["spec"]["title"] == "mine").then_some(()) })
        .await;
    front.kubectl(&["delete", "chat/fix"]).await.out();
    until("it is there again", || async {
        let said = front.kubectl(&["get", "chat/fix", "-o", "jsonpath={.metadata.uid}{.status.conditions[0].type}"]).await;
        (said.ok && said.out.contains("Ready") && !said.out.contains(shown["metadata"]["uid"].as_str()?)).then_some(())
    })
    .await;
    assert_eq!(front.record("chats", "fix").await.unwrap()["spec"]["title"], "mine", "the record was never touched");
    assert_eq!(front.send("PATCH", "chats/fix", Some(json!({"spec": {"title": "other"}}))).await.0, 200);
    until("a change is shown", || async { (front.get("chat/fix").await["spec"]["title"] == "other").then_some(()) }).await;
    assert_eq!(front.send("DELETE", "chats/fix", None).await.0, 200);
    until("it goes with its record", || async {
        front.kubectl(&["get", "chat/fix", "--ignore-not-found"]).await.out().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn of_two_replicas_one_writes_and_the_other_goes_on_when_it_is_killed() {
    let mut front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "one"}, "spec": {}})).await;
    front.until_shown("chat/one", "Ready", "True", "Unbound").await;
    let holder = front.holder().await;
    let other = front.another(&[]).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "two"}, "spec": {}})).await;
    front.until_shown("chat/two", "Ready", "True", "Unbound").await;
    assert_eq!(front.holder().await, holder);
    front.replica.kill();
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "three"}, "spec": {}})).await;
    front.until_shown("chat/three", "Ready", "True", "Unbound").await;
    let next = front.holder().await;
    assert_ne!(next, holder);
    let code = other.terminate().await;
    assert_eq!(code, Some(0));
    assert_eq!(front.holder().await, "", "it was let go");
}

#[tokio::test]
async fn an_idle_front_writes_nothing_and_what_others_write_stays_theirs() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &["--mirror=all"]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    // By server-side apply from the start: what was applied otherwise would go over to whoever applies so first.
    let ours = json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}},
    });
    let args = ["apply", "--server-side", "--field-manager=gitops", "-f", "-"];
    control_plane.kubectl(&front.namespace, &args, &ours.to_string()).await.out();
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    front.until_shown("agent/ws", "Ready", "True", "Reporting").await;
    let theirs = json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat",
        "metadata": {"name": "fix", "namespace": front.namespace, "labels": {"team": "theirs"}},
        "status": {"conditions": [{
            "type": "Approved", "status": "True", "reason": "Theirs", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z",
        }]},
    });
    for more in [&["--subresource=status"][..], &[]] {
        let mut args = vec!["apply", "--server-side", "--field-manager=theirs", "-f", "-"];
        args.extend(more);
        control_plane.kubectl(&front.namespace, &args, &theirs.to_string()).await.out();
    }
    front.push("ws", "two").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    front.until_shown("chat/fix", "Approved", "True", "Theirs").await;
    assert_eq!(front.get("chat/fix").await["metadata"]["labels"]["team"], "theirs");
    let ours = async |since| {
        let writes = control_plane.writes_since(since).await.into_iter();
        writes
            .filter(|write| write.namespace == front.namespace && write.resource != "leases" && !write.name.contains("probe-"))
            .collect::<Vec<_>>()
    };
    // Until what was told last has been told.
    until("the front is idle", || async {
        let mark = control_plane.mark();
        front.settled().await;
        ours(mark).await.is_empty().then_some(())
    })
    .await;
    let mark = control_plane.mark();
    for _ in 0..3 {
        front.settled().await;
    }
    assert_eq!(ours(mark).await, []);
}

#[tokio::test]
async fn a_chat_goes_where_its_manifest_says_and_kstatus_understands_each_step() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    for (name, spec) in [("a", json!({})), ("b", json!({})), ("w1", json!({"workspace": "ws", "build": 1}))] {
        front.apply(&json!({"kind": "Agent", "metadata": {"name": name}, "spec": spec})).await;
        front.push(name, name).await;
    }
    let says = async |spec: Value| front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": spec})).await;
    let shows = async |condition: &str, status: &str, reason: &str, understood: &str| {
        front.until_shown("chat/fix", condition, status, reason).await;
        let chat = front.get("chat/fix").await;
        assert_eq!(kstatus(&chat), understood, "{chat:#}");
        chat
    };
    let pinned_to = async |agent: &str, cause: &str| {
        until(&format!("it is pinned to {agent}, {cause}"), || async {
            let pinned = front.get("chat/fix").await["status"]["pinned"].clone();
            (pinned["agent"]["name"] == agent && pinned["cause"] == cause).then_some(())
        })
        .await;
    };
    says(json!({"agentRef": {"name": "nobody"}})).await;
    shows("Ready", "False", "AgentNotFound", "InProgress").await;
    says(json!({"agentRef": {"name": "a"}})).await;
    pinned_to("a", "Hydrated").await;
    shows("Ready", "True", "Pinned", "Current").await;
    says(json!({"agentRef": {"name": "b"}})).await;
    pinned_to("b", "Rebound").await;
    says(json!({"agentRef": {"name": "b"}, "suspend": true})).await;
    shows("Ready", "True", "Suspended", "Current").await;
    front.push("b", "b moves on").await;
    says(json!({"agentRef": {"name": "b"}})).await;
    shows("Drifted", "True", "ContentChanged", "Current").await;
    says(json!({"agentRef": {"name": "b"}, "archived": true})).await;
    shows("Ready", "True", "Archived", "Current").await;
    says(json!({"agentRef": {"name": "b"}, "refreshPolicy": "OnDrift"})).await;
    pinned_to("b", "AutoRefreshed").await;
    says(json!({"workspaceRef": {"name": "ws"}})).await;
    pinned_to("w1", "Rebound").await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "w2"}, "spec": {"workspace": "ws", "build": 2}})).await;
    front.push("w2", "rebuilt").await;
    pinned_to("w2", "Rebound").await;
    shows("Ready", "True", "Pinned", "Current").await;
    for agent in ["a", "b", "w1", "w2"] {
        front.until_shown(&format!("agent/{agent}"), "Ready", "True", "Reporting").await;
        assert_eq!(kstatus(&front.get(&format!("agent/{agent}")).await), "Current");
    }
    front.kubectl(&["annotate", "chat/fix", "moorline.dev/paused=true"]).await.out();
    shows("Ready", "True", "Suspended", "Current").await;
    front.kubectl(&["annotate", "chat/fix", "moorline.dev/paused-"]).await.out();
    shows("Ready", "True", "Pinned", "Current").await;
    says(json!({})).await;
    shows("Ready", "True", "Unbound", "Current").await;
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_manifests_and_their_records_with_it() {
    let control_plane = ControlPlane::start().await;
    control_plane.with_controller_manager().await;
    let front = Front::start(&control_plane, &["--mirror=all", "--lease-namespace=default"]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}})).await;
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    let body =
        json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "api"}, "spec": {"owner": "alice"}});
    assert_eq!(front.send("POST", "chats", Some(body)).await.0, 201);
    let path = format!("/api/v1/namespaces/{}", front.namespace);
    control_plane.send("DELETE", &path, None).await;
    until("the namespace is gone", || async { control_plane.send("GET", &path, None).await.is_none().then_some(()) }).await;
    assert_eq!(front.record("chats", "fix").await, None);
    until("the agent has let its chats go", || async { front.record("agents", "ws").await.is_none().then_some(()) }).await;
    assert!(front.record("chats", "api").await.is_some(), "what the API made is not the cluster's to delete");
}

#[tokio::test]
async fn a_token_that_nobody_knows_keeps_nobody_from_the_api() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let kubeconfig = control_plane.access(&namespace).with_token("a-token-of-nobody").kubeconfig();
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &[]).await;
    let body =
        json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "api"}, "spec": {"owner": "alice"}});
    assert_eq!(front.send("POST", "chats", Some(body)).await.0, 201);
    until("the loop sees to it", || async {
        front.record("chats", "api").await?["status"]["conditions"].is_array().then_some(())
    })
    .await;
    assert_eq!(front.metric("moorline_kubernetes_ready").await, 0);
    assert_eq!(front.metric("leader_election_master_status").await, 0);
}
