//! Pages of lists: keyset, in the order of (namespace, name), with the reader's reach and the selectors in SQL.
//! A page costs the page; with a selector it costs what it looks at until it is full.

use super::{
    error::{Named, StoreError},
    rows::{agent_query, chat_query, snapshot_query},
};
use crate::model::{
    access::Reach,
    agent::AgentView,
    chat::ChatView,
    object::Key,
    selector::{FieldSelector, LabelSelector, Requirement},
    snapshot::Snapshot,
};
use serde_json::{Value, json};
use sqlx::PgConnection;

/// Which part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice<'a> {
    /// One namespace; none means every one.
    pub namespace: Option<&'a str>,
    /// Only objects with such labels.
    pub labels: &'a LabelSelector,
    /// Only objects with such fields.
    pub fields: &'a FieldSelector,
    /// Only what comes after this.
    pub after: Option<&'a Key>,
    /// At most so many.
    pub limit: i64,
}

impl Slice<'_> {
    fn start(&self) -> (&str, &str) {
        self.after.map_or(("", ""), |key| (&key.namespace, &key.name))
    }

    /// The name that is asked for, when it is one: then the key is known.
    fn name(&self) -> Option<&str> {
        self.fields.wants("metadata.name")
    }

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

    /// The field selector as the statements take it, but for the name.
    fn fields(&self) -> Option<Value> {
        let rest = self.fields.0.iter().map(|term| json!({"field": term.field, "equal": term.equal, "value": term.value}));
        (!self.fields.0.is_empty()).then(|| rest.collect())
    }
}

/// Chats.
pub async fn chats(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<ChatView>, StoreError> {
    const NAME: &str = "db.chats.list";
    let (after_namespace, after_name) = slice.start();
    let (labels, fields) = (slice.labels(), slice.fields());
    macro_rules! page {
        ($which:literal, $order:literal, $namespace:expr $(, $user:expr)?) => {
            chat_query!(
                $which
                    + "AND ($5::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($5::jsonb) AS q (r)
    WHERE NOT coalesce(CASE
        WHEN q.r ? 'in' THEN q.r -> 'in' ? (c.labels ->> (q.r ->> 'key'))
        WHEN q.r ? 'notIn' THEN NOT coalesce(q.r -> 'notIn' ? (c.labels ->> (q.r ->> 'key')), false)
        ELSE (c.labels ? (q.r ->> 'key')) = (q.r ->> 'exists')::boolean END, false)))
  AND ($6::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($6::jsonb) AS q (r)
    WHERE (coalesce(CASE q.r ->> 'field'
        WHEN 'metadata.name' THEN c.name WHEN 'metadata.namespace' THEN c.namespace
        WHEN 'spec.owner' THEN c.owner WHEN 'spec.agentRef.name' THEN c.agent
        WHEN 'spec.workspaceRef.name' THEN c.workspace WHEN 'spec.archived' THEN c.archived::text
        WHEN 'status.state' THEN c.state WHEN 'status.dirty' THEN (c.dirty_since IS NOT NULL)::text END, '') = q.r ->> 'value') <> (q.r ->> 'equal')::boolean)) "
                    + $order,
                $namespace,
                after_name,
                slice.name(),
                slice.limit,
                labels,
                fields
                $(, $user)?
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        };
    }
    let rows = match (slice.namespace, reach.user()) {
        (Some(namespace), None) => {
            page!(
                "WHERE c.namespace = $1 AND c.name > $2 AND ($3::text IS NULL OR c.name = $3) ",
                "ORDER BY c.name LIMIT $4",
                namespace
            )
        }
        (Some(namespace), Some(user)) => {
            page!(
                "WHERE c.owner = $7 AND c.namespace = $1 AND c.name > $2 AND ($3::text IS NULL OR c.name = $3) ",
                "ORDER BY c.name LIMIT $4",
                namespace,
                user
            )
        }
        (None, None) => {
            page!(
                "WHERE (c.namespace, c.name) > ($1, $2) AND ($3::text IS NULL OR c.name = $3) ",
                "ORDER BY c.namespace, c.name LIMIT $4",
                after_namespace
            )
        }
        (None, Some(user)) => {
            page!(
                "WHERE c.owner = $7 AND (c.namespace, c.name) > ($1, $2) AND ($3::text IS NULL OR c.name = $3) ",
                "ORDER BY c.namespace, c.name LIMIT $4",
                after_namespace,
                user
            )
        }
    };
    rows?.into_iter().map(ChatView::try_from).collect()
}

