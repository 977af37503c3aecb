//! Where the front could come to a stop, go round in circles or write what is not its to write, and does not.

use crate::support::{
    cluster::{Front, chat, record},
    envtest::ControlPlane,
    gateway::{Fault, Gateway},
    until::{until, until_within},
};
use serde_json::{Value, json};
use sqlx::Executor as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

const PATIENCE: Duration = Duration::from_mins(1);

fn agent(name: &str) -> Value {
    json!({"kind": "Agent", "metadata": {"name": name}, "spec": {}})
}

/// Somebody takes the Lease, and says nothing more for so many seconds.
async fn steal(front: &Front<'_>, seconds: u32) {
    let lease = front.kubectl(&["get", "leases", "-o", "jsonpath={.items[0].metadata.name}"]).await.out();
    let theft = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": seconds}}).to_string();
    front.kubectl(&["patch", "lease", &lease, "--type=merge", "-p", &theft]).await.out();
    until("the front has noticed", || async { (front.metric("leader_election_master_status").await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_manifest_that_waits_for_another_is_tried_again_ever_more_rarely() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &[]).await;
    let mark = control_plane.mark();
    front.apply(&chat("child", json!({"parentRef": {"name": "parent"}}))).await;
    front.until_shown("chat/child", "Stalled", "True", "InvalidSpec").await;
    // A time of observation, not a wait for something to come about.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let reads = control_plane.requests_since(mark).await.into_iter();
    let reads = reads.filter(|it| it.verb == "get" && it.name == "child" && it.user_agent.starts_with("moorline")).count();
    assert!((2..=14).contains(&reads), "it was read {reads} times");
    front.apply(&chat("parent", json!({}))).await;
    until_within(PATIENCE, "it is taken over", || async { front.record("chats", "child").await }).await;
}

#[tokio::test]
async fn who_has_lost_the_lease_does_not_write_what_it_had_in_hand() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &["--mirror=all", "--mirror-qps=1", "--mirror-burst=1"]).await;
    front.apply(&agent("ws")).await;
    front.until_shown("agent/ws", "Ready", "Unknown", "NeverReported").await;
    for number in 0..12 {
        assert_eq!(front.send("POST", "chats", Some(record(&format!("record-{number}")))).await.0, 201);
    }
    until("some of them are written", || async { (front.metric("moorline_mirror_looks_total").await >= 12).then_some(()) }).await;
    steal(&front, 9).await;
    // What was sent before it had noticed.
    front.get("chats").await;
    let mark = control_plane.mark();
    until("the thief was silent for long enough", || async { (front.holder().await != "thief").then_some(()) }).await;
    let mut writes = control_plane.writes_since(mark).await;
    writes.retain(|it| it.namespace == front.namespace && it.user_agent.starts_with("moorline"));
    let lease = writes.iter().position(|it| it.resource == "leases");
    assert_eq!(writes[..lease.unwrap_or(writes.len())], [], "only who holds the Lease writes");
    until_within(PATIENCE, "all of them are shown", || async { front.agrees().await.then_some(()) }).await;
}

