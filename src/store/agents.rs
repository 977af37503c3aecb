//! Agents: reading them, writing their desired columns, and registering runs.

use super::{
    error::{Named, StoreError, expect_rows},
    rows::agent_query,
};
use crate::model::{
    agent::{Agent, AgentView},
    object::Key,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// An agent by name.
pub async fn get(connection: &mut PgConnection, key: &Key) -> Result<Option<AgentView>, StoreError> {
    const NAME: &str = "db.agents.get";
    let row = agent_query!("WHERE a.namespace = $1 AND a.name = $2", key.namespace, key.name);
    row.fetch_optional(connection).named(NAME).await?.map(AgentView::try_from).transpose()
}

/// The current agent of a workspace: the highest build; none counts lowest; ties: the oldest.
pub async fn current(connection: &mut PgConnection, namespace: &str, workspace: &str) -> Result<Option<AgentView>, StoreError> {
    const NAME: &str = "db.agents.current";
    let row = agent_query!(
        "WHERE a.namespace = $1 AND a.workspace = $2 AND a.deletion_timestamp IS NULL
         ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1",
        namespace,
        workspace
    );
    row.fetch_optional(connection).named(NAME).await?.map(AgentView::try_from).transpose()
}

/// Waits until nobody else is joining the workspace, and keeps others from it until the transaction ends: whoever joins looks at
/// the agents that are there, and two who look at the same time would not see each other.
pub async fn lock_workspace(tx: &mut PgConnection, namespace: &str, workspace: &str) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.lock_workspace";
    let what = format!("moorline.workspace/{namespace}/{workspace}");
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", what).execute(tx).named(NAME).await?;
    Ok(())
}

/// Whether an agent of the workspace may be pushed as by somebody else than `user`.
pub async fn workspace_of_others(
    tx: &mut PgConnection,
    namespace: &str,
    workspace: &str,
    user: &str,
) -> Result<bool, StoreError> {
    const NAME: &str = "db.agents.workspace_of_others";
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM agents WHERE namespace = $1 AND workspace = $2 AND service_account IS DISTINCT FROM $3)
           AS "others!""#,
        namespace,
        workspace,
        user
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// Locks an agent. What the statement that waited saw must not be decided from: read it again afterwards.
pub async fn lock(tx: &mut PgConnection, key: &Key) -> Result<Option<Uuid>, StoreError> {
    const NAME: &str = "db.agents.lock";
    sqlx::query_scalar!("SELECT id FROM agents WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE", key.namespace, key.name)
        .fetch_optional(tx)
        .named(NAME)
        .await
}

/// Inserts an agent with the desired columns of `agent`. False when the name is taken.
pub async fn insert(tx: &mut PgConnection, agent: &Agent) -> Result<bool, StoreError> {
    const NAME: &str = "db.agents.insert";
    let Agent { meta, spec, source, paused, refresh_requested, .. } = agent;
    let inserted = sqlx::query_scalar!(
        "INSERT INTO agents (namespace, id, name, labels, annotations, rv, created_at, workspace, build, service_account, suspend,
                             revision_history_limit, refresh_requested, reconcile_requested, paused, deletion_policy, source)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
         ON CONFLICT (namespace, name) DO NOTHING
         RETURNING id",
        meta.namespace,
        meta.id,
        meta.name,
        Json(&meta.labels) as _,
        Json(&meta.annotations) as _,
        meta.rv,
        meta.created_at.to_sqlx() as _,
        spec.workspace,
        spec.build,
        spec.service_account,
        spec.suspend,
        spec.revision_history_limit,
        refresh_requested.as_deref(),
        meta.annotations.get(crate::model::object::RECONCILE_ANNOTATION),
        paused,
        spec.deletion_policy.as_str(),
        source.as_str(),
    )
    .fetch_optional(tx)
    .named(NAME)
    .await?;
    Ok(inserted.is_some())
}

/// Writes the desired columns of an agent that is locked, with its new generation and revision. `left` is a workspace that
/// it leaves by this, whose chats must be told too. A new revision may mend what the loop failed on, so it is not waited with.
pub async fn update(tx: &mut PgConnection, agent: &Agent, left: Option<&str>) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.update";
    let Agent { meta, spec, .. } = agent;
    let done = sqlx::query!(
        "UPDATE agents SET labels = $3, annotations = $4, generation = $5, rv = $6, workspace = $7, build = $8,
                           service_account = $9, suspend = $10, revision_history_limit = $11, refresh_requested = $12,
                           reconcile_requested = $13, paused = $14, deletion_policy = $15, revision = $16,
                           deletion_timestamp = $17,
                           attempts = CASE WHEN revision = $16 THEN attempts ELSE 0 END,
                           retry_at = CASE WHEN revision = $16 THEN retry_at END,
                           former_workspaces = CASE WHEN $18::text IS NULL THEN former_workspaces
                                                    ELSE array_append(array_remove(former_workspaces, $18), $18) END
         WHERE namespace = $1 AND id = $2 AND rv <= $6",
        meta.namespace,
        meta.id,
        Json(&meta.labels) as _,
        Json(&meta.annotations) as _,
        meta.generation,
        meta.rv,
        spec.workspace,
        spec.build,
        spec.service_account,
        spec.suspend,
        spec.revision_history_limit,
        agent.refresh_requested,
        meta.annotations.get(crate::model::object::RECONCILE_ANNOTATION),
        agent.paused,
        spec.deletion_policy.as_str(),
        agent.progress.revision,
        agent.deletion_timestamp.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        left,
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Begins a run of an agent that is locked: the next epoch, no push accepted yet, phase Pending. Latest stays.
pub async fn begin_run(
    tx: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    run_id: Uuid,
    now: Timestamp,
    rv: i64,
) -> Result<i64, StoreError> {
    const NAME: &str = "db.agents.begin_run";
    let epoch = sqlx::query_scalar!(
        "UPDATE agents SET run_id = $3, run_started_at = $4, epoch = epoch + 1, seq = 0, push_digest = NULL, push_changed = NULL,
                           phase = 'Pending', revision = revision + 1, rv = $5
         WHERE namespace = $1 AND id = $2 AND rv <= $5
         RETURNING epoch",
        namespace,
        id,
        run_id,
        now.to_sqlx() as _,
        rv
    )
    .fetch_optional(tx)
    .named(NAME)
    .await?;
    epoch.ok_or(StoreError::Guard { query: NAME, expected: 1, got: 0 })
}

/// How many workspaces an agent that is locked has left whose chats have not all been told.
pub async fn former_workspaces(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<i32, StoreError> {
    const NAME: &str = "db.agents.former_workspaces";
    let count = sqlx::query_scalar!(
        r#"SELECT cardinality(former_workspaces) AS "count!" FROM agents WHERE namespace = $1 AND id = $2"#,
        namespace,
        id
    );
    count.fetch_one(tx).named(NAME).await
}
