//! One chat as the loop reads it, beside what the API shows of it, as of one moment.

use super::{
    chats,
    converge::{self, Loaded, Row},
    error::StoreError,
    transaction,
};
use crate::model::{chat::ChatView, object::Key};
use sqlx::PgPool;

/// Reads both in one snapshot of the database, and locks nothing. None when there is no such chat.
pub async fn read(pool: &PgPool, key: &Key) -> Result<Option<(ChatView, Loaded)>, StoreError> {
    let mut tx = transaction::one_moment(pool).await?;
    let Some(view) = chats::get(&mut tx, key).await? else { return Ok(None) };
    let rows = converge::load(&mut tx, &key.namespace, &[view.chat.meta.id]).await?;
    transaction::end(tx).await?;
    match rows.into_iter().next() {
        None => Ok(None),
        Some(Row::Chat(loaded)) => Ok(Some((view, *loaded))),
        Some(Row::Bad { id: _, error }) => Err(error),
    }
}
