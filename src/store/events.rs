//! Appending to the event log: one row per event, in the transaction that made it happen. Converging appends its events by
//! the batch, in [`super::converge`].

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
    rows::{EventRow, event_query},
};
use crate::model::{access::Reach, event::EventKind};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// One event of a single object.
#[derive(Clone, Debug)]
pub struct NewEvent<'a> {
    /// Where.
    pub namespace: &'a str,
    /// What.
    pub kind: EventKind,
    /// The object's uid; none for snapshots.
    pub subject: Option<Uuid>,
    /// The object's name.
    pub name: &'a str,
    /// The chat it is about, and the number of this event among the chat's.
    pub chat: Option<(Uuid, i64)>,
    /// The agent it is about.
    pub agent: Option<Uuid>,
    /// What the transaction saw. Never a body.
    pub payload: Value,
}

/// Appends one event.
pub async fn append(tx: &mut PgConnection, log: &mut TxLog, event: NewEvent<'_>) -> Result<(), StoreError> {
    const NAME: &str = "db.events.append";
    let NewEvent { namespace, kind, subject, name, chat, agent, payload } = event;
    log.written += 1;
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        namespace,
        log.rv,
        log.written,
        kind.as_str(),
        subject,
        name,
        chat.map(|(id, _)| id),
        agent,
        chat.map(|(_, seq)| seq),
        payload
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, 1, done.rows_affected())
}

/// Whether an object of this name was deleted by a transaction with a later version than `rv`: then creating it anew with
/// `rv` would go back in time for whoever watches.
pub async fn deleted_later(
    tx: &mut PgConnection,
    namespace: &str,
    name: &str,
    kind: EventKind,
    rv: i64,
) -> Result<bool, StoreError> {
    const NAME: &str = "db.events.deleted_later";
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM events WHERE rv > $4 AND namespace = $1 AND name = $2 AND kind = $3) AS "later!""#,
        namespace,
        name,
        kind.as_str(),
        rv
    )
    .fetch_one(tx)
    .named(NAME)
    .await
}

/// A place in the log: after this event of this transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// The transaction's version.
    pub rv: i64,
    /// The event's number within it.
    pub seq: i32,
}

impl Cursor {
    /// After everything of the transactions up to this version.
    pub fn through(rv: i64) -> Self {
        Self { rv, seq: i32::MAX }
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
    /// The cursor is from before the floor: what came after it may be gone. Begin again from a list.
    Expired,
}

/// Reads what comes after `cursor`, up to the horizon. The horizon is fetched in a statement before the rows, and the floor is
/// looked at after them: the other way round loses changes.
pub async fn read_after(connection: &mut PgConnection, cursor: Cursor, limit: i64) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read";
    let horizon = super::log::horizon(connection).await?;
    let rows = event_query!(
        "WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 ORDER BY e.rv, e.seq LIMIT $4",
        cursor.rv,
        cursor.seq,
        horizon,
        limit
    );
    let rows = rows.fetch_all(&mut *connection).named(NAME).await?;
    if cursor.rv < super::log::floor(connection).await? {
        return Ok(Read::Expired);
    }
    let exhausted = i64::try_from(rows.len()).is_ok_and(|found| found < limit);
    let last = rows.last().map(|row| Cursor { rv: row.rv, seq: row.seq });
    Ok(Read::Batch(Batch { events: readable(rows), last, horizon, exhausted }))
}

/// Which events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// Of one namespace; none means of every one.
    pub namespace: Option<&'a str>,
    /// Of the chat of this name.
    pub chat: Option<&'a str>,
    /// That concern the agent of this name.
    pub agent: Option<&'a str>,
    /// Of the transactions up to this version.
    pub through: Option<i64>,
}

/// How many rows of the log are looked at in one go where no index knows which of them are wanted.
pub const WINDOW: i64 = 2_000;

