//! What became of single objects after a place in the log: for whoever reads a row that is not the last word on its object.

use super::{Cursor, Logged, readable};
use crate::store::{
    error::{Named, StoreError},
    rows::EventRow,
};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A chat or an agent, and a part of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Where.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub id: Uuid,
    /// After this.
    pub after: Cursor,
    /// Up to this version.
    pub through: i64,
}

/// How each ended: the events of their deletions, as far as they can be read. What is beyond the horizon counts: it is committed.
pub async fn read_deletions(connection: &mut PgConnection, subjects: &[Subject]) -> Result<Vec<Logged>, StoreError> {
    const NAME: &str = "db.events.read_deletions";
    let (namespaces, ids): (Vec<&str>, Vec<Uuid>) =
        subjects.iter().map(|subject| (subject.namespace.as_str(), subject.id)).unzip();
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        SELECT e.namespace AS "namespace!", e.rv AS "rv!", e.seq AS "seq!", e.kind AS "kind!", e.subject, e.name AS "name!",
               e.chat_id, e.chat_seq, e.agent_id, e.payload AS "payload!", e.created_at AS "created_at!: _"
        FROM unnest($1::text[], $2::uuid[]) AS u (namespace, id)
        CROSS JOIN LATERAL (
            SELECT d.* FROM events d
            WHERE d.namespace = u.namespace AND d.subject = u.id AND d.kind IN ('ChatDeleted', 'AgentDeleted')
            LIMIT 1
        ) e
        "#,
        &namespaces as &[&str],
        &ids
    );
    Ok(readable(rows.fetch_all(connection).named(NAME).await?))
}

/// What the events of a part of the log say was before them.
#[derive(Clone, Debug, PartialEq)]
pub struct Befores {
    /// Of each field what the first of them says that does, for that is what the field was at the beginning. By field.
    pub fields: Value,
    /// There are more events than are looked at: of what is not among the fields nothing is known.
    pub is_cut: bool,
}

/// How many events of an object are looked at: whoever reads history does this for every hundred rows of it.
const LOOKED_AT: i32 = 128;

/// What was before the events of each in its part, in the order of the subjects.
pub async fn read_befores(connection: &mut PgConnection, subjects: &[Subject]) -> Result<Vec<Befores>, StoreError> {
    const NAME: &str = "db.events.read_befores";
    let Columns { namespaces, names, ids, versions, numbers, throughs } = Columns::of(subjects);
    sqlx::query_as!(
        Befores,
        r#"
        SELECT b.fields AS "fields!", b.is_cut AS "is_cut!"
        FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::integer[], $6::bigint[]) WITH ORDINALITY
             AS u (namespace, name, id, rv, seq, through, n)
        CROSS JOIN LATERAL (
            WITH l AS MATERIALIZED (
                SELECT l.rv, l.seq, l.payload -> 'before' AS before FROM events l
                WHERE l.namespace = u.namespace AND l.name = u.name AND (l.rv, l.seq) > (u.rv, u.seq) AND l.rv <= u.through
                  AND l.subject = u.id
                ORDER BY l.rv, l.seq LIMIT $7 + 1
            ), f AS (
                SELECT DISTINCT ON (b.key) b.key, b.value
                FROM l CROSS JOIN LATERAL jsonb_each(CASE WHEN jsonb_typeof(l.before) = 'object' THEN l.before ELSE '{}' END) b
                ORDER BY b.key, l.rv, l.seq
            )
            SELECT coalesce((SELECT jsonb_object_agg(f.key, f.value) FROM f), '{}') AS fields, (SELECT count(*) FROM l) > $7 AS is_cut
        ) b
        ORDER BY u.n
        "#,
        &namespaces as &[&str],
        &names as &[&str],
        &ids,
        &versions,
        &numbers,
        &throughs,
        LOOKED_AT
    )
    .fetch_all(connection)
    .named(NAME)
    .await
}

/// Subjects, as arrays that a statement takes.
struct Columns<'a> {
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
    ids: Vec<Uuid>,
    versions: Vec<i64>,
    numbers: Vec<i32>,
    throughs: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(subjects: &'a [Subject]) -> Self {
        Self {
            namespaces: subjects.iter().map(|subject| subject.namespace.as_str()).collect(),
            names: subjects.iter().map(|subject| subject.name.as_str()).collect(),
            ids: subjects.iter().map(|subject| subject.id).collect(),
            versions: subjects.iter().map(|subject| subject.after.rv).collect(),
            numbers: subjects.iter().map(|subject| subject.after.seq).collect(),
            throughs: subjects.iter().map(|subject| subject.through).collect(),
        }
    }
}
