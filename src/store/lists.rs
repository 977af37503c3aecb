//! Pages of lists: keyset, with the reader's reach and the selectors in SQL, so that a page is cut from what may be seen and is
//! asked for.
//!
//! A page costs the page where an index gives its order and finds what is selected: everything or one namespace, of one owner,
//! agent or workspace, by name; what changed last, of everything, one namespace or one owner. Any other selector costs what is
//! looked at until the page is full.
//!
//! Two statements a kind and order, for one namespace and for all. What is not asked for is NULL in them, which is why they want
//! to be planned anew each time: read in a [`moment`].

use super::{
    error::{Named, StoreError},
    rows::{agent_query, chat_query, snapshot_query},
};
use crate::model::{
    access::Reach,
    agent::AgentView,
    chat::ChatView,
    object::Key,
    selector::{FieldSelector, FieldTerm, LabelSelector, Requirement},
    snapshot::Snapshot,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

/// A transaction to read a list in: all its pieces see one moment, and each statement is planned for the values it has (speed
/// only: a plan for any values would not know which conditions are there). Dropping it ends it.
pub async fn moment(pool: &PgPool) -> Result<Transaction<'static, Postgres>, StoreError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan";
    pool.begin_with(BEGIN).named("db.begin_list").await
}

/// Which objects, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice<'a> {
    /// One namespace; none means every one.
    pub namespace: Option<&'a str>,
    /// Only objects with such labels.
    pub labels: &'a LabelSelector,
    /// Only objects with such fields.
    pub fields: &'a FieldSelector,
    /// At most so many.
    pub limit: i64,
}

/// A place in the order of what changed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Updated {
    /// When a person or a runner last changed it.
    pub at: Timestamp,
    /// The uid: two may have changed at one time.
    pub id: Uuid,
}

impl<'a> Slice<'a> {
    /// The label selector as the statements take it; none selects everything.
    fn labels(&self) -> Option<Value> {
        let term = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) => json!({"key": key, "in": values}),
            Requirement::NotIn(key, values) => json!({"key": key, "notIn": values}),
            Requirement::Exists(key) => json!({"key": key, "exists": true}),
            Requirement::Absent(key) => json!({"key": key, "exists": false}),
            Requirement::Greater(key, bound) => json!({"key": key, "over": bound}),
            Requirement::Less(key, bound) => json!({"key": key, "under": bound}),
        };
        (!self.labels.0.is_empty()).then(|| self.labels.0.iter().map(term).collect())
    }

    /// The first term that wants a field to have a value: a condition of its own, so that an index may serve it.
    fn term(&self, field: &str) -> Option<&'a FieldTerm> {
        self.fields.0.iter().find(|term| term.equal && term.field == field && !term.value.is_empty())
    }

    fn value(&self, field: &str) -> Option<&'a str> {
        self.term(field).map(|term| term.value.as_str())
    }

    /// The other terms of the field selector, as the statements take them; none when there are none.
    fn fields(&self, own: &[&str]) -> Option<Value> {
        let has_its_own = |term: &FieldTerm| own.iter().any(|field| self.term(field).is_some_and(|own| std::ptr::eq(own, term)));
        let others = self.fields.0.iter().filter(|term| !has_its_own(term));
        let others: Vec<_> =
            others.map(|term| json!({"field": term.field, "equal": term.equal, "value": term.value})).collect();
        (!others.is_empty()).then(|| others.into())
    }
}