/// The place of the last of the next [`WINDOW`] rows among those that an index finds for a filter; none when there are fewer.
async fn window(
    connection: &mut PgConnection,
    cursor: Cursor,
    horizon: i64,
    filter: &Filter<'_>,
) -> Result<Option<Cursor>, StoreError> {
    const NAME: &str = "db.events.window";
    let Filter { namespace, chat, agent, through: _ } = filter;
    macro_rules! last_of {
        ($which:literal $(, $more:expr)*) => {
            sqlx::query_as!(
                Cursor,
                "SELECT e.rv, e.seq FROM events e WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 AND " + $which
                    + " ORDER BY e.rv, e.seq OFFSET $4 LIMIT 1",
                cursor.rv,
                cursor.seq,
                horizon,
                WINDOW - 1
                $(, $more)*
            )
            .fetch_optional(connection)
            .named(NAME)
            .await
        };
    }
    match (namespace, chat, agent) {
        (namespace, _, Some(agent)) => last_of!(
            "(e.namespace, e.agent_id) IN (
                 SELECT a.namespace, a.id FROM agents a WHERE a.name = $6 AND ($5::text IS NULL OR a.namespace = $5)
                 UNION
                 SELECT d.namespace, d.agent_id FROM events d
                 WHERE d.name = $6 AND d.kind = 'AgentDeleted' AND ($5::text IS NULL OR d.namespace = $5))",
            *namespace,
            agent
        ),
        (Some(namespace), Some(chat), None) => last_of!("e.namespace = $5 AND e.name = $6", namespace, chat),
        (Some(namespace), None, None) => last_of!("e.namespace = $5", namespace),
        (None, _, None) => last_of!("true"),
    }
}

