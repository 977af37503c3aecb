//! Whoever begins a transaction and goes away before it has begun leaves nothing behind on the connection.
//!
//! Found by `chaos`: clients whose connections are reset leave handlers in the middle. `there is already a transaction in progress`,
//! said PostgreSQL, and a write was refused on a primary because it ran in somebody's forgotten read-only transaction.

use super::statements::socket_of;
use crate::support::{
    link::{Flow, Link},
    postgres::database,
    until::until,
};
use moorline::{
    clock,
    store::{self, StoreError, Write},
};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio::time::timeout;

/// Long enough for a statement to go out.
const SOON: Duration = Duration::from_millis(200);

/// Does nothing.
struct Nothing;

impl Write for Nothing {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, _: &mut PgConnection) -> Result<(), StoreError> {
        Ok(())
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

async fn lists(pool: &PgPool) {
    let mut connection = store::acquire_whole(pool).await.unwrap();
    drop(store::lists::moment(&mut connection).await.unwrap());
    connection.give_back();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_nobody_waits_for_any_more_leaves_no_transaction_to_whoever_comes_next() {
    let db = database().await;
    let link = Link::to_socket(socket_of(&db.options)).await;
    let url = format!("postgres://postgres@{}/{}?sslmode=disable", link.address, db.name);
    // One connection: whoever comes next gets the one that was left.
    let pool = store::pool(url.parse().unwrap(), 1);
    let clock = clock::system();
    sqlx::query("CREATE TABLE marks (mark int)").execute(&pool).await.unwrap();
    for n in 0..3 {
        drop(store::acquire(&pool).await.unwrap());
        until("the connection is back, and nobody uses it", || async { (pool.num_idle() == 1).then_some(()) }).await;
        link.set(Flow::Silent);
        let waited = match n {
            0 => timeout(SOON, store::transact(&pool, &clock, &Nothing)).await.is_ok(),
            1 => timeout(SOON, store::one_moment(&pool)).await.is_ok(),
            _ => timeout(SOON, lists(&pool)).await.is_ok(),
        };
        assert!(!waited, "{n}: it went away in the middle");
        link.set(Flow::Whole);
        sqlx::query("INSERT INTO marks VALUES ($1)").bind(n).execute(&pool).await.unwrap();
        let seen: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM marks WHERE mark = $1)").bind(n).fetch_one(&db.pool).await.unwrap();
        assert!(seen, "{n}: what is written by itself is committed");
    }
    pool.close().await;
}
