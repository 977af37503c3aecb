//! Watching objects: what a client is told, from where, and until when. Events are in `watch_events`; what whole caches come to is in
//! `front`.

use crate::support::{
    api::{Api, NAMESPACE, file},
    postgres::database,
    stream::{Watch, all_readable},
};
use serde_json::{Value, json};
use sqlx::Executor as _;

const BASE: &str = "/apis/moorline.dev/v1alpha1";

fn chats() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/chats")
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_then_what_becomes_of_it() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    let mut watch = Watch::open(&api, &chats(), "").await;
    assert_eq!(watch.told().await, "ADDED one");
    api.create_chat("two", json!({})).await;
    let added = watch.until(|event| event["object"]["metadata"]["name"] == "two").await;
    assert_eq!(added["type"], "ADDED");
    assert_eq!((&added["object"]["kind"], &added["object"]["apiVersion"]), (&json!("Chat"), &json!("moorline.dev/v1alpha1")));
    // Told as it stands now: whoever is told of two changes at once may hear ADDED of what it knows.
    let stands = api.chat("two").await["metadata"]["resourceVersion"].clone();
    if added["object"]["metadata"]["resourceVersion"] != stands {
        watch.until(|event| event["object"]["metadata"]["resourceVersion"] == stands).await;
    }
    api.patch(&format!("{}/two", chats()), &json!({"spec": {"title": "x"}})).await.expect(200);
    let modified = watch.until(|event| event["object"]["spec"]["title"] == "x").await;
    assert_eq!(modified["type"], "MODIFIED");
    api.delete(&format!("{}/two", chats())).await.expect(200);
    let deleted = watch.until(|event| event["type"] == "DELETED").await;
    assert_eq!((&deleted["object"]["metadata"]["name"], &deleted["object"]["spec"]["title"]), (&json!("two"), &json!("x")));
    let version = |event: &Value| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<i128>().unwrap();
    assert!(version(&added) < version(&modified) && version(&modified) < version(&deleted));
}

