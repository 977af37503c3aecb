//! The log is read up to a horizon: what commits late is never skipped, and every event comes exactly once.

use crate::support::{postgres::database, world::World};
use moorline::{
    model::{access::Reach, event::EventKind},
    store::{
        self,
        events::{Batch, Cursor, Filter, NewEvent, Read, read_after, read_kinds_after, read_some_after},
        log::{self, TxLog},
    },
};
use sqlx::{Executor as _, PgPool};

/// Events of others, more than are looked at in one go.
const LONG_LOG: &str = "INSERT INTO events (namespace, rv, seq, kind, name, payload)
    SELECT 'team-a', r.rv, n, 'AgentUpdated', 'others', '{}' FROM (SELECT log_rv() AS rv) r, generate_series(1, 4500) n";

async fn read(pool: &PgPool, cursor: &mut Cursor) -> Vec<String> {
    let mut connection = pool.acquire().await.expect("a connection");
    let Read::Batch(Batch { events, .. }) = read_after(&mut connection, *cursor, 100).await.expect("reading") else {
        panic!("expired")
    };
    if let Some(last) = events.last() {
        *cursor = last.cursor;
    }
    events.into_iter().map(|event| event.name).collect()
}

#[tokio::test]
async fn an_event_that_commits_late_is_read_before_those_that_overtook_it_and_once() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut cursor =
        Cursor::through(log::list_version(&mut db.pool.acquire().await.expect("a connection")).await.expect("a version"));
    // This one takes its version first and commits last.
    let mut late = db.pool.begin().await.expect("a session");
    late.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    let mut tx_log = TxLog::open(&mut late).await.expect("a version");
    let event = NewEvent {
        namespace: "team-a",
        kind: EventKind::AgentUpdated,
        subject: None,
        name: "late",
        chat: None,
        agent: None,
        payload: serde_json::json!({}),
    };
    store::events::append(&mut late, &mut tx_log, event).await.expect("an event");
    world.chat("early").create().await;
    assert_eq!(read(&db.pool, &mut cursor).await, Vec::<String>::new(), "nothing beyond the oldest transaction still open");
    late.commit().await.expect("at last");
    // The horizon is the whole server's, and other tests hold transactions open on it: the rest may come in two pieces.
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(read(&db.pool, &mut cursor).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, ["late", "early"], "in the order of their versions");
    assert_eq!(read(&db.pool, &mut cursor).await, Vec::<String>::new(), "once");
}

#[tokio::test]
async fn a_cursor_from_before_a_new_epoch_is_told_so() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("old").create().await;
    let mut connection = db.pool.acquire().await.expect("a connection");
    let cursor = Cursor::through(log::list_version(&mut connection).await.expect("a version"));
    log::bump(&mut connection, true).await.expect("a new epoch");
    assert_eq!(read_after(&mut connection, cursor, 100).await.expect("reading"), Read::Expired);
}

#[tokio::test]
async fn whoever_begins_in_the_middle_of_what_is_not_readable_yet_misses_nothing_of_it() {
    let db = database().await;
    let mut open = db.pool.begin().await.expect("a session");
    open.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    let rv = TxLog::open(&mut open).await.expect("a version").rv;
    let began = Cursor { rv, seq: 0 };
    let mut connection = db.pool.acquire().await.expect("a connection");
    let Read::Batch(batch) = read_after(&mut connection, began, 100).await.expect("reading") else { panic!("expired") };
    assert!(batch.exhausted && batch.events.is_empty());
    assert_eq!(batch.end(began), began, "its transaction is still open, or above one that is");
}

#[tokio::test]
async fn whoever_may_see_little_of_a_long_log_reads_it_by_the_window() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut connection = db.pool.acquire().await.expect("a connection");
    let start = Cursor::through(log::list_version(&mut connection).await.expect("a version"));
    world.chat("first").create().await;
    db.pool.execute(LONG_LOG).await.expect("a long log");
    world.chat("last").create().await;
    let reach = Reach::Own(world.look("last").await.chat.spec.owner);
    for filter in [Filter::default(), Filter { namespace: Some("team-a"), ..Filter::default() }] {
        let (mut cursor, mut names, mut empty) = (start, Vec::new(), 0);
        while names.len() < 2 {
            match read_some_after(&mut connection, cursor, &filter, &reach, 100).await.expect("reading") {
                Read::Batch(batch) => {
                    empty += usize::from(batch.events.is_empty() && !batch.exhausted);
                    cursor = batch.end(cursor);
                    names.extend(batch.events.into_iter().map(|event| event.name));
                }
                Read::Expired => panic!("expired"),
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(names, ["first", "last"]);
        assert!(empty >= 1, "the middle of the log is nobody's, and was a step of its own");
    }
}

#[tokio::test]
async fn whoever_reads_history_of_one_kind_passes_over_the_others_by_the_window() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut connection = db.pool.acquire().await.expect("a connection");
    let start = Cursor::through(log::list_version(&mut connection).await.expect("a version"));
    world.chat("first").create().await;
    db.pool.execute(LONG_LOG).await.expect("a long log");
    world.chat("last").create().await;
    for namespace in [None, Some("team-a")] {
        let (mut cursor, mut names) = (start, Vec::new());
        while names.len() < 2 {
            let read = read_kinds_after(&mut connection, cursor, &[EventKind::ChatCreated], namespace, 100).await;
            let Read::Batch(batch) = read.expect("reading") else { panic!("expired") };
            cursor = batch.end(cursor);
            names.extend(batch.events.into_iter().map(|event| event.name));
            tokio::task::yield_now().await;
        }
        assert_eq!(names, ["first", "last"]);
    }
    let elsewhere = read_kinds_after(&mut connection, start, &[EventKind::ChatCreated], Some("team-b"), 100).await;
    let Read::Batch(batch) = elsewhere.expect("reading") else { panic!("expired") };
    assert!(batch.events.is_empty() && batch.exhausted);
}
