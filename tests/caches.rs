//! All four caches of real clients at once, behind writers that do everything that makes a log hard to follow, through a
//! crash of PostgreSQL and the promotion of its standby: at the end every cache is what the table is.

use crate::{
    clients::writes,
    support::{
        api::{Api, settings},
        caches::{By, Cache, all_equal},
        hostile,
        pair::Pair,
        proxy::Proxy,
        until::until_within,
    },
};
use moorline::config;
use std::time::Duration;

/// How long the caches are given to agree with the table: client-go waits up to half a minute between two attempts.
const PATIENCE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_caches_equal_the_table_after_hostile_writers_a_crash_and_a_promotion() {
    let mut cluster = Pair::start().await;
    let db = cluster.database().await;
    let api = Api::run(config::Server { poll_ms: 200, ..settings() }, db.options.clone(), None).await;
    let ready = || async { (api.get("/readyz").await.status == 200).then_some(()) };
    until_within(PATIENCE, "the server is ready", ready).await;
    // Connections break all the time too; client-go waits longer after each.
    let (often, seldom) =
        (Proxy::start(&api.address, 1, 500..40_000, 500).await, Proxy::start(&api.address, 2, 500..40_000, 12).await);
    let mut caches = [
        Cache::kube_rs(&often.url, By::ListWatch),
        Cache::kube_rs(&often.url, By::StreamingList),
        Cache::client_go(&seldom.url, By::ListWatch),
        Cache::client_go(&seldom.url, By::StreamingList),
    ];
    let (one, two) = (api.running_agent("one").await, api.running_agent("two").await);

    // Writers that are long open, commit late, roll back to savepoints, and delete and recreate names.
    let under_way = async |rounds: std::ops::Range<u64>| {
        tokio::join!(
            writes(&api, &one, 1, rounds.clone()),
            writes(&api, &two, 2, rounds.clone()),
            hostile::writes(&db, 1, rounds.start..rounds.start + 30),
            hostile::writes(&db, 2, rounds.start..rounds.start + 30),
            hostile::writes(&db, 3, rounds.start..rounds.start + 30),
        );
    };
    Box::pin(under_way(1..150)).await;
    all_equal(&mut caches, &db, &api.url, PATIENCE).await;

    // A crash in the middle of all this: what was never durable is given out again.
    let crash = async {
        hostile::some_commits(&db, 40).await;
        cluster.crash_and_restart().await;
    };
    tokio::join!(Box::pin(under_way(1_000..1_150)), crash);
    until_within(PATIENCE, "the server is ready again", ready).await;
    all_equal(&mut caches, &db, &api.url, PATIENCE).await;
    let before = epoch(&db).await;

    // And the standby takes over, wherever it has got to.
    let promotion = async {
        hostile::some_commits(&db, 40).await;
        drop(cluster.fail_over().await);
    };
    tokio::join!(Box::pin(under_way(2_000..2_150)), promotion);
    until_within(PATIENCE, "the server is ready on the standby that was promoted", ready).await;
    all_equal(&mut caches, &db, &api.url, PATIENCE).await;
    assert!(epoch(&db).await > before, "a promotion begins an epoch of its own");

    // What is learned from here on is learned by watching the new epoch.
    Box::pin(under_way(3_000..3_030)).await;
    all_equal(&mut caches, &db, &api.url, PATIENCE).await;
    drop(api);
    db.pool.close().await;
    cluster.remove().await;
}

async fn epoch(db: &crate::support::postgres::TestDb) -> i64 {
    sqlx::query_scalar("SELECT epoch::bigint FROM log_state").fetch_one(&db.pool).await.unwrap()
}
