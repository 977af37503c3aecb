//! The last state of an object that is gone, as the event of its deletion holds it: the row as JSON, as `to_jsonb` wrote it.

use super::{AgentRow, ChatRow, JoinedSnapshot, SnapshotRow};
use crate::{
    model::{
        agent::AgentView,
        chat::ChatView,
        event::EventKind,
        resource::ResourceMeta,
        snapshot::{Snapshot, SnapshotWithManifest},
    },
    store::{across::objects::OwnedSnapshot, error::StoreError, events::Logged},
};
use jiff_sqlx::{Timestamp as SqlTs, ToSqlx as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object that is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum Deleted {
    /// A chat.
    Chat(Box<ChatView>),
    /// An agent.
    Agent(Box<AgentView>),
    /// A snapshot.
    Snapshot(Box<OwnedSnapshot>),
}

impl Deleted {
    /// What an event says is gone; none for an event of another kind.
    pub fn read(event: &Logged) -> Result<Option<Self>, StoreError> {
        let bad = |message: String| {
            let id = format!("{}/{}", event.cursor.rv, event.cursor.seq);
            StoreError::Inconsistent { table: "events", column: "payload", id, message }
        };
        let field = |name: &str| event.payload.get(name).cloned().unwrap_or(Value::Null);
        let joined = || -> Result<Option<JoinedSnapshot>, StoreError> {
            serde_json::from_value(field("snapshot")).map_err(|error| bad(format!("snapshot: {error}")))
        };
        match event.kind {
            EventKind::ChatDeleted => {
                let mut row: ChatRow = serde_json::from_value(field("chat")).map_err(|error| bad(format!("chat: {error}")))?;
                row.parent_name = field("parent").as_str().map(ToOwned::to_owned);
                join!(row, joined()?.unwrap_or_default());
                Ok(Some(Self::Chat(Box::new(row.try_into()?))))
            }
            EventKind::AgentDeleted => {
                let mut row: AgentRow = serde_json::from_value(field("agent")).map_err(|error| bad(format!("agent: {error}")))?;
                join!(row, joined()?.unwrap_or_default());
                Ok(Some(Self::Agent(Box::new(row.try_into()?))))
            }
            EventKind::SnapshotDeleted => {
                #[derive(Deserialize)]
                struct Gone {
                    #[serde(flatten)]
                    row: SnapshotRow,
                    manifest: Vec<ResourceMeta>,
                }
                let Gone { row, manifest } =
                    serde_json::from_value(field("snapshot")).map_err(|error| bad(format!("snapshot: {error}")))?;
                let service_account = field("serviceAccount").as_str().map(ToOwned::to_owned);
                let found = SnapshotWithManifest { snapshot: Snapshot::try_from(row)?, manifest };
                Ok(Some(Self::Snapshot(Box::new(OwnedSnapshot { found, service_account }))))
            }
            EventKind::ChatCreated
            | EventKind::ChatUpdated
            | EventKind::ContextHydrated
            | EventKind::ContextDrifted
            | EventKind::ContextConverged
            | EventKind::ContextRefreshed
            | EventKind::AgentRebound
            | EventKind::ContextCleared
            | EventKind::AgentCreated
            | EventKind::AgentUpdated
            | EventKind::SnapshotAccepted => Ok(None),
        }
    }
}

/// A time as PostgreSQL writes it into JSON: RFC 3339 with microseconds.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SqlTs, D::Error> {
    Ok(jiff::Timestamp::deserialize(deserializer)?.to_sqlx())
}

/// A time that may be null or absent.
pub(super) fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SqlTs>, D::Error> {
    Ok(Option::<jiff::Timestamp>::deserialize(deserializer)?.map(jiff_sqlx::ToSqlx::to_sqlx))
}

/// Bytes as PostgreSQL writes them into JSON: `\x` and hexadecimal digits.
pub(super) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("\\x").ok_or_else(|| serde::de::Error::custom("must begin with \\x"))?;
    hex::decode(digits).map_err(serde::de::Error::custom)
}

/// Bytes that may be null or absent.
pub(super) fn some_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    #[derive(Deserialize)]
    struct Bytes(#[serde(deserialize_with = "bytes")] Vec<u8>);
    Ok(Option::<Bytes>::deserialize(deserializer)?.map(|Bytes(bytes)| bytes))
}
