//! A database of very many chats and events, by SQL: as they are once converged.
//!
//! 20 namespaces `team-00` to `team-19` of ten agents `agent-0` to `agent-9` each, every one with one snapshot. The chats are spread
//! over them in an order that has nothing to do with their names: three of four name an agent, the others one of `ws-0` to `ws-9`,
//! which no agent reports for; 100 owners; a seventh archived, one of 50 in error, one of 30 dirty, a tenth with the label `tier=gold`,
//! one of 401 with `tier=trial`.

use super::agent::NAMESPACE;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use std::time::Instant;

/// How many namespaces.
pub const NAMESPACES: i64 = 20;

/// Agents with a snapshot each, and chats of them.
pub async fn chats(pool: &PgPool, chats: i64) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut connection = bulk(pool).await?;
    sqlx::query(
        "INSERT INTO agents (namespace, id, name, rv, created_at, converged_revision)
         SELECT 'team-' || lpad(t::text, 2, '0'), gen_random_uuid(), 'agent-' || a, log_rv(), now(), 1
         FROM generate_series(0, $1 - 1) t, generate_series(0, 9) a",
    )
    .bind(NAMESPACES)
    .execute(&mut connection)
    .await?;
    connection
        .execute(
            "INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                    degraded_count, size_bytes, created_at, rv)
             SELECT namespace, id, name, name || '-abababababab', 1, decode(repeat('ab', 32), 'hex'), '[]', 0, 0, 0, now(), log_rv()
             FROM agents",
        )
        .await?;
    connection
        .execute(
            "UPDATE agents a SET latest_snapshot_id = s.id, snapshot_revision = 1, phase = 'Complete', received_at = now()
             FROM snapshots s WHERE s.namespace = a.namespace AND s.agent_id = a.id",
        )
        .await?;
    let indexes = without_indexes(&mut connection, "chats").await?;
    let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut connection).await?;
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, title, agent, workspace, root_id, created_by, created_at, updated_at,
                            archived, state, snapshot_id, pin_cause, pinned_at, dirty_since, converged_revision, observed_generation,
                            labels, conditions)
         SELECT s.namespace, x.id, 'chat-' || x.n, $3, 'user-' || x.mixed % 100, 'Chat number ' || x.n,
                CASE WHEN x.mixed % 4 > 0 THEN s.agent_name END, CASE WHEN x.mixed % 4 = 0 THEN 'ws-' || x.mixed / 4 % 10 END,
                x.id, 'bench', now(), now() - make_interval(secs => x.mixed % 1000000), x.mixed % 7 = 0,
                CASE WHEN x.mixed % 50 = 1 THEN 'Error' ELSE 'Waiting' END, s.id, 'Hydrated', now(),
                CASE WHEN x.mixed % 30 = 2 THEN now() END, 1, 1,
                CASE WHEN x.mixed % 401 = 5 THEN '{\"tier\": \"trial\"}'::jsonb WHEN x.mixed % 10 = 4 THEN '{\"tier\": \"gold\"}' ELSE '{}' END,
                '{\"Ready\": {\"status\": \"True\", \"reason\": \"Pinned\", \"message\": \"pinned to its agent''s latest snapshot\"},
                  \"Ready@\": \"2026-11-21T00:00:00.000000Z\"}'
         FROM (SELECT n, n * 7919 % 1000003 AS mixed, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
               FROM generate_series(1, $1) n) x
         JOIN (SELECT s.*, row_number() OVER (ORDER BY namespace, name) - 1 AS number FROM snapshots s) s
              ON s.number = x.mixed / 100 % ($2 * 10)",
    )
    .bind(chats)
    .bind(NAMESPACES)
    .bind(rv)
    .execute(&mut connection)
    .await?;
    built(&mut connection, indexes).await?;
    settle(connection).await?;
    println!("    ({chats} chats made in {:.0?})", began.elapsed());
    Ok(())
}

