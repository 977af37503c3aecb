//! Watching events: where a stream begins, where what there was at first ends, and that nothing is lost or told too early between
//! reading the database and following the tail.

use crate::support::{
    api::{Api, BASE, Caller, NAMESPACE, file, settings},
    postgres::{TestDb, database},
    stream::{Watch, all_readable},
    until::until,
};
use moorline::{clock, config, http::tail::Tail, store::events::Cursor, wake::Wake};
use serde_json::{Value, json};
use sqlx::{Executor as _, Postgres, Transaction};
use tokio_util::sync::CancellationToken;

const INITIAL: &str = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";

fn events() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/contextevents")
}

fn core_events() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/events")
}

fn version(object: &Value) -> i128 {
    object["metadata"]["resourceVersion"].as_str().expect("a version").parse().expect("a number")
}

/// The types of what is told up to the bookmark that says that this was all, and that bookmark's object.
async fn until_the_end(watch: &mut Watch, field: &str) -> (Vec<String>, Value) {
    let mut told = Vec::new();
    loop {
        let event = watch.next().await.expect("an event");
        if event["type"] == "BOOKMARK" {
            assert_eq!(event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{event}");
            return (told, event["object"].clone());
        }
        assert_eq!(event["type"], "ADDED", "{event}");
        told.push(event["object"][field].as_str().expect("what happened").to_owned());
    }
}

#[tokio::test]
async fn context_events_tell_the_story_once_across_pages_watches_and_servers() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws-1").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("demo", json!({"agentRef": {"name": "ws-1"}})).await;
    api.create_chat("other", json!({})).await;
    all_readable(&db).await;
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("{}?chat=demo&limit=1&cursor={cursor}", events())).await.expect(200);
        for event in page["items"].as_array().unwrap() {
            seen.push(event.clone());
        }
        match page["metadata"]["continue"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    let last = seen.last().unwrap()["metadata"]["name"].as_str().unwrap().to_owned();
    // Another server, and a watch from where the pages ended.
    let api = Api::start(&db).await;
    let mut watch = Watch::open(&api, &events(), &format!("chat=demo&cursor={last}")).await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "two"), file("CLAUDE.md", "x")])).await;
    let drifted = watch.until(|event| event["object"]["type"] == "ContextDrifted").await["object"].clone();
    assert_eq!(drifted["message"], "2 resources changed: AGENTS.md, CLAUDE.md");
    assert_eq!(
        (&drifted["kind"], &drifted["chat"]["name"], &drifted["agent"]["name"]),
        (&json!("ContextEvent"), &json!("demo"), &json!("ws-1"))
    );
    assert!(drifted["from"].as_str().unwrap().starts_with("sha256:") && drifted["from"] != drifted["to"]);
    all_readable(&db).await;
    // The whole story, told at once, numbered without a gap.
    let all = api.get(&format!("{}?chat=demo", events())).await.expect(200);
    let numbers: Vec<i64> = all["items"].as_array().unwrap().iter().map(|event| event["chat"]["seq"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=i64::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(all["items"].as_array().unwrap()[..seen.len()], seen[..]);
    let of_agent = api.get(&format!("{}?agent=ws-1", events())).await.expect(200);
    let kinds: Vec<&str> = of_agent["items"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert!(
        kinds.contains(&"AgentCreated") && kinds.contains(&"ContextDrifted") && kinds.contains(&"SnapshotAccepted"),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn a_cursor_from_before_what_is_kept_is_expired_and_nonsense_is_refused() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("demo", json!({})).await;
    api.get(&format!("{}?cursor=5-1", events())).await.refused(410, "Expired");
    let error = Watch::open(&api, &events(), "cursor=5-1").await.next().await.expect("an error");
    assert_eq!((&error["type"], &error["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    for query in ["cursor=nonsense", "cursor=1", "cursor=01-2", "cursor=-1-2", "limit=few"] {
        let refused = api.get(&format!("{}?{query}", events())).await.refused(400, "BadRequest");
        assert!(refused.message.starts_with(query.split('=').next().unwrap()), "{}", refused.message);
    }
}

#[tokio::test]
async fn events_are_told_to_whose_they_are_also_when_their_chat_is_gone() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\nroot,admin,3,\"system:masters\"\n").await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    alice.create_chat("hers", json!({})).await;
    bob.create_chat("his", json!({})).await;
    alice.delete("chats/hers").await.expect(200);
    all_readable(&db).await;
    let kinds = async |caller: &Caller| {
        let list = caller.get(&events()).await.expect(200);
        let told = |event: &Value| format!("{} {}", event["type"].as_str().unwrap(), event["chat"]["name"].as_str().unwrap());
        list["items"].as_array().unwrap().iter().map(told).collect::<Vec<_>>()
    };
    let hers = kinds(&alice).await;
    assert_eq!(hers.first().map(String::as_str), Some("ChatCreated hers"));
    assert_eq!(hers.last().map(String::as_str), Some("ChatDeleted hers"));
    assert!(hers.iter().all(|told| told.ends_with(" hers")));
    assert!(kinds(&bob).await.iter().all(|told| told.ends_with(" his")));
    let mut watch = Watch::open(&bob, &events(), "").await;
    assert_eq!(watch.next().await.unwrap()["object"]["chat"]["name"], "his");
}

#[tokio::test]
async fn the_story_of_an_object_is_there_as_core_events() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws-1").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let chat = api.create_chat("demo", json!({"agentRef": {"name": "ws-1"}})).await;
    let uid = chat["metadata"]["uid"].as_str().unwrap();
    all_readable(&db).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/events");
    let selector = format!(
        "involvedObject.kind=Chat,involvedObject.name=demo,involvedObject.uid={uid},involvedObject.namespace={NAMESPACE}"
    );
    let list = api.get(&format!("{path}?fieldSelector={}", selector.replace('=', "%3D"))).await.expect(200);
    let reasons: Vec<&str> = list["items"].as_array().unwrap().iter().map(|event| event["reason"].as_str().unwrap()).collect();
    // Where the agent's lane was first, the chats' lane only says that it has seen the generation.
    let (story, after) = reasons.split_at(2);
    assert_eq!(story, ["ChatCreated", "ContextHydrated"], "{list}");
    assert!(after.is_empty() || after == ["ChatUpdated"], "{list}");
    let none = api.get(&format!("{path}?fieldSelector=involvedObject.kind%3DPod")).await.expect(200);
    assert_eq!(none["items"], json!([]));
    let refused = api.get(&format!("{path}?fieldSelector=spec.x%3D1")).await.refused(400, "BadRequest");
    assert!(refused.message.contains("involvedObject.name"));
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(&api, &path, &format!("resourceVersion={version}")).await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    let drifted = watch.until(|event| event["object"]["reason"] == "ContextDrifted").await;
    assert_eq!(drifted["object"]["involvedObject"]["name"], "demo");
}

#[tokio::test]
async fn a_page_of_context_events_is_full_however_much_of_the_log_is_others() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\n").await;
    let alice = api.as_token("a");
    alice.create_chat("first", json!({})).await;
    let others = "INSERT INTO events (namespace, rv, seq, kind, name, payload)
         SELECT 'team-a', r.rv, n, 'AgentUpdated', 'others', '{}' FROM (SELECT log_rv() AS rv) r, generate_series(1, 4500) n";
    sqlx::query(others).execute(&db.pool).await.expect("a long log");
    alice.create_chat("last", json!({})).await;
    all_readable(&db).await;
    let chats = async |path: &str| {
        let page = alice.get(path).await.expect(200);
        assert_eq!(page["metadata"].get("continue"), None, "{path}");
        let names = page["items"].as_array().unwrap().iter().map(|event| event["chat"]["name"].as_str().unwrap().to_owned());
        let mut names: Vec<String> = names.collect();
        names.dedup();
        names
    };
    assert_eq!(chats(&events()).await, ["first", "last"]);
    assert_eq!(chats(&format!("{BASE}/contextevents")).await, ["first", "last"]);
    assert_eq!(chats(&format!("{BASE}/contextevents?chat=last")).await, ["last"]);
    let mut watch = Watch::open(&alice, &events(), "").await;
    assert_eq!(watch.next().await.unwrap()["object"]["chat"]["name"], "first");
    watch.until(|event| event["object"]["chat"]["name"] == "last").await;
}

#[tokio::test]
async fn the_end_of_the_context_events_that_there_were_is_told() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    all_readable(&db).await;
    let mut watch = Watch::open(&api, &events(), INITIAL).await;
    let (told, end) = until_the_end(&mut watch, "type").await;
    assert_eq!(told.first().map(String::as_str), Some("ChatCreated"), "{told:?}");
    assert_eq!((&end["kind"], version(&end) % 2), (&json!("ContextEvent"), 1));
    api.create_chat("two", json!({})).await;
    assert_eq!(watch.next().await.expect("an event")["object"]["chat"]["name"], "two");
    // At least as new as what the client has seen; and from its cursor on, when it has one.
    let seen = api.chat("two").await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = Watch::open(&api, &events(), &format!("{INITIAL}&resourceVersion={seen}")).await;
    let (told, end) = until_the_end(&mut watch, "type").await;
    assert_eq!(told.iter().filter(|kind| *kind == "ChatCreated").count(), 2, "{told:?}");
    assert!(version(&end) > seen.parse().unwrap());
    let all = api.get(&events()).await.expect(200)["items"].clone();
    let all = all.as_array().unwrap();
    let cursor = all[0]["metadata"]["name"].as_str().unwrap();
    let mut watch = Watch::open(&api, &events(), &format!("{INITIAL}&cursor={cursor}")).await;
    assert_eq!(until_the_end(&mut watch, "type").await.0.len(), all.len() - 1);
}

