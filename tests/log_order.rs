//! The log is read up to a horizon: what commits late is never skipped, and every event comes exactly once.

use crate::support::{
    postgres::{TestDb, database},
    until::until,
    world::World,
};
use moorline::{
    model::{access::Reach, event::EventKind},
    store::{
        self,
        events::{Batch, Cursor, Filter, NewEvent, Read, read_after, read_kinds_after, read_some_after},
        log::{self, TxLog},
    },
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction};
use tokio::task::JoinHandle;

/// Events of others, more than are looked at in one go.
const LONG_LOG: &str = "INSERT INTO events (namespace, rv, seq, kind, name, payload)
    SELECT 'team-a', r.rv, n, 'AgentUpdated', 'others', '{}' FROM (SELECT log_rv() AS rv) r, generate_series(1, 4500) n";

/// After everything that there is.
async fn end_of_log(db: &TestDb) -> Cursor {
    let mut connection = db.pool.acquire().await.expect("a connection");
    Cursor::through(log::list_version(&mut connection).await.expect("a version"))
}

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
    let mut cursor = end_of_log(&db).await;
    // This one takes its version first and commits last.
    let mut late = open(&db).await;
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
    let cursor = end_of_log(&db).await;
    log::bump(&mut connection, true).await.expect("a new epoch");
    assert_eq!(read_after(&mut connection, cursor, 100).await.expect("reading"), Read::Expired);
}

#[tokio::test]
async fn whoever_begins_in_the_middle_of_what_is_not_readable_yet_misses_nothing_of_it() {
    let db = database().await;
    let mut open = open(&db).await;
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
    let start = end_of_log(&db).await;
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
    let start = end_of_log(&db).await;
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

/// Reads on a connection of its own, and waits until that stands before a lock that somebody holds.
async fn held_back(db: &TestDb, cursor: Cursor) -> JoinHandle<Read> {
    let mut connection = db.pool.acquire().await.expect("a connection");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.expect("a session");
    let reading = tokio::spawn(async move { read_after(&mut connection, cursor, 100).await.expect("reading") });
    until("the reader stands before the lock", || async {
        let waits = sqlx::query_scalar::<_, Option<bool>>("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1")
            .bind(pid);
        waits.fetch_one(&db.pool).await.expect("a look").unwrap_or(false).then_some(())
    })
    .await;
    reading
}

async fn open(db: &TestDb) -> Transaction<'static, Postgres> {
    let mut open = db.pool.begin().await.expect("a session");
    open.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    open
}

/// It stands before `log_state`: before its horizon; or before `events`: between its horizon and its rows.
#[tokio::test]
async fn what_commits_while_a_reader_waits_between_its_statements_is_not_passed_over() {
    for table in ["log_state", "events"] {
        let db = database().await;
        let world = World::new(db.pool.clone());
        let mut cursor = end_of_log(&db).await;
        // It takes its version first and commits last; and not by `log_rv()`, which would keep `log_state` from being locked.
        let mut late = open(&db).await;
        let written = sqlx::query_scalar::<_, i64>(
            "INSERT INTO events (namespace, rv, seq, kind, name, payload)
             VALUES ('team-a', $1 | pg_current_xact_id()::text::bigint, 1, 'AgentUpdated', 'late', '{}') RETURNING rv",
        );
        let late_rv = written.bind(cursor.rv >> 44 << 44).fetch_one(&mut *late).await.expect("an event");
        world.chat("early").create().await;
        let early_rv = world.look("early").await.chat.meta.rv;
        let mut lock = open(&db).await;
        let holder = if table == "events" { &mut late } else { &mut lock }; // who has written to it has a part of the lock
        holder.execute(AssertSqlSafe(format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))).await.expect("a lock");
        let reading = held_back(&db, cursor).await;
        late.commit().await.expect("at last");
        lock.rollback().await.expect("it is let go");
        let Read::Batch(batch) = reading.await.expect("no panic") else { panic!("expired") };
        let mut names: Vec<_> = batch.events.iter().map(|event| event.name.clone()).collect();
        let complete = [("late", late_rv), ("early", early_rv)].into_iter().filter(|(_, rv)| *rv < batch.horizon);
        assert_eq!(names, complete.map(|(name, _)| name).collect::<Vec<_>>(), "{table}: all that is below the horizon");
        assert!(table != "events" || batch.horizon <= late_rv, "the horizon is of before the rows");
        cursor = batch.end(cursor);
        while names.len() < 2 {
            names.extend(read(&db.pool, &mut cursor).await);
            tokio::task::yield_now().await;
        }
        assert_eq!(names, ["late", "early"], "{table}: each once, and in order");
    }
}

#[tokio::test]
async fn a_reader_whose_rows_go_while_it_reads_is_told_so() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut connection = db.pool.acquire().await.expect("a connection");
    let cursor = end_of_log(&db).await;
    world.chat("gone").create().await;
    let later = log::bounds(&mut connection).await.expect("bounds").newest;
    let mut retention = open(&db).await;
    retention.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let reading = held_back(&db, cursor).await;
    let raised = "UPDATE log_state SET floor = $1, stamp = pg_current_xact_id()::text::bigint & 4294967295";
    sqlx::query(raised).bind(later).execute(&mut *retention).await.expect("the floor is raised");
    retention.execute("TRUNCATE events").await.expect("the rows go");
    retention.commit().await.expect("both at once");
    assert_eq!(reading.await.expect("no panic"), Read::Expired);
}

#[tokio::test]
async fn what_is_large_is_read_in_parts_however_small_it_lies() {
    // As small as it is where it lies, apart from its row or within it.
    for (bytes, parts) in [(3 << 20, vec![2, 2, 1]), (60_000, vec![70, 30])] {
        let db = database().await;
        let mut connection = db.pool.acquire().await.expect("a connection");
        let mut cursor = end_of_log(&db).await;
        let events: usize = parts.iter().sum();
        let large = "INSERT INTO events (namespace, rv, seq, kind, name, payload)
             SELECT 'team-a', r.rv, n, 'AgentUpdated', 'large', jsonb_build_object('text', repeat('x', $1))
             FROM (SELECT log_rv() AS rv) r, generate_series(1, $2) n";
        let large = sqlx::query(large).bind(bytes).bind(i32::try_from(events).expect("few"));
        large.execute(&db.pool).await.expect("large events");
        let mut found = Vec::new();
        while found.iter().sum::<usize>() < events {
            let Read::Batch(batch) = read_after(&mut connection, cursor, 500).await.expect("reading") else { panic!("expired") };
            cursor = batch.end(cursor);
            found.extend(Some(batch.events.len()).filter(|events| *events > 0));
            tokio::task::yield_now().await;
        }
        assert_eq!(found, parts, "4 MiB are enough at once");
    }
}

#[tokio::test]
async fn sessions_are_read_committed_whatever_the_role_or_the_database_says() {
    let db = database().await;
    let isolation = async |connection: &mut PgConnection| {
        sqlx::query_scalar::<_, String>("SHOW transaction_isolation").fetch_one(connection).await.expect("an answer")
    };
    let mut connection = PgConnection::connect_with(&db.options).await.expect("a session");
    let other = "DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = ''repeatable read''', current_database());
    END $$";
    connection.execute(other).await.expect("a default");
    let mut others = PgConnection::connect_with(&db.options).await.expect("a session");
    assert_eq!(isolation(&mut others).await, "repeatable read");
    let pool = store::pool(db.options.clone(), 1);
    let mut ours = store::acquire(&pool).await.expect("a session");
    assert_eq!(isolation(&mut ours).await, "read committed");
}
