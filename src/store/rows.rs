//! Rows as the database gives them, and how they become domain types. Private to the store: a row that does not have the
//! form that its constraints should have kept it to becomes an error that names its table, column and id.

use super::error::StoreError;
use crate::model::{
    agent::{Agent, AgentSpec, AgentView, Run},
    chat::{BoundAgent, Chat, ChatSpec, ChatView, PinRecord, Reference},
    condition::Conditions,
    hash::ContextHash,
    object::{Metadata, Progress, Source, TextMap},
    snapshot::{Snapshot, SnapshotId},
};
use jiff_sqlx::Timestamp as SqlTs;
use serde_json::Value;
use sqlx::types::Json;
use std::{fmt::Display, str::FromStr};
use uuid::Uuid;

/// The table and row that a conversion is about.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) table: &'static str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

impl At<'_> {
    pub(super) fn bad(self, column: &'static str, message: impl Display) -> StoreError {
        let id = format!("{}/{}", self.namespace, self.name);
        StoreError::Inconsistent { table: self.table, column, id, message: message.to_string() }
    }

    pub(super) fn word<T: FromStr<Err: Display>>(self, column: &'static str, word: &str) -> Result<T, StoreError> {
        word.parse().map_err(|error| self.bad(column, error))
    }

    pub(super) fn hash(self, column: &'static str, bytes: &[u8]) -> Result<ContextHash, StoreError> {
        ContextHash::from_slice(bytes).ok_or_else(|| self.bad(column, format!("{} bytes instead of 32", bytes.len())))
    }

    pub(super) fn conditions(self, stored: &Value) -> Result<Conditions, StoreError> {
        Conditions::from_stored(stored).map_err(|error| self.bad("conditions", error))
    }

    pub(super) fn source(self, word: &str) -> Result<Source, StoreError> {
        Source::parse(word).ok_or_else(|| self.bad("source", format!("unknown source {word:?}")))
    }
}

#[derive(serde::Deserialize)]
pub(super) struct SnapshotRow {
    pub(super) namespace: String,
    pub(super) id: i64,
    pub(super) agent_id: Uuid,
    pub(super) agent_name: String,
    pub(super) name: String,
    pub(super) revision: i64,
    #[serde(deserialize_with = "deleted::bytes")]
    pub(super) context_hash: Vec<u8>,
    pub(super) error: String,
    pub(super) resource_count: i32,
    pub(super) degraded_count: i32,
    pub(super) size_bytes: i64,
    #[serde(deserialize_with = "deleted::time")]
    pub(super) created_at: SqlTs,
    pub(super) rv: i64,
}

impl TryFrom<SnapshotRow> for Snapshot {
    type Error = StoreError;

    fn try_from(row: SnapshotRow) -> Result<Self, StoreError> {
        let at = At { table: "snapshots", namespace: &row.namespace, name: &row.name };
        let hash = at.hash("context_hash", &row.context_hash)?;
        Ok(Self {
            namespace: row.namespace,
            id: SnapshotId(row.id),
            name: row.name,
            agent_id: row.agent_id,
            agent_name: row.agent_name,
            revision: row.revision,
            hash,
            error: row.error,
            resource_count: row.resource_count,
            degraded_count: row.degraded_count,
            size_bytes: row.size_bytes,
            created_at: row.created_at.to_jiff(),
            rv: row.rv,
        })
    }
}

/// The columns of a snapshot that was joined, and may not be there.
#[derive(Default, serde::Deserialize)]
pub(super) struct JoinedSnapshot {
    pub(super) id: Option<i64>,
    pub(super) agent_id: Option<Uuid>,
    pub(super) agent_name: Option<String>,
    pub(super) name: Option<String>,
    pub(super) revision: Option<i64>,
    #[serde(default, deserialize_with = "deleted::some_bytes")]
    pub(super) context_hash: Option<Vec<u8>>,
    pub(super) error: Option<String>,
    pub(super) resource_count: Option<i32>,
    pub(super) degraded_count: Option<i32>,
    pub(super) size_bytes: Option<i64>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) created_at: Option<SqlTs>,
    pub(super) rv: Option<i64>,
}

