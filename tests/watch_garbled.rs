//! Rows of which no sense can be made: whoever watches is told the rest.

use crate::support::{
    api::{Api, BASE, NAMESPACE, file},
    postgres::{TestDb, database},
    stream::{Watch, all_readable},
};
use serde_json::json;
use sqlx::Executor as _;

fn chats() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/chats")
}

async fn version(api: &Api, db: &TestDb) -> String {
    all_readable(db).await;
    let list = api.get(&chats()).await.expect(200);
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

async fn garble(db: &TestDb, chat: &str, also: &str) {
    let sql = format!(
        "WITH bad AS (UPDATE chats SET conditions = '{{\"Ready\": 7}}' WHERE name = '{chat}' RETURNING *)
         INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, chat_seq, payload)
         SELECT namespace, log_rv(), 1, '{also}', id, name, id, 99, '{{\"before\": {{\"mood\": \"sunny\"}}}}' FROM bad"
    );
    db.pool.execute(sqlx::AssertSqlSafe(sql)).await.expect("garbage");
}

#[tokio::test]
async fn an_object_that_cannot_be_read_keeps_no_watcher_from_the_others() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("garbled", json!({})).await;
    let version = version(&api, &db).await;
    let mut live = Watch::open(&api, &chats(), "").await;
    assert_eq!(live.told().await, "ADDED garbled");
    garble(&db, "garbled", "ChatUpdated").await;
    api.create_chat("two", json!({})).await;
    live.until(|event| event["object"]["metadata"]["name"] == "two").await;
    drop(live);
    let mut replayed = Watch::open(&api, &chats(), &format!("resourceVersion={version}")).await;
    replayed.until(|event| event["object"]["metadata"]["name"] == "two").await;
}

#[tokio::test]
async fn an_event_of_a_kind_that_only_a_newer_version_knows_is_passed_over() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    let version = version(&api, &db).await;
    let events = format!("{BASE}/namespaces/{NAMESPACE}/contextevents");
    let mut live = Watch::open(&api, &events, &format!("resourceVersion={version}")).await;
    db.pool.execute("ALTER TABLE events DROP CONSTRAINT events_kind_known").await.expect("a newer schema");
    db.pool
        .execute("INSERT INTO events (namespace, rv, seq, kind, name, payload) VALUES ('team-a', log_rv(), 1, 'ChatMoved', 'one', '{}')")
        .await
        .expect("a newer event");
    api.create_chat("two", json!({})).await;
    live.until(|event| event["object"]["chat"]["name"] == "two").await;
    let mut replayed = Watch::open(&api, &chats(), &format!("resourceVersion={version}")).await;
    replayed.until(|event| event["object"]["metadata"]["name"] == "two").await;
    all_readable(&db).await;
    let page = api.get(&events).await.expect(200);
    assert!(page["items"].as_array().unwrap().iter().any(|event| event["chat"]["name"] == "two"));
}

#[tokio::test]
async fn of_a_deleted_object_whose_last_state_cannot_be_read_it_is_told_that_it_is_gone() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\n").await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    alice.create_chat("hers", json!({})).await;
    let uid = alice.chat("hers").await["metadata"]["uid"].clone();
    all_readable(&db).await;
    let list = alice.get(&chats()).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    alice.delete(&format!("{}/hers", chats())).await.expect(200);
    db.pool
        .execute("UPDATE events SET payload = payload #- '{chat,created_at}' WHERE kind = 'ChatDeleted'")
        .await
        .expect("an older version's event");
    bob.create_chat("his", json!({})).await;
    let from = format!("resourceVersion={version}");
    let gone = Watch::open(&alice, &chats(), &from).await.next().await.expect("the deletion");
    assert_eq!((&gone["type"], &gone["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("hers")));
    assert_eq!((&gone["object"]["metadata"]["uid"], &gone["object"]["kind"]), (&uid, &json!("Chat")));
    assert_eq!(Watch::open(&bob, &chats(), &from).await.told().await, "ADDED his", "of hers he is told nothing");
}

#[tokio::test]
async fn the_last_state_of_a_pinned_chat_is_told_whatever_form_the_database_writes_bytes_in() {
    let db = database().await;
    let escape = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET bytea_output = escape', current_database()); END $$";
    db.pool.execute(escape).await.expect("a setting");
    let api = Api::start(&db).await;
    let run = api.running_agent("ws-1").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("pinned", json!({"agentRef": {"name": "ws-1"}})).await;
    let mut watch = Watch::open(&api, &chats(), "").await;
    assert_eq!(watch.told().await, "ADDED pinned");
    api.delete(&format!("{}/pinned", chats())).await.expect(200);
    let gone = watch.until(|event| event["type"] == "DELETED").await;
    assert_eq!(gone["object"]["spec"]["agentRef"]["name"], "ws-1");
}