#[tokio::test]
async fn what_was_to_be_written_while_the_lease_was_away_is_written_when_it_is_back() {
    let control_plane = ControlPlane::shared().await;
    let gateway = Gateway::to(control_plane).await;
    let front = Front::behind(control_plane, &gateway, &[]).await;
    front.apply(&agent("ws")).await;
    front.until_shown("agent/ws", "Ready", "Unknown", "NeverReported").await;
    steal(&front, 5).await;
    front.push("ws", "one").await;
    // From here on the records of chats cannot be read: a comparison of all records stops there, after the agents.
    let mut lock = front.db.pool.begin().await.unwrap();
    lock.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.unwrap();
    lock.execute("LOCK TABLE chats IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let refused = Arc::new(AtomicUsize::new(0));
    let statuses = |leases: bool| {
        let refused = refused.clone();
        gateway.set(move |request| {
            let status = request.method == "PATCH" && request.uri.path().ends_with("/agents/ws/status");
            refused.fetch_add(usize::from(status), Ordering::SeqCst);
            (status || (leases && request.uri.path().contains("/leases/"))).then_some(Fault::Status(503))
        });
    };
    statuses(false);
    until("the status is tried", || async { (refused.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    statuses(true);
    until("the Lease is not renewed", || async { (front.metric("leader_election_master_status").await == 0).then_some(()) })
        .await;
    // Until it would have been tried again, had it the Lease.
    tokio::time::sleep(Duration::from_secs(8)).await;
    gateway.calm();
    until("it holds the Lease again", || async { (front.metric("leader_election_master_status").await == 1).then_some(()) })
        .await;
    lock.commit().await.unwrap();
    front.until_shown("agent/ws", "Ready", "True", "Reporting").await;
}

#[tokio::test]
async fn a_refused_manifest_is_taken_over_also_when_its_record_went_while_nobody_held_the_lease() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    assert_eq!(front.send("POST", "chats", Some(record("fix"))).await.0, 201);
    front.apply(&chat("fix", json!({"owner": "bob"}))).await;
    front.until_shown("chat/fix", "Ready", "False", "OwnedByApi").await;
    steal(&front, 6).await;
    assert_eq!(front.send("DELETE", "chats/fix", None).await.0, 200);
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    assert_eq!(front.record("chats", "fix").await.unwrap()["spec"]["owner"], "bob");
}

#[tokio::test]
async fn a_manifest_that_calls_itself_the_apis_stays_a_manifest() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&chat("held", json!({}))).await;
    front.apply(&chat("retained", json!({"deletionPolicy": "Retain"}))).await;
    for name in ["held", "retained"] {
        front.until_shown(&format!("chat/{name}"), "Ready", "True", "Unbound").await;
        front.kubectl(&["annotate", &format!("chat/{name}"), "moorline.dev/source=api"]).await.out();
    }
    front.settled().await;
    front.settled().await;
    front.kubectl(&["get", "chat/held", "chat/retained"]).await.out();
    front.kubectl(&["delete", "chat/held", "--timeout=30s"]).await.out();
    assert_eq!(front.record("chats", "held").await, None, "it went as any manifest goes");
    front.kubectl(&["delete", "chat/retained", "--timeout=30s"]).await.out();
    assert!(front.record("chats", "retained").await.is_some());
}

#[tokio::test]
async fn a_kind_that_may_not_be_listed_keeps_nothing_from_the_others() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let rules = |snapshots: &[&str]| {
        json!([
            {"apiGroups": ["moorline.dev"], "resources": ["agents", "chats"], "verbs": ["*"]},
            {"apiGroups": ["moorline.dev"], "resources": ["agents/status", "chats/status"], "verbs": ["patch"]},
            {"apiGroups": ["moorline.dev"], "resources": ["agentsnapshots"], "verbs": snapshots},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
            {"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get", "list"]},
        ])
    };
    let user = control_plane.user(&namespace, "moorline", &rules(&["get"])).await;
    let kubeconfig = control_plane.access(&namespace).of(&user).kubeconfig();
    let again = format!("--watch-namespaces={namespace},");
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &[&again]).await;
    front.apply(&agent("ws")).await;
    front.apply(&chat("fix", json!({"agentRef": {"name": "ws"}}))).await;
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    front.push("ws", "two").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    control_plane.allow(&user, &rules(&["*"])).await;
    until_within(PATIENCE, "the snapshots are shown too, when they may be", || async {
        (front.get("agentsnapshots").await["items"].as_array()?.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_object_that_went_before_the_answer_to_its_last_write_came_is_not_taken_for_there() {
    let control_plane = ControlPlane::shared().await;
    let gateway = Gateway::to(control_plane).await;
    let front = Front::behind(control_plane, &gateway, &["--mirror=all"]).await;
    front.apply(&chat("fix", json!({"owner": "bob"}))).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    gateway.set(|request| {
        let frees = request.method == "PATCH" && request.uri.path().ends_with("/chats/fix");
        frees.then_some(Fault::AnswerHeld)
    });
    front.kubectl(&["delete", "chat/fix", "--timeout=30s"]).await.out();
    assert_eq!(gateway.faults(), 1);
    gateway.let_go().await;
    // Another object of the cluster is answered after it, so that it has been taken note of.
    front.settled().await;
    gateway.calm();
    assert_eq!(front.send("POST", "chats", Some(record("fix"))).await.0, 201);
    until("what the API made under its name is shown", || async { front.agrees().await.then_some(()) }).await;
}

#[tokio::test]
async fn a_namespace_that_the_cluster_does_not_have_is_asked_for_once_and_not_for_each_record() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let nowhere = format!("{namespace}-nowhere");
    let kubeconfig = control_plane.kubeconfig(&namespace);
    let flag = format!("--watch-namespaces={nowhere}");
    let front = Front::start_by(control_plane, namespace, &kubeconfig, &["--mirror=all", &flag]).await;
    let mark = control_plane.mark();
    let client = crate::support::serve::Client::new();
    let post = async |number: usize| {
        let body = record(&format!("record-{number}"));
        assert_eq!(client.send_in(&nowhere, &front.replica.url, "POST", "chats", Some(body)).await.0, 201);
    };
    let made = async || {
        let writes = control_plane.writes_since(mark).await.into_iter();
        writes.filter(|it| it.namespace == nowhere && it.verb == "create" && it.resource == "chats").count()
    };
    post(0).await;
    until("it is tried", || async { (made().await == 1).then_some(()) }).await;
    for number in 1..30 {
        post(number).await;
    }
    // What is asked for after them is shown after them.
    front.settled().await;
    assert_eq!(made().await, 1);
}

#[tokio::test]
async fn a_manifest_that_was_restored_from_an_earlier_day_says_what_counts() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&chat("fix", json!({"title": "restored"}))).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    // As if much had happened in the days that were lost.
    let later = r"UPDATE chats SET manifest = jsonb_set(manifest, '{version}', '999999999999') WHERE name = 'fix'";
    assert_eq!(front.db.pool.execute(later).await.unwrap().rows_affected(), 1);
    front.apply(&chat("fix", json!({"title": "edited"}))).await;
    until_within(PATIENCE, "it is taken over", || async {
        (front.record("chats", "fix").await?["spec"]["title"] == "edited").then_some(())
    })
    .await;
    until("that is shown", || async {
        let object = front.get("chat/fix").await;
        (object["status"]["observedGeneration"] == object["metadata"]["generation"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_record_whose_manifest_vanished_while_the_database_was_away_belongs_to_the_api() {
    let control_plane = ControlPlane::start().await;
    let front = Front::start(&control_plane, &[]).await;
    front.apply(&chat("fix", json!({}))).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    let mark = control_plane.mark();
    front.db.lock_out().await;
    control_plane.lose_all_data().await;
    control_plane.namespace(&front.namespace).await;
    until_within(PATIENCE, "chats are listed anew, and watched", || async {
        let requests = control_plane.requests_since(mark).await;
        let ours = |verb: &str| {
            let of = |it: &crate::support::envtest::Audit| {
                it.verb == verb && it.resource == "chats" && it.code == 200 && it.user_agent.starts_with("moorline")
            };
            requests.iter().filter(|it| of(it)).count()
        };
        (ours("list") > 0 && ours("watch") > 0).then_some(())
    })
    .await;
    front.db.let_in().await;
    until_within(PATIENCE, "the API owns it", || async {
        (front.send("PATCH", "chats/fix", Some(json!({"spec": {"title": "mine"}}))).await.0 == 200).then_some(())
    })
    .await;
}