impl JoinedSnapshot {
    pub(super) fn into_snapshot(self, namespace: &str) -> Result<Option<Snapshot>, StoreError> {
        let row = (|| {
            Some(SnapshotRow {
                namespace: namespace.to_owned(),
                id: self.id?,
                agent_id: self.agent_id?,
                agent_name: self.agent_name?,
                name: self.name?,
                revision: self.revision?,
                context_hash: self.context_hash?,
                error: self.error?,
                resource_count: self.resource_count?,
                degraded_count: self.degraded_count?,
                size_bytes: self.size_bytes?,
                created_at: self.created_at?,
                rv: self.rv?,
            })
        })();
        row.map(Snapshot::try_from).transpose()
    }
}

/// The joined snapshot of a row, and a row with a joined snapshot.
macro_rules! joined {
    ($row:ident) => {
        JoinedSnapshot {
            id: $row.s_id,
            agent_id: $row.s_agent_id,
            agent_name: $row.s_agent_name,
            name: $row.s_name,
            revision: $row.s_revision,
            context_hash: $row.s_context_hash,
            error: $row.s_error,
            resource_count: $row.s_resource_count,
            degraded_count: $row.s_degraded_count,
            size_bytes: $row.s_size_bytes,
            created_at: $row.s_created_at,
            rv: $row.s_rv,
        }
    };
}

macro_rules! join {
    ($row:ident, $joined:expr) => {
        let JoinedSnapshot {
            id,
            agent_id,
            agent_name,
            name,
            revision,
            context_hash,
            error,
            resource_count,
            degraded_count,
            size_bytes,
            created_at,
            rv,
        } = $joined;
        ($row.s_id, $row.s_agent_id, $row.s_agent_name, $row.s_name) = (id, agent_id, agent_name, name);
        ($row.s_revision, $row.s_context_hash, $row.s_error) = (revision, context_hash, error);
        ($row.s_resource_count, $row.s_degraded_count, $row.s_size_bytes) = (resource_count, degraded_count, size_bytes);
        ($row.s_created_at, $row.s_rv) = (created_at, rv);
    };
}

pub mod deleted; // after the macros that it uses

#[derive(serde::Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a row: one field a column")]
pub(super) struct ChatRow {
    pub(super) namespace: String,
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) labels: Json<TextMap>,
    pub(super) annotations: Json<TextMap>,
    pub(super) generation: i64,
    pub(super) rv: i64,
    pub(super) owner: String,
    pub(super) title: String,
    pub(super) agent: Option<String>,
    pub(super) workspace: Option<String>,
    pub(super) refresh_policy: String,
    pub(super) suspend: bool,
    pub(super) archived: bool,
    pub(super) inherited_archived: bool,
    pub(super) refresh_requested: Option<String>,
    pub(super) paused: bool,
    pub(super) parent_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) parent_name: Option<String>,
    pub(super) root_id: Uuid,
    pub(super) deletion_policy: String,
    pub(super) source: String,
    pub(super) created_by: String,
    #[serde(deserialize_with = "deleted::time")]
    pub(super) created_at: SqlTs,
    #[serde(deserialize_with = "deleted::time")]
    pub(super) updated_at: SqlTs,
    pub(super) state: String,
    pub(super) last_error: String,
    pub(super) pin_cause: Option<String>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) pinned_at: Option<SqlTs>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) dirty_since: Option<SqlTs>,
    pub(super) refresh_handled: Option<String>,
    pub(super) reconcile_handled: Option<String>,
    pub(super) event_seq: i64,
    pub(super) conditions: Value,
    pub(super) revision: i64,
    pub(super) converged_revision: i64,
    pub(super) observed_generation: i64,
    pub(super) attempts: i32,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) retry_at: Option<SqlTs>,
    #[serde(skip)]
    pub(super) s_id: Option<i64>,
    #[serde(skip)]
    pub(super) s_agent_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) s_agent_name: Option<String>,
    #[serde(skip)]
    pub(super) s_name: Option<String>,
    #[serde(skip)]
    pub(super) s_revision: Option<i64>,
    #[serde(skip)]
    pub(super) s_context_hash: Option<Vec<u8>>,
    #[serde(skip)]
    pub(super) s_error: Option<String>,
    #[serde(skip)]
    pub(super) s_resource_count: Option<i32>,
    #[serde(skip)]
    pub(super) s_degraded_count: Option<i32>,
    #[serde(skip)]
    pub(super) s_size_bytes: Option<i64>,
    #[serde(skip)]
    pub(super) s_created_at: Option<SqlTs>,
    #[serde(skip)]
    pub(super) s_rv: Option<i64>,
    #[serde(skip)]
    pub(super) t_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) t_name: Option<String>,
}