#[tokio::test]
async fn a_watch_from_a_lists_version_skips_nothing_and_repeats_nothing() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    // What a list shows ahead of its version is told again from there.
    all_readable(&db).await;
    let list = api.get(&chats()).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    for name in ["two", "three"] {
        api.create_chat(name, json!({})).await;
    }
    let mut watch = Watch::open(&api, &chats(), &format!("resourceVersion={version}")).await;
    let mut added = Vec::new();
    while added.len() < 2 {
        let told = watch.told().await;
        if let Some(name) = told.strip_prefix("ADDED ") {
            added.push(name.to_owned());
        }
    }
    assert_eq!(added, ["two", "three"]);
    // From an object's own version it is told again: a batch's objects share one.
    let three = api.chat("three").await;
    let version = three["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(&api, &chats(), &format!("resourceVersion={version}")).await;
    assert!(watch.told().await.ends_with(" three"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_that_says_so() {
    let db = database().await;
    let api = Api::start(&db).await;
    for n in 0..3 {
        api.create_chat(&format!("chat-{n}"), json!({})).await;
    }
    let newest = api.chat("chat-2").await;
    let version = newest["metadata"]["resourceVersion"].as_str().unwrap();
    let query =
        format!("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&resourceVersion={version}");
    let mut watch = Watch::open(&api, &chats(), &query).await;
    for n in 0..3 {
        assert_eq!(watch.told().await, format!("ADDED chat-{n}"));
    }
    let bookmark = watch.next().await.expect("a bookmark");
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(bookmark["object"]["kind"], "Chat");
    let at = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<i128>().unwrap();
    assert!(at % 2 == 1 && at > version.parse().unwrap());
}

#[tokio::test]
async fn versions_from_before_the_floor_of_another_epoch_or_from_the_future_are_expired() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    let list = api.get(&chats()).await.expect(200);
    let version: i128 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    for other in
        ["3".to_owned(), (version + (1 << 46)).to_string(), (version - (1 << 45)).to_string(), (version + 2_000_000).to_string()]
    {
        let mut watch = Watch::open(&api, &chats(), &format!("resourceVersion={other}")).await;
        let error = watch.next().await.expect("an error");
        assert_eq!(error["type"], "ERROR", "{other}: {error}");
        let status = &error["object"];
        assert_eq!((&status["kind"], &status["code"], &status["reason"]), (&json!("Status"), &json!(410), &json!("Expired")));
        assert_eq!((&status["apiVersion"], &status["status"]), (&json!("v1"), &json!("Failure")));
        assert!(status["message"].as_str().unwrap().contains("list again") && watch.next().await.is_none());
    }
}

#[tokio::test]
async fn a_new_epoch_ends_the_watches_of_the_old_one() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    let mut watch = Watch::open(&api, &chats(), "").await;
    assert_eq!(watch.told().await, "ADDED one");
    // It is in the tail by the time that this is told.
    api.create_chat("two", json!({})).await;
    watch.until(|event| event["object"]["metadata"]["name"] == "two").await;
    let mut connection = db.pool.acquire().await.unwrap();
    moorline::store::log::bump(&mut connection, true).await.expect("a new epoch");
    let error = watch.until(|event| event["type"] == "ERROR").await;
    assert_eq!(error["object"]["reason"], "Expired");
}

#[tokio::test]
async fn what_a_selector_no_longer_selects_is_told_as_gone() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("plain", json!({})).await;
    api.create_chat("red", json!({})).await;
    label(&api, "red", "red").await;
    let mut watch = Watch::open(&api, &chats(), "labelSelector=colour%3Dred").await;
    assert_eq!(watch.told().await, "ADDED red");
    label(&api, "plain", "red").await;
    assert_eq!(watch.until(|event| event["object"]["metadata"]["name"] == "plain").await["type"], "ADDED");
    label(&api, "red", "blue").await;
    assert_eq!(watch.until(|event| event["object"]["metadata"]["name"] == "red").await["type"], "DELETED");
    api.patch(&format!("{}/red", chats()), &json!({"spec": {"title": "unseen"}})).await.expect(200);
    api.delete(&format!("{}/plain", chats())).await.expect(200);
    let told = watch.until(|event| event["type"] == "DELETED").await;
    assert_eq!(told["object"]["metadata"]["name"], "plain");

    let mut dirty = Watch::open(&api, &chats(), "fieldSelector=status.dirty%3Dtrue").await;
    let run = api.running_agent("ws-1").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("drifts", json!({"agentRef": {"name": "ws-1"}})).await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    assert_eq!(dirty.told().await, "ADDED drifts");
    api.pushed(&run, 3, json!([file("AGENTS.md", "one")])).await;
    assert_eq!(dirty.told().await, "DELETED drifts");
}

/// What the watchers select who are cut off.
const RED_AND_WAITING: &str = "labelSelector=colour%3Dred&fieldSelector=status.state%3DWaiting";

async fn create_red(api: &Api, name: &str) {
    let chat = json!({"metadata": {"name": name, "labels": {"colour": "red"}}, "spec": {}});
    api.post(&chats(), &chat).await.expect(201);
}

async fn label(api: &Api, chat: &str, colour: &str) {
    api.patch(&format!("{}/{chat}", chats()), &json!({"metadata": {"labels": {"colour": colour}}})).await.expect(200);
}

async fn report(api: &Api, chat: &str, state: &str) {
    api.patch(&format!("{}/{chat}/status", chats()), &json!({"status": {"state": state}})).await.expect(200);
}

/// What a watcher is told who comes back from a version, until he has been told of this chat and is cut off; and the version of that.
async fn told_until(api: &Api, selector: &str, version: &str, until: &str) -> (Vec<String>, String) {
    let mut watch = Watch::open(api, &chats(), &format!("{selector}&resourceVersion={version}")).await;
    let mut told = Vec::new();
    loop {
        let event = watch.next().await.expect("an event");
        let metadata = &event["object"]["metadata"];
        told.push(format!("{} {}", event["type"].as_str().unwrap(), metadata["name"].as_str().unwrap()));
        if metadata["name"] == until {
            return (told, metadata["resourceVersion"].as_str().expect("a version").to_owned());
        }
    }
}

/// The same in two connections, the first of which is cut off after `pause`.
async fn told_in_two_connections(api: &Api, selector: &str, version: &Value) -> Vec<String> {
    let (mut told, pause) = told_until(api, selector, version.as_str().expect("a version"), "pause").await;
    told.extend(told_until(api, selector, &pause, "end").await.0);
    told
}

