//! Converging a converged database writes nothing: no row version, no event, and of the write-ahead log no more than taking a
//! lock on one agent costs.

use crate::support::world::{World, file};
use moorline::{embedded, store};

#[tokio::test]
async fn a_lap_over_chats_that_have_nothing_to_hear_writes_none_of_them() {
    // A server of its own: the write-ahead log is the whole server's, and other tests write theirs.
    let place = tempfile::Builder::new().prefix("moorline-idle-").tempdir().expect("a place");
    let data_dir = place.path().join("world");
    let settings = [("fsync", "off"), ("autovacuum", "off")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server =
        embedded::start(embedded::Options { data_dir, pg_bin: None, ephemeral: true, settings }).await.expect("a server");
    server.ensure_database("idle").await.expect("a database");
    let pool = store::pool(server.connect_options("idle"), 4);
    store::schema::migrate(&pool, false).await.expect("a schema");
    let world = World::new(pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
         SELECT 'team-a', id, 'chat-' || n, log_rv(), 'alice', 'ws-1', id, 'alice', now(), now()
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 2000) n) x",
    )
    .execute(&pool)
    .await
    .expect("chats");
    world.settle().await;
    let chats = |rows: Vec<(String, String)>| rows.into_iter().filter(|(name, _)| name != "ws-1").collect::<Vec<_>>();

    let (rows, wal) = world.footprint().await;
    assert_eq!(world.settle().await, 0);
    let (again, wal_again) = world.footprint().await;
    assert_eq!(rows, again, "nothing is due, nothing is written");
    assert!(wal_again - wal < 4_096, "looking cost {} bytes of log", wal_again - wal);

    // A lap: the agent is looked at again because somebody asked, and has nothing to tell.
    world
        .update_agent("ws-1", |_, annotations| {
            annotations.insert("moorline.dev/reconcile-requested-at".into(), "now".into());
        })
        .await;
    let (rows, wal) = world.footprint().await;
    assert!(world.settle().await > 2_000, "all of them are looked at");
    let (again, wal_again) = world.footprint().await;
    let quiet =
        |rows: &[(String, String)]| chats(rows.to_vec()).into_iter().filter(|(name, _)| name != "events").collect::<Vec<_>>();
    assert_eq!(quiet(&rows), quiet(&again), "none of the 2,000 chats is locked or written");
    assert!(wal_again - wal < 64 * 1024, "the lap cost {} bytes of log", wal_again - wal);
    pool.close().await;
    server.stop().await.expect("stopping it");
}