impl TryFrom<ChatRow> for ChatView {
    type Error = StoreError;

    fn try_from(row: ChatRow) -> Result<Self, StoreError> {
        let at = At { table: "chats", namespace: &row.namespace, name: &row.name };
        let state = at.word("state", &row.state)?;
        let refresh_policy = at.word("refresh_policy", &row.refresh_policy)?;
        let deletion_policy = at.word("deletion_policy", &row.deletion_policy)?;
        let source = at.source(&row.source)?;
        let conditions = at.conditions(&row.conditions)?;
        let pin = match (row.s_id, &row.pin_cause, row.pinned_at) {
            (Some(id), Some(cause), Some(pinned_at)) => {
                Some(PinRecord { snapshot: SnapshotId(id), cause: at.word("pin_cause", cause)?, at: pinned_at.to_jiff() })
            }
            (None, None, None) => None,
            _ => return Err(at.bad("pin_cause", "a pin without its cause or time")),
        };
        let pinned = joined!(row).into_snapshot(&row.namespace)?;
        let target = row.t_id.zip(row.t_name).map(|(id, name)| BoundAgent { id, name });
        let chat = Chat {
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
            spec: ChatSpec {
                owner: row.owner,
                title: row.title,
                reference: Reference::from_columns(row.agent, row.workspace),
                parent: row.parent_name,
                refresh_policy,
                suspend: row.suspend,
                archived: row.archived,
                deletion_policy,
            },
            inherited_archived: row.inherited_archived,
            source,
            paused: row.paused,
            parent_id: row.parent_id,
            root_id: row.root_id,
            created_by: row.created_by,
            updated_at: row.updated_at.to_jiff(),
            state,
            last_error: row.last_error,
            pin,
            dirty_since: row.dirty_since.map(SqlTs::to_jiff),
            refresh_requested: row.refresh_requested,
            refresh_handled: row.refresh_handled,
            reconcile_handled: row.reconcile_handled,
            event_seq: row.event_seq,
            progress: Progress {
                revision: row.revision,
                converged_revision: row.converged_revision,
                observed_generation: row.observed_generation,
                attempts: row.attempts,
                retry_at: row.retry_at.map(SqlTs::to_jiff),
            },
            conditions,
        };
        Ok(Self { chat, pinned, target })
    }
}

#[derive(serde::Deserialize)]
pub(super) struct AgentRow {
    pub(super) namespace: String,
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) labels: Json<TextMap>,
    pub(super) annotations: Json<TextMap>,
    pub(super) generation: i64,
    pub(super) rv: i64,
    #[serde(deserialize_with = "deleted::time")]
    pub(super) created_at: SqlTs,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) deletion_timestamp: Option<SqlTs>,
    pub(super) workspace: Option<String>,
    pub(super) build: Option<i64>,
    pub(super) service_account: Option<String>,
    pub(super) suspend: bool,
    pub(super) revision_history_limit: i32,
    pub(super) refresh_requested: Option<String>,
    pub(super) paused: bool,
    pub(super) deletion_policy: String,
    pub(super) source: String,
    pub(super) run_id: Option<Uuid>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) run_started_at: Option<SqlTs>,
    pub(super) epoch: i64,
    pub(super) seq: i64,
    pub(super) phase: Option<String>,
    pub(super) latest_error: String,
    pub(super) refresh_handled: Option<String>,
    pub(super) reconcile_handled: Option<String>,
    pub(super) revision: i64,
    pub(super) converged_revision: i64,
    pub(super) observed_generation: i64,
    pub(super) attempts: i32,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(super) retry_at: Option<SqlTs>,
    pub(super) conditions: Value,
    #[serde(skip)]
    pub(super) s_id: Option<i64>,
    #[serde(skip)]
    pub(super) s_agent_id: Option<Uuid>,
    #[serde(skip)]
    pub(super) s_agent_name: Option<String>,
    #[serde(skip)]
    pub(super) s_name: Option<String>,
    #[serde(skip)]
    pub(super) s_revision: Option<i64>,
    #[serde(skip)]
    pub(super) s_context_hash: Option<Vec<u8>>,
    #[serde(skip)]
    pub(super) s_error: Option<String>,
    #[serde(skip)]
    pub(super) s_resource_count: Option<i32>,
    #[serde(skip)]
    pub(super) s_degraded_count: Option<i32>,
    #[serde(skip)]
    pub(super) s_size_bytes: Option<i64>,
    #[serde(skip)]
    pub(super) s_created_at: Option<SqlTs>,
    #[serde(skip)]
    pub(super) s_rv: Option<i64>,
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