/// Agents.
pub async fn agents(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<AgentView>, StoreError> {
    const NAME: &str = "db.agents.list";
    let (after_namespace, after_name) = slice.start();
    let (labels, fields) = (slice.labels(), slice.fields());
    macro_rules! page {
        ($which:literal, $order:literal, $namespace:expr $(, $user:expr)?) => {
            agent_query!(
                $which
                    + "AND ($5::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($5::jsonb) AS q (r)
    WHERE NOT coalesce(CASE
        WHEN q.r ? 'in' THEN q.r -> 'in' ? (a.labels ->> (q.r ->> 'key'))
        WHEN q.r ? 'notIn' THEN NOT coalesce(q.r -> 'notIn' ? (a.labels ->> (q.r ->> 'key')), false)
        ELSE (a.labels ? (q.r ->> 'key')) = (q.r ->> 'exists')::boolean END, false)))
  AND ($6::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($6::jsonb) AS q (r)
    WHERE (coalesce(CASE q.r ->> 'field'
        WHEN 'metadata.name' THEN a.name WHEN 'metadata.namespace' THEN a.namespace
        WHEN 'spec.workspace' THEN a.workspace END, '') = q.r ->> 'value') <> (q.r ->> 'equal')::boolean)) "
                    + $order,
                $namespace,
                after_name,
                slice.name(),
                slice.limit,
                labels,
                fields
                $(, $user)?
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        };
    }
    let rows = match (slice.namespace, reach.user()) {
        (Some(namespace), None) => {
            page!(
                "WHERE a.namespace = $1 AND a.name > $2 AND ($3::text IS NULL OR a.name = $3) ",
                "ORDER BY a.name LIMIT $4",
                namespace
            )
        }
        (Some(namespace), Some(user)) => {
            page!(
                "WHERE a.service_account = $7 AND a.namespace = $1 AND a.name > $2 AND ($3::text IS NULL OR a.name = $3) ",
                "ORDER BY a.name LIMIT $4",
                namespace,
                user
            )
        }
        (None, None) => {
            page!(
                "WHERE (a.namespace, a.name) > ($1, $2) AND ($3::text IS NULL OR a.name = $3) ",
                "ORDER BY a.namespace, a.name LIMIT $4",
                after_namespace
            )
        }
        (None, Some(user)) => {
            page!(
                "WHERE a.service_account = $7 AND (a.namespace, a.name) > ($1, $2) AND ($3::text IS NULL OR a.name = $3) ",
                "ORDER BY a.namespace, a.name LIMIT $4",
                after_namespace,
                user
            )
        }
    };
    rows?.into_iter().map(AgentView::try_from).collect()
}

/// Snapshots, without their manifests. A reader who does not reach everything reaches those of the agents it may push as.
pub async fn snapshots(connection: &mut PgConnection, reach: &Reach, slice: &Slice<'_>) -> Result<Vec<Snapshot>, StoreError> {
    const NAME: &str = "db.snapshots.list";
    let (after_namespace, after_name) = slice.start();
    let (labels, fields) = (slice.labels(), slice.fields());
    macro_rules! page {
        ($which:literal, $order:literal, $namespace:expr $(, $user:expr)?) => {
            snapshot_query!(
                $which
                    + "AND ($5::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($5::jsonb) AS q (r)
    WHERE NOT coalesce(CASE
        WHEN q.r ? 'in' THEN q.r -> 'in' ? (jsonb_build_object('moorline.dev/agent', s.agent_name, 'moorline.dev/snapshot-hash', left(encode(s.context_hash, 'hex'), 12)) ->> (q.r ->> 'key'))
        WHEN q.r ? 'notIn' THEN NOT coalesce(q.r -> 'notIn' ? (jsonb_build_object('moorline.dev/agent', s.agent_name, 'moorline.dev/snapshot-hash', left(encode(s.context_hash, 'hex'), 12)) ->> (q.r ->> 'key')), false)
        ELSE (jsonb_build_object('moorline.dev/agent', s.agent_name, 'moorline.dev/snapshot-hash', left(encode(s.context_hash, 'hex'), 12)) ? (q.r ->> 'key')) = (q.r ->> 'exists')::boolean END, false)))
  AND ($6::jsonb IS NULL OR NOT EXISTS (
    SELECT FROM jsonb_array_elements($6::jsonb) AS q (r)
    WHERE (coalesce(CASE q.r ->> 'field'
        WHEN 'metadata.name' THEN s.name WHEN 'metadata.namespace' THEN s.namespace
        WHEN 'spec.agentRef.name' THEN s.agent_name END, '') = q.r ->> 'value') <> (q.r ->> 'equal')::boolean)) "
                    + $order,
                $namespace,
                after_name,
                slice.name(),
                slice.limit,
                labels,
                fields
                $(, $user)?
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        };
    }
    let rows = match (slice.namespace, reach.user()) {
        (Some(namespace), None) => {
            page!(
                "WHERE s.namespace = $1 AND s.name > $2 AND ($3::text IS NULL OR s.name = $3) ",
                "ORDER BY s.name LIMIT $4",
                namespace
            )
        }
        (Some(namespace), Some(user)) => {
            page!(
                "WHERE EXISTS (SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $7) AND s.namespace = $1 AND s.name > $2 AND ($3::text IS NULL OR s.name = $3) ",
                "ORDER BY s.name LIMIT $4",
                namespace,
                user
            )
        }
        (None, None) => {
            page!(
                "WHERE (s.namespace, s.name) > ($1, $2) AND ($3::text IS NULL OR s.name = $3) ",
                "ORDER BY s.namespace, s.name LIMIT $4",
                after_namespace
            )
        }
        (None, Some(user)) => {
            page!(
                "WHERE EXISTS (SELECT FROM agents a WHERE a.namespace = s.namespace AND a.id = s.agent_id AND a.service_account = $7) AND (s.namespace, s.name) > ($1, $2) AND ($3::text IS NULL OR s.name = $3) ",
                "ORDER BY s.namespace, s.name LIMIT $4",
                after_namespace,
                user
            )
        }
    };
    rows?.into_iter().map(Snapshot::try_from).collect()
}
