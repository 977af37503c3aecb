//! The support that tests of the front stand on does what it says: a real control plane, and what befalls it.

use crate::support::{
    envtest::{Audit, ControlPlane, MOORLINE, counted},
    gateway::{Fault, Gateway},
    link::{Flow, Link},
    until::until,
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use tokio::time::timeout;

const CHATS: &str = "/apis/moorline.dev/v1alpha1/namespaces";

fn chat(title: &str) -> String {
    json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "fix"}, "spec": {"title": title}})
        .to_string()
}

async fn apply(to: &ControlPlane, namespace: &str, title: &str) {
    to.kubectl(namespace, &["apply", "-f", "-"], &chat(title)).await.out();
}

async fn title(of: &ControlPlane, namespace: &str) -> Option<String> {
    let chat = of.send("GET", &format!("{CHATS}/{namespace}/chats/fix"), None).await?;
    Some(chat["spec"]["title"].as_str().unwrap().to_owned())
}

/// A list's version.
async fn newest(of: &ControlPlane, namespace: &str) -> String {
    let list = of.send("GET", &format!("{CHATS}/{namespace}/chats"), None).await.unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// The first thing that a watch from a version is told: an object's title, or an error's code and reason.
async fn first_told(of: &ControlPlane, namespace: &str, version: &str) -> Value {
    let query = format!("watch=true&timeoutSeconds=1&resourceVersion={version}");
    let (status, told) = of.answer("GET", &format!("{CHATS}/{namespace}/chats?{query}"), None).await.unwrap();
    // One line is JSON already.
    let told = match told {
        Value::String(lines) => serde_json::from_str(lines.lines().next().unwrap_or("null")).unwrap(),
        one => one,
    };
    match told["type"].as_str() {
        Some("ERROR") => json!([told["object"]["code"], told["object"]["reason"]]),
        Some(_) => told["object"]["spec"]["title"].clone(),
        None => json!([status, told["reason"]]),
    }
}

#[tokio::test]
async fn kubectl_apply_of_an_object_is_one_write_by_whom_it_was() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let ours = |writes: Vec<Audit>| writes.into_iter().filter(|write| write.namespace == namespace).collect::<Vec<_>>();
    let everything = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let alice = control_plane.user(&namespace, "alice", &everything).await;

    let mark = control_plane.mark();
    apply(control_plane, &namespace, "one").await;
    apply(control_plane, &namespace, "one").await;
    apply(control_plane, &namespace, "two").await;
    let kubectl = control_plane.access(&namespace).of(&alice).kubectl();
    kubectl.fed(&["apply", "-f", "-"], &chat("three")).await.out();
    kubectl.run(&["delete", "chat", "fix"]).await.out();
    let writes = ours(control_plane.writes_since(mark).await);
    let by_alice = &*alice.name;
    let counts = [(("create", "chats", "admin"), 1), (("patch", "chats", "admin"), 1)];
    let hers = [(("delete", "chats", by_alice), 1), (("patch", "chats", by_alice), 1)];
    assert_eq!(counted(&writes), counts.into_iter().chain(hers).collect(), "what is as it was is not written");
    assert!(writes.iter().all(|write| write.user_agent.starts_with("kubectl/")), "{writes:?}");
    let codes: Vec<(&str, u16)> = writes.iter().map(|write| (&*write.name, write.code)).collect();
    assert_eq!(codes[1..], [("fix", 200); 3], "a created one is named by what is sent: {codes:?}");
    assert!(ours(control_plane.writes_since(control_plane.mark()).await).is_empty());
    let reads = ours(control_plane.requests_since(mark).await);
    assert!(reads.iter().any(|read| read.verb == "get" && read.resource == "chats"), "{reads:?}");
}

