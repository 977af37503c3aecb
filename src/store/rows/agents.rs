//! Agents, with the snapshots that they point at.

use super::{At, JoinedSnapshot, deleted};
use crate::{
    model::{
        agent::{Agent, AgentSpec, AgentView, Run},
        object::{Metadata, Progress, TextMap},
    },
    store::error::StoreError,
};
use jiff_sqlx::Timestamp as SqlTs;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

#[derive(serde::Deserialize)]
pub(in crate::store) struct AgentRow {
    pub(in crate::store) namespace: String,
    pub(in crate::store) id: Uuid,
    pub(in crate::store) name: String,
    pub(in crate::store) labels: Json<TextMap>,
    pub(in crate::store) annotations: Json<TextMap>,
    pub(in crate::store) generation: i64,
    pub(in crate::store) rv: i64,
    #[serde(deserialize_with = "deleted::time")]
    pub(in crate::store) created_at: SqlTs,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) deletion_timestamp: Option<SqlTs>,
    pub(in crate::store) workspace: Option<String>,
    pub(in crate::store) build: Option<i64>,
    pub(in crate::store) service_account: Option<String>,
    pub(in crate::store) suspend: bool,
    pub(in crate::store) revision_history_limit: i32,
    pub(in crate::store) refresh_requested: Option<String>,
    pub(in crate::store) paused: bool,
    pub(in crate::store) deletion_policy: String,
    pub(in crate::store) source: String,
    pub(in crate::store) run_id: Option<Uuid>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) run_started_at: Option<SqlTs>,
    pub(in crate::store) epoch: i64,
    pub(in crate::store) seq: i64,
    pub(in crate::store) phase: Option<String>,
    pub(in crate::store) latest_error: String,
    pub(in crate::store) refresh_handled: Option<String>,
    pub(in crate::store) reconcile_handled: Option<String>,
    pub(in crate::store) revision: i64,
    pub(in crate::store) converged_revision: i64,
    pub(in crate::store) observed_generation: i64,
    pub(in crate::store) attempts: i32,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) retry_at: Option<SqlTs>,
    pub(in crate::store) conditions: Value,
    #[serde(skip)]
    pub(in crate::store) s_id: Option<i64>,
    #[serde(skip)]
    pub(in crate::store) s_agent_id: Option<Uuid>,
    #[serde(skip)]
    pub(in crate::store) s_agent_name: Option<String>,
    #[serde(skip)]
    pub(in crate::store) s_name: Option<String>,
    #[serde(skip)]
    pub(in crate::store) s_revision: Option<i64>,
    #[serde(skip)]
    pub(in crate::store) s_context_hash: Option<Vec<u8>>,
    #[serde(skip)]
    pub(in crate::store) s_error: Option<String>,
    #[serde(skip)]
    pub(in crate::store) s_resource_count: Option<i32>,
    #[serde(skip)]
    pub(in crate::store) s_degraded_count: Option<i32>,
    #[serde(skip)]
    pub(in crate::store) s_size_bytes: Option<i64>,
    #[serde(skip)]
    pub(in crate::store) s_created_at: Option<SqlTs>,
    #[serde(skip)]
    pub(in crate::store) s_rv: Option<i64>,
}

impl TryFrom<AgentRow> for AgentView {
    type Error = StoreError;

    fn try_from(row: AgentRow) -> Result<Self, StoreError> {
        let at = At { table: "agents", namespace: &row.namespace, name: &row.name };
        let deletion_policy = at.word("deletion_policy", &row.deletion_policy)?;
        let source = at.source(&row.source)?;
        let phase = row.phase.as_deref().map(|phase| at.word("phase", phase)).transpose()?;
        let conditions = at.conditions(&row.conditions)?;
        let latest = joined!(row).into_snapshot(&row.namespace)?;
        let run = row.run_id.zip(row.run_started_at);
        let agent = Agent {
            meta: Metadata {
                namespace: row.namespace,
                id: row.id,
                name: row.name,
                labels: row.labels.0,
                annotations: row.annotations.0,
                generation: row.generation,
                rv: row.rv,
                created_at: row.created_at.to_jiff(),
            },
            deletion_timestamp: row.deletion_timestamp.map(SqlTs::to_jiff),
            spec: AgentSpec {
                workspace: row.workspace,
                build: row.build,
                service_account: row.service_account,
                suspend: row.suspend,
                revision_history_limit: row.revision_history_limit,
                deletion_policy,
            },
            source,
            paused: row.paused,
            run: run.map(|(id, started_at)| Run { id, epoch: row.epoch, started_at: started_at.to_jiff() }),
            seq: row.seq,
            phase,
            latest: latest.as_ref().map(|latest| latest.id),
            latest_error: row.latest_error,
            refresh_requested: row.refresh_requested,
            refresh_handled: row.refresh_handled,
            reconcile_handled: row.reconcile_handled,
            progress: Progress {
                revision: row.revision,
                converged_revision: row.converged_revision,
                observed_generation: row.observed_generation,
                attempts: row.attempts,
                retry_at: row.retry_at.map(SqlTs::to_jiff),
            },
            conditions,
        };
        Ok(Self { agent, latest })
    }
}

/// `query_as!` of a whole agent with the snapshot it points at. The tail says which; or a
/// page of them, in an order, does.
macro_rules! agent_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        agent_query!(@ ("agents a") ($tail $(+ $more)*) $(, $arg)*)
    };
    (page ($($cut:tt)+), $order:literal $(, $arg:expr)*) => {
        agent_query!(@ ("(SELECT * FROM agents a " + $($cut)+ + ") a") ($order) $(, $arg)*)
    };
    (@ ($($agents:tt)+) ($($tail:tt)+) $(, $arg:expr)*) => {
        sqlx::query_as!(
            crate::store::rows::AgentRow,
            r#"
            SELECT a.namespace, a.id, a.name, a.labels AS "labels: _", a.annotations AS "annotations: _", a.generation, a.rv,
                   a.created_at AS "created_at: _", a.deletion_timestamp AS "deletion_timestamp: _", a.workspace, a.build,
                   a.service_account, a.suspend, a.revision_history_limit, a.refresh_requested, a.paused, a.deletion_policy,
                   a.source, a.run_id, a.run_started_at AS "run_started_at: _", a.epoch, a.seq, a.phase, a.latest_error,
                   a.refresh_handled, a.reconcile_handled, a.revision, a.converged_revision, a.observed_generation,
                   a.attempts, a.retry_at AS "retry_at: _", a.conditions,
                   s.id AS "s_id?", s.agent_id AS "s_agent_id?", s.agent_name AS "s_agent_name?", s.name AS "s_name?",
                   s.revision AS "s_revision?", s.context_hash AS "s_context_hash?", s.error AS "s_error?",
                   s.resource_count AS "s_resource_count?", s.degraded_count AS "s_degraded_count?",
                   s.size_bytes AS "s_size_bytes?", s.created_at AS "s_created_at?: _", s.rv AS "s_rv?"
            FROM "# + $($agents)+ + r#"
            LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
            "# + $($tail)+
            $(, $arg)*
        )
    };
}

pub(in crate::store) use agent_query;
