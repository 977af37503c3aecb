//! Replicas come and go under load: what was acknowledged is there, watches end cleanly and go on elsewhere, and one version
//! takes over from the other on one database.

use crate::support::{
    api::{Caller, Run, file, settled},
    moorline::{Shell, ended},
    postgres::{TestDb, database, empty_database},
    serve::Replica,
    stream::{Watch, all_readable},
    until::until,
};
use moorline::store::{self, schema};
use serde_json::{Value, json};
use sqlx::Executor as _;
use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// What a load has been told is done.
#[derive(Debug, Default)]
struct Acknowledged {
    chats: BTreeSet<String>,
    /// The last push that was taken.
    seq: i64,
    /// Whether anything was refused or lost meanwhile.
    failed: usize,
}

/// Sends a request that may find nobody.
async fn status(request: reqwest::RequestBuilder) -> Option<u16> {
    let answer = request.timeout(Duration::from_secs(25)).send().await.ok()?;
    let status = answer.status().as_u16();
    // An answer is one when it is whole.
    answer.bytes().await.ok()?;
    Some(status)
}

/// Creates chats and pushes until it is told to stop.
fn load(who: &str, api: &Caller, run: Run, done: &Arc<AtomicBool>) -> JoinHandle<Acknowledged> {
    let (who, api, done) = (who.to_owned(), api.clone(), done.clone());
    tokio::spawn(async move {
        let mut known = Acknowledged::default();
        for n in 1.. {
            if done.load(Ordering::Acquire) {
                break;
            }
            let name = format!("{who}-{n}");
            let chat = json!({"metadata": {"name": name}, "spec": {"agentRef": {"name": run.agent}}});
            match status(api.request(reqwest::Method::POST, "chats").json(&chat)).await {
                Some(201) => drop(known.chats.insert(name)),
                _ => known.failed += 1,
            }
            let report = run.report(n, json!([file("AGENTS.md", &format!("{who} {n}"))]));
            match status(api.request(reqwest::Method::PUT, &format!("agents/{}/snapshot", run.agent)).json(&report)).await {
                Some(200) => known.seq = n,
                _ => known.failed += 1,
            }
        }
        known
    })
}

/// The names of all chats there are.
async fn chats(db: &TestDb) -> BTreeSet<String> {
    let names: Vec<String> = sqlx::query_scalar("SELECT name FROM chats").fetch_all(&db.pool).await.unwrap();
    names.into_iter().collect()
}

/// How far an agent has come.
async fn seq(db: &TestDb, agent: &str) -> i64 {
    sqlx::query_scalar("SELECT seq FROM agents WHERE name = $1").bind(agent).fetch_one(&db.pool).await.unwrap()
}

/// Notes what is new. An object is told as a level: whether it is ADDED or MODIFIED, and how often, is not asked here.
fn note(event: &Value, seen: &mut BTreeSet<String>) {
    assert!(["ADDED", "MODIFIED"].contains(&event["type"].as_str().unwrap()), "{event}");
    seen.insert(event["object"]["metadata"]["name"].as_str().unwrap().to_owned());
}

