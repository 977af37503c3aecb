//! Placeholder until the embedded server lands.
use sqlx::{PgPool, postgres::PgConnectOptions};
pub struct TestDb {
    pub pool: PgPool,
}
pub async fn database() -> TestDb {
    use sqlx::Executor as _;
    let name = format!("t_{}", uuid::Uuid::now_v7().simple());
    let base: PgConnectOptions = "postgres://postgres@%2Ftmp%2Fdevpg/postgres".parse().unwrap();
    let admin = PgPool::connect_with(base.clone()).await.unwrap();
    admin.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
    let pool = moorline::store::pool(base.database(&name), 10);
    moorline::store::schema::migrate(&pool, false).await.unwrap();
    TestDb { pool }
}
