//! Appending to the event log: one row per event, in the transaction that made it happen. Converging appends its events by
//! the batch, in [`crate::store::converge`], and a push its own, in [`crate::store::push`].

use crate::{
    model::event::EventKind,
    store::{
        error::{Named, StoreError, expect_rows},
        log::TxLog,
    },
};
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