#[tokio::test]
async fn a_user_may_what_its_rules_say_until_it_is_dismissed() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    apply(control_plane, &namespace, "one").await;
    let rules = |verbs: Value| json!([{"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": verbs}]);
    let user = control_plane.user(&namespace, "reader", &rules(json!(["get", "list"]))).await;
    let kubectl = control_plane.access(&namespace).of(&user).kubectl();
    kubectl.run(&["get", "chats"]).await.out();
    let said = kubectl.run(&["delete", "chat", "fix"]).await.err();
    assert!(said.contains(&format!("User \"{}\" cannot delete resource \"chats\"", user.name)), "{said}");
    control_plane.allow(&user, &rules(json!(["get", "list", "delete"]))).await;
    until("the new rules are known", || async { kubectl.run(&["delete", "chat", "fix", "--wait=false"]).await.ok.then_some(()) })
        .await;
    control_plane.dismiss(&user).await;
    until("the token is worth nothing", || async {
        let said = kubectl.run(&["get", "chats"]).await;
        said.err.contains("You must be logged in").then_some(())
    })
    .await;
    let stranger = control_plane.access(&namespace).with_token("a-token-of-nobody").kubectl();
    assert!(stranger.run(&["get", "chats"]).await.err().contains("You must be logged in"));
}

#[tokio::test]
async fn with_the_controllers_a_deleted_namespace_goes_with_what_is_in_it() {
    let control_plane = ControlPlane::start().await;
    let namespace = control_plane.namespace_of_its_own().await;
    apply(&control_plane, &namespace, "one").await;
    control_plane.kubectl("default", &["delete", "namespace", &namespace, "--wait=false"], "").await.out();
    assert_eq!(title(&control_plane, &namespace).await.as_deref(), Some("one"), "without them it stays");
    control_plane.with_controller_manager().await;
    until("the chat goes", || async { title(&control_plane, &namespace).await.is_none().then_some(()) }).await;
    until("the namespace goes", || async {
        control_plane.send("GET", &format!("/api/v1/namespaces/{namespace}"), None).await.is_none().then_some(())
    })
    .await;
    // And they are there again when there is nothing else left.
    control_plane.lose_all_data().await;
    control_plane.namespace(&namespace).await;
    let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
    until("it has its account", || async { control_plane.send("GET", &account, None).await }).await;
}

#[tokio::test]
async fn killed_programs_start_again_where_they_were_and_with_what_they_had() {
    let control_plane = ControlPlane::start().await;
    control_plane.namespace("team").await;
    apply(&control_plane, "team", "one").await;
    let before = newest(&control_plane, "team").await;

    control_plane.kill_apiserver().await;
    control_plane.answer("GET", "/readyz", None).await.unwrap_err();
    control_plane.start_apiserver().await;
    assert_eq!(title(&control_plane, "team").await.as_deref(), Some("one"));
    let mark = control_plane.mark();
    apply(&control_plane, "team", "two").await;
    assert_eq!(control_plane.writes_since(mark).await.iter().filter(|write| write.resource == "chats").count(), 1);

    control_plane.kill_etcd().await;
    let said = control_plane.answer("GET", &format!("{CHATS}/team/chats/fix?timeout=2s"), None).await;
    assert!(!matches!(said, Ok((..500, _))), "a read of the newest needs etcd: {said:?}");
    control_plane.start_etcd().await;
    assert_eq!(title(&control_plane, "team").await.as_deref(), Some("two"));
    let after = newest(&control_plane, "team").await;
    assert!(before.parse::<u64>().unwrap() < after.parse().unwrap(), "{before} {after}");

    control_plane.lose_all_data().await;
    assert_eq!(title(&control_plane, "team").await, None);
    control_plane.namespace("team").await;
    let survivor = control_plane.access("team").with_token(MOORLINE).kubectl();
    assert_eq!(survivor.run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await.out(), "moorline");
    survivor.fed(&["apply", "-f", "-"], &chat("three")).await.out();
    assert_eq!(title(&control_plane, "team").await.as_deref(), Some("three"), "our kinds are there");
}

