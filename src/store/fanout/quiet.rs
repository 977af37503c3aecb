//! Agents that are due and have nobody to tell: no chat follows them, and nothing of them is handled but their own report.

use crate::{
    model::{condition::Conditions, push::Phase},
    store::{
        error::{Named, StoreError},
        rows::At,
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

/// An agent that is due and has nobody to tell, as it was read: not locked.
#[derive(Clone, Debug)]
pub struct Quiet {
    /// Its id.
    pub id: Uuid,
    /// The revision that nobody has to be told of.
    pub revision: i64,
    /// It is suspended or paused.
    pub suspended: bool,
    /// How far its run has got.
    pub phase: Option<Phase>,
    /// What it points at: not `Ok`, all, and the scan's error.
    pub latest: Option<(i32, i32, String)>,
    /// What its conditions say.
    pub conditions: Conditions,
}

/// Among how many that are due they are looked for: each is a look for its chats, and those that it leaves have their laps.
pub const LOOKED_THROUGH: i64 = 512;

/// Reads up to so many of a namespace, unlocked, among the first [`LOOKED_THROUGH`] that are due. A row that does not have its form is left
/// out: its lap sets it aside, and says why. Which chats there are is looked at in the same statement: one that it cannot see yet is due when
/// it commits, and is read with what its agent points at then, or later.
pub async fn quiet(connection: &mut PgConnection, namespace: &str, limit: i64) -> Result<Vec<Quiet>, StoreError> {
    const NAME: &str = "db.agents.quiet";
    // A look for each agent: of NOT EXISTS PostgreSQL may read all chats of the namespace.
    let rows = sqlx::query!(
        r#"
        SELECT a.id AS "id!", a.name AS "name!", a.revision AS "revision!", a.suspend OR a.paused AS "suspended!", a.phase,
               a.conditions AS "conditions!", s.degraded_count AS "degraded?", s.resource_count AS "resources?",
               a.latest_error AS "latest_error!"
        FROM (
            SELECT * FROM agents d WHERE d.namespace = $1 AND d.converged_revision < d.revision AND d.retry_at IS NULL
            ORDER BY d.id LIMIT $3
        ) AS a
        LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
        WHERE a.attempts = 0 AND a.fanout_revision IS NULL AND a.workspace IS NULL AND a.former_workspaces = '{}'
              AND a.deletion_timestamp IS NULL AND a.generation = a.observed_generation
              AND a.refresh_requested IS NOT DISTINCT FROM a.refresh_handled
              AND a.reconcile_requested IS NOT DISTINCT FROM a.reconcile_handled
              AND (SELECT true FROM chats c WHERE c.namespace = a.namespace AND c.agent = a.name
                   AND NOT c.archived AND NOT c.inherited_archived LIMIT 1) IS NULL
        ORDER BY a.id LIMIT $2
        "#,
        namespace,
        limit,
        LOOKED_THROUGH
    );
    let rows = rows.fetch_all(connection).named(NAME).await?;
    let read = rows.into_iter().map(|row| {
        let at = At { table: "agents", namespace, name: &row.name };
        Ok::<_, StoreError>(Quiet {
            id: row.id,
            revision: row.revision,
            suspended: row.suspended,
            phase: row.phase.as_deref().map(|phase| at.word("phase", phase)).transpose()?,
            latest: row.degraded.zip(row.resources).map(|(degraded, resources)| (degraded, resources, row.latest_error)),
            conditions: at.conditions(&row.conditions)?,
        })
    });
    Ok(read.filter_map(Result::ok).collect())
}

/// Ends their laps before they begin, where an agent is still at the revision that was read, no lap of it runs and it has not failed
/// meanwhile. Never waits: one that somebody holds stays due. In one statement that is a transaction of its own. Returns how many.
pub async fn end_quiet(connection: &mut PgConnection, namespace: &str, quiet: &[(Uuid, i64)]) -> Result<usize, StoreError> {
    const NAME: &str = "db.agents.end_quiet";
    let (ids, revisions): (Vec<Uuid>, Vec<i64>) = quiet.iter().copied().unzip();
    let done = sqlx::query!(
        "UPDATE agents a SET converged_revision = free.revision
         FROM (
             SELECT f.id, f.revision FROM unnest($2::uuid[], $3::bigint[]) AS u (id, revision)
             JOIN agents f ON f.namespace = $1 AND f.id = u.id AND f.revision = u.revision
             WHERE f.converged_revision < f.revision AND f.attempts = 0 AND f.fanout_revision IS NULL
             ORDER BY f.id FOR NO KEY UPDATE OF f SKIP LOCKED
         ) AS free
         WHERE a.namespace = $1 AND a.id = free.id",
        namespace,
        &ids,
        &revisions
    );
    let done = done.execute(connection).named(NAME).await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