/// `query_as!` of a whole chat: what it is, what it is pinned to, and the agent it names now. The tail says which.
macro_rules! chat_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::rows::ChatRow,
            r#"
            SELECT c.namespace, c.id, c.name, c.labels AS "labels: _", c.annotations AS "annotations: _", c.generation, c.rv,
                   c.owner, c.title, c.agent, c.workspace, c.refresh_policy, c.suspend, c.archived, c.inherited_archived,
                   c.refresh_requested, c.paused, c.parent_id, parent.name AS "parent_name?", c.root_id, c.deletion_policy,
                   c.source, c.created_by, c.created_at AS "created_at: _", c.updated_at AS "updated_at: _", c.state,
                   c.last_error, c.pin_cause, c.pinned_at AS "pinned_at: _", c.dirty_since AS "dirty_since: _",
                   c.refresh_handled, c.reconcile_handled, c.event_seq, c.conditions, c.revision, c.converged_revision,
                   c.observed_generation, c.attempts, c.retry_at AS "retry_at: _",
                   s.id AS "s_id?", s.agent_id AS "s_agent_id?", s.agent_name AS "s_agent_name?", s.name AS "s_name?",
                   s.revision AS "s_revision?", s.context_hash AS "s_context_hash?", s.error AS "s_error?",
                   s.resource_count AS "s_resource_count?", s.degraded_count AS "s_degraded_count?",
                   s.size_bytes AS "s_size_bytes?", s.created_at AS "s_created_at?: _", s.rv AS "s_rv?",
                   t.id AS "t_id?", t.name AS "t_name?"
            FROM chats c
            LEFT JOIN chats parent ON parent.namespace = c.namespace AND parent.id = c.parent_id
            LEFT JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
            LEFT JOIN LATERAL (
                SELECT a.id, a.name FROM agents a
                WHERE a.namespace = c.namespace AND a.name = c.agent AND a.deletion_timestamp IS NULL
                UNION ALL
                (SELECT a.id, a.name FROM agents a
                 WHERE a.namespace = c.namespace AND a.workspace = c.workspace AND a.deletion_timestamp IS NULL
                 ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1)
            ) t ON true
            "# + $tail $(+ $more)*
            $(, $arg)*
        )
    };
}

/// `query_as!` of a whole agent with the snapshot it points at. The tail says which.
macro_rules! agent_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
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
            FROM agents a
            LEFT JOIN snapshots s ON s.namespace = a.namespace AND s.id = a.latest_snapshot_id
            "# + $tail $(+ $more)*
            $(, $arg)*
        )
    };
}

/// `query_as!` of snapshots without their manifests. The tail says which.
macro_rules! snapshot_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::rows::SnapshotRow,
            r#"
            SELECT s.namespace, s.id, s.agent_id, s.agent_name, s.name, s.revision, s.context_hash, s.error,
                   s.resource_count, s.degraded_count, s.size_bytes, s.created_at AS "created_at: _", s.rv
            FROM snapshots s
            "# + $tail $(+ $more)*
            $(, $arg)*
        )
    };
}

pub(super) struct EventRow {
    pub(super) namespace: String,
    pub(super) rv: i64,
    pub(super) seq: i32,
    pub(super) kind: String,
    pub(super) subject: Option<Uuid>,
    pub(super) name: String,
    pub(super) chat_id: Option<Uuid>,
    pub(super) chat_seq: Option<i64>,
    pub(super) agent_id: Option<Uuid>,
    pub(super) payload: Value,
    pub(super) created_at: SqlTs,
}

/// `query_as!` of events. The tail says which.
macro_rules! event_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::rows::EventRow,
            r#"
            SELECT e.namespace, e.rv, e.seq, e.kind, e.subject, e.name, e.chat_id, e.chat_seq, e.agent_id, e.payload,
                   e.created_at AS "created_at: _"
            FROM events e
            "# + $tail $(+ $more)*
            $(, $arg)*
        )
    };
}

pub(super) use {agent_query, chat_query, event_query, snapshot_query};