#[tokio::test]
async fn a_watch_from_an_expired_version_is_told_410() {
    let control_plane = ControlPlane::start().await;
    control_plane.namespace("team").await;
    let old = newest(&control_plane, "team").await;
    apply(&control_plane, "team", "one").await;
    let seen = newest(&control_plane, "team").await;
    assert_eq!(first_told(&control_plane, "team", &old).await, "one");

    control_plane.compact().await;
    assert_eq!(first_told(&control_plane, "team", &old).await, "one", "the apiserver remembers what etcd has forgotten");

    control_plane.expire_watches().await;
    for version in [old, seen] {
        assert_eq!(first_told(&control_plane, "team", &version).await, json!([410, "Expired"]), "{version}");
    }
    let now = newest(&control_plane, "team").await;
    apply(&control_plane, "team", "two").await;
    assert_eq!(first_told(&control_plane, "team", &now).await, "two", "what was seen since then goes on");
}

#[tokio::test]
async fn through_a_gateway_a_request_is_refused_or_delayed_or_its_answer_lost() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let gateway = Gateway::to(control_plane).await;
    let kubectl = control_plane.access(&namespace).via(&gateway.url).kubectl();
    let apply = async |title: &str| kubectl.fed(&["apply", "-f", "-"], &chat(title)).await;
    let chats = |writes: Vec<Audit>| writes.into_iter().filter(|write| write.namespace == namespace).count();

    // kubectl knows what a Retry-After is, and comes again.
    let (mark, tries) = (control_plane.mark(), AtomicUsize::new(0));
    gateway.set(move |request| {
        let refused = request.method == "POST" && tries.fetch_add(1, Ordering::SeqCst) < 2;
        refused.then_some(Fault::TooMany(1))
    });
    let begun = Instant::now();
    apply("one").await.out();
    assert!(begun.elapsed() >= Duration::from_secs(2), "it waits as long as it is told: {:?}", begun.elapsed());
    assert_eq!((gateway.faults(), chats(control_plane.writes_since(mark).await)), (2, 1), "what is refused does not come there");

    gateway.set(|request| (request.method == "PATCH").then_some(Fault::Status(503)));
    assert!(apply("two").await.err().contains("unable to handle the request"));
    gateway.set(|request| (request.method == "PATCH").then_some(Fault::Late(Duration::from_millis(300))));
    let begun = Instant::now();
    apply("two").await.out();
    assert!(begun.elapsed() >= Duration::from_millis(300));

    gateway.set(|request| (request.method == "PATCH").then_some(Fault::AnswerLost));
    apply("three").await.err();
    assert_eq!(title(control_plane, &namespace).await.as_deref(), Some("three"), "it was done all the same");
    gateway.calm();
    let mark = control_plane.mark();
    apply("three").await.out();
    assert_eq!((gateway.faults(), chats(control_plane.writes_since(mark).await)), (5, 0));

    // What streams, streams.
    let client = control_plane.access(&namespace).via(&gateway.url).client().await;
    let events: kube::Api<k8s_openapi::api::core::v1::ConfigMap> = kube::Api::namespaced(client, &namespace);
    let mut told = Box::pin(events.watch(&kube::api::WatchParams::default(), "0").await.unwrap());
    control_plane.kubectl(&namespace, &["create", "configmap", "told"], "").await.out();
    timeout(Duration::from_secs(20), told.next()).await.expect("an event").expect("a stream").unwrap();
}

#[tokio::test]
async fn a_link_is_cut_and_slowed_and_silenced_and_whole_again() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let link = Link::to(&control_plane.url).await;
    let client = control_plane.access(&namespace).via(&link.https()).client().await;
    let asked = async || client.apiserver_version().await;
    asked().await.unwrap();

    link.set(Flow::Cut);
    asked().await.unwrap_err();
    link.set(Flow::Slow(Duration::from_millis(100)));
    let begun = Instant::now();
    asked().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400), "there and back, twice with TLS: {:?}", begun.elapsed());
    link.set(Flow::Silent);
    let mut asking = Box::pin(asked());
    timeout(Duration::from_millis(500), &mut asking).await.expect_err("nobody answers");
    link.set(Flow::Whole);
    asking.await.unwrap();
}

#[tokio::test]
#[should_panic(expected = "a test that does harm starts its own")]
async fn nobody_does_harm_to_what_others_use() {
    ControlPlane::shared().await.kill_etcd().await;
}
