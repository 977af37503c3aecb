//! What a chat is moored to, without the resources: for whoever has those already.

use super::{
    chats::StoredPin,
    error::{Named, StoreError},
    rows::At,
};
use crate::model::{chat::PinCause, hash::ContextHash, snapshot::SnapshotId};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// A chat and its pin, as one statement saw them.
#[derive(Clone, Debug, PartialEq)]
pub struct Mooring {
    /// The chat's uid.
    pub chat_id: Uuid,
    /// The chat's owner.
    pub owner: String,
    /// The chat's version.
    pub rv: i64,
    /// The pin, with the version of its snapshot; none while the chat has no pin.
    pub pin: Option<(PinHead, i64)>,
}

/// A pin without its resources.
#[derive(Clone, Debug, PartialEq)]
pub struct PinHead {
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its name.
    pub snapshot_name: String,
    /// Its hash.
    pub hash: ContextHash,
    /// How many resources it holds.
    pub resource_count: i32,
    /// What the agent said was wrong with its scan.
    pub error: String,
    /// The bound agent.
    pub agent_id: Uuid,
    /// Its name.
    pub agent_name: String,
    /// Why the pin is there.
    pub cause: PinCause,
    /// Since when.
    pub at: Timestamp,
    /// The live class of the bound agent; empty when that agent is gone.
    pub live: Value,
    /// Counts changes of the live class.
    pub live_revision: i64,
}

impl From<&StoredPin> for PinHead {
    fn from(pin: &StoredPin) -> Self {
        let StoredPin {
            snapshot,
            snapshot_name,
            hash,
            error,
            agent_id,
            agent_name,
            cause,
            at,
            manifest,
            bodies: _,
            live,
            live_revision,
        } = pin;
        Self {
            snapshot: *snapshot,
            snapshot_name: snapshot_name.clone(),
            hash: *hash,
            resource_count: i32::try_from(manifest.len()).unwrap_or(i32::MAX),
            error: error.clone(),
            agent_id: *agent_id,
            agent_name: agent_name.clone(),
            cause: *cause,
            at: *at,
            live: live.clone(),
            live_revision: *live_revision,
        }
    }
}

/// What chats of a namespace are moored to, by name, those that are there: one indexed read, of three rows a chat.
pub async fn moorings(
    connection: &mut PgConnection,
    namespace: &str,
    names: &[String],
) -> Result<HashMap<String, Mooring>, StoreError> {
    const NAME: &str = "db.context.moorings";
    let rows = sqlx::query!(
        r#"
        SELECT c.name, c.id, c.owner, c.rv, c.pin_cause, c.pinned_at AS "pinned_at: jiff_sqlx::Timestamp",
               s.id AS "s_id?", s.rv AS "s_rv?", s.name AS "s_name?", s.context_hash AS "s_hash?", s.error AS "s_error?",
               s.resource_count AS "s_count?", s.agent_id AS "s_agent_id?", s.agent_name AS "s_agent_name?",
               a.live_resources AS "live?", a.live_revision AS "live_revision?"
        FROM chats c
        LEFT JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
        LEFT JOIN agents a ON a.namespace = s.namespace AND a.id = s.agent_id
        WHERE c.namespace = $1 AND c.name = ANY($2)
        "#,
        namespace,
        names
    )
    .fetch_all(connection)
    .named(NAME)
    .await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let at = At { table: "chats", namespace, name: &row.name };
        let pin = match (row.s_id, row.s_rv, row.s_name, row.s_hash, row.s_count, row.s_agent_id, row.s_agent_name) {
            (Some(id), Some(rv), Some(snapshot_name), Some(hash), Some(resource_count), Some(agent_id), Some(agent_name)) => {
                let pin = PinHead {
                    snapshot: SnapshotId(id),
                    snapshot_name,
                    hash: at.hash("context_hash", &hash)?,
                    resource_count,
                    error: row.s_error.unwrap_or_default(),
                    agent_id,
                    agent_name,
                    cause: at.word("pin_cause", row.pin_cause.as_deref().unwrap_or_default())?,
                    at: row.pinned_at.ok_or_else(|| at.bad("pinned_at", "a pin without its time"))?.to_jiff(),
                    live: row.live.unwrap_or_else(|| Value::Array(Vec::new())),
                    live_revision: row.live_revision.unwrap_or(0),
                };
                Some((pin, rv))
            }
            _ => None,
        };
        found.insert(row.name, Mooring { chat_id: row.id, owner: row.owner, rv: row.rv, pin });
    }
    Ok(found)
}