#[tokio::test]
async fn a_watch_of_core_events_begins_with_what_a_list_has() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    api.create_chat("other", json!({})).await;
    all_readable(&db).await;
    let selector = "fieldSelector=involvedObject.name%3Done";
    let list = api.get(&format!("{}?{selector}", core_events())).await.expect(200);
    let items = list["items"].as_array().unwrap();
    let mut watch = Watch::open(&api, &core_events(), selector).await;
    for item in items {
        assert_eq!(watch.next().await.expect("an event")["object"]["metadata"]["name"], item["metadata"]["name"]);
    }
    let mut watch = Watch::open(&api, &core_events(), &format!("{INITIAL}&{selector}")).await;
    let (told, end) = until_the_end(&mut watch, "reason").await;
    assert_eq!((told.len(), &end["kind"], &end["apiVersion"]), (items.len(), &json!("Event"), &json!("v1")));
    api.patch("chats/one", &json!({"spec": {"title": "x"}})).await.expect(200);
    let next = watch.next().await.expect("an event");
    assert_eq!((&next["object"]["reason"], &next["object"]["involvedObject"]["name"]), (&json!("ChatUpdated"), &json!("one")));
    // Whoever has a list's version is told what came after it only.
    let after = format!("{selector}&resourceVersion={}", version(&list));
    assert_eq!(
        Watch::open(&api, &core_events(), &after).await.next().await.expect("an event")["object"]["reason"],
        "ChatUpdated"
    );
}

