//! Appending to the event log: one row per event, in the transaction that made it happen. Converging appends its events by
//! the batch, in [`super::converge`].

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
};
use crate::model::event::EventKind;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// One event of a single object.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// Where.
    pub namespace: &'a str,
    /// What.
    pub kind: EventKind,
    /// The object's uid; none for snapshots.
    pub subject: Option<Uuid>,
    /// The object's name.
    pub name: &'a str,
    /// The chat it is about, and the number of this event among the chat's.
    pub chat: Option<(Uuid, i64)>,
    /// The agent it is about.
    pub agent: Option<Uuid>,
    /// What the transaction saw. Never a body.
    pub payload: Value,
}

/// Appends one event.
pub async fn append(tx: &mut PgConnection, log: &mut TxLog, event: NewEvent<'_>) -> Result<(), StoreError> {
    const NAME: &str = "db.events.append";
    let NewEvent { namespace, kind, subject, name, chat, agent, payload } = event;
    log.written += 1;
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        namespace,
        log.rv,
        log.written,
        kind.as_str(),
        subject,
        name,
        chat.map(|(id, _)| id),
        agent,
        chat.map(|(_, seq)| seq),
        payload
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Whether an object of this name was deleted by a transaction with a later version than `rv`: then creating it anew with
/// `rv` would go back in time for whoever watches.
pub async fn deleted_later(
    tx: &mut PgConnection,
    namespace: &str,
    name: &str,
    kind: EventKind,
    rv: i64,
) -> Result<bool, StoreError> {
    const NAME: &str = "db.events.deleted_later";
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM events WHERE rv > $4 AND namespace = $1 AND name = $2 AND kind = $3) AS "later!""#,
        namespace,
        name,
        kind.as_str(),
        rv
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// A place in the log: after this event of this transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The transaction's version.
    pub rv: i64,
    /// The event's number within it.
    pub seq: i32,
}

impl Cursor {
    /// After everything of the transactions up to this version.
    pub fn through(rv: i64) -> Self {
        Self { rv, seq: i32::MAX }
    }
}

/// An event, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Where it stands.
    pub cursor: Cursor,
    /// Of which namespace.
    pub namespace: String,
    /// What happened.
    pub kind: EventKind,
    /// The object's name.
    pub name: String,
    /// The chat it is about, and the number of this event among the chat's.
    pub chat: Option<(Uuid, i64)>,
    /// The agent it is about.
    pub agent: Option<Uuid>,
    /// What the transaction saw.
    pub payload: Value,
    /// When the transaction began.
    pub at: jiff::Timestamp,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// The events after the cursor, in order, at most as many as asked for.
    Events(Vec<Logged>),
    /// The cursor is from before the floor: what came after it may be gone. Begin again from a list.
    Expired,
}

/// Reads what comes after `cursor`, up to the horizon. The horizon is fetched in a statement before the rows, and the floor is
/// looked at after them: the other way round loses changes.
pub async fn read_after(connection: &mut PgConnection, cursor: Cursor, limit: i64) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read";
    let horizon = super::log::horizon(connection).await?;
    let rows = sqlx::query!(
        r#"SELECT e.namespace, e.rv, e.seq, e.kind, e.name, e.chat_id, e.chat_seq, e.agent_id, e.payload,
                  e.created_at AS "created_at: jiff_sqlx::Timestamp"
           FROM events e WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 ORDER BY e.rv, e.seq LIMIT $4"#,
        cursor.rv,
        cursor.seq,
        horizon,
        limit
    )
    .fetch_all(&mut *connection)
    .named(NAME)
    .await?;
    if cursor.rv < super::log::floor(connection).await? {
        return Ok(Read::Expired);
    }
    let logged = rows.into_iter().map(|row| {
        let bad = |error: crate::model::word::UnknownWord| StoreError::Inconsistent {
            table: "events",
            column: "kind",
            id: format!("{}/{}", row.rv, row.seq),
            message: error.to_string(),
        };
        Ok(Logged {
            cursor: Cursor { rv: row.rv, seq: row.seq },
            kind: row.kind.parse().map_err(bad)?,
            namespace: row.namespace,
            name: row.name,
            chat: row.chat_id.zip(row.chat_seq),
            agent: row.agent_id,
            payload: row.payload,
            at: row.created_at.to_jiff(),
        })
    });
    logged.collect::<Result<_, _>>().map(Read::Events)
}
