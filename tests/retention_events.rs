//! Retention of events: whole days go, the floor first; a reader gets every event or is told `Expired`, never a hole.

use crate::support::{
    api::{Api, BASE, NAMESPACE},
    postgres::{TestDb, database},
    stream::{Watch, all_readable},
    until::until,
    world::{World, file},
};
use jiff::{ToSpan as _, civil::Date, tz::TimeZone};
use moorline::{
    embedded,
    retention::{Removed, Retention},
    store::{
        self,
        events::{Cursor, Read, read_after},
        log,
    },
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_hours(24);

fn retention(pool: &PgPool) -> Retention {
    Retention {
        pool: pool.clone(),
        clock: moorline::clock::system(),
        wake: moorline::wake::Wake::default(),
        interval: Duration::from_mins(10),
        event_age: 7 * DAY,
    }
}

async fn pass(pool: &PgPool) -> Removed {
    retention(pool).pass(&CancellationToken::new()).await.expect("a pass")
}

/// Passes until `wanted` days have gone: the horizon is the whole server's, and other tests hold transactions open on it.
async fn drop_days(pool: &PgPool, wanted: u64) {
    let dropped = std::sync::atomic::AtomicU64::new(0);
    until("the days have gone", || async {
        let days = dropped.fetch_add(pass(pool).await.days, std::sync::atomic::Ordering::SeqCst);
        (days >= wanted).then_some(())
    })
    .await;
    assert_eq!(dropped.into_inner(), wanted);
}

fn day(ago: i64) -> Date {
    moorline::clock::system().now().to_zoned(TimeZone::UTC).date() - ago.days()
}

/// A day's partition, with events of as many transactions.
async fn write_day(pool: &PgPool, ago: i64, events: usize) {
    let (from, to) = (day(ago), day(ago - 1));
    let name = from.strftime("events_%Y%m%d");
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {name} PARTITION OF events FOR VALUES FROM ('{from} 00:00:00+00') TO ('{to} 00:00:00+00')"
    );
    pool.execute(AssertSqlSafe(sql)).await.expect("a partition");
    write(pool, ago, events).await;
}

async fn write(pool: &PgPool, ago: i64, events: usize) {
    for n in 0..events {
        sqlx::query(
            "INSERT INTO events (namespace, rv, seq, kind, name, payload, created_at)
             VALUES ('team-a', log_rv(), 1, 'AgentUpdated', $2, '{}', ($1::text || ' 12:00:00+00')::timestamptz)",
        )
        .bind(day(ago).to_string())
        .bind(format!("{ago} days ago, {n}"))
        .execute(pool)
        .await
        .expect("an event");
    }
}

async fn days(pool: &PgPool) -> Vec<String> {
    let sql = "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'events'::regclass AND c.relname < 'events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD') ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(pool).await.expect("partitions")
}

async fn read(pool: &PgPool, cursor: Cursor) -> Read {
    read_after(&mut pool.acquire().await.expect("a connection"), cursor, 1_000).await.expect("reading")
}

async fn floor(pool: &PgPool) -> i64 {
    log::floor(&mut pool.acquire().await.expect("a connection")).await.expect("the floor")
}

async fn last(pool: &PgPool, ago: i64) -> i64 {
    let sql = "SELECT max(rv) FROM events WHERE (created_at AT TIME ZONE 'UTC')::date = $1::date";
    sqlx::query_scalar(sql).bind(day(ago).to_string()).fetch_one(pool).await.expect("a version")
}

async fn assert_at_home(db: &TestDb) {
    let foreign: bool = sqlx::query_scalar("SELECT log_is_foreign()").fetch_one(&db.pool).await.expect("looking");
    assert!(!foreign, "raising the floor keeps the fingerprint");
}

