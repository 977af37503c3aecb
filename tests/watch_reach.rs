//! What a watcher is told that may see its own records only.

use crate::support::{
    api::{Api, BASE, NAMESPACE, Run, file},
    postgres::{TestDb, database},
    stream::{Watch, all_readable},
    until::until,
};
use moorline::{retention::Retention, store::log::TxLog};
use serde_json::json;
use sqlx::Executor as _;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const TOKENS: &str = "a,alice,1\nb,bob,2\nrobot,robot,4\nroot,admin,3,\"system:masters\"\n";

fn chats() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/chats")
}

#[tokio::test]
async fn of_anothers_chat_that_changed_more_often_than_is_kept_nothing_is_told_not_even_its_name() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    bob.create_chat("his", json!({})).await;
    all_readable(&db).await;
    let list = alice.get(&chats()).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    for n in 0..40 {
        let labels = json!({"metadata": {"labels": {"n": n.to_string()}}});
        bob.patch(&format!("{}/his", chats()), &labels).await.expect(200);
    }
    alice.create_chat("hers", json!({})).await;
    all_readable(&db).await;
    let mut watch = Watch::open(&alice, &chats(), &format!("resourceVersion={version}")).await;
    assert_eq!(watch.told().await, "ADDED hers");
}

fn agent() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/agents/ws-1")
}

/// An agent that `robot` may push as, which keeps one snapshot besides the latest.
async fn robots_agent(api: &Api) -> Run {
    api.as_token("root").create_agent("ws-1", json!({"serviceAccountName": "robot", "revisionHistoryLimit": 1})).await;
    api.as_token("robot").register_run("ws-1").await
}

async fn prune(db: &TestDb) {
    let retention = Retention {
        pool: db.pool.clone(),
        clock: moorline::clock::system(),
        wake: moorline::wake::Wake::default(),
        interval: Duration::from_mins(10),
        event_age: moorline::config::EVENT_RETENTION,
    };
    retention.pass(&CancellationToken::new()).await.expect("a pass");
}

#[tokio::test]
async fn whoever_may_push_as_an_agent_is_told_when_retention_takes_a_snapshot_of_it() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let run = robots_agent(&api).await;
    let robot = api.as_token("robot");
    let mut snapshots = Watch::open(&robot, &format!("{BASE}/agentsnapshots"), "").await;
    let mut events = Watch::open(&robot, &format!("{BASE}/contextevents"), "").await;
    for n in 1..=3 {
        robot.pushed(&run, n, json!([file("AGENTS.md", &n.to_string())])).await;
    }
    let first = snapshots.next().await.expect("a snapshot")["object"]["metadata"]["name"].clone();
    prune(&db).await;
    let gone = snapshots.until(|event| event["type"] == "DELETED").await;
    assert_eq!(gone["object"]["metadata"]["name"], first);
    events.until(|event| event["object"]["type"] == "SnapshotDeleted").await;
}

#[tokio::test]
async fn events_of_an_agent_are_told_to_whose_it_was_when_it_is_gone_before_they_are_read() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    robots_agent(&api).await;
    all_readable(&db).await;
    let mut events = Watch::open(&api.as_token("robot"), &format!("{BASE}/contextevents"), "").await;
    assert_eq!(events.next().await.expect("an event")["object"]["type"], "AgentCreated");
    let root = api.as_token("root");
    root.patch(&agent(), &json!({"metadata": {"labels": {"n": "1"}}})).await.expect(200);
    events.until(|event| event["object"]["type"] == "AgentUpdated").await;
    // Nobody reads on before this ends.
    let mut open = db.pool.begin().await.expect("a session");
    open.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    TxLog::open(&mut open).await.expect("a version");
    root.patch(&agent(), &json!({"metadata": {"labels": {"n": "2"}}})).await.expect(200);
    root.delete(&agent()).await;
    until("the agent is gone", || async { (root.get(&agent()).await.status == 404).then_some(()) }).await;
    open.commit().await.expect("at last");
    events.until(|event| event["object"]["type"] == "AgentUpdated").await;
    events.until(|event| event["object"]["type"] == "AgentDeleted").await;
}

#[tokio::test]
async fn whoever_gains_or_loses_the_snapshots_of_an_agent_is_told_to_list_again() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let run = robots_agent(&api).await;
    let (admin, robot, bob) = (api.as_token("root"), api.as_token("robot"), api.as_token("b"));
    robot.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    all_readable(&db).await;
    let snapshots = format!("{BASE}/agentsnapshots");
    let version = robot.get(&snapshots).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut all = Watch::open(&admin, &snapshots, "").await;
    assert!(all.told().await.starts_with("ADDED"));
    let mut before = Watch::open(&robot, &snapshots, "").await;
    assert!(before.told().await.starts_with("ADDED"));
    let mut after = Watch::open(&bob, &snapshots, &format!("resourceVersion={version}")).await;
    admin.patch(&agent(), &json!({"spec": {"serviceAccountName": "bob"}})).await.expect(200);
    for watch in [&mut before, &mut after] {
        let error = watch.next().await.expect("an error");
        assert_eq!((&error["type"], &error["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
        assert_eq!(watch.next().await, None);
    }
    assert_eq!(robot.get(&snapshots).await.expect(200)["items"], json!([]));
    let mut after = Watch::open(&bob, &snapshots, "").await;
    assert!(after.told().await.starts_with("ADDED"));
    // From history it is the same.
    let from_then = format!("resourceVersion={version}");
    all_readable(&db).await;
    let error = Watch::open(&robot, &snapshots, &from_then).await.next().await.expect("an error");
    assert_eq!(error["object"]["reason"], "Expired");
    admin.delete(&agent()).await;
    assert_eq!(after.next().await.expect("an error")["object"]["reason"], "Expired");
    // Whoever sees everything sees it on.
    let other = admin.create_agent("ws-2", json!({})).await["metadata"]["name"].as_str().unwrap().to_owned();
    let run = admin.register_run(&other).await;
    admin.pushed(&run, 1, json!([file("AGENTS.md", "two")])).await;
    assert!(all.told().await.starts_with("ADDED"));
}
