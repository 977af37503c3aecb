//! P6: what a server costs that has nothing to do, with 1,000,000 chats: versions of rows and numbers of transactions that it spends,
//! statements that it runs, and processor time; its own, and the database's for it.
//!
//! After it has started, and looked at everything once. Counted by PostgreSQL for the whole database: nobody else is connected.

use super::{
    place::Place,
    report::Report,
    setting::{MILLION, Setting},
    sql::Statements,
};
use sqlx::PgPool;
use std::time::Duration;

/// How long a server that starts has until it is looked at.
const REST: Duration = Duration::from_secs(30);
/// Counts of an idle session are told by then: PostgreSQL keeps them back for up to ten seconds.
const FLUSH: Duration = Duration::from_secs(12);

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (minutes, rest) = (setting.of(10.0, 1.0, 0.2), setting.of(REST, REST, Duration::from_secs(2)));
    let mut report = Report::default();
    let pool = setting.million().await?;
    let place = Place::start(&setting.server, MILLION).await?;
    tokio::time::sleep(rest).await;
    let (rows, xids) = written(&pool).await?;
    let statements = Statements::begin(&pool).await?;
    let cost = place.process.cost()?;
    let time = Duration::from_secs_f64(minutes * 60.0);
    tokio::time::sleep(time).await;
    let cpu = place.process.cost()?.cpu - cost.cpu;
    let (calls, worked) = statements_of(&pool).await?;
    tokio::time::sleep(FLUSH).await;
    let (rows_after, xids_after) = written(&pool).await?;
    report.fact("minutes", minutes);
    report.fact("chats", setting.million_chats());
    report.fact("a minute of it", statements.each(minutes).await?);
    report.at_most("row-versions", "rows", &[rows_after - rows], 0.0);
    report.told("transaction-numbers", "xids", &[xids_after - xids]);
    report.at_most("statements", "a-second", &[calls / time.as_secs_f64()], 3.0);
    report.at_most("cpu", "cores", &[cpu / time.as_secs_f64()], 0.01);
    report.told("cpu-of-the-database", "cores", &[worked / 1e3 / time.as_secs_f64()]);
    drop(place);
    pool.close().await;
    Ok(report)
}

/// Versions of rows, and numbers of transactions, that there ever were.
async fn written(pool: &PgPool) -> anyhow::Result<(f64, f64)> {
    Ok(sqlx::query_as(
        "SELECT (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables)::float8,
                pg_snapshot_xmax(pg_current_snapshot())::text::float8",
    )
    .fetch_one(pool)
    .await?)
}

/// How many statements there were, and how long they took, in milliseconds.
async fn statements_of(pool: &PgPool) -> anyhow::Result<(f64, f64)> {
    Ok(sqlx::query_as(
        "SELECT coalesce(sum(calls), 0)::float8, coalesce(sum(total_exec_time), 0)::float8 FROM pg_stat_statements
         WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND query NOT LIKE '%pg_stat_statements%'",
    )
    .fetch_one(pool)
    .await?)
}