#[tokio::test]
async fn whole_days_older_than_the_limit_go_and_readers_from_before_are_told() {
    let db = database().await;
    let start = Cursor { rv: floor(&db.pool).await, seq: 0 };
    for ago in [10, 9, 8, 7, 6] {
        write_day(&db.pool, ago, 3).await;
    }
    write(&db.pool, 0, 1).await;
    let (gone, kept) = (last(&db.pool, 8).await, last(&db.pool, 7).await);
    drop_days(&db.pool, 3).await;
    let left = [7, 6].map(|ago| day(ago).strftime("events_%Y%m%d").to_string());
    assert_eq!(days(&db.pool).await, left, "seven days ago is not over for seven days yet");
    assert_eq!(floor(&db.pool).await, gone + 1);
    assert_eq!(read(&db.pool, start).await, Read::Expired);
    assert_eq!(read(&db.pool, Cursor::through(gone - 1)).await, Read::Expired);
    assert_eq!(read(&db.pool, Cursor { rv: gone, seq: 1 }).await, Read::Expired, "not from the middle of what is gone either");
    let events = until("the rest is below the horizon", || async {
        let from_the_floor = read(&db.pool, Cursor::through(gone + 1)).await;
        match read(&db.pool, Cursor::through(gone)).await {
            Read::Batch(batch) if batch.events.len() == 7 => {
                assert_ne!(from_the_floor, Read::Expired, "the floor itself is a place to start from");
                Some(batch.events)
            }
            Read::Batch(_) => None,
            Read::Expired => panic!("who has read all that is gone has missed nothing"),
        }
    })
    .await;
    assert!(events.iter().any(|event| event.cursor.rv == kept));
    let version = log::list_version(&mut db.pool.acquire().await.unwrap()).await.unwrap();
    assert!(version > gone);
    assert_at_home(&db).await;
    assert_eq!(pass(&db.pool).await, Removed::default());
}

#[tokio::test]
async fn whoever_has_read_the_whole_log_is_not_sent_away_when_all_of_it_goes() {
    let db = database().await;
    let api = Api::start(&db).await;
    let (chats, events) =
        (format!("{BASE}/namespaces/{NAMESPACE}/chats"), format!("{BASE}/namespaces/{NAMESPACE}/contextevents"));
    let mut watches = [Watch::open(&api, &chats, "").await, Watch::open(&api, &events, "").await];
    let of = |name: &'static str| move |event: &Value| event["object"].to_string().contains(name);
    for name in ["one", "one-more"] {
        api.create_chat(name, json!({})).await;
        let [chats, events] = &mut watches;
        let converged = |event: &Value| of(name)(event) && event["object"]["status"]["observedGeneration"] == 1;
        chats.until(converged).await; // it follows the tail from here on
        events.until(|event| of(name)(event) && event["object"]["type"] == "ChatUpdated").await;
    }
    // So the tail has read all that there is: what it had not read of the days that go now would rightly end its watches.
    all_readable(&db).await;
    // A quiet time: all of it was nine days ago.
    write_day(&db.pool, 9, 0).await;
    db.pool.execute("UPDATE events SET created_at = created_at - interval '9 days'").await.expect("time passes");
    let list = api.get(&chats).await.expect(200);
    let gone: i64 = sqlx::query_scalar("SELECT max(rv) FROM events").fetch_one(&db.pool).await.expect("a version");
    assert_eq!(list["metadata"]["resourceVersion"], json!((2 * gone + 1).to_string()));
    drop_days(&db.pool, 1).await;
    assert_eq!(floor(&db.pool).await, gone + 1);
    let mut again = Watch::open(&api, &chats, &format!("resourceVersion={}", 2 * gone + 1)).await;
    let within = Watch::open(&api, &chats, &format!("resourceVersion={}", 2 * gone)).await.next().await.expect("an error");
    assert_eq!(within["object"]["reason"], "Expired", "of the last transaction nothing need be there any more");
    api.create_chat("two", json!({})).await;
    for watch in watches.iter_mut().chain([&mut again]) {
        let next = watch.until(|event| !of("one")(event)).await;
        assert!(next["type"] == "ADDED" && of("two")(&next), "{next}");
    }
}