#[tokio::test]
async fn an_event_source_of_either_kind_resumes_where_it_was_and_forgets_a_place_that_is_too_old() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("one", json!({})).await;
    all_readable(&db).await;
    let accept = ("accept", "text/event-stream");
    for path in [events(), core_events()] {
        let mut watch = Watch::accepting(&api, &path, INITIAL, &[accept]).await;
        let first = watch.up_to(b"\n\n").await.expect("an event");
        let id = first.lines().next().and_then(|line| line.strip_prefix("id: ")).expect("a place").to_owned();
        drop(watch);
        api.patch("chats/one", &json!({"spec": {"title": path}})).await.expect(200);
        all_readable(&db).await;
        // What a browser sends: the same address, and its place.
        let mut watch = Watch::accepting(&api, &path, INITIAL, &[accept, ("last-event-id", &id)]).await;
        loop {
            let next = watch.up_to(b"\n\n").await.expect("an event");
            assert!(!next.contains("ChatCreated") && !next.contains("BOOKMARK"), "{path}: {next}");
            if next.contains("ChatUpdated") {
                break;
            }
        }
        let mut watch = Watch::accepting(&api, &path, "", &[accept, ("last-event-id", "5-1")]).await;
        let error = watch.up_to(b"\n\n").await.expect("an error");
        assert!(error.starts_with("id: \ndata: {") && error.contains("Expired"), "{path}: {error}");
        let nonsense = api.with("accept", "text/event-stream").with("last-event-id", "nonsense");
        let refused = nonsense.get(&format!("{path}?watch=1")).await.refused(400, "BadRequest");
        assert!(refused.message.starts_with("Last-Event-ID"), "{}", refused.message);
    }
}

