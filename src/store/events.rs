//! The event log: where one is in it, reading what comes after, and appending to it.

mod append;
mod filtered;
mod later;

use super::{
    error::{Named, StoreError},
    rows::{EventRow, event_query},
};
use crate::model::{access::Reach, event::EventKind};
pub use append::{NewEvent, append, deleted_later};
pub use filtered::{Filter, WINDOW, read_kinds_after, read_some_after};
use futures::{Stream, TryStreamExt as _};
use jiff_sqlx::Timestamp as SqlTs;
pub use later::{Befores, Subject, read_befores, read_deletions};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A place in the log: after this event of this transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// The transaction's version.
    pub rv: i64,
    /// The event's number within it.
    pub seq: i32,
}

impl Cursor {
    /// Before everything.
    pub const START: Self = Self { rv: 0, seq: 0 };

    /// After everything of the transactions up to this version.
    pub fn through(rv: i64) -> Self {
        Self { rv, seq: i32::MAX }
    }

    /// Whether what comes after it may be gone. Below the floor nothing need be there any more; who has read all of that has
    /// missed nothing.
    pub fn is_too_old(self, floor: i64) -> bool {
        self < Self::through(floor - 1)
    }
}

/// An event, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// Where it stands.
    pub cursor: Cursor,
    /// Of which namespace.
    pub namespace: String,
    /// What happened.
    pub kind: EventKind,
    /// The object's uid; none for snapshots.
    pub subject: Option<Uuid>,
    /// The object's name.
    pub name: String,
    /// The chat it is about, and the number of this event among the chat's.
    pub chat: Option<(Uuid, i64)>,
    /// The agent it is about.
    pub agent: Option<Uuid>,
    /// What the transaction saw.
    pub payload: Value,
    /// When the transaction began.
    pub at: jiff::Timestamp,
}

/// A part of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The events after the cursor, in order, at most as many as asked for. Those of which this version of Moorline cannot make
    /// sense are left out.
    pub events: Vec<Logged>,
    /// The place of the last row that was read, of sense or not; none when there was none.
    pub last: Option<Cursor>,
    /// Everything below it is complete.
    pub horizon: i64,
    /// Nothing more is below the horizon.
    pub exhausted: bool,
}

impl Batch {
    /// The place after it, for whoever had read up to `cursor`.
    pub fn end(&self, cursor: Cursor) -> Cursor {
        let last = self.last.unwrap_or(cursor);
        // The events of a transaction become visible at once, so below the horizon there is no more of the last one. Who began in
        // the middle of one that is not below it has not read it.
        if self.exhausted && last.rv < self.horizon { Cursor::through(last.rv) } else { last }
    }
}

/// What reading the log gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// A part of it.
    Batch(Batch),
    /// What came after the cursor may be gone, as [`Cursor::is_too_old`] says. Begin again from a list.
    Expired,
}

/// About how many bytes of payload are read at once: most are small, and that of a deletion holds the object.
const ROOM: usize = 8 << 20;

/// As many of the rows, at most `limit`, as there is room for; and whether that is all of them.
async fn within_room(
    rows: impl Stream<Item = Result<EventRow, sqlx::Error>> + Send,
    limit: i64,
) -> Result<(Vec<EventRow>, bool), sqlx::Error> {
    let mut rows = std::pin::pin!(rows);
    let (mut kept, mut taken) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        taken += weight(&row.payload);
        kept.push(row);
        if taken >= ROOM {
            return Ok((kept, false));
        }
    }
    let all = i64::try_from(kept.len()).is_ok_and(|found| found < limit);
    Ok((kept, all))
}

/// About how many bytes a value takes.
pub fn weight(value: &Value) -> usize {
    const EACH: usize = size_of::<Value>();
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => EACH,
        Value::String(text) => EACH + text.len(),
        Value::Array(items) => EACH + items.iter().map(weight).sum::<usize>(),
        Value::Object(fields) => EACH + fields.iter().map(|(name, value)| EACH + name.len() + weight(value)).sum::<usize>(),
    }
}

/// About how many bytes of payload the database gives at once, as text.
const TEXT_ROOM: i64 = 4 << 20;

/// Reads what comes after `cursor`, up to the horizon. The horizon is fetched in a statement before the rows, and the floor is
/// looked at after them: the other way round loses changes. It is one round trip: the statements are within `log_read`.
pub async fn read_after(connection: &mut PgConnection, cursor: Cursor, limit: i64) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read";
    let read = sqlx::query!(
        r#"
        SELECT horizon, floor, is_whole, namespace AS "namespace!", rv AS "rv!", seq AS "seq!", kind AS "kind!", subject,
               name AS "name!", chat_id, chat_seq, agent_id, payload AS "payload!", created_at AS "created_at!: SqlTs"
        FROM log_read($1, $2, $3, $4)
        "#,
        cursor.rv,
        cursor.seq,
        limit,
        TEXT_ROOM
    );
    let mut rows = read.fetch_all(connection).named(NAME).await?;
    let end = rows.pop().and_then(|end| Some((end.horizon?, end.floor?, end.is_whole?)));
    let (horizon, floor, exhausted) = end.ok_or_else(|| StoreError::Inconsistent {
        table: "log_read",
        column: "horizon",
        id: format!("{}/{}", cursor.rv, cursor.seq),
        message: "the last row does not say how far the log was read".into(),
    })?;
    if cursor.is_too_old(floor) {
        return Ok(Read::Expired);
    }
    let rows = rows.into_iter().map(|row| EventRow {
        namespace: row.namespace,
        rv: row.rv,
        seq: row.seq,
        kind: row.kind,
        subject: row.subject,
        name: row.name,
        chat_id: row.chat_id,
        chat_seq: row.chat_seq,
        agent_id: row.agent_id,
        payload: row.payload,
        created_at: row.created_at,
    });
    let rows: Vec<EventRow> = rows.collect();
    let last = rows.last().map(|row| Cursor { rv: row.rv, seq: row.seq });
    Ok(Read::Batch(Batch { events: readable(rows), last, horizon, exhausted }))
}

