//! What was so and is no longer: rights that are taken away, users who are dismissed, a cluster that does not answer.

use super::{
    World,
    world::{NAME, delegator},
};
use crate::support::{
    envtest::ControlPlane,
    link::{Flow, Link},
    until::until,
};
use serde_json::json;
use std::time::{Duration, Instant};

const SHORT: [&str; 3] = ["--auth-token-ttl=1s", "--auth-allow-ttl=2s", "--auth-deny-ttl=1s"];

#[tokio::test]
async fn a_right_that_is_taken_away_ends_within_its_time_and_so_do_watches() {
    let world = World::begin(&SHORT).await;
    let path = world.path(&format!("chats/{NAME}-chat"));
    let rights = json!([{"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": ["get", "list", "watch"]}]);
    world.cluster.allow(world.user("stranger"), &rights).await;
    until("the right is there", || async { (world.get_as("stranger", &path).await.0 == 200).then_some(()) }).await;
    let of_all = world.answer("stranger", "/apis/moorline.dev/v1alpha1/chats?watch=1&timeoutSeconds=600").await;
    let of_admin = world.answer("admin", &world.path("chats?watch=1&timeoutSeconds=8")).await;
    let began = Instant::now();
    let admins = tokio::spawn(async move { (of_admin.text().await.unwrap(), began.elapsed()) });
    world.cluster.allow(world.user("stranger"), &json!([])).await;
    let taken = Instant::now();
    let text = tokio::time::timeout(Duration::from_mins(1), of_all.text()).await.expect("the watch ends").unwrap();
    assert!(text.contains(NAME), "it was seen while it might be: {text}");
    until("the right is gone", || async { (world.get_as("stranger", &path).await.0 == 403).then_some(()) }).await;
    let (list, spent) = (world.get_as("stranger", &world.path("chats")).await.1, taken.elapsed());
    assert!(!list.contains(NAME), "{list}");
    // Twice: the cluster's own cache of what it allows is not ours, and this machine has other things to do.
    assert!(spent < Duration::from_secs(20), "{spent:?}");
    let (_, lasted) = admins.await.unwrap();
    assert!(lasted >= Duration::from_secs(7), "who may still see goes on: {lasted:?}");
}

#[tokio::test]
async fn a_user_who_is_dismissed_is_not_known_any_more() {
    let world = World::begin(&SHORT).await;
    let path = world.path("chats");
    assert_eq!(world.get_as("viewer", &path).await.0, 200);
    let watch = world.answer("viewer", &world.path("chats?watch=1&timeoutSeconds=600")).await;
    world.cluster.dismiss(world.user("viewer")).await;
    until("the token is none", || async { (world.get_as("viewer", &path).await.0 == 401).then_some(()) }).await;
    tokio::time::timeout(Duration::from_mins(1), watch.text()).await.expect("the watch ends").unwrap();
}

/// The cluster is away: who was known and might goes on for the time that answers hold; for everything else the answer is that
/// it cannot be known, which may be tried again.
#[tokio::test]
async fn while_the_cluster_is_away_what_is_known_goes_on_and_nothing_else_is_let_in() {
    let cluster = ControlPlane::shared().await;
    let namespace = cluster.namespace_of_its_own().await;
    let moorline = cluster.user(&namespace, "moorline", &delegator()).await;
    let link = Link::to(&cluster.url).await;
    let kubeconfig = cluster.access(&namespace).of(&moorline).via(&link.https()).kubeconfig();
    let world = World::begin_by(cluster, namespace, &kubeconfig, &["--auth-token-ttl=10m", "--auth-allow-ttl=10m"]).await;
    let known = world.path(&format!("chats/{NAME}-chat"));
    assert_eq!(world.get_as("viewer", &known).await.0, 200);
    assert_eq!(world.get_as("owner", &world.path("agents/robots")).await.0, 200);
    for flow in [Flow::Cut, Flow::Silent] {
        link.set(flow);
        assert_eq!(world.get_as("viewer", &known).await.0, 200, "{flow:?}: it is known that the viewer may");
        assert_eq!(world.get_as("owner", &world.path("agents/robots")).await.0, 200, "{flow:?}: owning needs no answer");
        let (code, text) = world.get_as("viewer", &world.path(&format!("chats/{NAME}-chat/context"))).await;
        assert_eq!(code, 503, "{flow:?}: {text}");
        assert!(text.contains("ServiceUnavailable") && text.contains("cluster") && !text.contains(NAME), "{flow:?}: {text}");
        let answer = world.answer("reader", &world.path("chats")).await;
        assert_eq!(answer.status(), 503, "{flow:?}: nobody knows who this is");
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    link.set(Flow::Whole);
    until("the reader is known", || async { (world.get_as("reader", &known).await.0 == 200).then_some(()) }).await;
}
