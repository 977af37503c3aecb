//! What befalls a cluster, the way to it, its Lease or the database behind it costs the front some time and nothing else.

use crate::support::{
    cluster::Front,
    envtest::ControlPlane,
    gateway::{Fault, Gateway},
    link::{Flow, Link},
    until::{until, until_within},
};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

fn chat(name: &str, title: &str) -> Value {
    json!({"kind": "Chat", "metadata": {"name": name}, "spec": {"agentRef": {"name": "ws"}, "title": title}})
}

async fn begun(front: &Front<'_>) {
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&chat("first", "first")).await;
    front.push("ws", "one").await;
    front.until_shown("chat/first", "Ready", "True", "Pinned").await;
}

async fn until_agreed(front: &Front<'_>) {
    until_within(PATIENCE, "the cluster shows what the records say", || async { front.agrees().await.then_some(()) }).await;
}

#[tokio::test]
async fn an_apiserver_that_is_killed_twenty_times_under_load_loses_nothing_and_holds_nothing_up() {
    let control_plane = ControlPlane::start().await;
    let front = Front::start(&control_plane, &["--mirror=all"]).await;
    begun(&front).await;
    for round in 0..20 {
        control_plane.kill_apiserver().await;
        // The API and the loop do not notice.
        front.push("ws", &format!("body {round}")).await;
        let name = format!("api-{round}");
        let body = json!({
            "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name},
            "spec": {"owner": "alice", "agentRef": {"name": "ws"}},
        });
        assert_eq!(front.send("POST", "chats", Some(body)).await.0, 201);
        until("the loop pins it", || async {
            let record = front.record("chats", &name).await?;
            record["status"]["pinned"]["snapshot"].is_string().then_some(())
        })
        .await;
        control_plane.start_apiserver().await;
        front.apply(&chat(&format!("manifest-{round}"), &format!("round {round}"))).await;
        front
            .kubectl(&["annotate", "--overwrite", "chat/first", &format!("moorline.dev/refresh-requested-at=round-{round}")])
            .await
            .out();
    }
    until_within(PATIENCE, "all of it is shown", || async {
        let (_, records) = front.send("GET", "chats", None).await;
        (records["items"].as_array()?.len() == 41 && front.agrees().await).then_some(())
    })
    .await;
    assert_eq!(front.record("chats", "first").await.unwrap()["status"]["lastHandledRefresh"], "round-19");
}

#[tokio::test]
async fn watches_whose_versions_are_forgotten_begin_anew_and_miss_nothing() {
    let control_plane = ControlPlane::start().await;
    let front = Front::start(&control_plane, &[]).await;
    begun(&front).await;
    for round in 0..3 {
        front.apply(&chat("second", &format!("before {round}"))).await;
        control_plane.expire_watches().await;
        front.apply(&chat("second", &format!("after {round}"))).await;
        front.push("ws", &format!("body {round}")).await;
        until_within(PATIENCE, "the change is taken over", || async {
            let record = front.record("chats", "second").await?;
            (record["spec"]["title"] == format!("after {round}")).then_some(())
        })
        .await;
        until_agreed(&front).await;
    }
}

#[tokio::test]
async fn a_cluster_whose_data_are_lost_finds_its_chats_as_they_were() {
    let control_plane = ControlPlane::start().await;
    let front = Front::start(&control_plane, &["--mirror=all"]).await;
    begun(&front).await;
    let body = json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "api"},
        "spec": {"owner": "alice", "agentRef": {"name": "ws"}},
    });
    assert_eq!(front.send("POST", "chats", Some(body)).await.0, 201);
    front.push("ws", "two").await;
    front.until_shown("chat/first", "Drifted", "True", "ContentChanged").await;
    let pinned = front.record("chats", "first").await.unwrap()["status"]["pinned"].clone();
    control_plane.lose_all_data().await;
    control_plane.namespace(&front.namespace).await;
    // What the API made comes back by itself, with the snapshots; manifests when they are applied again.
    until_within(PATIENCE, "the truth is shown again", || async {
        let said = front.kubectl(&["get", "chat/api", "-o", "json"]).await;
        let object: Value = serde_json::from_str(&said.out).ok()?;
        object["status"]["pinned"]["snapshot"].is_string().then_some(())
    })
    .await;
    assert_eq!(front.record("chats", "first").await.unwrap()["status"]["pinned"], pinned, "what is nowhere is not deleted");
    front.kubectl(&["delete", "chat/first", "agent/ws", "--ignore-not-found"]).await.out();
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&chat("first", "first")).await;
    until_agreed(&front).await;
    assert_eq!(front.get("chat/first").await["status"]["pinned"]["snapshot"], pinned["snapshot"], "its pin is what it was");
}