/// A server with connections for all that a test makes wait.
async fn roomy(db: &TestDb) -> Api {
    Api::run(config::Server { database_connections: 24, ..settings() }, db.options.clone(), None).await
}

async fn held(db: &TestDb, table: &str) -> Transaction<'static, Postgres> {
    let mut open = db.pool.begin().await.expect("a session");
    open.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    open.execute(sqlx::AssertSqlSafe(format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))).await.expect("the table");
    open
}

/// Waits until so many statements that contain `text` wait for a table.
async fn waiting(db: &TestDb, text: &str, wanted: i64) {
    until("statements wait for the table", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock' AND strpos(query, $1) > 0",
        )
        .bind(text)
        .fetch_one(&db.pool)
        .await
        .expect("looking at sessions");
        (waiting >= wanted).then_some(())
    })
    .await;
}

/// What a watch of events reads, and no other: of which chats they are.
const READING: &str = "SELECT c.owner FROM chats c WHERE c.namespace = e.namespace";

/// Something that happened before, more than the tail of the log has at its beginning: who wants all of it has to read.
async fn past(api: &Api, db: &TestDb) {
    api.create_chat("one", json!({})).await;
    api.create_chat("two", json!({})).await;
    all_readable(db).await;
}

/// Watches that hold every turn at reading, for as long as the table of chats is held.
async fn all_turns(api: &Api, db: &TestDb) -> Vec<Watch> {
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(Watch::open(api, &events(), "").await);
    }
    waiting(db, READING, 3).await;
    watches
}

#[tokio::test]
async fn an_agent_that_is_created_while_a_watch_waits_for_its_turn_is_known_to_it() {
    let db = database().await;
    let api = roomy(&db).await;
    past(&api, &db).await;
    let chats = held(&db, "chats").await;
    let turns = all_turns(&api, &db).await;
    let mut watch = Watch::open(&api, &events(), "chat=fix&agent=late").await;
    api.create_agent("late", json!({})).await;
    chats.rollback().await.expect("the table is free");
    drop(turns);
    let run = api.register_run("late").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("other", json!({"agentRef": {"name": "late"}})).await;
    api.create_chat("fix", json!({"agentRef": {"name": "late"}})).await;
    let told = watch.next().await.expect("an event");
    assert_eq!((&told["object"]["type"], &told["object"]["chat"]["name"]), (&json!("ContextHydrated"), &json!("fix")));
}

#[tokio::test]
async fn watches_that_wait_for_their_turn_end_when_their_time_is_over_and_when_the_server_stops() {
    let db = database().await;
    let api = roomy(&db).await;
    past(&api, &db).await;
    let chats = held(&db, "chats").await;
    let _turns = all_turns(&api, &db).await;
    let paths = [events(), core_events(), format!("{BASE}/namespaces/{NAMESPACE}/chats")];
    for path in &paths {
        assert_eq!(Watch::open(&api, path, "timeoutSeconds=1").await.next().await, None, "{path}");
    }
    let mut watches = Vec::new();
    for path in &paths {
        watches.push(Watch::open(&api, path, "").await);
    }
    drop(api);
    for (watch, path) in watches.iter_mut().zip(&paths) {
        assert_eq!(watch.next().await, None, "{path}");
    }
    chats.rollback().await.expect("it was held all the time");
}

