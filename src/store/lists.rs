//! Pages of lists: keyset, in the order of (namespace, name), with the reader's reach in SQL. A page costs the page.

use super::{
    error::{Named, StoreError},
    rows::{agent_query, chat_query, snapshot_query},
};
use crate::model::{access::Reach, agent::AgentView, chat::ChatView, object::Key, snapshot::Snapshot};
use sqlx::PgConnection;

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<'a> {
    /// One namespace; none means every one.
    pub namespace: Option<&'a str>,
    /// Only the object of this name.
    pub name: Option<&'a str>,
    /// Only what comes after this.
    pub after: Option<&'a Key>,
    /// At most so many.
    pub limit: i64,
}

impl Slice<'_> {
    fn start(&self) -> (&str, &str) {
        self.after.map_or(("", ""), |key| (&key.namespace, &key.name))
    }
}

/// Chats.
pub async fn chats(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.chats.list";
    let (after_namespace, after_name) = slice.start();
    let rows = match (slice.namespace, reach.user()) {
        (Some(namespace), None) => {
            chat_query!(
                "WHERE c.namespace = $1 AND c.name > $2 AND ($3::text IS NULL OR c.name = $3) ORDER BY c.name LIMIT $4",
                namespace,
                after_name,
                slice.name,
                slice.limit
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        (Some(namespace), Some(user)) => {
            chat_query!(
                "WHERE c.owner = $5 AND c.namespace = $1 AND c.name > $2 AND ($3::text IS NULL OR c.name = $3)
                 ORDER BY c.name LIMIT $4",
                namespace,
                after_name,
                slice.name,
                slice.limit,
                user
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        (None, None) => {
            chat_query!(
                "WHERE (c.namespace, c.name) > ($1, $2) AND ($3::text IS NULL OR c.name = $3)
                 ORDER BY c.namespace, c.name LIMIT $4",
                after_namespace,
                after_name,
                slice.name,
                slice.limit
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        (None, Some(user)) => {
            chat_query!(
                "WHERE c.owner = $5 AND (c.namespace, c.name) > ($1, $2) AND ($3::text IS NULL OR c.name = $3)
                 ORDER BY c.namespace, c.name LIMIT $4",
                after_namespace,
                after_name,
                slice.name,
                slice.limit,
                user
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
    };
    rows?.into_iter().map(ChatView::try_from).collect()
}

/// Agents.
pub async fn agents(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<AgentView>, StoreError> {
    const NAME: &str = "db.agents.list";
    let (after_namespace, after_name) = slice.start();
    let rows = match slice.namespace {
        Some(namespace) => {
            agent_query!(
                "WHERE a.namespace = $1 AND a.name > $2 AND ($3::text IS NULL OR a.name = $3)
                   AND ($5::text IS NULL OR a.service_account = $5)
                 ORDER BY a.name LIMIT $4",
                namespace,
                after_name,
                slice.name,
                slice.limit,
                reach.user()
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        None => {
            agent_query!(
                "WHERE (a.namespace, a.name) > ($1, $2) AND ($3::text IS NULL OR a.name = $3)
                   AND ($5::text IS NULL OR a.service_account = $5)
                 ORDER BY a.namespace, a.name LIMIT $4",
                after_namespace,
                after_name,
                slice.name,
                slice.limit,
                reach.user()
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
    };
    rows?.into_iter().map(AgentView::try_from).collect()
}

/// Snapshots, without their manifests. A reader who does not reach everything reaches those of the agents it may push as.
pub async fn snapshots(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<Snapshot>, StoreError> {
    const NAME: &str = "db.snapshots.list";
    let (after_namespace, after_name) = slice.start();
    let rows = match slice.namespace {
        Some(namespace) => {
            snapshot_query!(
                "WHERE s.namespace = $1 AND s.name > $2 AND ($3::text IS NULL OR s.name = $3)
                   AND ($5::text IS NULL OR EXISTS (
                       SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $5))
                 ORDER BY s.name LIMIT $4",
                namespace,
                after_name,
                slice.name,
                slice.limit,
                reach.user()
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        None => {
            snapshot_query!(
                "WHERE (s.namespace, s.name) > ($1, $2) AND ($3::text IS NULL OR s.name = $3)
                   AND ($5::text IS NULL OR EXISTS (
                       SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $5))
                 ORDER BY s.namespace, s.name LIMIT $4",
                after_namespace,
                after_name,
                slice.name,
                slice.limit,
                reach.user()
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
    };
    rows?.into_iter().map(Snapshot::try_from).collect()
}
