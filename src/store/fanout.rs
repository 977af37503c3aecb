//! What the agents' lane reads and writes: claiming an agent that is due, keeping its place in a lap over its chats, and
//! ending the lap.

mod quiet;

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
    rows::At,
};
use crate::model::{
    condition::{ConditionPatch, Conditions},
    event::EventKind,
    push::Phase,
};
pub use quiet::{Due, LOOKED_THROUGH, Quiet, end_quiet, quiet};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// An agent that is due, locked.
#[derive(Clone, Debug)]
pub struct DueAgent {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its workspace.
    pub workspace: Option<String>,
    /// Workspaces it has left.
    pub former_workspaces: Vec<String>,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// It is suspended or paused.
    pub suspended: bool,
    /// How far its run has got.
    pub phase: Option<Phase>,
    /// What it points at: not `Ok`, all, and the scan's error.
    pub latest: Option<(i32, i32, String)>,
    /// The revision that the chats should be told of.
    pub revision: i64,
    /// The running lap; when none is running, the one that begins now.
    pub lap: Lap,
    /// The refresh token that was handled last.
    pub refresh_handled: Option<String>,
    /// The reconcile token that was handled last.
    pub reconcile_handled: Option<String>,
    /// The generation that the conditions speak of.
    pub observed_generation: i64,
    /// The last chat of the running lap that has been told.
    pub cursor: Uuid,
    /// What its conditions say.
    pub conditions: Conditions,
}

impl DueAgent {
    /// The refresh token that the running lap copies to the chats bound to the agent.
    pub fn refresh_pending(&self) -> Option<&str> {
        self.lap.refresh.as_deref().filter(|token| self.refresh_handled.as_deref() != Some(token))
    }

    /// Whether ending the lap changes what the agent echoes.
    pub fn echoes(&self) -> bool {
        self.lap.refresh != self.refresh_handled
            || self.lap.reconcile != self.reconcile_handled
            || self.lap.generation != self.observed_generation
    }
}

/// What a lap began with. What it will have seen and handled when it ends is that, whatever has come since: what has come
/// since makes another lap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lap {
    /// The agent's revision.
    pub revision: i64,
    /// The refresh token, which is copied to the chats if it has not been handled.
    pub refresh: Option<String>,
    /// The reconcile token.
    pub reconcile: Option<String>,
    /// The generation of the spec.
    pub generation: i64,
}

/// Claims the first agent of a namespace after `after` that is due and that nobody holds. Never waits, so the row it returns
/// is as it is.
pub async fn claim(tx: &mut PgConnection, namespace: &str, after: Uuid) -> Result<Option<Uuid>, StoreError> {
    const NAME: &str = "db.agents.claim";
    sqlx::query_scalar!(
        "SELECT id FROM agents
         WHERE namespace = $1 AND id > $2 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= now())
         ORDER BY id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED",
        namespace,
        after
    )
    .fetch_optional(tx)
    .named(NAME)
    .await
}

