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

/// Agents in the order of (namespace, name), after this one.
pub async fn agents(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<AgentView>, StoreError> {
    const NAME: &str = "db.agents.list";
    let (after_namespace, after_name) = start(after);
    let rows = match slice.scope() {
        Scope::None => return Ok(Vec::new()),
        Scope::One(namespace) => {
            page!("WHERE a.namespace = $7 AND a.name > $8", "ORDER BY a.name", reach, slice, namespace, after_name)
                .fetch_all(connection)
                .named(NAME)
                .await
        }
        Scope::All => {
            page!(
                "WHERE (a.namespace, a.name) > ($7, $8)",
                "ORDER BY a.namespace, a.name",
                reach,
                slice,
                after_namespace,
                after_name
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
    };
    rows?.into_iter().map(AgentView::try_from).collect()
}
