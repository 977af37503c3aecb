//! What a record that the loop has given up on for now says of itself beyond its conditions: that its generation has been
//! seen. Without that it would look as if nobody had come by yet.

use super::error::{Named, StoreError, expect_rows};
use sqlx::PgConnection;
use uuid::Uuid;

/// Whether a chat's conditions speak of an older generation.
pub async fn chat_is_behind(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<bool, StoreError> {
    const NAME: &str = "db.chats.is_behind";
    sqlx::query_scalar!(
        r#"SELECT observed_generation < generation AS "behind!" FROM chats WHERE namespace = $1 AND id = $2"#,
        namespace,
        id
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// Whether an agent's conditions speak of an older generation.
pub async fn agent_is_behind(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<bool, StoreError> {
    const NAME: &str = "db.agents.is_behind";
    sqlx::query_scalar!(
        r#"SELECT observed_generation < generation AS "behind!" FROM agents WHERE namespace = $1 AND id = $2"#,
        namespace,
        id
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// Notes that a chat's generation has been seen, and takes keys off its conditions. Its version was written by who set it aside.
pub async fn chat_was_seen(tx: &mut PgConnection, namespace: &str, id: Uuid, drop: &[String]) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.was_seen";
    let done = sqlx::query!(
        "UPDATE chats SET observed_generation = generation, conditions = conditions - $3::text[]
         WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        drop
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Notes that an agent's generation has been seen, and takes keys off its conditions. Its version was written by who set it aside.
pub async fn agent_was_seen(tx: &mut PgConnection, namespace: &str, id: Uuid, drop: &[String]) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.was_seen";
    let done = sqlx::query!(
        "UPDATE agents SET observed_generation = generation, conditions = conditions - $3::text[]
         WHERE namespace = $1 AND id = $2",
        namespace,
        id,
        drop
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}
