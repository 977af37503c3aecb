//! A database that looks like a large installation: chats in 20 namespaces, fifty an agent, with their snapshots, bodies and events.
//!
//! 60,000 chats, which take seconds to make; `MOORLINE_TEST_PLAN_CHATS=1000000` makes a million. PostgreSQL 15 plans by the size that
//! a table's file has now, so statistics that claim a million rows of a smaller file would only make its pages look full; and what a
//! plan is chosen by (how many rows a key finds, that a whole table costs thousands of pages) is the same at both sizes.

use anyhow::Context as _;
use sqlx::{Executor as _, PgConnection};

/// What is made, unless more is wanted.
pub const CHATS: i64 = 60_000;
/// Chats an agent has.
const EACH: i64 = 50;

/// How many chats to make: as many as is asked for, or else these.
pub fn size(or: i64) -> anyhow::Result<i64> {
    std::env::var("MOORLINE_TEST_PLAN_CHATS").map_or(Ok(or), |text| text.parse().context("MOORLINE_TEST_PLAN_CHATS"))
}

/// Makes it.
pub async fn make(connection: &mut PgConnection, chats: i64) -> anyhow::Result<()> {
    // Rows that refer to what is there by construction.
    connection
        .execute("SET session_replication_role = replica; SET statement_timeout = 0; SET maintenance_work_mem = '256MB'")
        .await?;
    for (statement, number) in [
        (
            "INSERT INTO agents (namespace, id, name, rv, created_at, service_account, workspace, converged_revision, latest_snapshot_id)
             SELECT 'team-' || lpad((n % 20)::text, 2, '0'), gen_random_uuid(), 'agent-' || n, log_rv(), now(), 'user-' || n % 1000,
                    'ws-' || n, 1, NULL
             FROM generate_series(1, $1) n",
            chats / EACH,
        ),
        (
            "INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                    degraded_count, size_bytes, created_at, rv)
             SELECT a.namespace, a.id, a.name, a.name || '-' || r, r, sha256((a.name || r)::bytea), '[]', 0, 0, 0, now(), log_rv()
             FROM agents a, generate_series(1, $1) r",
            3,
        ),
        (
            "UPDATE agents a SET latest_snapshot_id = s.id FROM snapshots s
             WHERE s.namespace = a.namespace AND s.agent_id = a.id AND s.revision = $1",
            3,
        ),
        (
            "INSERT INTO blobs (namespace, agent_id, hash, bytes)
             SELECT a.namespace, a.id, sha256((a.name || 'body' || r)::bytea), 'body' FROM agents a, generate_series(1, $1) r",
            60,
        ),
        (
            "INSERT INTO chats (namespace, id, name, rv, owner, agent, workspace, root_id, parent_id, created_by, created_at, updated_at,
                                archived, state, snapshot_id, pin_cause, pinned_at, dirty_since, converged_revision)
             SELECT s.namespace, x.id, 'chat-' || x.n, log_rv(), 'user-' || x.mixed % 1000,
                    CASE WHEN x.mixed % 2 = 0 THEN s.agent_name END, CASE WHEN x.mixed % 2 = 1 THEN replace(s.agent_name, 'agent', 'ws') END,
                    x.id, CASE WHEN x.n % 10 = 0 THEN gen_random_uuid() END, 'x', now(), now() - x.mixed * interval '1 s',
                    x.mixed % 7 = 3, CASE WHEN x.mixed % 50 = 7 THEN 'Error' ELSE 'Waiting' END, s.id, 'Hydrated', now(),
                    CASE WHEN x.mixed % 30 = 11 THEN now() END, 1
             FROM (SELECT n, n * 7919 % 1000003 AS mixed, gen_random_uuid() AS id FROM generate_series(1, $1) n) x
             JOIN (SELECT s.*, row_number() OVER (ORDER BY id) AS number FROM snapshots s WHERE revision = 2) s
               ON s.number = x.n / 50 + 1",
            chats,
        ),
        (
            "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
             SELECT c.namespace, log_rv() - 1000000 + c.n / 1000, c.n % 1000, 'ContextHydrated', c.id, c.name, c.id, c.agent_id, 1, '{}'
             FROM (SELECT c.namespace, c.id, c.name, s.agent_id, (row_number() OVER ())::int AS n
                   FROM chats c JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id LIMIT $1) c",
            chats,
        ),
    ] {
        sqlx::query(statement).bind(number).execute(&mut *connection).await?;
    }
    for statement in ["RESET session_replication_role", "VACUUM ANALYZE"] {
        connection.execute(statement).await?;
    }
    Ok(())
}
