//! Pages of chats.

use super::{Scope, Slice, start};
use crate::{
    model::{access::Reach, chat::ChatView, object::Key},
    store::{
        error::{Named, StoreError},
        rows::chat_query,
    },
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

/// A place in the order of what changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated {
    /// When a person or a runner last changed it.
    pub at: Timestamp,
    /// The uid: two may have changed at one time.
    pub id: Uuid,
}

/// A page of chats. From `$12` on it is the place's.
macro_rules! page {
    ($place:literal, $order:literal, $reach:expr, $slice:expr $(, $arg:expr)*) => {
        page_query!(
            chat_query,
            $place,
            "
  AND ($4::text IS NULL OR c.owner = $4) AND ($5::text IS NULL OR c.name = $5) AND ($6::text IS NULL OR c.owner = $6)
  AND ($7::text IS NULL OR c.agent = $7) AND ($8::text IS NULL OR c.workspace = $8) AND ($9::text IS NULL OR c.state = $9)
  AND ($10::boolean IS NULL OR c.archived = $10) AND ($11::boolean IS NULL OR (c.dirty_since IS NOT NULL) = $11)",
            labels: "c.labels",
            fields: "c.namespace
        WHEN 'metadata.name' THEN c.name WHEN 'spec.owner' THEN c.owner WHEN 'spec.agentRef.name' THEN c.agent
        WHEN 'spec.workspaceRef.name' THEN c.workspace WHEN 'spec.archived' THEN c.archived::text
        WHEN 'status.state' THEN c.state WHEN 'status.dirty' THEN (c.dirty_since IS NOT NULL)::text",
            $order,
            $slice.labels(),
            $slice.fields(&OWN),
            $slice.limit,
            $reach.user(),
            $slice.value("metadata.name"),
            $slice.value("spec.owner"),
            $slice.value("spec.agentRef.name"),
            $slice.value("spec.workspaceRef.name"),
            $slice.value("status.state"),
            $slice.flag("spec.archived"),
            $slice.flag("status.dirty")
            $(, $arg)*
        )
    };
}

/// The fields that have a condition of their own.
const OWN: [&str; 7] = [
    "metadata.name",
    "spec.owner",
    "spec.agentRef.name",
    "spec.workspaceRef.name",
    "status.state",
    "spec.archived",
    "status.dirty",
];

const NAME: &str = "db.chats.list";

/// Chats in the order of (namespace, name), after this one.
pub async fn chats(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<ChatView>, StoreError> {
    let (after_namespace, after_name) = start(after);
    match slice.scope() {
        Scope::None => Ok(Vec::new()),
        Scope::One(namespace) => within(connection, reach, slice, namespace, after_name).await,
        Scope::All => {
            let mut found = match after {
                Some(_) => within(connection, reach, slice, after_namespace, after_name).await?,
                None => Vec::new(),
            };
            if let Some(slice) = slice.rest(found.len()) {
                found.extend(beyond(connection, reach, &slice, after_namespace).await?);
            }
            Ok(found)
        }
    }
}

async fn within(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    namespace: &str,
    after: &str,
) -> Result<Vec<ChatView>, StoreError> {
    let page = page!("WHERE c.namespace = $12 AND c.name > $13", "ORDER BY c.name", reach, slice, namespace, after);
    let rows = page.fetch_all(connection).named(NAME).await?;
    rows.into_iter().map(ChatView::try_from).collect()
}

async fn beyond(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    namespace: &str,
) -> Result<Vec<ChatView>, StoreError> {
    let page = page!("WHERE c.namespace > $12", "ORDER BY c.namespace, c.name", reach, slice, namespace);
    let rows = page.fetch_all(connection).named(NAME).await?;
    rows.into_iter().map(ChatView::try_from).collect()
}

/// Chats, what changed last first, after this place.
pub async fn chats_updated(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Updated>,
) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.chats.list_updated";
    let (at, id) = after.map(|after| (after.at.to_sqlx(), after.id)).unzip();
    let rows = match slice.scope() {
        Scope::None => return Ok(Vec::new()),
        Scope::One(namespace) => {
            page!(
                "WHERE ($12::timestamptz IS NULL OR (c.updated_at, c.id) < ($12, $13::uuid)) AND c.namespace = $14",
                "ORDER BY c.updated_at DESC, c.id DESC",
                reach,
                slice,
                at as _,
                id,
                namespace
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        Scope::All => {
            page!(
                "WHERE ($12::timestamptz IS NULL OR (c.updated_at, c.id) < ($12, $13::uuid))",
                "ORDER BY c.updated_at DESC, c.id DESC",
                reach,
                slice,
                at as _,
                id
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
    };
    rows?.into_iter().map(ChatView::try_from).collect()
}
