//! What becomes of chats that cannot be written as a batch: those that the loop fails on are set aside, and those that an agent's
//! news could not be written to are made due.

use crate::{
    model::{condition::ConditionPatch, event::EventKind},
    store::{
        error::{Named, Retry, StoreError, expect_rows},
        events::{self, NewEvent},
        log::TxLog,
    },
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use std::time::Duration;
use uuid::Uuid;

/// A record that the loop fails on: what it says of that, and how long it waits to be tried again.
#[derive(Clone, Debug)]
pub struct Poison<'a> {
    /// Which.
    pub id: Uuid,
    /// From the transaction's begin by the database's clock, which alone decides when it is over.
    pub wait: Duration,
    /// What the conditions should say of it.
    pub conditions: &'a ConditionPatch,
    /// Whether that changes what the record shows.
    pub shown: bool,
}

/// How often the loop has failed on a chat in a row; locks it. None when it is gone.
pub async fn lock_poisoned(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Option<(i32, Value)>, StoreError> {
    const NAME: &str = "db.chats.lock_poisoned";
    let row = sqlx::query!(
        "SELECT attempts, conditions FROM chats WHERE namespace = $1 AND id = $2 AND converged_revision < revision
             FOR NO KEY UPDATE",
        namespace,
        id
    );
    Ok(row.fetch_optional(tx).named(NAME).await?.map(|row| (row.attempts, row.conditions)))
}

/// Sets a chat aside until its `retry_at`: it stays due, and says so.
pub async fn set_aside(tx: &mut PgConnection, namespace: &str, poison: &Poison<'_>, log: &mut TxLog) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.set_aside";
    let Poison { id, wait, conditions, shown } = poison;
    let set = Value::Object(conditions.set.clone());
    let row = sqlx::query!(
        "UPDATE chats SET attempts = attempts + 1, retry_at = now() + $3::float8 * interval '1 second',
                          conditions = conditions || $4,
                          rv = CASE WHEN $5 THEN $6 ELSE rv END, event_seq = CASE WHEN $5 THEN event_seq + 1 ELSE event_seq END
         WHERE namespace = $1 AND id = $2 AND rv <= $6
         RETURNING name, event_seq",
        namespace,
        id,
        wait.as_secs_f64(),
        set,
        shown,
        log.rv
    )
    .fetch_optional(&mut *tx)
    .named(NAME)
    .await?;
    let row = row.ok_or(StoreError::Guard { query: NAME, expected: 1, got: 0 })?;
    if *shown {
        let event = NewEvent {
            namespace,
            kind: EventKind::ChatUpdated,
            subject: Some(*id),
            name: &row.name,
            chat: Some((*id, row.event_seq)),
            agent: None,
            payload: serde_json::json!({}),
        };
        events::append(tx, log, event).await?;
    }
    Ok(())
}

/// Makes chats due that their agent's news could not be written to as a batch: the chat lane takes them one by one.
pub async fn make_due(
    tx: &mut PgConnection,
    namespace: &str,
    ids: &[Uuid],
    token: Option<(Uuid, &str)>,
) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.make_due";
    let (agent, token) = token.unzip();
    let done = sqlx::query!(
        "UPDATE chats AS c SET revision = revision + 1, refresh_requested = CASE
             WHEN $4::text IS NOT NULL AND NOT c.archived AND NOT c.inherited_archived AND c.refresh_handled IS DISTINCT FROM $4
                  AND EXISTS (SELECT FROM snapshots s
                              WHERE s.namespace = $1 AND s.id = c.snapshot_id AND s.agent_id = $3)
             THEN $4 ELSE c.refresh_requested END
         WHERE c.namespace = $1 AND c.id = ANY($2)",
        namespace,
        ids,
        agent,
        token
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())
}

/// The same of as many as the database lets, and which it refuses, with why. They are found by halving what is refused as a whole,
/// so that one among a thousand costs some twenty statements and not a thousand. In savepoints, which is well because no version is
/// taken in them.
pub async fn make_due_each(
    tx: &mut PgConnection,
    namespace: &str,
    ids: &[Uuid],
    token: Option<(Uuid, &str)>,
) -> Result<Vec<(Uuid, StoreError)>, StoreError> {
    const NAME: &str = "db.chats.make_due_savepoint";
    let mut refused = Vec::new();
    let mut parts = vec![ids];
    while let Some(part) = parts.pop() {
        let mut savepoint = tx.begin().named(NAME).await?;
        match make_due(&mut savepoint, namespace, part, token).await {
            Ok(()) => savepoint.commit().named(NAME).await?,
            Err(error) if error.retry() != Retry::Poison => return Err(error),
            Err(error) => {
                savepoint.rollback().named(NAME).await?;
                match part {
                    [id] => refused.push((*id, error)),
                    part => parts.extend([part.split_at(part.len() / 2).1, part.split_at(part.len() / 2).0]),
                }
            }
        }
    }
    Ok(refused)
}
