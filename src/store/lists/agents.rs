//! Pages of agents.

use super::{Scope, Slice, start};
use crate::{
    model::{access::Reach, agent::AgentView, object::Key},
    store::{
        error::{Named, StoreError},
        rows::agent_query,
    },
};
use sqlx::PgConnection;

/// A page of agents. From `$7` on it is the place's.
macro_rules! page {
    ($place:literal, $order:literal, $reach:expr, $slice:expr $(, $arg:expr)*) => {
        page_query!(
            agent_query,
            $place,
            "
  AND ($4::text IS NULL OR a.service_account = $4) AND ($5::text IS NULL OR a.name = $5)
  AND ($6::text IS NULL OR a.workspace = $6)",
            labels: "a.labels",
            fields: "a.namespace WHEN 'metadata.name' THEN a.name WHEN 'spec.workspace' THEN a.workspace",
            $order,
            $slice.labels(),
            $slice.fields(&["metadata.name", "spec.workspace"]),
            $slice.limit,
            $reach.user(),
            $slice.value("metadata.name"),
            $slice.value("spec.workspace")
            $(, $arg)*
        )
    };
}

const NAME: &str = "db.agents.list";

/// Agents in the order of (namespace, name), after this one.
pub async fn agents(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<AgentView>, StoreError> {
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
) -> Result<Vec<AgentView>, StoreError> {
    let page = page!("WHERE a.namespace = $7 AND a.name > $8", "ORDER BY a.name", reach, slice, namespace, after);
    let rows = page.fetch_all(connection).named(NAME).await?;
    rows.into_iter().map(AgentView::try_from).collect()
}

async fn beyond(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    namespace: &str,
) -> Result<Vec<AgentView>, StoreError> {
    let page = page!("WHERE a.namespace > $7", "ORDER BY a.namespace, a.name", reach, slice, namespace);
    let rows = page.fetch_all(connection).named(NAME).await?;
    rows.into_iter().map(AgentView::try_from).collect()
}