#[tokio::test]
async fn an_apiserver_with_too_much_to_do_or_a_way_that_loses_answers_gets_the_same_in_the_end() {
    let control_plane = ControlPlane::start().await;
    let gateway = Gateway::to(&control_plane).await;
    let namespace = control_plane.namespace_of_its_own().await;
    let kubeconfig = control_plane.access(&namespace).via(&gateway.url).kubeconfig();
    let front = Front::start_by(&control_plane, namespace, &kubeconfig, &["--mirror=all"]).await;
    begun(&front).await;
    let numbers = std::sync::atomic::AtomicUsize::new(0);
    gateway.set(move |request| {
        let number = numbers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let is_write = request.method != "GET" && !request.uri.path().contains("leases");
        match number % 5 {
            _ if !is_write => None,
            0 => Some(Fault::TooMany(1)),
            1 => Some(Fault::AnswerLost),
            2 => Some(Fault::Status(503)),
            3 => Some(Fault::Late(Duration::from_millis(300))),
            _ => None,
        }
    });
    for round in 0..10 {
        front.apply(&chat(&format!("more-{round}"), "more")).await;
    }
    front.push("ws", "two").await;
    until_agreed(&front).await;
    assert!(front.metric("moorline_mirror_errors_total").await >= 3, "and it was not for want of faults");
}

#[tokio::test]
async fn a_lease_that_is_stolen_stops_the_writing_until_the_thief_is_silent_for_long_enough() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &[]).await;
    begun(&front).await;
    let lease = front.kubectl(&["get", "leases", "-o", "jsonpath={.items[0].metadata.name}"]).await.out();
    let theft = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 8}}).to_string();
    front.kubectl(&["patch", "lease", &lease, "--type=merge", "-p", &theft]).await.out();
    until("the front has noticed", || async { (front.metric("leader_election_master_status").await == 0).then_some(()) }).await;
    let mark = control_plane.mark();
    // Taken over all the same, and converged: only the cluster is not written to.
    front.kubectl(&["patch", "chat/first", "--type=merge", "-p", r#"{"spec":{"title":"changed"}}"#]).await.out();
    until("the change is taken over", || async {
        (front.record("chats", "first").await?["spec"]["title"] == "changed").then_some(())
    })
    .await;
    let writes = control_plane.writes_since(mark).await.into_iter();
    let ours: Vec<_> =
        writes.filter(|write| write.namespace == front.namespace && write.user_agent.starts_with("moorline")).collect();
    assert_eq!(ours, [], "only who holds the Lease writes");
    until("the thief was silent for long enough", || async { (front.holder().await != "thief").then_some(()) }).await;
    front.push("ws", "two").await;
    front.until_shown("chat/first", "Drifted", "True", "ContentChanged").await;
}

#[tokio::test]
async fn a_replica_that_is_cut_off_is_replaced_and_writes_nothing_older_when_it_comes_back() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let link = Link::to(&control_plane.url).await;
    let kubeconfig = control_plane.access(&namespace).via(&link.https()).kubeconfig();
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &[]).await;
    begun(&front).await;
    let cut_off = front.holder().await;
    let straight = front.another_by(&control_plane.kubeconfig(&front.namespace), &[]).await;
    link.set(Flow::Silent);
    until("the other takes over", || async { (front.holder().await != cut_off).then_some(()) }).await;
    front.push("ws", "two").await;
    front.until_shown("chat/first", "Drifted", "True", "ContentChanged").await;
    front.apply(&chat("second", "second")).await;
    front.until_shown("chat/second", "Ready", "True", "Pinned").await;
    link.set(Flow::Whole);
    for round in 0..5 {
        front
            .kubectl(&["annotate", "--overwrite", "chat/first", &format!("moorline.dev/refresh-requested-at=round-{round}")])
            .await
            .out();
        until_agreed(&front).await;
    }
    assert_eq!(straight.terminate().await, Some(0));
    front.push("ws", "three").await;
    until_within(PATIENCE, "the first takes over again", || async { front.holder().await.starts_with(&cut_off).then_some(()) })
        .await;
    until_agreed(&front).await;
}

