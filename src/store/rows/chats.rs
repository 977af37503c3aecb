//! Chats, with their pins and the agents that they name now.

use super::{At, JoinedSnapshot, deleted};
use crate::{
    model::{
        chat::{BoundAgent, Chat, ChatSpec, ChatView, PinRecord, Reference},
        object::{Metadata, Progress, TextMap},
        snapshot::SnapshotId,
    },
    store::error::StoreError,
};
use jiff_sqlx::Timestamp as SqlTs;
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

#[derive(serde::Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "a row: one field a column")]
pub(in crate::store) struct ChatRow {
    pub(in crate::store) namespace: String,
    pub(in crate::store) id: Uuid,
    pub(in crate::store) name: String,
    pub(in crate::store) labels: Json<TextMap>,
    pub(in crate::store) annotations: Json<TextMap>,
    pub(in crate::store) generation: i64,
    pub(in crate::store) rv: i64,
    pub(in crate::store) owner: String,
    pub(in crate::store) title: String,
    pub(in crate::store) agent: Option<String>,
    pub(in crate::store) workspace: Option<String>,
    pub(in crate::store) refresh_policy: String,
    pub(in crate::store) suspend: bool,
    pub(in crate::store) archived: bool,
    pub(in crate::store) inherited_archived: bool,
    pub(in crate::store) refresh_requested: Option<String>,
    pub(in crate::store) paused: bool,
    pub(in crate::store) parent_id: Option<Uuid>,
    #[serde(skip)]
    pub(in crate::store) parent_name: Option<String>,
    pub(in crate::store) root_id: Uuid,
    pub(in crate::store) deletion_policy: String,
    pub(in crate::store) source: String,
    pub(in crate::store) created_by: String,
    #[serde(deserialize_with = "deleted::time")]
    pub(in crate::store) created_at: SqlTs,
    #[serde(deserialize_with = "deleted::time")]
    pub(in crate::store) updated_at: SqlTs,
    pub(in crate::store) state: String,
    pub(in crate::store) last_error: String,
    pub(in crate::store) pin_cause: Option<String>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) pinned_at: Option<SqlTs>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) dirty_since: Option<SqlTs>,
    pub(in crate::store) refresh_handled: Option<String>,
    pub(in crate::store) reconcile_handled: Option<String>,
    pub(in crate::store) event_seq: i64,
    pub(in crate::store) conditions: Value,
    pub(in crate::store) revision: i64,
    pub(in crate::store) converged_revision: i64,
    pub(in crate::store) observed_generation: i64,
    pub(in crate::store) attempts: i32,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) retry_at: Option<SqlTs>,
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
    #[serde(skip)]
    pub(in crate::store) t_id: Option<Uuid>,
    #[serde(skip)]
    pub(in crate::store) t_name: Option<String>,
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

/// `query_as!` of a whole chat: what it is, what it is pinned to, and the agent it names now. The tail says which; or a
/// page of them, in an order, does.
macro_rules! chat_query {
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        chat_query!(@ ("chats c") ($tail $(+ $more)*) $(, $arg)*)
    };
    (page ($($cut:tt)+), $order:literal $(, $arg:expr)*) => {
        chat_query!(@ ("(SELECT * FROM chats c " + $($cut)+ + ") c") ($order) $(, $arg)*)
    };
    (@ ($($chats:tt)+) ($($tail:tt)+) $(, $arg:expr)*) => {
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
            FROM "# + $($chats)+ + r#"
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
            "# + $($tail)+
            $(, $arg)*
        )
    };
}

pub(in crate::store) use chat_query;
