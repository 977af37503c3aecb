//! What became of single objects after a place in the log: for whoever reads a row that is not the last word on its object.

use super::{Cursor, Logged, readable};
use crate::store::{
    error::{Named, StoreError},
    rows::EventRow,
};
use sqlx::PgConnection;
use uuid::Uuid;

/// A chat or an agent, and a place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Where.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object's uid.
    pub id: Uuid,
    /// What comes after this is asked for.
    pub after: Cursor,
    /// It is gone: the event of its deletion is asked for too.
    pub gone: bool,
}

/// The events of some objects that come later and say what was before them, in order, of each object at most `limit`; and of
/// those that are gone the event of the deletion, however far that is. What is beyond the horizon counts: it has been committed.
pub async fn read_later(connection: &mut PgConnection, subjects: &[Subject], limit: i64) -> Result<Vec<Logged>, StoreError> {
    const NAME: &str = "db.events.read_later";
    let namespaces: Vec<&str> = subjects.iter().map(|subject| subject.namespace.as_str()).collect();
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    let ids: Vec<Uuid> = subjects.iter().map(|subject| subject.id).collect();
    let (versions, numbers): (Vec<i64>, Vec<i32>) = subjects.iter().map(|subject| (subject.after.rv, subject.after.seq)).unzip();
    let gone: Vec<bool> = subjects.iter().map(|subject| subject.gone).collect();
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        SELECT e.namespace AS "namespace!", e.rv AS "rv!", e.seq AS "seq!", e.kind AS "kind!", e.subject, e.name AS "name!",
               e.chat_id, e.chat_seq, e.agent_id, e.payload AS "payload!", e.created_at AS "created_at!: _"
        FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[], $5::integer[], $7::boolean[])
             AS u (namespace, name, id, rv, seq, gone)
        CROSS JOIN LATERAL (
            (SELECT l.* FROM events l
             WHERE l.namespace = u.namespace AND l.name = u.name AND (l.rv, l.seq) > (u.rv, u.seq)
               AND l.subject = u.id AND l.payload -> 'before' IS NOT NULL AND l.kind NOT IN ('ChatDeleted', 'AgentDeleted')
             ORDER BY l.rv, l.seq LIMIT $6)
            UNION ALL
            (SELECT d.* FROM events d
             WHERE u.gone AND d.namespace = u.namespace AND d.name = u.name AND d.rv >= u.rv
               AND d.subject = u.id AND d.kind IN ('ChatDeleted', 'AgentDeleted')
             ORDER BY d.rv DESC, d.seq DESC LIMIT 1)
        ) e
        ORDER BY e.rv, e.seq
        "#,
        &namespaces as &[&str],
        &names as &[&str],
        &ids,
        &versions,
        &numbers,
        limit,
        &gone
    );
    Ok(readable(rows.fetch_all(connection).named(NAME).await?))
}