#[tokio::test]
async fn a_crash_between_the_floor_and_the_drop_leaves_the_day_to_the_next_pass() {
    let db = database().await;
    write_day(&db.pool, 9, 2).await;
    let gone = last(&db.pool, 9).await;
    until("the floor is raised", || async {
        let mut connection = db.pool.acquire().await.expect("a connection");
        log::raise_floor(&mut connection, gone).await.expect("asking").then_some(())
    })
    .await;
    // kill -9 here: the day still stands.
    assert_eq!(days(&db.pool).await.len(), 1);
    assert_eq!(read(&db.pool, Cursor::through(gone - 1)).await, Read::Expired, "told before anything is gone");
    assert_eq!(pass(&db.pool).await.days, 1);
    assert_eq!((days(&db.pool).await.len(), floor(&db.pool).await), (0, gone + 1));
    assert_at_home(&db).await;
}

#[tokio::test]
async fn a_day_that_was_written_to_since_the_floor_was_raised_stays() {
    let db = database().await;
    write_day(&db.pool, 9, 2).await;
    let gone = last(&db.pool, 9).await;
    let mut connection = db.pool.acquire().await.expect("a connection");
    until("the floor is raised", || async {
        let mut connection = db.pool.acquire().await.expect("a connection");
        log::raise_floor(&mut connection, gone).await.expect("asking").then_some(())
    })
    .await;
    write(&db.pool, 9, 1).await; // a transaction that began nine days ago
    assert!(!log::drop_day(&mut connection, day(9)).await.expect("asking"));
    assert_eq!(days(&db.pool).await.len(), 1);
    drop_days(&db.pool, 1).await;
}

#[tokio::test]
async fn the_floor_is_not_raised_past_a_transaction_that_is_still_open() {
    let db = database().await;
    write_day(&db.pool, 9, 1).await;
    let mut open = db.pool.begin().await.expect("a session");
    open.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    open.execute("SELECT log_rv()").await.expect("a version");
    write(&db.pool, 9, 1).await;
    let before = floor(&db.pool).await;
    assert_eq!(pass(&db.pool).await, Removed::default());
    assert_eq!((floor(&db.pool).await, days(&db.pool).await.len()), (before, 1));
    open.commit().await.expect("at last");
    drop_days(&db.pool, 1).await;
}

#[tokio::test]
async fn a_reader_in_the_middle_of_the_log_is_not_waited_for_and_not_cut_off() {
    let db = database().await;
    write_day(&db.pool, 9, 2).await;
    let mut reader = db.pool.begin().await.expect("a session");
    reader.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    let count = "SELECT count(*) FROM events";
    let seen: i64 = sqlx::query_scalar(count).fetch_one(&mut *reader).await.expect("reading");
    until("the floor is raised", || async {
        assert_eq!(pass(&db.pool).await.days, 0, "the log is busy: the next pass comes again");
        (floor(&db.pool).await > last(&db.pool, 9).await).then_some(())
    })
    .await;
    let again: i64 = sqlx::query_scalar(count).fetch_one(&mut *reader).await.expect("reading on");
    assert_eq!(again, seen);
    reader.commit().await.expect("done");
    drop_days(&db.pool, 1).await;
}

#[tokio::test]
async fn readers_that_race_retention_get_everything_or_expired_and_never_a_hole() {
    let db = database().await;
    let start = Cursor { rv: floor(&db.pool).await, seq: 0 };
    let mut wanted = Vec::new();
    for ago in (8..14).rev() {
        write_day(&db.pool, ago, 20).await;
        wanted.extend((0..20).map(|n| format!("{ago} days ago, {n}")));
    }
    until("all of it is below the horizon", || async {
        match read(&db.pool, start).await {
            Read::Batch(batch) => (batch.events.len() == wanted.len()).then_some(()),
            Read::Expired => panic!("nothing has gone yet"),
        }
    })
    .await;
    let done = CancellationToken::new();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (pool, done, wanted) = (db.pool.clone(), done.clone(), wanted.clone());
            tokio::spawn(async move {
                let (mut whole, mut expired) = (0, 0);
                while !done.is_cancelled() || whole + expired == 0 {
                    let (mut cursor, mut seen) = (start, Vec::new());
                    loop {
                        let mut connection = pool.acquire().await.expect("a connection");
                        match read_after(&mut connection, cursor, 7).await.expect("reading") {
                            Read::Expired => {
                                expired += 1;
                                break;
                            }
                            Read::Batch(batch) => match batch.events.last() {
                                None => {
                                    assert_eq!(seen, wanted, "read to the end without being told Expired");
                                    whole += 1;
                                    break;
                                }
                                Some(last) => {
                                    cursor = last.cursor;
                                    seen.extend(batch.events.into_iter().map(|event| event.name));
                                }
                            },
                        }
                    }
                }
                (whole, expired)
            })
        })
        .collect();
    drop_days(&db.pool, 6).await;
    done.cancel();
    for reader in readers {
        let (_, _) = reader.await.expect("a reader without a hole");
    }
    assert_eq!(read(&db.pool, start).await, Read::Expired);
}

