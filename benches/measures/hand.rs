//! The least that the loop's writes could cost: one `UPDATE` and one `INSERT … SELECT`, by somebody who knows what is going to
//! happen, of the very values that the loop wrote, on the same tables and indexes. And the copies of one database that the two
//! sides of such a ratio run on.

use super::{agent::NAMESPACE, setting::Setting};
use anyhow::ensure;
use moorline::store;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use uuid::Uuid;

/// What came to a chat of an agent.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Outcome {
    conditions: Value,
    snapshot_id: Option<i64>,
    kind: String,
    payload: Value,
    agent_id: Option<Uuid>,
}

impl Outcome {
    /// As the loop has written it last, of one of them. All `count` have it.
    pub async fn of(pool: &PgPool, agent: &str, kind: &str, count: i64) -> anyhow::Result<Self> {
        let sql = "SELECT count(*) FROM chats c JOIN events e ON e.namespace = c.namespace AND e.rv = c.rv AND e.chat_id = c.id
                   WHERE c.namespace = $1 AND c.agent = $2 AND e.kind = $3";
        let written: i64 = sqlx::query_scalar(sql).bind(NAMESPACE).bind(agent).bind(kind).fetch_one(pool).await?;
        ensure!(written == count, "{written} of {count} chats have their {kind}");
        let sql = "SELECT c.conditions, c.snapshot_id, e.kind, e.payload, e.agent_id
                   FROM chats c JOIN events e ON e.namespace = c.namespace AND e.rv = c.rv AND e.chat_id = c.id
                   WHERE c.namespace = $1 AND c.agent = $2 LIMIT 1";
        Ok(sqlx::query_as(sql).bind(NAMESPACE).bind(agent).fetch_one(pool).await?)
    }

    /// The same to all chats of the agent, by hand. `set` says what else changes; `$4` is the pin. Returns how many.
    pub async fn by_hand(&self, pool: &PgPool, agent: &str, set: &str) -> anyhow::Result<i64> {
        let mut tx = pool.begin().await?;
        tx.execute("SET LOCAL statement_timeout = 0").await?;
        let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *tx).await?;
        let sql = format!(
            "UPDATE chats SET {set}, conditions = $5, rv = $3, event_seq = event_seq + 1
             WHERE namespace = $1 AND agent = $2 AND coalesce($4::bigint, 0) IS NOT NULL"
        );
        let update = sqlx::query(AssertSqlSafe(sql)).bind(NAMESPACE).bind(agent).bind(rv).bind(self.snapshot_id);
        let changed = update.bind(&self.conditions).execute(&mut *tx).await?.rows_affected();
        let insert = sqlx::query(
            "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
             SELECT c.namespace, c.rv, row_number() OVER (), $4, c.id, c.name, c.id, $5, c.event_seq, $6
             FROM chats c WHERE c.namespace = $1 AND c.agent = $2 AND c.rv = $3",
        );
        let insert = insert.bind(NAMESPACE).bind(agent).bind(rv).bind(&self.kind).bind(self.agent_id).bind(&self.payload);
        let told = insert.execute(&mut *tx).await?.rows_affected();
        ensure!(changed == told, "{changed} chats, {told} events");
        tx.commit().await?;
        Ok(i64::try_from(changed)?)
    }
}

/// A copy of a database that nobody is connected to.
pub async fn copy(setting: &Setting, template: &str, name: &str) -> anyhow::Result<PgPool> {
    setting.drop_database(name).await?;
    let admin = PgPool::connect_with(setting.server.connect_options("postgres")).await?;
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE {template}"))).await?;
    admin.close().await;
    let pool = setting.pool(name);
    // As migrating does it: the log is this database's from now on.
    store::log::bump(&mut *pool.acquire().await?, false).await?;
    settled(&pool).await?;
    Ok(pool)
}

/// Dead rows away, everything on the disk, what is needed in memory: nothing is left that one side would pay for.
pub async fn settled(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?.detach();
    for statement in
        ["SET statement_timeout = 0", "VACUUM ANALYZE chats", "SELECT count(*), sum(length(c::text)) FROM chats c", "CHECKPOINT"]
    {
        connection.execute(statement).await?;
    }
    Ok(())
}
