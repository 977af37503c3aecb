//! Pages of snapshots, without their manifests.

use super::{Scope, Slice, start};
use crate::{
    model::{access::Reach, object::Key, selector::Requirement, snapshot::Snapshot},
    store::{
        error::{Named, StoreError},
        rows::snapshot_query,
    },
};
use sqlx::PgConnection;

/// A page of snapshots. From `$6` on it is the place's.
macro_rules! page {
    ($place:literal, $order:literal, $slice:expr $(, $arg:expr)*) => {
        page_query!(
            snapshot_query,
            $place,
            "
  AND ($4::text IS NULL OR s.name = $4) AND ($5::text IS NULL OR s.agent_name = $5)",
            labels: "jsonb_build_object('moorline.dev/agent', s.agent_name, 'moorline.dev/snapshot-hash', left(encode(s.context_hash, 'hex'), 12))",
            fields: "s.namespace WHEN 'metadata.name' THEN s.name WHEN 'spec.agentRef.name' THEN s.agent_name",
            $order,
            $slice.labels(),
            $slice.fields(&["metadata.name", "spec.agentRef.name"]),
            $slice.limit,
            $slice.value("metadata.name"),
            $slice.value("spec.agentRef.name").or(labelled($slice))
            $(, $arg)*
        )
    };
}

/// The agent that the label selector wants, if it wants one: that label is the column.
fn labelled<'a>(slice: &Slice<'a>) -> Option<&'a str> {
    slice.labels.0.iter().find_map(|requirement| match requirement {
        Requirement::In(key, values) if key == "moorline.dev/agent" && values.len() == 1 => values.first().map(String::as_str),
        Requirement::In(..)
        | Requirement::NotIn(..)
        | Requirement::Exists(_)
        | Requirement::Absent(_)
        | Requirement::Greater(..)
        | Requirement::Less(..) => None,
    })
}

const NAME: &str = "db.snapshots.list";

/// Snapshots in the order of (namespace, name), after this one. A reader who does not reach everything reaches those of the
/// agents it may push as.
pub async fn snapshots(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<Snapshot>, StoreError> {
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
) -> Result<Vec<Snapshot>, StoreError> {
    let rows = match reach.user() {
        None => {
            let page = page!("WHERE s.namespace = $6 AND s.name > $7", "ORDER BY s.name", slice, namespace, after);
            page.fetch_all(connection).named(NAME).await?
        }
        Some(user) => {
            let page = page!(
                "WHERE s.namespace = $6 AND s.name > $7
  AND EXISTS (SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $8)",
                "ORDER BY s.name",
                slice,
                namespace,
                after,
                user
            );
            page.fetch_all(connection).named(NAME).await?
        }
    };
    rows.into_iter().map(Snapshot::try_from).collect()
}

async fn beyond(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    namespace: &str,
) -> Result<Vec<Snapshot>, StoreError> {
    let rows = match reach.user() {
        None => {
            let page = page!("WHERE s.namespace > $6", "ORDER BY s.namespace, s.name", slice, namespace);
            page.fetch_all(connection).named(NAME).await?
        }
        Some(user) => {
            let page = page!(
                "WHERE s.namespace > $6
  AND EXISTS (SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $7)",
                "ORDER BY s.namespace, s.name",
                slice,
                namespace,
                user
            );
            page.fetch_all(connection).named(NAME).await?
        }
    };
    rows.into_iter().map(Snapshot::try_from).collect()
}
