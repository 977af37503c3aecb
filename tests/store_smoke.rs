//! Every test has a database of its own, with the schema that this binary was built for.

use crate::support::postgres::{TestDb, database};
use moorline::store::schema;
use sqlx::{ConnectOptions as _, PgPool, postgres::PgConnectOptions};

async fn name_of(pool: &PgPool) -> String {
    sqlx::query_scalar("SELECT current_database()::text").fetch_one(pool).await.unwrap()
}

#[tokio::test]
async fn two_databases_know_nothing_of_each_other() {
    let (one, other) = tokio::join!(database(), database());
    sqlx::query("CREATE TABLE marks (mark text)").execute(&one.pool).await.unwrap();
    let seen: bool = sqlx::query_scalar("SELECT to_regclass('marks') IS NOT NULL").fetch_one(&other.pool).await.unwrap();
    assert!(!seen, "a table of one test is in the database of another");
    assert_eq!((name_of(&one.pool).await, name_of(&other.pool).await), (one.name, other.name));
}

#[tokio::test]
async fn a_fresh_database_has_our_schema_and_a_log_of_its_own() {
    let TestDb { pool, url, options, name } = database().await;
    let mut connection = pool.acquire().await.unwrap();
    schema::check(&mut connection).await.unwrap();
    let foreign: bool = sqlx::query_scalar("SELECT log_is_foreign()").fetch_one(&mut *connection).await.unwrap();
    assert!(!foreign, "the log still takes itself for that of the template");
    sqlx::query("SELECT log_rv()").execute(&mut *connection).await.unwrap();
    // All the ways to it lead to the same database.
    let by_url = url.parse::<PgConnectOptions>().unwrap();
    for options in [by_url, options] {
        let mut connection = options.connect().await.unwrap();
        let there: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap();
        assert_eq!(there, name);
    }
}