/// Makes this lap the only one over the chats of these workspaces until the transaction ends; false when another agent's lap
/// over one of them is in the middle of a page. Two laps over one chat at once would undo each other: one decides from a
/// latest that the other knows to be gone, and the other finds the chat as it was before, and well.
pub async fn alone_in(tx: &mut PgConnection, namespace: &str, workspaces: &[&str]) -> Result<bool, StoreError> {
    const NAME: &str = "db.agents.alone_in";
    let keys: Vec<String> = workspaces.iter().map(|workspace| format!("moorline.lap/{namespace}/{workspace}")).collect();
    sqlx::query_scalar!(
        r#"SELECT coalesce(bool_and(pg_try_advisory_xact_lock(hashtextextended(k.key, 0))), true) AS "alone!"
           FROM unnest($1::text[]) AS k (key)"#,
        &keys
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// Reads an agent that is locked.
pub async fn load(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<DueAgent, StoreError> {
    const NAME: &str = "db.agents.load";
    let row = sqlx::query!(
        r#"
        SELECT a.name, a.workspace, a.former_workspaces, a.deletion_timestamp IS NOT NULL AS "deleting!",
               a.suspend OR a.paused AS "suspended!", a.phase, a.refresh_requested, a.refresh_handled, a.reconcile_requested,
               a.reconcile_handled, a.observed_generation, a.generation, a.revision, a.fanout_revision, a.fanout_cursor,
               a.fanout_refresh, a.fanout_reconcile, a.fanout_generation,
               a.conditions, s.degraded_count AS "degraded?", s.resource_count AS "resources?", a.latest_error AS "error?"
        FROM agents a
        LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
        WHERE a.namespace = $1 AND a.id = $2
        "#,
        namespace,
        id
    )
    .fetch_one(tx)
    .named(NAME)
    .await?;
    let at = At { table: "agents", namespace, name: &row.name };
    // One that an older binary began does not say what it began with: it begins again.
    let running = row.fanout_revision.is_some() && row.fanout_generation.is_some();
    let lap = match row.fanout_revision.zip(row.fanout_generation) {
        Some((revision, generation)) => {
            Lap { revision, refresh: row.fanout_refresh, reconcile: row.fanout_reconcile, generation }
        }
        None => Lap {
            revision: row.revision,
            refresh: row.refresh_requested,
            reconcile: row.reconcile_requested,
            generation: row.generation,
        },
    };
    Ok(DueAgent {
        id,
        workspace: row.workspace,
        former_workspaces: row.former_workspaces,
        deleting: row.deleting,
        suspended: row.suspended,
        phase: row.phase.as_deref().map(|phase| at.word("phase", phase)).transpose()?,
        latest: row.degraded.zip(row.resources).zip(row.error).map(|((degraded, resources), error)| (degraded, resources, error)),
        refresh_handled: row.refresh_handled,
        reconcile_handled: row.reconcile_handled,
        observed_generation: row.observed_generation,
        revision: row.revision,
        lap,
        cursor: row.fanout_cursor.filter(|_| running).unwrap_or_default(),
        conditions: at.conditions(&row.conditions)?,
        name: row.name,
    })
}

/// Keeps the place in a lap: what it began with, and the last chat that has been told. How often the lap has failed is not
/// forgotten: a page that went well says nothing of the one that did not.
pub async fn advance(tx: &mut PgConnection, namespace: &str, id: Uuid, lap: &Lap, cursor: Uuid) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.advance";
    let Lap { revision, refresh, reconcile, generation } = lap;
    let done = sqlx::query!(
        "UPDATE agents SET fanout_revision = $3, fanout_cursor = $4, fanout_refresh = $5, fanout_reconcile = $6,
                           fanout_generation = $7, retry_at = NULL
         WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        revision,
        cursor,
        refresh.as_deref(),
        reconcile.as_deref(),
        generation
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Goes on with a lap, a page of which could not be told to every chat: after this chat, or, when that was the last page, from the
/// beginning. What the agent is due for counts up, so that another lap comes by when this one has ended.
pub async fn pass_over(
    tx: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    lap: &Lap,
    cursor: Option<Uuid>,
) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.pass_over";
    let Lap { revision, refresh, reconcile, generation } = lap;
    let done = sqlx::query!(
        "UPDATE agents SET revision = CASE WHEN $4::uuid IS NULL THEN revision ELSE revision + 1 END, fanout_cursor = $4,
                fanout_revision = CASE WHEN $4::uuid IS NULL THEN NULL ELSE $3::bigint END,
                fanout_generation = CASE WHEN $4::uuid IS NULL THEN NULL ELSE $7::bigint END,
                fanout_refresh = CASE WHEN $4::uuid IS NULL THEN NULL ELSE $5::text END,
                fanout_reconcile = CASE WHEN $4::uuid IS NULL THEN NULL ELSE $6::text END
         WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        revision,
        cursor,
        refresh.as_deref(),
        reconcile.as_deref(),
        generation
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// How a lap ends.
#[derive(Clone, Debug)]
pub struct LapEnd<'a> {
    /// Nothing changed while it ran and every chat was told, so nobody is left who knows the agent by a former workspace, and
    /// nothing is left that the loop fails on.
    pub whole: bool,
    /// To the conditions.
    pub conditions: &'a ConditionPatch,
}

/// Ends a lap: what has been seen and handled is what it began with, not the newest. With the log of the transaction when the agent
/// changes in what it shows; then with an event.
pub async fn end_lap(
    tx: &mut PgConnection,
    namespace: &str,
    agent: &DueAgent,
    end: &LapEnd<'_>,
    log: Option<&mut TxLog>,
) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.end_lap";
    let LapEnd { whole, conditions } = end;
    let Lap { revision, refresh, reconcile, generation } = &agent.lap;
    let done = sqlx::query!(
        "UPDATE agents SET converged_revision = $3, fanout_revision = NULL, fanout_cursor = NULL, fanout_refresh = NULL,
                fanout_reconcile = NULL, fanout_generation = NULL, retry_at = NULL,
                attempts = CASE WHEN $4 THEN 0 ELSE attempts END,
                former_workspaces = CASE WHEN $4 THEN '{}' ELSE former_workspaces END,
                refresh_handled = $8, reconcile_handled = $9, observed_generation = greatest(observed_generation, $10),
                conditions = (conditions || $5) - string_to_array($6, ','),
                rv = coalesce($7, rv)
         WHERE namespace = $1 AND id = $2 AND ($7::bigint IS NULL OR rv <= $7)",
        namespace,
        agent.id,
        revision,
        whole,
        Value::Object(conditions.set.clone()),
        conditions.drop.join(","),
        log.as_ref().map(|log| log.rv),
        refresh.as_deref(),
        reconcile.as_deref(),
        generation
    )
    .execute(&mut *tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())?;
    match log {
        Some(log) => append(tx, namespace, agent.id, &agent.name, log).await,
        None => Ok(()),
    }
}

async fn append(tx: &mut PgConnection, namespace: &str, id: Uuid, name: &str, log: &mut TxLog) -> Result<(), StoreError> {
    let event = super::events::NewEvent {
        namespace,
        kind: EventKind::AgentUpdated,
        subject: Some(id),
        name,
        chat: None,
        agent: Some(id),
        payload: json!({}),
    };
    super::events::append(tx, log, event).await
}

/// Removes an agent whose chats have all been let go, with an event that holds its last state: the event first, then the
/// row. Snapshots stay for as long as somebody is pinned to them.
pub async fn remove(tx: &mut PgConnection, namespace: &str, id: Uuid, log: &mut TxLog) -> Result<(), StoreError> {
    const EVENT: &str = "db.agents.remove_event";
    const NAME: &str = "db.agents.remove";
    log.written += 1;
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
         SELECT a.namespace, $3, $4, 'AgentDeleted', a.id, a.name, a.id,
                jsonb_build_object('agent', to_jsonb(a) - 'live_resources', 'snapshot', to_jsonb(s) - 'manifest')
         FROM agents a
         LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
         WHERE a.namespace = $1 AND a.id = $2",
        namespace,
        id,
        log.rv,
        log.written
    )
    .execute(&mut *tx)
    .named(EVENT)
    .await?;
    expect_rows(EVENT, 1, done.rows_affected())?;
    let done = sqlx::query!("DELETE FROM agents WHERE namespace = $1 AND id = $2 AND rv <= $3", namespace, id, log.rv)
        .execute(tx)
        .named(NAME)
        .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// How often the loop has failed on an agent in a row; locks it. None when it is gone, or when somebody has converged it.
pub async fn lock_poisoned(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Option<(i32, Value)>, StoreError> {
    const NAME: &str = "db.agents.lock_poisoned";
    let row = sqlx::query!(
        "SELECT attempts, conditions FROM agents WHERE namespace = $1 AND id = $2 AND converged_revision < revision
             FOR NO KEY UPDATE",
        namespace,
        id
    );
    Ok(row.fetch_optional(tx).named(NAME).await?.map(|row| (row.attempts, row.conditions)))
}

/// Sets an agent aside until its `retry_at`: it stays due, and says so.
pub async fn set_aside(
    tx: &mut PgConnection,
    namespace: &str,
    poison: &super::converge::Poison<'_>,
    log: &mut TxLog,
) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.set_aside";
    let row = sqlx::query!(
        "UPDATE agents SET attempts = attempts + 1, retry_at = now() + $3::float8 * interval '1 second',
                           conditions = conditions || $4,
                           rv = CASE WHEN $5 THEN $6 ELSE rv END
         WHERE namespace = $1 AND id = $2 AND rv <= $6
         RETURNING name",
        namespace,
        poison.id,
        poison.wait.as_secs_f64(),
        Value::Object(poison.conditions.set.clone()),
        poison.shown,
        log.rv
    )
    .fetch_optional(&mut *tx)
    .named(NAME)
    .await?;
    let row = row.ok_or(StoreError::Guard { query: NAME, expected: 1, got: 0 })?;
    if poison.shown { append(tx, namespace, poison.id, &row.name, log).await } else { Ok(()) }
}
