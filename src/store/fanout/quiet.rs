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

/// What is due in a namespace.
#[derive(Clone, Debug, Default)]
pub struct Due {
    /// Agents that have nobody to tell.
    pub quiet: Vec<Quiet>,
    /// There are others, too: with somebody to tell, with something else to do, or beyond as many as were asked for. Their laps see to them.
    pub others: bool,
}

/// Among how many that are due they are looked for: each is a look for its chats, and those that it leaves have their laps.
pub const LOOKED_THROUGH: i64 = 512;

/// Reads up to so many of a namespace, unlocked, among the first [`LOOKED_THROUGH`] that are due. A row that does not have its form is one of
/// the others: its lap sets it aside, and says why. Which chats there are is looked at in the same statement: one that it cannot see yet is due
/// when it commits, and is read with what its agent points at then, or later.
pub async fn quiet(connection: &mut PgConnection, namespace: &str, limit: usize) -> Result<Due, StoreError> {
    const NAME: &str = "db.agents.quiet";
    // A look for each agent: of NOT EXISTS PostgreSQL may read all chats of the namespace.
    let rows = sqlx::query!(
        r#"
        SELECT a.is_quiet AS "is_quiet!", a.id AS "id!", a.name AS "name!", a.revision AS "revision!",
               a.suspend OR a.paused AS "suspended!", a.phase, a.conditions AS "conditions!", s.degraded_count AS "degraded?",
               s.resource_count AS "resources?", a.latest_error AS "latest_error!"
        FROM (
            SELECT * FROM (
                SELECT *, d.attempts = 0 AND d.fanout_revision IS NULL AND d.workspace IS NULL AND d.former_workspaces = '{}'
                       AND d.deletion_timestamp IS NULL AND d.generation = d.observed_generation
                       AND d.refresh_requested IS NOT DISTINCT FROM d.refresh_handled
                       AND d.reconcile_requested IS NOT DISTINCT FROM d.reconcile_handled
                       AND (SELECT true FROM chats c WHERE c.namespace = d.namespace AND c.agent = d.name
                            AND NOT c.archived AND NOT c.inherited_archived LIMIT 1) IS NULL AS is_quiet
                FROM agents d WHERE d.namespace = $1 AND d.converged_revision < d.revision AND d.retry_at IS NULL
                ORDER BY d.id LIMIT $3
            ) AS due
            ORDER BY due.is_quiet DESC, due.id LIMIT $2
        ) AS a
        LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
        ORDER BY a.is_quiet DESC, a.id
        "#,
        namespace,
        i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1),
        LOOKED_THROUGH
    );
    let rows = rows.fetch_all(connection).named(NAME).await?;
    let found = rows.len();
    let read = rows.into_iter().filter(|row| row.is_quiet).take(limit).map(|row| {
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
    let quiet: Vec<Quiet> = read.filter_map(Result::ok).collect();
    Ok(Due { others: quiet.len() < found, quiet })
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