async fn at_least(db: &TestDb, wanted: usize) {
    until("the load is under way", || async { (chats(db).await.len() >= wanted).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_told_to_stop_under_load_loses_nothing_and_is_gone_in_time() {
    let db = database().await;
    let (leaving, staying) = (Replica::start(&db, &[]).await, Replica::start(&db, &[]).await);
    let (api, other) = (Caller::new(&leaving.url), Caller::new(&staying.url));
    let (run, others) = (api.running_agent("ws").await, other.running_agent("other").await);
    // From a list on, as informers do: an event of what a watch begins with is no place to go on from.
    all_readable(&db).await;
    let list = api.get("chats").await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut watch = Watch::open(&api, "chats", &format!("resourceVersion={list}")).await;
    let done = Arc::new(AtomicBool::new(false));
    let loading = load("one", &api, run, &done);
    let staying_load = load("two", &other, others, &done);
    at_least(&db, 20).await;
    // Somebody waits for what does not come: it is answered, not cut off.
    let nobody = json!({"metadata": {"name": "waits"}, "spec": {"agentRef": {"name": "nobody"}, "suspend": true}});
    let waiting = tokio::spawn({
        let api = api.with("prefer", "wait=30");
        async move { status(api.request(reqwest::Method::POST, "chats").json(&nobody)).await }
    });
    until("it is there", || async { chats(&db).await.contains("waits").then_some(()) }).await;
    let began = Instant::now();
    assert_eq!(leaving.terminate().await, Some(0));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(waiting.await.unwrap(), Some(201));

    // The stream of the watch has ended as streams do, and what it said holds: whoever goes on from there at the other sees
    // the rest.
    let (mut seen, mut version) = (BTreeSet::new(), list);
    while let Some(event) = watch.next().await {
        version = event["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
        note(&event, &mut seen);
    }
    done.store(true, Ordering::Release);
    let (one, two) = (loading.await.unwrap(), staying_load.await.unwrap());
    assert_eq!(two.failed, 0, "the other replica was not to notice");
    settled(&db).await;
    let there = chats(&db).await;
    let mut watch = Watch::open(&other, "chats", &format!("resourceVersion={version}")).await;
    while seen.len() < there.len() {
        note(&watch.next().await.expect("an event"), &mut seen);
    }
    assert_eq!(seen, there);
    for known in [&one, &two] {
        assert!(known.chats.is_subset(&there), "lost: {:?}", known.chats.difference(&there).collect::<Vec<_>>());
    }
    assert!(seq(&db, "ws").await >= one.seq && one.seq > 0);
    assert_eq!(seq(&db, "other").await, two.seq);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_a_delay_goes_on_serving_and_says_that_it_is_not_ready() {
    let db = database().await;
    let replica = Replica::start(&db, &["--shutdown-delay", "3s"]).await;
    let api = Caller::new(&replica.url);
    let began = Instant::now();
    let ending = tokio::spawn(replica.terminate());
    until("it is not ready", || async { (api.get("/readyz").await.status == 503).then_some(()) }).await;
    assert!(api.get("/readyz").await.text.contains("stopping"));
    assert_eq!(api.get("/livez").await.status, 200);
    api.create_chat("late", json!({})).await;
    assert_eq!(ending.await.unwrap(), Some(0));
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
}

/// What the migration of a next version does, which code of this one does not know of.
async fn migrate_on(db: &TestDb) {
    for statement in [
        "ALTER TABLE chats ADD COLUMN of_the_next_version text",
        "ALTER TABLE agents ADD COLUMN of_the_next_version bigint NOT NULL DEFAULT 7",
        "CREATE INDEX chats_of_the_next_version ON chats (namespace, of_the_next_version)",
        "INSERT INTO _sqlx_migrations SELECT max(version) + 1, 'of the next version', now(), true, '\\x00', 0 FROM _sqlx_migrations",
    ] {
        db.pool.execute(statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_runs_goes_on_when_the_schema_moves_on_and_one_that_starts_is_refused() {
    let db = database().await;
    let replica = Replica::start(&db, &[]).await;
    let api = Caller::new(&replica.url);
    let run = api.running_agent("ws").await;
    let done = Arc::new(AtomicBool::new(false));
    let loading = load("one", &api, run, &done);
    at_least(&db, 10).await;
    migrate_on(&db).await;
    let so_far = chats(&db).await.len();
    at_least(&db, so_far + 10).await;
    done.store(true, Ordering::Release);
    assert_eq!(loading.await.unwrap().failed, 0);
    // And when all of its sessions are new ones.
    let others = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    db.pool.close().await;
    let db = TestDb { pool: store::pool(db.options.clone(), 4), ..db };
    sqlx::query(others).execute(&db.pool).await.unwrap();
    until("it is ready", || async { (api.get("/readyz").await.status == 200).then_some(()) }).await;
    until("it takes chats", || async {
        let chat = json!({"metadata": {"name": "after"}, "spec": {"agentRef": {"name": "ws"}}});
        (api.post("chats", &chat).await.status == 201).then_some(())
    })
    .await;
    settled(&db).await;

    let found = (schema::needed() + 1).to_string();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["migrate"]] {
        let refused = Shell::bare().run(&[command, &["--database-url", &db.url]].concat()).await;
        assert_eq!(refused.code, Some(1), "{}", refused.err);
        assert!(refused.err.contains(&found) && refused.err.contains("run a newer moorline"), "{}", refused.err);
    }
    assert_eq!(replica.terminate().await, Some(0));
}

/// A binary of the version before, as `scripts/ensure-previous` makes one.
fn previous() -> Option<PathBuf> {
    let named = std::env::var_os("MOORLINE_TEST_PREVIOUS").filter(|named| !named.is_empty());
    if named.is_none() {
        // Past the harness, which would keep it to itself: a test that is not run does not look like one that passed.
        let said = "NOT RUN: the upgrade from the version before. MOORLINE_TEST_PREVIOUS names no binary of it (scripts/ensure-previous builds one)\n";
        io::stderr().write_all(said.as_bytes()).expect("the standard error is open");
    }
    named.map(PathBuf::from)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_version_before_and_this_one_work_on_one_database_while_one_takes_over() {
    let Some(previous) = previous() else { return };
    let db = empty_database().await;
    let shell = Shell::bare();
    let mut command = shell.program(&previous);
    let migrated = ended(command.args(["migrate", "--database-url", &db.url]).spawn().unwrap()).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    let before = Replica::of(&previous, &["--database-url", &db.url], Stdio::null()).await;
    let (old, done) = (Caller::new(&before.url), Arc::new(AtomicBool::new(false)));
    let run = old.running_agent("ws").await;
    let loading = load("one", &old, run, &done);
    at_least(&db, 10).await;
    let mut watch = Watch::open(&old, "chats", "").await;

    // Not before the schema is this one's.
    let early = shell.run(&["serve", "--listen", "127.0.0.1:0", "--database-url", &db.url]).await;
    assert!(early.code == Some(1) && early.err.contains("moorline migrate"), "{}", early.err);
    let migrated = shell.run(&["migrate", "--database-url", &db.url]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    let after = Replica::start(&db, &[]).await;
    let new = Caller::new(&after.url);
    let others = new.running_agent("other").await;
    let new_load = load("two", &new, others, &done);
    let so_far = chats(&db).await.len();
    at_least(&db, so_far + 40).await;
    // What one wrote the other tells.
    watch.until(|event| event["object"]["metadata"]["name"].as_str().unwrap().starts_with("two-")).await;
    done.store(true, Ordering::Release);
    let (one, two) = (loading.await.unwrap(), new_load.await.unwrap());
    assert_eq!((one.failed, two.failed), (0, 0));
    assert_eq!(before.terminate().await, Some(0));
    settled(&db).await;
    let there = chats(&db).await;
    assert!(one.chats.is_subset(&there) && two.chats.is_subset(&there));
    assert_eq!((seq(&db, "ws").await, seq(&db, "other").await), (one.seq, two.seq));
    let unmoored = "SELECT count(*) FROM chats WHERE snapshot_id IS NULL OR attempts > 0";
    let unmoored: i64 = sqlx::query_scalar(unmoored).fetch_one(&db.pool).await.unwrap();
    assert_eq!(unmoored, 0, "all are moored, whichever of both has seen to it");
}