#[tokio::test]
async fn a_page_of_events_has_nothing_that_is_newer_than_its_version() {
    let db = database().await;
    let api = roomy(&db).await;
    api.create_chat("one", json!({})).await;
    all_readable(&db).await;
    for (path, name) in [(events(), "later"), (core_events(), "even-later")] {
        let mut log = held(&db, "events").await;
        let page = tokio::spawn({
            let (caller, path) = (api.clone(), path.clone());
            async move { caller.get(&path).await.expect(200) }
        });
        // It knows how far it may read, and not yet what was logged.
        waiting(&db, "SELECT greatest(s.floor", 1).await;
        let event = "INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
             SELECT $1, log_rv(), 1, 'AgentUpdated', id, $2, id, '{}' FROM (SELECT gen_random_uuid() AS id) a";
        sqlx::query(event).bind(NAMESPACE).bind(name).execute(&mut *log).await.expect("an event");
        log.commit().await.expect("it is logged");
        let page = page.await.expect("a page");
        assert!(!page["items"].as_array().unwrap().is_empty());
        let later = |event: &&Value| event.to_string().contains(name);
        assert_eq!(page["items"].as_array().unwrap().iter().find(later), None, "{path}");
        all_readable(&db).await;
        // Whoever watches from there is told of it, once.
        let mut watch = Watch::open(&api, &path, &format!("resourceVersion={}", version(&page))).await;
        assert!(watch.next().await.expect("an event").to_string().contains(name), "{path}");
    }
}

/// After a restart all who had watched may come back to one place long ago, which each would have to read of the database.
#[tokio::test]
async fn what_one_watch_has_read_of_a_namespaces_past_is_told_to_all_who_begin_there_and_to_no_others() {
    let db = database().await;
    let api = roomy(&db).await;
    api.create_chat("first", json!({})).await;
    let long = "INSERT INTO events (namespace, rv, seq, kind, name, payload)
         SELECT n.namespace, r.rv, row_number() OVER (), 'AgentUpdated', n.namespace || '-' || s, '{}'
         FROM (SELECT log_rv() AS rv) r, (VALUES ('team-a', 1200), ('team-b', 1)) n (namespace, number), generate_series(1, n.number) s";
    sqlx::query(long).execute(&db.pool).await.expect("a long log");
    api.create_chat("last", json!({})).await;
    all_readable(&db).await;
    let is_last = |event: &Value| event["object"]["chat"]["name"] == "last";
    let to_the_end = async |watch: &mut Watch, mut told: Vec<Value>| loop {
        told.push(watch.next().await.expect("an event"));
        if told.last().is_some_and(is_last) {
            return told;
        }
    };
    let mut watch = Watch::open(&api, &events(), "").await; // to the end: when nobody watches, nothing is kept
    let first = to_the_end(&mut watch, Vec::new()).await;
    assert!(first.len() > 1_200 && first.iter().all(|event| event["object"]["metadata"]["namespace"] == NAMESPACE));

    let chats = held(&db, "chats").await; // nobody reads events now
    let mut second = Watch::open(&api, &events(), "").await;
    let mut told = Vec::new();
    while told.len() < 1_000 {
        told.push(second.next().await.expect("an event"));
    }
    waiting(&db, READING, 1).await; // where the log came to its end, it reads for itself
    let mut all = Watch::open(&api, &format!("{BASE}/contextevents"), "").await;
    waiting(&db, READING, 2).await; // and so does who wants other events
    chats.rollback().await.expect("the table is free");
    assert_eq!(to_the_end(&mut second, told).await, first);
    assert_eq!(to_the_end(&mut all, Vec::new()).await.len(), first.len() + 1);
}

/// Nothing lies between, so nothing has to be read of the database: after a restart all who had watched come back like this at once.
#[tokio::test]
async fn whoever_comes_back_after_the_newest_event_is_let_in_by_a_tail_that_has_just_begun() {
    let db = database().await;
    Api::start(&db).await.create_chat("demo", json!({})).await;
    all_readable(&db).await;
    let newest = sqlx::query_as("SELECT rv, seq FROM events ORDER BY rv DESC, seq DESC LIMIT 1").fetch_one(&db.pool);
    let (rv, seq) = newest.await.expect("the newest event");
    let (tail, stop) = (Tail::default(), CancellationToken::new());
    let _watching = tail.watch();
    let running = tokio::spawn(tail.clone().run(db.pool.clone(), Wake::default(), clock::system(), stop.clone()));
    until("it is let in", || async { tail.ring().join(Cursor { rv, seq }) }).await;
    stop.cancel();
    running.await.expect("the tail ends");
}
