//! The schema tells what it is, a binary refuses one that is not its own, and the log notices when it has been copied.

use crate::support::{
    postgres::{TestDb, database, empty_database},
    world::World,
};
use moorline::store::{
    self, log,
    schema::{self, SchemaError},
};
use sqlx::Executor as _;

async fn names(db: &TestDb, sql: &'static str) -> Vec<String> {
    sqlx::query_scalar(sql).fetch_all(&db.pool).await.expect("a catalogue")
}

#[tokio::test]
async fn every_table_and_column_says_what_it_is_for() {
    let db = database().await;
    let silent = names(
        &db,
        "SELECT c.relname || coalesce('.' || a.attname, '') FROM pg_class c
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
           AND c.relname <> '_sqlx_migrations'
           AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)",
    )
    .await;
    assert_eq!(silent, Vec::<String>::new());
}

#[tokio::test]
async fn every_constraint_and_index_has_a_name_of_ours_and_the_queues_are_partial() {
    let db = database().await;
    let unnamed = names(
        &db,
        "SELECT conname::text FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
         WHERE c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND c.relname <> '_sqlx_migrations'
           AND (conname !~ ('^' || c.relname || '_') OR conname ~ '_check[0-9]*$')",
    )
    .await;
    assert_eq!(unnamed, Vec::<String>::new());
    let due = names(
        &db,
        "SELECT indexname::text FROM pg_indexes WHERE indexdef LIKE '%WHERE (converged_revision < revision)' ORDER BY 1",
    )
    .await;
    assert_eq!(due, ["agents_due", "chats_due"]);
    let roomy = names(&db, "SELECT relname::text FROM pg_class WHERE 'fillfactor=80' = ANY (reloptions) ORDER BY 1").await;
    assert_eq!(roomy, ["agents", "chats"]);
}

#[tokio::test]
async fn there_are_partitions_for_today_and_a_week_and_events_land_in_todays() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("today").create().await;
    let days: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass")
        .fetch_one(&db.pool)
        .await
        .expect("partitions");
    assert_eq!(days, 8 + 1, "today, seven days, and the default");
    let place: String =
        sqlx::query_scalar("SELECT tableoid::regclass::text FROM events LIMIT 1").fetch_one(&db.pool).await.expect("an event");
    let today: String = sqlx::query_scalar("SELECT 'events_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        .fetch_one(&db.pool)
        .await
        .expect("today");
    assert_eq!(place, today);
    let mut connection = db.pool.acquire().await.expect("a connection");
    assert_eq!(log::default_partition_rows(&mut connection).await.expect("a count"), 0);
    db.pool.execute("UPDATE events SET created_at = now() + interval '30 days'").await.expect("moving it");
    assert_eq!(log::default_partition_rows(&mut connection).await.expect("a count"), 1, "a day without a partition is watched");
}

#[tokio::test]
async fn a_schema_that_is_absent_older_newer_or_damaged_is_refused_and_says_which() {
    let empty = empty_database().await;
    let refused = schema::check(&mut empty.pool.acquire().await.expect("a connection")).await;
    assert!(matches!(refused, Err(SchemaError::Absent { .. })), "{refused:?}");
    let db = database().await;
    let mut connection = db.pool.acquire().await.expect("a connection");
    schema::check(&mut connection).await.expect("ours");
    let needed = schema::needed();
    let saying = async |sql: &'static str| {
        db.pool.execute(sql).await.expect("another history");
        schema::check(&mut db.pool.acquire().await.expect("a connection")).await.expect_err("refused").to_string()
    };
    let newer = saying("INSERT INTO _sqlx_migrations SELECT 9999, 'x', now(), true, '\\x00', 0").await;
    assert!(newer.contains("9999") && newer.contains(&needed.to_string()) && newer.contains("newer moorline"), "{newer}");
    let older = saying(
        "DELETE FROM _sqlx_migrations WHERE version IN (9999, (SELECT max(version) FROM _sqlx_migrations WHERE version < 9999))",
    )
    .await;
    let before = moorline::store::MIGRATOR.iter().map(|migration| migration.version).filter(|version| *version < needed).max();
    assert!(older.contains(&before.expect("one before").to_string()) && older.contains("moorline migrate"), "{older}");
    let damaged = saying("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    assert!(damaged.contains("migration 1"), "{damaged}");
}