#[tokio::test]
async fn whoever_is_cut_off_between_what_takes_a_chat_out_of_view_and_its_deletion_learns_that_it_is_gone() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("red", json!({})).await;
    let version = api.get(&chats()).await.expect(200)["metadata"]["resourceVersion"].clone();
    api.patch(&format!("{}/red", chats()), &json!({"spec": {"archived": true}})).await.expect(200);
    api.create_chat("pause", json!({})).await;
    api.delete(&format!("{}/red", chats())).await.expect(200);
    api.create_chat("end", json!({})).await;
    let told = told_in_two_connections(&api, "fieldSelector=spec.archived%3Dfalse", &version).await;
    assert!(told.contains(&"DELETED red".to_owned()), "{told:?}");
}

#[tokio::test]
async fn whoever_is_cut_off_between_two_changes_each_of_which_takes_a_chat_out_of_view_learns_that_it_is_gone() {
    let db = database().await;
    let api = Api::start(&db).await;
    for chat in ["red", "other"] {
        create_red(&api, chat).await;
    }
    let version = api.get(&chats()).await.expect(200)["metadata"]["resourceVersion"].clone();
    report(&api, "red", "Running").await;
    create_red(&api, "pause").await;
    label(&api, "red", "blue").await;
    create_red(&api, "end").await;
    let told = told_in_two_connections(&api, RED_AND_WAITING, &version).await;
    assert!(told.contains(&"DELETED red".to_owned()), "{told:?}");
    assert!(!told.contains(&"DELETED other".to_owned()), "{told:?}");
}

#[tokio::test]
async fn whoever_is_cut_off_before_more_changes_than_are_looked_at_is_told_to_let_go_when_in_doubt() {
    let db = database().await;
    let api = Api::start(&db).await;
    create_red(&api, "red").await;
    let version = api.get(&chats()).await.expect(200)["metadata"]["resourceVersion"].clone();
    report(&api, "red", "Running").await;
    create_red(&api, "pause").await;
    for n in 0..140 {
        report(&api, "red", if n % 2 == 0 { "Paused" } else { "Running" }).await;
    }
    label(&api, "red", "blue").await;
    create_red(&api, "end").await;
    let told = told_in_two_connections(&api, RED_AND_WAITING, &version).await;
    assert!(told.contains(&"DELETED red".to_owned()), "{told:?}");
}

#[tokio::test]
async fn whoever_is_cut_off_while_an_older_writer_hides_the_next_change_learns_that_a_chat_left_the_view() {
    let db = database().await;
    let api = Api::start(&db).await;
    create_red(&api, "red").await;
    let version = api.get(&chats()).await.expect(200)["metadata"]["resourceVersion"].clone();
    report(&api, "red", "Running").await;
    create_red(&api, "pause").await;
    all_readable(&db).await;
    let mut older = db.pool.begin().await.unwrap();
    older.execute("SET LOCAL idle_in_transaction_session_timeout = 0; SELECT pg_current_xact_id()").await.unwrap();
    label(&api, "red", "blue").await;

    let (mut told, pause) = told_until(&api, RED_AND_WAITING, version.as_str().unwrap(), "pause").await;
    older.rollback().await.unwrap();
    create_red(&api, "end").await;
    told.extend(told_until(&api, RED_AND_WAITING, &pause, "end").await.0);
    assert!(told.contains(&"DELETED red".to_owned()), "{told:?}");
}

#[tokio::test]
async fn a_watcher_is_told_of_what_it_may_see_only() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\nroot,admin,3,\"system:masters\"\n").await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    let mut watch = Watch::open(&alice, &format!("{BASE}/chats"), "").await;
    bob.create_chat("his", json!({})).await;
    bob.delete(&format!("{}/his", chats())).await.expect(200);
    alice.create_chat("hers", json!({})).await;
    assert_eq!(watch.told().await, "ADDED hers");
}

