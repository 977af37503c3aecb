//! Pages of lists: keyset, with the reader's reach and the selectors in SQL, so that a page is cut from what may be seen and is
//! asked for.
//!
//! A page costs the page where an index gives its order and finds what is selected: everything, one namespace, one owner, or the
//! chats of one agent, workspace or state, archived or not, dirty ones, by name; what changed last, of everything, one namespace
//! or one owner. Any other selector (labels, `!=`, what is clean) costs what is looked at until the page is full.
//!
//! A statement a kind, order and scope. What is not asked for is NULL in them, so they want to be planned anew each time, for the
//! values they have: read in a [`moment`]. Through all namespaces goes first what is left of one, then those beyond it: of
//! `(namespace, name) > (…)` PostgreSQL guesses the rows by the namespace alone, believes at the end that there are hardly any, and
//! looks at all of them instead of at those that are selected (seen: a last page that costs twice the first).
//!
//! What this does not: look at one object, or know of tokens and limits of pages (`http::page`).

use super::error::{Named, StoreError};
use crate::model::{
    object::Key,
    selector::{FieldSelector, FieldTerm, LabelSelector, Requirement},
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

/// A page: what places it and what else it selects, by columns, by labels ($1) and by fields ($2); its order; at most $3
/// rows. It is cut before anything is joined to its rows: of a table that grew since it was last analyzed PostgreSQL believes that
/// few rows are selected, and sorts all of them; they must not all have been joined by then (seen: ten seconds for a page).
macro_rules! page_query {
    (
        $query:ident, $place:literal, $columns:literal, labels: $labels:literal, fields: $fields:literal, $order:literal
        $(, $arg:expr)*
    ) => {
        $query!(page (
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
                + " LIMIT $3"), $order
            $(, $arg)*
        )
    };
}

mod agents; // after the macro that they use
mod chats;
mod snapshots;

pub use agents::agents;
pub use chats::{Updated, chats, chats_updated};
pub use snapshots::snapshots;

/// A transaction to read a list in: all its pieces see one moment, and each statement is planned for the values it has. (Speed
/// only: PostgreSQL may otherwise keep one plan for any values, which cannot know which conditions are there.) Dropping it ends
/// it. On a [`super::rotation::Whole`] connection, if it may be left in the middle.
pub async fn moment(connection: &mut PgConnection) -> Result<Transaction<'_, Postgres>, StoreError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL plan_cache_mode = force_custom_plan";
    connection.begin_with(BEGIN).named("db.begin_list").await
}

/// Which objects, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice<'a> {
    /// One namespace; none means every one, but for what the fields say.
    pub namespace: Option<&'a str>,
    /// Only objects with such labels.
    pub labels: &'a LabelSelector,
    /// Only objects with such fields.
    pub fields: &'a FieldSelector,
    /// At most so many.
    pub limit: i64,
}

/// The namespaces that can have anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope<'a> {
    All,
    One(&'a str),
    /// The path and the selector name different ones.
    None,
}

/// Fields that are true or false.
const FLAGS: [&str; 2] = ["spec.archived", "status.dirty"];
const NAMESPACE: &str = "metadata.namespace";

impl<'a> Slice<'a> {
    fn scope(&self) -> Scope<'a> {
        let wanted = self.fields.0.iter().filter(|term| term.equal && term.field == NAMESPACE).map(|term| term.value.as_str());
        self.namespace.into_iter().chain(wanted).fold(Scope::All, |scope, name| match scope {
            Scope::All => Scope::One(name),
            Scope::One(other) if other == name => scope,
            Scope::One(_) | Scope::None => Scope::None,
        })
    }

    /// What is left of it when so many are found.
    fn rest(&self, found: usize) -> Option<Self> {
        let limit = self.limit.saturating_sub(i64::try_from(found).unwrap_or(i64::MAX));
        (limit > 0).then_some(Self { limit, ..*self })
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

    /// The first term that wants a field to have a value that it can have: a condition of its own, so that an index may serve it.
    fn term(&self, field: &str) -> Option<&'a FieldTerm> {
        let possible = |value: &str| !value.is_empty() && (!FLAGS.contains(&field) || value.parse::<bool>().is_ok());
        self.fields.0.iter().find(|term| term.equal && term.field == field && possible(&term.value))
    }

    fn value(&self, field: &str) -> Option<&'a str> {
        self.term(field).map(|term| term.value.as_str())
    }

    fn flag(&self, field: &str) -> Option<bool> {
        self.value(field).and_then(|value| value.parse().ok())
    }

    /// The other terms of the field selector, as the statements take them; none when there are none.
    fn fields(&self, own: &[&str]) -> Option<Value> {
        let is_said = |term: &FieldTerm| {
            (term.equal && term.field == NAMESPACE) // by the scope
                || own.iter().any(|field| self.term(field).is_some_and(|own| std::ptr::eq(own, term)))
        };
        let others = self.fields.0.iter().filter(|term| !is_said(term));
        let others: Vec<_> = others.map(|term| json!({"field": term.field, "equal": term.equal, "value": term.value})).collect();
        (!others.is_empty()).then(|| others.into())
    }
}

fn start(after: Option<&Key>) -> (&str, &str) {
    after.map_or(("", ""), |key| (&key.namespace, &key.name))
}