/// Events of the last five days about the chats that there are, a thousand a transaction.
pub async fn events(pool: &PgPool, events: i64) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut connection = bulk(pool).await?;
    for day in 1..=5 {
        let sql = format!(
            "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {day};
             BEGIN
                 EXECUTE format('CREATE TABLE IF NOT EXISTS %I PARTITION OF events FOR VALUES FROM (%L) TO (%L)',
                                'events_' || to_char(day, 'YYYYMMDD'), day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
             END $$"
        );
        connection.execute(AssertSqlSafe(sql)).await?;
    }
    // Versions of transactions that were: so many of them are spent.
    connection
        .execute(AssertSqlSafe(format!(
            "DO $$ BEGIN FOR n IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$",
            events / 1000 + 1
        )))
        .await?;
    let last: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut connection).await?;
    let indexes = without_indexes(&mut connection, "events").await?;
    connection.execute("ALTER TABLE events DROP CONSTRAINT events_pkey").await?;
    sqlx::query(
        "WITH known AS MATERIALIZED (
             SELECT array_agg(namespace) AS namespaces, array_agg(id) AS ids, array_agg(name) AS names, count(*) AS many
             FROM (SELECT namespace, id, name FROM chats ORDER BY id LIMIT 10000) c)
         INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload, created_at)
         SELECT k.namespaces[x.at], $2 - $1 / 1000 + x.n / 1000, x.n % 1000 + 1, 'ContextDrifted', k.ids[x.at], k.names[x.at], k.ids[x.at],
                NULL, x.n / k.many + 1,
                '{\"from\": \"sha256:abababababababababababababababababababababababababababababababab\", \"agent\": \"agent-0\"}',
                now() - interval '5 days' * (1 - x.n::float8 / $1)
         FROM known k, LATERAL (SELECT n, n % k.many + 1 AS at FROM generate_series(0, $1 - 1) n) x",
    )
    .bind(events)
    .bind(last)
    .execute(&mut connection)
    .await?;
    connection.execute("ALTER TABLE events ADD CONSTRAINT events_pkey PRIMARY KEY (namespace, rv, seq, created_at)").await?;
    built(&mut connection, indexes).await?;
    settle(connection).await?;
    println!("    ({events} events made in {:.0?})", began.elapsed());
    Ok(())
}

/// Removes what a measure has added to the database that all share, in the namespace that is for that: nothing is left that a server would
/// find something to do about.
pub async fn forget(pool: &PgPool) -> anyhow::Result<()> {
    let mut connection = bulk(pool).await?;
    for statement in [
        "DELETE FROM chats WHERE namespace = $1",
        "UPDATE agents SET latest_snapshot_id = NULL WHERE namespace = $1",
        "DELETE FROM snapshots WHERE namespace = $1",
        "DELETE FROM agents WHERE namespace = $1",
        "DELETE FROM blobs WHERE namespace = $1",
    ] {
        sqlx::query(statement).bind(NAMESPACE).execute(&mut connection).await?;
    }
    settle(connection).await
}

/// A connection that makes very much.
async fn bulk(pool: &PgPool) -> anyhow::Result<PgConnection> {
    let mut connection = pool.acquire().await?.detach();
    connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '512MB'; SET synchronous_commit = off").await?;
    Ok(connection)
}

/// Indexes are built at the end: sooner than row by row. What makes those of a table that belong to no constraint.
async fn without_indexes(connection: &mut PgConnection, table: &str) -> anyhow::Result<Vec<String>> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE tablename = $1 AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = $1::text::regclass)",
    )
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    let mut definitions = Vec::new();
    for (name, definition) in indexes {
        connection.execute(AssertSqlSafe(format!("DROP INDEX {name}"))).await?;
        // Of a table with partitions it says ONLY, and would leave them without.
        definitions.push(definition.replace(" ON ONLY ", " ON "));
    }
    Ok(definitions)
}

async fn built(connection: &mut PgConnection, indexes: Vec<String>) -> anyhow::Result<()> {
    for definition in indexes {
        connection.execute(AssertSqlSafe(definition)).await?;
    }
    Ok(())
}

/// So that nothing is left to be done behind the back of what is measured.
async fn settle(mut connection: PgConnection) -> anyhow::Result<()> {
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        connection.execute(statement).await?;
    }
    connection.close().await?;
    Ok(())
}