#[tokio::test]
async fn events_without_a_days_partition_go_in_batches() {
    let db = database().await;
    sqlx::query(
        "INSERT INTO events (namespace, rv, seq, kind, name, payload, created_at)
         SELECT 'team-' || n % 2, log_rv(), n, 'AgentUpdated', 'stray', '{}', now() - interval '20 days' FROM generate_series(1, 4200) n",
    )
    .execute(&db.pool)
    .await
    .expect("strays");
    write(&db.pool, 3, 1).await; // a stray too, and not old
    let removed = std::sync::atomic::AtomicU64::new(0);
    until("the strays have gone", || async {
        let before = removed.fetch_add(pass(&db.pool).await.strays, std::sync::atomic::Ordering::SeqCst);
        (before == 4_200).then_some(())
    })
    .await;
    let left: Vec<String> =
        sqlx::query_scalar("SELECT name FROM events_default").fetch_all(&db.pool).await.expect("what is left");
    assert_eq!(left, ["3 days ago, 0"]);
    let mut connection = db.pool.acquire().await.expect("a connection");
    write(&db.pool, 20, 1_001).await;
    until("the floor is raised", || async {
        let mut connection = db.pool.acquire().await.expect("a connection");
        log::raise_floor(&mut connection, last(&db.pool, 20).await).await.expect("asking").then_some(())
    })
    .await;
    let cutoff = moorline::clock::system().now();
    let batch = store::retention::delete_strays(&mut connection, "team-a", cutoff).await.expect("a batch");
    assert_eq!(batch, 1_000, "a transaction takes at most a thousand");
    assert_at_home(&db).await;
}

#[tokio::test]
async fn a_pass_that_finds_nothing_writes_nothing() {
    // A server of its own: transaction ids are the whole server's.
    let place = tempfile::Builder::new().prefix("moorline-retention-").tempdir().expect("a place");
    let settings = [("fsync", "off"), ("autovacuum", "off")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = embedded::Options { data_dir: place.path().join("idle"), pg_bin: None, ephemeral: true, settings };
    let server = embedded::start(options).await.expect("a server");
    server.ensure_database("idle").await.expect("a database");
    let pool = store::pool(server.connect_options("idle"), 4);
    store::schema::migrate(&pool, false).await.expect("a schema");
    let world = World::new(pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    world.update_agent("ws-1", |spec, _| spec.revision_history_limit = 1).await;
    // More snapshots than the limit, and every one of them is somebody's pin, or the latest, or the one that may stay.
    for n in 0..5 {
        agent.push(vec![file("AGENTS.md", &format!("text {n}"))]).await;
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
        world.settle().await;
    }
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let before: String = sqlx::query_scalar(next).fetch_one(&pool).await.expect("the next transaction id");
    let wal = world.footprint().await;
    for _ in 0..5 {
        assert_eq!(pass(&pool).await, Removed::default());
    }
    let after: String = sqlx::query_scalar(next).fetch_one(&pool).await.expect("the next transaction id");
    assert_eq!(before, after, "no transaction took an id: nothing was written or locked");
    let (rows, again) = world.footprint().await;
    assert_eq!(rows, wal.0);
    assert!(again - wal.1 < 4_096, "looking cost {} bytes of log", again - wal.1);
    // The idle case: the floor goes just above the last event, where there is no transaction yet.
    write_day(&pool, 30, 1).await;
    assert_eq!(pass(&pool).await.days, 1);
    pool.close().await;
    server.stop().await.expect("stopping it");
}
