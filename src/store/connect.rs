//! What every connection of a server's pool does before its first statement.

use super::{StoreError, log};
use sqlx::PgConnection;

/// From how many chats on, by the statistics, each statement is planned once. Of fewer a plan may read a whole table, and go on with
/// that while the table grows.
const MANY: f32 = 5_000.0;

/// What a server's connections do: they begin the log anew where that is due, and [`plan_once`].
pub async fn on_connect(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    plan_once(connection).await?;
    begin_the_log_anew(connection).await
}

/// In a database of many chats each statement is planned once, for any values. PostgreSQL would else weigh the plan for any values
/// against the plans for the first five, and where it thinks those cheaper, plan again each time. It thinks so of every small namespace
/// among large ones, where planning takes longer than what is planned; and of a namespace that is newer than the statistics, which it
/// takes to have one row. `tests/plans.rs` says what such a plan of each statement reads, and which few may read a table; lists ask for
/// plans for their values. What somebody has set for the server, the database or the role stands; on Citus, which cannot join with
/// plans for any values, nothing is set.
pub async fn plan_once(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let set = sqlx::query!(
        "SELECT set_config('plan_cache_mode', 'force_generic_plan', false) AS mode FROM pg_settings
         WHERE name = 'plan_cache_mode' AND source = 'default'
               AND (SELECT c.reltuples FROM pg_class c WHERE c.oid = to_regclass('chats')) >= $1
               AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus')",
        MANY
    );
    set.fetch_optional(connection).await.map(drop)
}

/// Whoever connects again may have come to a copy or to a promoted standby. Nothing of that where there is no schema yet, and nothing on
/// a standby, which cannot write.
async fn begin_the_log_anew(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let writes = sqlx::query_scalar!(
        r#"SELECT to_regprocedure('log_bump(boolean)') IS NOT NULL AND NOT pg_is_in_recovery() AS "writes!""#
    );
    if !writes.fetch_one(&mut *connection).await? {
        return Ok(());
    }
    match log::bump(connection, false).await {
        Ok(_) => Ok(()),
        Err(StoreError::Database { source, .. }) => Err(source),
        Err(other) => Err(sqlx::Error::Protocol(other.to_string())),
    }
}
