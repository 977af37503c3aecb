//! What is read late, or of two moments, or while something else is done, does no harm: each history is played out by holding up what
//! would have to be slow for it.

use crate::support::{
    cluster::{Front, chat, record},
    envtest::ControlPlane,
    gateway::{Fault, Gateway},
    until::until,
};
use serde_json::json;
use sqlx::Executor as _;
use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
};

/// The next answer that says what this object is is held.
fn hold_up(gateway: &Gateway, object: &'static str) {
    let once = AtomicBool::new(true);
    gateway.set(move |request| {
        let asked = request.method == "GET" && request.uri.path().ends_with(object);
        (asked && once.swap(false, Ordering::SeqCst)).then_some(Fault::AnswerHeld)
    });
}

async fn until_held_up(gateway: &Gateway) {
    until("it is asked for", || async { (gateway.faults() == 1).then_some(()) }).await;
}

/// Lets what was held up come, and waits until what came of it has been done.
async fn until_it_came(front: &Front<'_>, gateway: &Gateway) {
    gateway.let_go().await;
    front.settled().await;
}

#[tokio::test]
async fn what_was_read_of_a_manifest_before_it_was_deleted_makes_no_record_of_it() {
    let control_plane = ControlPlane::shared().await;
    let gateway = Gateway::to(control_plane).await;
    let front = Front::behind(control_plane, &gateway, &[]).await;
    front.apply(&chat("child", json!({"parentRef": {"name": "parent"}}))).await;
    front.until_shown("chat/child", "Stalled", "True", "InvalidSpec").await;
    hold_up(&gateway, "/chats/child");
    until_held_up(&gateway).await;
    front.kubectl(&["delete", "chat/child", "--timeout=30s"]).await.out();
    assert_eq!(front.send("POST", "chats", Some(record("parent"))).await.0, 201);
    until_it_came(&front, &gateway).await;
    assert_eq!(front.record("chats", "child").await, None);
}

#[tokio::test]
async fn a_manifest_that_is_made_again_while_its_record_is_about_to_be_released_keeps_it() {
    let control_plane = ControlPlane::shared().await;
    let gateway = Gateway::to(control_plane).await;
    let front = Front::behind(control_plane, &gateway, &[]).await;
    let manifest = chat("fix", json!({"deletionPolicy": "Retain"}));
    front.apply(&manifest).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    let pool = front.db.pool.clone();
    pool.execute(
        "CREATE TABLE owners (source text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO owners VALUES (NEW.source); RETURN NULL;
         END $$;
         CREATE TRIGGER note AFTER UPDATE ON chats FOR EACH ROW WHEN (NEW.name = 'fix') EXECUTE FUNCTION note();",
    )
    .await
    .unwrap();
    let stopped = front.stopped().await;
    stopped.kubectl(&["delete", "chat/fix", "--timeout=30s"]).await.out();
    hold_up(&gateway, "/chats/fix");
    let front = stopped.started().await;
    until_held_up(&gateway).await;
    front.apply(&manifest).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    until_it_came(&front, &gateway).await;
    let released: Vec<String> =
        sqlx::query_scalar("SELECT source FROM owners WHERE source = 'api'").fetch_all(&pool).await.unwrap();
    assert_eq!(released, Vec::<String>::new(), "it never belonged to the API");
}

#[tokio::test]
async fn two_clusters_on_one_database_do_not_fight_for_a_record_as_fast_as_they_can() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&chat("fix", json!({}))).await;
    front.until_shown("chat/fix", "Ready", "True", "Unbound").await;
    // The other cluster, which takes it whenever we have.
    front
        .db
        .pool
        .execute(
            "CREATE TABLE taken (at timestamptz DEFAULT now());
             CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO taken DEFAULT VALUES;
                 NEW.manifest = jsonb_set(NEW.manifest, '{uid}', '\"11111111-1111-4111-8111-111111111111\"');
                 RETURN NEW;
             END $$;
             CREATE TRIGGER take BEFORE UPDATE ON chats FOR EACH ROW
             WHEN (NEW.name = 'fix' AND NEW.manifest IS DISTINCT FROM OLD.manifest) EXECUTE FUNCTION take();",
        )
        .await
        .unwrap();
    front.kubectl(&["annotate", "chat/fix", "example.org/kick=1"]).await.out();
    until("it is told", || async {
        let events = front.get("events.events.k8s.io").await;
        events["items"].as_array()?.iter().any(|event| event["reason"] == "TakenByAnother").then_some(())
    })
    .await;
    front.settled().await;
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM taken").fetch_one(&front.db.pool).await.unwrap();
    assert!((1..=2).contains(&taken), "it was taken {taken} times");
}

/// What a replica has told.
async fn until_told(log: &std::path::Path, what: &str) {
    until(&format!("the log has {what}"), || async { fs::read_to_string(log).unwrap().contains(what).then_some(()) }).await;
}

#[tokio::test]
async fn a_lease_in_a_namespace_that_is_not_there_is_told_and_taken_when_it_is() {
    let control_plane = ControlPlane::shared().await;
    let front = Front::start(control_plane, &[]).await;
    let (nowhere, log) = (format!("{}-lease", front.namespace), tempfile::NamedTempFile::new().unwrap());
    let _other = front.another_telling(log.path(), &["--lease-namespace", &nowhere]).await;
    until_told(log.path(), "could not be looked at").await;
    until_told(log.path(), &nowhere).await;
    control_plane.namespace(&nowhere).await;
    until_told(log.path(), "this replica writes to the cluster").await;
}

#[tokio::test]
async fn a_database_that_is_away_is_one_line_in_the_log_for_many_objects() {
    let mut front = Front::start(ControlPlane::shared().await, &[]).await;
    let log = tempfile::NamedTempFile::new().unwrap();
    front.replica.kill();
    front.replica = front.another_telling(log.path(), &["--mirror=all"]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    for number in 0..10 {
        front.push("ws", &format!("body {number}")).await;
    }
    until("all snapshots are shown", || async {
        (front.get("agentsnapshots").await["items"].as_array()?.len() == 10).then_some(())
    })
    .await;
    front.db.lock_out().await;
    front.kubectl(&["delete", "agentsnapshots", "--all", "--timeout=30s"]).await.out();
    until("they are missed", || async { (front.metric("moorline_mirror_errors_total").await >= 3).then_some(()) }).await;
    let lines = fs::read_to_string(log.path()).unwrap().matches("the cluster does not show it yet").count();
    let batches = front.metric("moorline_mirror_errors_total").await;
    front.db.let_in().await;
    assert!(i64::try_from(lines).unwrap() <= batches, "{lines} lines for {batches} batches");
}