/// Reads what comes after `cursor` and passes the filter, up to the horizon, of what is within `reach`: of a chat that is gone,
/// its owner was who the log says. As [`read_after`]; but where no index knows which rows are wanted it looks at a window of the
/// log, so a batch that is not exhausted may have few events or none, and says how far it looked.
pub async fn read_some_after(
    connection: &mut PgConnection,
    cursor: Cursor,
    filter: &Filter<'_>,
    reach: &Reach,
    limit: i64,
) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read_some";
    let horizon = super::log::horizon(connection).await?;
    let horizon = filter.through.map_or(horizon, |through| horizon.min(through + 1));
    let Filter { namespace, chat, agent, through: _ } = filter;
    let by_index = reach.user().is_none() && (namespace.is_some() || chat.is_none());
    let window = if by_index { None } else { window(connection, cursor, horizon, filter).await? };
    let end = window.unwrap_or(Cursor::through(i64::MAX));
    macro_rules! of_some {
        ($which:literal $(, $more:expr)*) => {
            event_query!(
                "WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 AND (e.rv, e.seq) <= ($6, $7) AND ($5::text IS NULL OR coalesce(
                     (SELECT c.owner FROM chats c WHERE c.namespace = e.namespace AND c.id = e.chat_id),
                     (SELECT d.payload -> 'chat' ->> 'owner' FROM events d
                      WHERE d.namespace = e.namespace AND d.name = e.name AND d.chat_id = e.chat_id AND d.kind = 'ChatDeleted'),
                     (SELECT a.service_account FROM agents a
                      WHERE e.chat_id IS NULL AND a.namespace = e.namespace AND a.id = e.agent_id),
                     (SELECT d.payload -> 'agent' ->> 'service_account' FROM events d
                      WHERE e.chat_id IS NULL AND d.namespace = e.namespace AND d.agent_id = e.agent_id AND d.kind = 'AgentDeleted')
                 ) = $5) AND " + $which + " ORDER BY e.rv, e.seq LIMIT $4",
                cursor.rv,
                cursor.seq,
                horizon,
                limit,
                reach.user(),
                end.rv,
                end.seq
                $(, $more)*
            )
            .fetch_all(&mut *connection)
            .named(NAME)
            .await?
        };
    }
    let rows = match (namespace, chat, agent) {
        (None, None, None) => of_some!("true"),
        (Some(namespace), None, None) => of_some!("e.namespace = $8", namespace),
        (Some(namespace), Some(chat), None) => {
            of_some!("e.namespace = $8 AND e.name = $9 AND e.chat_id IS NOT NULL", namespace, chat)
        }
        (None, Some(chat), None) => of_some!("e.name = $8 AND e.chat_id IS NOT NULL", chat),
        (namespace, chat, Some(agent)) => of_some!(
            "($8::text IS NULL OR e.namespace = $8) AND ($9::text IS NULL OR (e.name = $9 AND e.chat_id IS NOT NULL))
             AND (e.namespace, e.agent_id) IN (
                 SELECT a.namespace, a.id FROM agents a WHERE a.name = $10 AND ($8::text IS NULL OR a.namespace = $8)
                 UNION
                 SELECT d.namespace, d.agent_id FROM events d
                 WHERE d.name = $10 AND d.kind = 'AgentDeleted' AND ($8::text IS NULL OR d.namespace = $8))",
            *namespace,
            *chat,
            agent
        ),
    };
    if cursor.rv < super::log::floor(connection).await? {
        return Ok(Read::Expired);
    }
    let all = i64::try_from(rows.len()).is_ok_and(|found| found < limit);
    let last = rows.last().map(|row| Cursor { rv: row.rv, seq: row.seq });
    let (last, exhausted) = if all { (window.or(last), window.is_none()) } else { (last, false) };
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
    let About { namespace, name, subject } = about;
    macro_rules! about_some {
        ($which:literal $(, $more:expr)*) => {
            event_query!(
                "WHERE e.rv < $1 AND ($3::text IS NULL OR coalesce(
                     (SELECT c.owner FROM chats c WHERE c.namespace = e.namespace AND c.id = e.chat_id),
                     (SELECT d.payload -> 'chat' ->> 'owner' FROM events d
                      WHERE d.namespace = e.namespace AND d.name = e.name AND d.chat_id = e.chat_id AND d.kind = 'ChatDeleted'),
                     (SELECT a.service_account FROM agents a
                      WHERE e.chat_id IS NULL AND a.namespace = e.namespace AND a.id = e.agent_id),
                     (SELECT d.payload -> 'agent' ->> 'service_account' FROM events d
                      WHERE e.chat_id IS NULL AND d.namespace = e.namespace AND d.agent_id = e.agent_id AND d.kind = 'AgentDeleted')
                 ) = $3) AND ($4::uuid IS NULL OR e.subject = $4) AND " + $which + " ORDER BY e.rv DESC, e.seq DESC LIMIT $2",
                horizon,
                limit,
                reach.user(),
                *subject
                $(, $more)*
            )
            .fetch_all(&mut *connection)
            .named(NAME)
            .await?
        };
    }
    let mut rows = match (namespace, name) {
        (Some(namespace), Some(name)) => about_some!("e.namespace = $5 AND e.name = $6", namespace, name),
        (Some(namespace), None) => about_some!("e.namespace = $5", namespace),
        (None, Some(name)) => about_some!("e.name = $5", name),
        (None, None) => about_some!("true"),
    };
    rows.reverse();
    Ok(readable(rows))
}

/// The agents that have or had a name.
pub async fn agents_named(connection: &mut PgConnection, namespace: Option<&str>, name: &str) -> Result<Vec<Uuid>, StoreError> {
    const NAME: &str = "db.events.agents_named";
    sqlx::query_scalar!(
        r#"SELECT a.id AS "id!" FROM agents a WHERE a.name = $1 AND ($2::text IS NULL OR a.namespace = $2)
           UNION
           SELECT d.agent_id FROM events d
           WHERE d.name = $1 AND d.kind = 'AgentDeleted' AND d.agent_id IS NOT NULL AND ($2::text IS NULL OR d.namespace = $2)"#,
        name,
        namespace
    )
    .fetch_all(connection)
    .named(NAME)
    .await
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