#[tokio::test]
async fn a_schema_that_lacks_a_migration_in_the_middle_is_refused_at_the_start_and_by_migrate_and_is_not_patched_up() {
    let db = database().await;
    let last = schema::needed();
    for (left_out, found) in [(3, last), (last - 1, last)] {
        let changed = "DELETE FROM _sqlx_migrations WHERE version = $1";
        sqlx::query(changed).bind(left_out).execute(&db.pool).await.expect("another history");
        let refused = schema::check(&mut db.pool.acquire().await.expect("a connection")).await.expect_err("refused").to_string();
        let lowest = 3;
        assert!(refused.contains(&format!("migration {lowest} was never applied")), "{left_out}: {refused}");
        assert!(refused.contains(&format!("though {found} was")), "{left_out}: {refused}");
    }
    let before = names(&db, "SELECT version::text FROM _sqlx_migrations ORDER BY version").await;
    let migrated = schema::migrate(&db.pool, false).await;
    assert!(matches!(migrated, Err(SchemaError::Gap { version: 3, .. })), "{migrated:?}");
    assert_eq!(names(&db, "SELECT version::text FROM _sqlx_migrations ORDER BY version").await, before);
    // Of a schema that is older besides, the gap is what counts: migrating would not mend it.
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = $1").bind(last).execute(&db.pool).await.expect("another history");
    let refused = schema::check(&mut db.pool.acquire().await.expect("a connection")).await;
    assert!(matches!(refused, Err(SchemaError::Gap { version: 3, .. })), "{refused:?}");
}

#[tokio::test]
async fn a_copy_of_the_database_begins_a_new_epoch_once_and_versions_go_on_rising() {
    let db = database().await; // a TEMPLATE copy, whose support has bumped it already
    let world = World::new(db.pool.clone());
    let mut connection = db.pool.acquire().await.expect("a connection");
    assert_eq!(log::bump(&mut connection, false).await.expect("looking"), None, "bumped before: nothing is to be done");
    db.pool.execute("VACUUM FULL log_state").await.expect("a rewrite");
    assert_eq!(log::bump(&mut connection, false).await.expect("looking"), None, "no false alarm after a rewrite");
    let before = world.chat("before").create().await.chat.meta.rv;
    assert!(log::bump(&mut connection, true).await.expect("forced").is_some(), "a restore that nothing shows");
    assert!(log::floor(&mut connection).await.expect("the floor") > before, "readers from before relist");
    let after = world.chat("after").create().await.chat.meta.rv;
    assert!(after > before && (after >> 44) == (before >> 44) + 1);
}

#[tokio::test]
async fn a_write_on_another_timeline_begins_a_new_epoch_by_itself() {
    let db = database().await;
    // One connection, made before: a new one would look at the log when it connects, and begin the epoch before any write does.
    // A larger pool makes one whenever a statement comes before the last connection is back, as it may be under load.
    let pool = store::pool(db.options.clone(), 1);
    let world = World::new(pool.clone());
    let before = world.chat("before").create().await.chat.meta.rv;
    // As after a promotion: the row says another timeline than the server writes.
    pool.execute("UPDATE log_state SET timeline = 'FFFFFFFF'").await.expect("another timeline");
    let refused = sqlx::query("SELECT log_rv()").execute(&pool).await.expect_err("refused");
    assert_eq!(
        refused.as_database_error().and_then(|error| error.code().map(|code| code.to_string())).as_deref(),
        Some(log::FOREIGN)
    );
    let after = world.chat("after").create().await.chat.meta.rv;
    assert_eq!(after >> 44, (before >> 44) + 1);
}