#[tokio::test]
async fn an_older_definition_is_refused_in_words_and_a_fitting_one_is_enough_to_begin() {
    let control_plane = ControlPlane::start().await;
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/chats.moorline.dev";
    let whole = control_plane.send("GET", crd, None).await.unwrap();
    let mut older = whole.clone();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/pinned/properties";
    older.pointer_mut(status).unwrap().as_object_mut().unwrap().remove("cause").unwrap();
    control_plane.send("PUT", crd, Some(&older)).await.unwrap();
    let front = Front::start(&control_plane, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    let body = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "api"}, "spec": {}});
    assert_eq!(front.send("POST", "agents", Some(body)).await.0, 201, "the API goes on");
    assert_eq!(front.metric("moorline_kubernetes_ready").await, 0);
    assert_eq!(front.record("agents", "ws").await, None);
    let mut fitting = whole;
    fitting["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    control_plane.kubectl("default", &["replace", "-f", "-"], &fitting.to_string()).await.out();
    until_within(PATIENCE, "the manifest is taken over", || async { front.record("agents", "ws").await }).await;
    assert_eq!(front.metric("moorline_kubernetes_ready").await, 1);
}

#[tokio::test]
async fn a_missing_verb_leaves_undone_what_needs_it_and_nothing_else() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let rules = |chat_verbs: &[&str]| {
        json!([
            {"apiGroups": ["moorline.dev"], "resources": ["agents", "agentsnapshots"], "verbs": ["*"]},
            {"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": ["get", "list", "watch", "patch"]},
            {"apiGroups": ["moorline.dev"], "resources": ["agents/status"], "verbs": ["patch"]},
            {"apiGroups": ["moorline.dev"], "resources": ["chats/status"], "verbs": chat_verbs},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get", "list"]},
        ])
    };
    let user = control_plane.user(&namespace, "moorline", &rules(&["get"])).await;
    let kubeconfig = control_plane.access(&namespace).of(&user).kubeconfig();
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&chat("first", "first")).await;
    front.push("ws", "one").await;
    front.until_shown("agent/ws", "Ready", "True", "Reporting").await;
    until("the loop pins it all the same", || async {
        front.record("chats", "first").await?["status"]["pinned"]["snapshot"].is_string().then_some(())
    })
    .await;
    until("it is counted why the cluster does not show it", || async {
        (front.metric("moorline_mirror_errors_total").await > 0).then_some(())
    })
    .await;
    assert_eq!(front.get("chat/first").await["status"], Value::Null);
    control_plane.allow(&user, &rules(&["get", "patch"])).await;
    until_agreed(&front).await;
}

#[tokio::test]
async fn a_deletion_waits_for_a_database_that_is_away_so_long_and_then_the_record_stays() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &["--finalizer-timeout=3s"]).await;
    begun(&front).await;
    front.apply(&chat("second", "second")).await;
    front.until_shown("chat/second", "Ready", "True", "Pinned").await;
    front.db.lock_out().await;
    front.kubectl(&["delete", "chat/second", "--timeout=90s"]).await.out();
    front.db.let_in().await;
    until("the API answers again", || async { front.record("chats", "first").await }).await;
    assert!(front.record("chats", "second").await.is_some(), "its record was kept");
    until_agreed_but(&front, "second").await;
    front.kubectl(&["delete", "chat/first", "--timeout=60s"]).await.out();
    assert_eq!(front.record("chats", "first").await, None, "and with the database there it goes as ever");
}

/// Waits until the record of a manifest that is gone may be deleted through the API, and all else is shown.
async fn until_agreed_but(front: &Front<'_>, retained: &str) {
    until_within(PATIENCE, "the API owns what was kept", || async {
        let (code, _) = front.send("DELETE", &format!("chats/{retained}"), None).await;
        (code == 200).then_some(())
    })
    .await;
    until_agreed(front).await;
}