/// Which objects' events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// Of one namespace; none means of every one.
    pub namespace: Option<&'a str>,
    /// Of the object of this name.
    pub name: Option<&'a str>,
    /// Of the object with this uid.
    pub subject: Option<Uuid>,
    /// Of the transactions up to this version.
    pub through: Option<i64>,
}

/// The newest events about some objects, the oldest of them first, of what is within `reach`. What is not yet below the horizon
/// is left out.
pub async fn newest(
    connection: &mut PgConnection,
    about: &About<'_>,
    reach: &Reach,
    limit: i64,
) -> Result<Vec<Logged>, StoreError> {
    const NAME: &str = "db.events.newest";
    let horizon = super::log::horizon(connection).await?;
    let About { namespace, name, subject, through } = about;
    let horizon = through.map_or(horizon, |through| horizon.min(through + 1));
    macro_rules! about_some {
        ($which:literal $(, $more:expr)*) => {
            event_query!(
                "WHERE e.rv < $1 AND ($3::text IS NULL OR coalesce(
                     (SELECT c.owner FROM chats c WHERE c.namespace = e.namespace AND c.id = e.chat_id),
                     (SELECT d.payload -> 'chat' ->> 'owner' FROM events d
                      WHERE d.namespace = e.namespace AND d.subject = e.chat_id AND d.kind IN ('ChatDeleted', 'AgentDeleted')),
                     (SELECT a.service_account FROM agents a
                      WHERE e.chat_id IS NULL AND a.namespace = e.namespace AND a.id = e.agent_id),
                     (SELECT d.payload -> 'agent' ->> 'service_account' FROM events d
                      WHERE e.chat_id IS NULL AND d.namespace = e.namespace AND d.subject = e.agent_id AND d.kind IN ('ChatDeleted', 'AgentDeleted'))
                 ) = $3) AND ($4::uuid IS NULL OR e.subject = $4) AND (e.chat_id IS NOT NULL OR NOT $5::boolean) AND " + $which + " ORDER BY e.rv DESC, e.seq DESC LIMIT $2",
                horizon,
                limit,
                reach.user(),
                *subject,
                reach.is_of_chats_only()
                $(, $more)*
            )
            .fetch_all(&mut *connection)
            .named(NAME)
            .await?
        };
    }
    let mut rows = match (namespace, name) {
        (Some(namespace), Some(name)) => about_some!("e.namespace = $6 AND e.name = $7", namespace, name),
        (Some(namespace), None) => about_some!("e.namespace = $6", namespace),
        // In a form for which there is no index: the log is read from its end, until there are enough.
        (None, Some(name)) => about_some!(r#"e.name = $6 COLLATE "POSIX""#, name),
        (None, None) => about_some!("true"),
    };
    rows.reverse();
    Ok(readable(rows))
}

/// An agent that has or had the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namesake {
    /// Its namespace.
    pub namespace: String,
    /// Its id.
    pub id: Uuid,
}

/// The agents that have or had a name, in one namespace or in any.
pub async fn agents_named(
    connection: &mut PgConnection,
    namespace: Option<&str>,
    name: &str,
) -> Result<Vec<Namesake>, StoreError> {
    const NAME: &str = "db.events.agents_named";
    macro_rules! named {
        ($live:literal, $gone:literal $(, $arg:expr)*) => {
            sqlx::query_as!(
                Namesake,
                r#"SELECT a.namespace AS "namespace!", a.id AS "id!" FROM agents a WHERE "# + $live + "
                   UNION
                   SELECT d.namespace, d.agent_id FROM events d
                   WHERE d.kind = 'AgentDeleted' AND d.agent_id IS NOT NULL AND " + $gone
                $(, $arg)*
            )
            .fetch_all(connection)
            .named(NAME)
            .await
        };
    }
    match namespace {
        Some(namespace) => {
            named!("a.namespace = $1 AND a.name = $2", "d.namespace = $1 AND d.name = $2", namespace, name)
        }
        None => named!("a.name = $1", "d.name = $1", name),
    }
}

/// The place before everything that is still in the log.
pub async fn beginning(connection: &mut PgConnection) -> Result<Cursor, StoreError> {
    Ok(Cursor { rv: super::log::floor(connection).await?, seq: 0 })
}

/// The events of which sense can be made. A row of another kind, which a newer Moorline may write while this one still runs, must
/// not keep readers from what comes after it.
fn readable(rows: Vec<EventRow>) -> Vec<Logged> {
    let read = |row: EventRow| {
        Logged::try_from(row).inspect_err(|error| tracing::warn!(%error, "an event cannot be read and is passed over")).ok()
    };
    rows.into_iter().filter_map(read).collect()
}

impl TryFrom<EventRow> for Logged {
    type Error = StoreError;

    fn try_from(row: EventRow) -> Result<Self, StoreError> {
        let bad = |error: crate::model::word::UnknownWord| StoreError::Inconsistent {
            table: "events",
            column: "kind",
            id: format!("{}/{}", row.rv, row.seq),
            message: error.to_string(),
        };
        Ok(Self {
            cursor: Cursor { rv: row.rv, seq: row.seq },
            kind: row.kind.parse().map_err(bad)?,
            namespace: row.namespace,
            subject: row.subject,
            name: row.name,
            chat: row.chat_id.zip(row.chat_seq),
            agent: row.agent_id,
            payload: row.payload,
            at: row.created_at.to_jiff(),
        })
    }
}
