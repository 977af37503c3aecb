//! In a database of many chats each statement is planned once, for any values: a small namespace among large ones, and one that the
//! statistics do not know, cost what every other costs.

use crate::support::{
    postgres::{TestDb, database},
    world::{World, file},
};
use moorline::{store, writes::chats::Propagation};
use sqlx::{AssertSqlSafe, Executor as _, PgPool, SqlSafeStr};

/// As many chats of one namespace, converged, as an expression says. Of fifty agents that are not there.
fn chats(namespace: &str, count: i64) -> impl SqlSafeStr {
    AssertSqlSafe(format!(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, converged_revision)
         SELECT {namespace}, x.id, 'chat-' || x.n, log_rv(), 'o', 'agent-' || x.n % 50, x.id, 'x', now(), now(), 1
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, {count}) n) x"
    ))
}

/// A database of 20,000 chats, of whom the statistics know and will know of no others.
async fn many() -> TestDb {
    let db = database().await;
    db.pool.execute("ALTER TABLE chats SET (autovacuum_enabled = off)").await.unwrap();
    db.pool.execute("ALTER TABLE agents SET (autovacuum_enabled = off)").await.unwrap();
    db.pool.execute(chats("'other-' || n % 10", 20_000)).await.unwrap();
    db.pool.execute("ANALYZE chats").await.unwrap();
    db
}

/// The statements that the connection of this pool, which has one, has planned for their values, and how often.
async fn planned_for_values(pool: &PgPool) -> Vec<(String, i64)> {
    let sql = "SELECT statement, custom_plans FROM pg_prepared_statements WHERE custom_plans > 0
               AND statement NOT LIKE '%plan_cache_mode%'"; // but for that which sets it
    sqlx::query_as(sql).persistent(false).fetch_all(pool).await.unwrap()
}

#[tokio::test]
async fn no_statement_of_the_loop_or_of_a_write_is_planned_for_its_values() {
    let db = many().await;
    let world = World::new(store::pool(db.options.clone(), 1));
    let mut agent = world.agent("builder").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("bound").of_agent("builder").create().await;
    world.chat("follows").of_agent("builder").follows_drift().create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    assert!(world.look("bound").await.chat.dirty_since.is_some());
    world.update_chat("bound", |spec, _| spec.archived = true).await.unwrap();
    world.delete_chat("follows", Propagation::Background).await.unwrap();
    world.delete_agent("builder").await;
    world.settle().await;
    let run: i64 = sqlx::query_scalar("SELECT sum(generic_plans)::bigint FROM pg_prepared_statements")
        .persistent(false)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert!(run > 50, "{run} statements were run");
    assert_eq!(planned_for_values(&world.pool).await, []);
}

/// How many rows of chats have been read so far.
async fn rows_read(pool: &PgPool) -> i64 {
    pool.execute("SELECT pg_stat_force_next_flush()").await.unwrap();
    let sql = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 'chats'";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Of a namespace that is new since the statistics were made PostgreSQL thinks that it has one chat, or none.
#[tokio::test]
async fn a_chat_of_a_namespace_that_statistics_do_not_know_is_read_changed_and_deleted_without_the_others() {
    const CHATS: i64 = 2_000;
    let db = many().await;
    let world = World::new(store::pool(db.options.clone(), 1));
    let mut agent = world.agent("builder").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.settle().await;
    db.pool.execute(chats(&format!("'{}'", world.namespace), CHATS)).await.unwrap();

    let begin = rows_read(&world.pool).await;
    world.chat("child").child_of("chat-7").create().await;
    world.settle().await;
    world.look("chat-7").await;
    world.update_chat("chat-7", |spec, _| spec.archived = true).await.unwrap();
    world.update_chat("chat-7", |spec, _| spec.archived = false).await.unwrap();
    world.settle().await;
    world.delete_chat("chat-7", Propagation::Background).await.unwrap();
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    let read = rows_read(&world.pool).await - begin;
    assert!(read > 10 && read < 200, "{read} rows of {CHATS}");
    assert!(world.find("chat-7").await.is_none() && world.find("child").await.is_none());
}

async fn mode(db: &TestDb) -> String {
    let pool = store::pool(db.options.clone(), 1);
    sqlx::query_scalar("SHOW plan_cache_mode").fetch_one(&pool).await.unwrap()
}

#[tokio::test]
async fn how_an_operator_has_statements_planned_stands() {
    let db = many().await;
    assert_eq!(mode(&db).await, "force_generic_plan");
    for theirs in ["auto", "force_custom_plan"] {
        let set = format!("ALTER DATABASE {} SET plan_cache_mode = {theirs}", db.name);
        db.pool.execute(AssertSqlSafe(set)).await.unwrap();
        assert_eq!(mode(&db).await, theirs);
    }
}

#[tokio::test]
async fn on_citus_which_cannot_join_with_plans_for_any_values_nothing_is_set() {
    let db = many().await;
    // What is looked at is the catalog's word; Citus itself is not needed to ask for it.
    db.pool
        .execute(
            "BEGIN; SET LOCAL allow_system_table_mods = on;
             INSERT INTO pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
             VALUES (4000000, 'citus', 10, 'pg_catalog'::regnamespace, false, '13.2');
             COMMIT",
        )
        .await
        .unwrap();
    assert_eq!(mode(&db).await, "auto");
}

#[tokio::test]
async fn in_a_database_of_few_chats_nothing_is_set_for_a_plan_of_before_it_grew_may_read_all_of_it() {
    let db = database().await;
    assert_eq!(mode(&db).await, "auto", "empty");
    db.pool.execute(chats("'team'", 1_000)).await.unwrap();
    db.pool.execute("ANALYZE chats").await.unwrap();
    assert_eq!(mode(&db).await, "auto", "1,000");
    let empty = crate::support::postgres::empty_database().await;
    assert_eq!(mode(&empty).await, "auto", "before there is a schema");
}