/// A page: what places it and what else it selects, by columns, by labels ($1) and by fields ($2); its order; at most $3 rows.
/// An own `$4` is the reader whose reach it is.
macro_rules! page_query {
    (
        $query:ident, $place:literal, $columns:literal, labels: $labels:literal, fields: $fields:literal, $order:literal
        $(, $arg:expr)*
    ) => {
        $query!(
            $place
                + $columns
                + "
  AND ($1::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($1::jsonb) AS q (r), LATERAL (SELECT "
                + $labels
                + " ->> (q.r ->> 'key')) AS l (value)
    WHERE NOT coalesce(CASE
        WHEN q.r ? 'in' THEN q.r -> 'in' ? l.value
        WHEN q.r ? 'notIn' THEN l.value IS NULL OR NOT q.r -> 'notIn' ? l.value
        WHEN q.r ? 'exists' THEN (l.value IS NOT NULL) = (q.r ->> 'exists')::boolean
        WHEN l.value ~ '^[0-9]+$' THEN l.value::numeric <= 9223372036854775807
            AND (l.value::numeric > (q.r ->> 'over')::numeric OR l.value::numeric < (q.r ->> 'under')::numeric)
        END, false)))
  AND ($2::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($2::jsonb) AS q (r)
    WHERE (coalesce(CASE q.r ->> 'field' WHEN 'metadata.namespace' THEN "
                + $fields
                + " END, '') = q.r ->> 'value') <> (q.r ->> 'equal')::boolean))
"
                + $order
                + " LIMIT $3"
            $(, $arg)*
        )
    };
}

macro_rules! chat_page {
    ($place:literal, $order:literal, $reach:expr, $slice:expr $(, $arg:expr)*) => {
        page_query!(
            chat_query,
            $place,
            "
  AND ($4::text IS NULL OR c.owner = $4) AND ($5::text IS NULL OR c.name = $5) AND ($6::text IS NULL OR c.owner = $6)
  AND ($7::text IS NULL OR c.agent = $7) AND ($8::text IS NULL OR c.workspace = $8)",
            labels: "c.labels",
            fields: "c.namespace
        WHEN 'metadata.name' THEN c.name WHEN 'spec.owner' THEN c.owner WHEN 'spec.agentRef.name' THEN c.agent
        WHEN 'spec.workspaceRef.name' THEN c.workspace WHEN 'spec.archived' THEN c.archived::text
        WHEN 'status.state' THEN c.state WHEN 'status.dirty' THEN (c.dirty_since IS NOT NULL)::text",
            $order,
            $slice.labels(),
            $slice.fields(&["metadata.name", "spec.owner", "spec.agentRef.name", "spec.workspaceRef.name"]),
            $slice.limit,
            $reach.user(),
            $slice.value("metadata.name"),
            $slice.value("spec.owner"),
            $slice.value("spec.agentRef.name"),
            $slice.value("spec.workspaceRef.name")
            $(, $arg)*
        )
    };
}

/// Chats in the order of (namespace, name), after this one.
pub async fn chats(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.chats.list";
    let (after_namespace, after_name) = start(after);
    let rows = match slice.namespace {
        Some(namespace) => {
            chat_page!(
                "WHERE c.namespace = $9 AND c.name > $10",
                "ORDER BY c.name",
                reach,
                slice,
                namespace,
                after_name
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        }
        None => {
            chat_page!(
                "WHERE (c.namespace, c.name) > ($9, $10)",
                "ORDER BY c.namespace, c.name",
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
    rows?.into_iter().map(ChatView::try_from).collect()
}

/// Chats, what changed last first, after this place.
pub async fn chats_updated(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<Updated>,
) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.chats.list_updated";
    let (at, id) = after.map(|after| (after.at.to_sqlx(), after.id)).unzip();
    let rows = match slice.namespace {
        Some(namespace) => {
            chat_page!(
                "WHERE ($9::timestamptz IS NULL OR (c.updated_at, c.id) < ($9, $10::uuid)) AND c.namespace = $11",
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
        None => {
            chat_page!(
                "WHERE ($9::timestamptz IS NULL OR (c.updated_at, c.id) < ($9, $10::uuid))",
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

macro_rules! agent_page {
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
    let rows = match slice.namespace {
        Some(namespace) => {
            agent_page!("WHERE a.namespace = $7 AND a.name > $8", "ORDER BY a.name", reach, slice, namespace, after_name)
                .fetch_all(connection)
                .named(NAME)
                .await
        }
        None => {
            agent_page!(
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

macro_rules! snapshot_page {
    ($place:literal, $order:literal, $reach:expr, $slice:expr $(, $arg:expr)*) => {
        page_query!(
            snapshot_query,
            $place,
            "
  AND ($4::text IS NULL OR EXISTS (
    SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $4))
  AND ($5::text IS NULL OR s.name = $5) AND ($6::text IS NULL OR s.agent_name = $6)",
            labels: "jsonb_build_object('moorline.dev/agent', s.agent_name, 'moorline.dev/snapshot-hash', left(encode(s.context_hash, 'hex'), 12))",
            fields: "s.namespace WHEN 'metadata.name' THEN s.name WHEN 'spec.agentRef.name' THEN s.agent_name",
            $order,
            $slice.labels(),
            $slice.fields(&["metadata.name", "spec.agentRef.name"]),
            $slice.limit,
            $reach.user(),
            $slice.value("metadata.name"),
            $slice.value("spec.agentRef.name")
            $(, $arg)*
        )
    };
}

/// Snapshots, without their manifests, in the order of (namespace, name), after this one. A reader who does not reach everything
/// reaches those of the agents it may push as.
pub async fn snapshots(
    connection: &mut PgConnection,
    reach: &Reach,
    slice: &Slice<'_>,
    after: Option<&Key>,
) -> Result<Vec<Snapshot>, StoreError> {
    const NAME: &str = "db.snapshots.list";
    let (after_namespace, after_name) = start(after);
    let rows = match slice.namespace {
        Some(namespace) => {
            snapshot_page!("WHERE s.namespace = $7 AND s.name > $8", "ORDER BY s.name", reach, slice, namespace, after_name)
                .fetch_all(connection)
                .named(NAME)
                .await
        }
        None => {
            snapshot_page!(
                "WHERE (s.namespace, s.name) > ($7, $8)",
                "ORDER BY s.namespace, s.name",
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
    rows?.into_iter().map(Snapshot::try_from).collect()
}

fn start(after: Option<&Key>) -> (&str, &str) {
    after.map_or(("", ""), |key| (&key.namespace, &key.name))
}
