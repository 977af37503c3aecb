//! Rows as the database gives them, and how they become domain types. Private to the store: a row that does not have the
//! form that its constraints should have kept it to becomes an error that names its table, column and id.

use super::error::StoreError;
use crate::model::{condition::Conditions, hash::ContextHash, object::Source};
use jiff_sqlx::Timestamp as SqlTs;
use serde_json::Value;
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

// After the macros that they use.
mod agents;
mod chats;
pub mod deleted;
mod snapshots;

pub(super) use agents::{AgentRow, agent_query};
pub(super) use chats::{ChatRow, chat_query};
pub(super) use snapshots::{JoinedSnapshot, SnapshotRow, snapshot_query};

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

pub(super) use event_query;
