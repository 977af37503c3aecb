//! What the loop reads and writes: claiming chats that are due, reading each with its pin and its target, writing the outcomes
//! of a whole batch in one statement, and setting aside what it fails on.

mod aside;
mod load;
mod record;

use super::{
    chats::Locked,
    error::{Named, StoreError},
};
pub use aside::{Poison, lock_poisoned, make_due, make_due_each, set_aside};
pub use load::{Concerned, Loaded, Row, SnapshotFacts, load, load_concerned, load_locked};
pub use record::{Class, ClassEvent, Lane, Outcomes, record};
use sqlx::PgConnection;
use uuid::Uuid;

/// Most chats that one transaction touches.
pub const BATCH_MAX: i64 = 1_000;

/// Claims chats of one namespace that are due: locked until the transaction ends; those that somebody else holds are left
/// to him.
pub async fn claim(tx: &mut PgConnection, namespace: &str, limit: i64) -> Result<Vec<Locked>, StoreError> {
    const NAME: &str = "db.chats.claim";
    sqlx::query_as!(
        Locked,
        r#"SELECT id, ctid::text AS "place!" FROM chats
         WHERE namespace = $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= now())
         ORDER BY id LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED"#,
        namespace,
        limit
    )
    .fetch_all(tx)
    .named(NAME)
    .await
}

/// Claims one chat, if it is due and nobody holds it.
pub async fn claim_one(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Vec<Locked>, StoreError> {
    const NAME: &str = "db.chats.claim_one";
    sqlx::query_as!(
        Locked,
        r#"SELECT id, ctid::text AS "place!" FROM chats WHERE namespace = $1 AND id = $2 AND converged_revision < revision
         FOR NO KEY UPDATE SKIP LOCKED"#,
        namespace,
        id
    )
    .fetch_all(tx)
    .named(NAME)
    .await
}