#[tokio::test]
async fn agents_and_their_snapshots_can_be_watched() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut agents = Watch::open(&api, &format!("{BASE}/agents"), "").await;
    let mut snapshots = Watch::open(&api, &format!("{BASE}/namespaces/{NAMESPACE}/agentsnapshots"), "").await;
    let run = api.running_agent("ws-1").await;
    assert_eq!(agents.told().await, "ADDED ws-1");
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let snapshot = snapshots.next().await.expect("a snapshot");
    assert_eq!(
        (&snapshot["type"], &snapshot["object"]["spec"]["resources"][0]["source"]),
        (&json!("ADDED"), &json!("AGENTS.md"))
    );
    assert!(!snapshot.to_string().contains("\"body\""));
    api.delete(&format!("{BASE}/namespaces/{NAMESPACE}/agents/ws-1")).await;
    let gone = agents.until(|event| event["type"] == "DELETED").await;
    assert_eq!(gone["object"]["status"]["latestSnapshot"]["name"], snapshot["object"]["metadata"]["name"]);
}

#[tokio::test]
async fn server_sent_events_carry_the_place_to_resume_from() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    all_readable(&db).await;
    let accept = ("accept", "text/event-stream");
    let mut watch = Watch::accepting(&api, &chats(), "", &[accept]).await;
    let first = watch.up_to(b"\n\n").await.expect("an event");
    assert!(first.starts_with("data: {\"type\":\"ADDED\""), "within the first list nobody can resume: {first}");
    let place = watch.up_to(b"\n\n").await.expect("a place");
    let id = place.trim().strip_prefix("id: ").expect("an id").to_owned();
    drop(watch);
    api.create_chat("two", json!({})).await;
    let mut watch = Watch::accepting(&api, &chats(), "", &[accept, ("last-event-id", &id)]).await;
    loop {
        let next = watch.up_to(b"\n\n").await.expect("an event");
        assert!(next.starts_with("id: "), "{next}");
        if next.contains("\"name\":\"two\"") {
            break;
        }
    }
}

#[tokio::test]
async fn an_event_source_whose_place_is_too_old_forgets_it() {
    let db = database().await;
    let api = Api::start(&db).await;
    let headers = [("accept", "text/event-stream"), ("last-event-id", "3")];
    let mut watch = Watch::accepting(&api, &chats(), "", &headers).await;
    let error = watch.up_to(b"\n\n").await.expect("an error");
    assert!(error.starts_with("id: \ndata: {\"type\":\"ERROR\"") && error.contains("Expired"), "{error}");
    api.create_chat("one", json!({})).await;
    let again = [("accept", "text/event-stream"), ("last-event-id", "")];
    let added = Watch::accepting(&api, &chats(), "", &again).await.up_to(b"\n\n").await.expect("an event");
    assert!(added.contains("ADDED"), "{added}");
}

#[tokio::test]
async fn tables_and_bare_metadata_can_be_watched() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    let table = ("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json");
    let event = Watch::accepting(&api, &chats(), "", &[table]).await.next().await.expect("a row");
    assert_eq!((&event["object"]["kind"], &event["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("one")));
    let bare = ("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let event = Watch::accepting(&api, &chats(), "", &[bare]).await.next().await.expect("an object");
    assert_eq!((&event["object"]["kind"], &event["object"]["spec"]), (&json!("PartialObjectMetadata"), &Value::Null));
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut watch = Watch::open(&api, &chats(), "timeoutSeconds=1").await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn what_cannot_be_watched_is_refused_with_the_parameter_and_what_was_got() {
    let db = database().await;
    let api = Api::start(&db).await;
    for (query, names) in [
        ("resourceVersion=abc", "resourceVersion"),
        ("resourceVersion=007", "resourceVersion"),
        ("sendInitialEvents=true", "resourceVersionMatch"),
        ("resourceVersionMatch=Exact", "resourceVersionMatch"),
        ("timeoutSeconds=soon", "timeoutSeconds"),
        ("labelSelector=a+b", "labelSelector"),
        ("fieldSelector=spec.title%3Dx", "fieldSelector"),
        ("allowWatchBookmarks=perhaps", "allowWatchBookmarks"),
        ("continue=abc", "continue"),
        ("orderBy=-updated", "orderBy"),
    ] {
        let refused = api.get(&format!("{}?watch=true&{query}", chats())).await.refused(400, "BadRequest");
        assert!(refused.message.contains(names), "{query}: {}", refused.message);
    }
}
