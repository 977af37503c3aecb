//! Reading the log by a filter: which events, and whose.

use super::{Batch, Cursor, Namesake, Read, agents_named, readable, within_room};
use crate::{
    model::{access::Reach, event::EventKind},
    store::{
        error::{Named, StoreError},
        log,
        rows::event_query,
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

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

/// The agents that a filter is about: namespaces, and ids.
type Agents<'a> = (Vec<&'a str>, Vec<Uuid>);

/// The place of the last of the next [`WINDOW`] rows among those that an index finds for a filter; none when there are fewer.
async fn window(
    connection: &mut PgConnection,
    cursor: Cursor,
    horizon: i64,
    filter: &Filter<'_>,
    agents: Option<&Agents<'_>>,
) -> Result<Option<Cursor>, StoreError> {
    const NAME: &str = "db.events.window";
    let Filter { namespace, chat, .. } = filter;
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
    match (namespace, chat, agents) {
        (_, _, Some((namespaces, ids))) => last_of!(
            "(e.namespace, e.agent_id) IN (SELECT u.namespace, u.id FROM unnest($5::text[], $6::uuid[]) u (namespace, id))",
            namespaces as &[&str],
            ids
        ),
        (Some(namespace), Some(chat), None) => last_of!("e.namespace = $5 AND e.name = $6", namespace, chat),
        (Some(namespace), None, None) => last_of!("e.namespace = $5", namespace),
        (None, _, None) => last_of!("true"),
    }
}

/// Reads what comes after `cursor` and passes the filter, up to the horizon, of what is within `reach`: of a chat that is gone,
/// its owner was who the log says. As [`read_after`](super::read_after); but where no index knows which rows are wanted it looks at a window of the
/// log, so a batch that is not exhausted may have few events or none, and says how far it looked.
pub async fn read_some_after(
    connection: &mut PgConnection,
    cursor: Cursor,
    filter: &Filter<'_>,
    reach: &Reach,
    limit: i64,
) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read_some";
    let horizon = log::horizon(connection).await?;
    let horizon = filter.through.map_or(horizon, |through| horizon.min(through + 1));
    let Filter { namespace, chat, agent, through: _ } = filter;
    // After the horizon: whoever has events below it has its name here by now, or there is the event that it is gone.
    let named: Option<Vec<Namesake>> = match agent {
        Some(agent) => Some(agents_named(connection, *namespace, agent).await?),
        None => None,
    };
    let agents: Option<Agents<'_>> =
        named.as_ref().map(|named| named.iter().map(|agent| (agent.namespace.as_str(), agent.id)).unzip());
    let by_index = reach.user().is_none() && (namespace.is_some() || chat.is_none());
    let window = if by_index { None } else { window(connection, cursor, horizon, filter, agents.as_ref()).await? };
    let end = window.unwrap_or(Cursor::through(i64::MAX));
    macro_rules! of_some {
        ($which:literal $(, $more:expr)*) => {
            within_room(event_query!(
                "WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 AND (e.rv, e.seq) <= ($6, $7) AND ($5::text IS NULL OR coalesce(
                     (SELECT c.owner FROM chats c WHERE c.namespace = e.namespace AND c.id = e.chat_id),
                     (SELECT d.payload -> 'chat' ->> 'owner' FROM events d
                      WHERE d.namespace = e.namespace AND d.subject = e.chat_id AND d.kind IN ('ChatDeleted', 'AgentDeleted')),
                     (SELECT a.service_account FROM agents a
                      WHERE e.chat_id IS NULL AND a.namespace = e.namespace AND a.id = e.agent_id),
                     (SELECT d.payload -> 'agent' ->> 'service_account' FROM events d
                      WHERE e.chat_id IS NULL AND d.namespace = e.namespace AND d.subject = e.agent_id AND d.kind IN ('ChatDeleted', 'AgentDeleted'))
                 ) = $5) AND (e.chat_id IS NOT NULL OR NOT $8::boolean) AND " + $which + " ORDER BY e.rv, e.seq LIMIT $4",
                cursor.rv,
                cursor.seq,
                horizon,
                limit,
                reach.user(),
                end.rv,
                end.seq,
                reach.is_of_chats_only()
                $(, $more)*
            )
            .fetch(&mut *connection), limit)
            .named(NAME)
            .await?
        };
    }
    let (rows, all) = match (namespace, chat, &agents) {
        (None, None, None) => of_some!("true"),
        (Some(namespace), None, None) => of_some!("e.namespace = $9", namespace),
        (Some(namespace), Some(chat), None) => {
            of_some!("e.namespace = $9 AND e.name = $10 AND e.chat_id IS NOT NULL", namespace, chat)
        }
        // In a form for which there is no index: none begins with the name, and one would be read whole, and not the window.
        (None, Some(chat), None) => of_some!(r#"e.name = $9 COLLATE "POSIX" AND e.chat_id IS NOT NULL"#, chat),
        (_, chat, Some((namespaces, ids))) => of_some!(
            "($9::text IS NULL OR (e.name = $9 AND e.chat_id IS NOT NULL))
             AND (e.namespace, e.agent_id) IN (SELECT u.namespace, u.id FROM unnest($10::text[], $11::uuid[]) u (namespace, id))",
            *chat,
            namespaces as &[&str],
            ids
        ),
    };
    if cursor.is_too_old(log::floor(connection).await?) {
        return Ok(Read::Expired);
    }
    let last = rows.last().map(|row| Cursor { rv: row.rv, seq: row.seq });
    let (last, exhausted) = if all { (window.or(last), window.is_none()) } else { (last, false) };
    Ok(Read::Batch(Batch { events: readable(rows), last, horizon, exhausted }))
}

/// Reads what comes after `cursor` of some kinds and of one namespace, or of every one, up to the horizon, by the window. As
/// [`read_some_after`], of everybody's.
pub async fn read_kinds_after(
    connection: &mut PgConnection,
    cursor: Cursor,
    kinds: &[EventKind],
    namespace: Option<&str>,
    limit: i64,
) -> Result<Read, StoreError> {
    const NAME: &str = "db.events.read_kinds";
    let horizon = log::horizon(connection).await?;
    let window = window(connection, cursor, horizon, &Filter { namespace, ..Filter::default() }, None).await?;
    let end = window.unwrap_or(Cursor::through(i64::MAX));
    let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    macro_rules! of_kinds {
        ($which:literal $(, $more:expr)*) => {
            within_room(
                event_query!(
                    "WHERE (e.rv, e.seq) > ($1, $2) AND e.rv < $3 AND (e.rv, e.seq) <= ($5, $6) AND e.kind = ANY($7) AND "
                        + $which + " ORDER BY e.rv, e.seq LIMIT $4",
                    cursor.rv,
                    cursor.seq,
                    horizon,
                    limit,
                    end.rv,
                    end.seq,
                    &kinds as &[&str]
                    $(, $more)*
                )
                .fetch(&mut *connection),
                limit,
            )
            .named(NAME)
            .await?
        };
    }
    let (rows, all) = match namespace {
        None => of_kinds!("true"),
        Some(namespace) => of_kinds!("e.namespace = $8", namespace),
    };
    if cursor.is_too_old(log::floor(connection).await?) {
        return Ok(Read::Expired);
    }
    let last = rows.last().map(|row| Cursor { rv: row.rv, seq: row.seq });
    let (last, exhausted) = if all { (window.or(last), window.is_none()) } else { (last, false) };
    Ok(Read::Batch(Batch { events: readable(rows), last, horizon, exhausted }))
}
