//! Writing the outcomes of a whole batch in one statement, with their events.
//!
//! It sends each distinct outcome once (a *class*) and per chat only its id and the number of its
//! class: a batch in which a thousand chats become dirty sends one set of conditions and one payload. That is speed;
//! correctness is `rv <= $rv` and the count of rows.

use super::Loaded;
use crate::{
    model::{chat::PinCause, condition::ConditionPatch, event::EventKind},
    plan::{DirtyChange, PinChange},
    store::{
        error::{Named, StoreError, expect_rows},
        log::TxLog,
    },
    trace::Story,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// One outcome, shared by every chat of a batch that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Class {
    /// To the pin.
    pub pin: PinChange,
    /// To the drift marker.
    pub dirty: DirtyChange,
    /// The refresh token that stands has been handled.
    pub refresh_handled: bool,
    /// A refresh token copied from the agent.
    pub refresh_token: Option<String>,
    /// To the conditions.
    pub conditions: ConditionPatch,
    /// What happened; none when nothing that the chat shows changes.
    pub event: Option<ClassEvent>,
}

/// The event of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassEvent {
    /// What happened.
    pub kind: EventKind,
    /// The agent whose snapshot it is about.
    pub agent: Option<Uuid>,
    /// What the transaction saw.
    pub payload: Value,
}

/// The outcomes of a batch: the classes, and which chat has which.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// The classes.
    pub classes: Vec<Class>,
    /// Each chat with the number of its class, in the order of their ids.
    pub chats: Vec<(Uuid, usize)>,
}

impl Outcomes {
    /// How long each chat of `chats` that gets its first pin by this has waited for it.
    pub fn hydrated(&self, chats: &[Loaded], now: Timestamp) -> Vec<Duration> {
        let waited =
            |id: Uuid| find(chats, id).map(|chat| Duration::try_from(now.duration_since(chat.waiting_since)).unwrap_or_default());
        let first =
            |class: usize| self.classes[class].event.as_ref().is_some_and(|event| event.kind == EventKind::ContextHydrated);
        self.chats.iter().filter(|(_, class)| first(*class)).filter_map(|(id, _)| waited(*id)).collect()
    }

    /// How long each chat of `chats` whose drift ends by this had drifted.
    pub fn drifts_ended(&self, chats: &[Loaded], now: Timestamp) -> Vec<Duration> {
        let lasted = |id: Uuid| {
            let since = find(chats, id).and_then(|chat| chat.dirty_since)?;
            Some(Duration::try_from(now.duration_since(since)).unwrap_or_default())
        };
        let ends = |class: usize| self.classes[class].dirty == DirtyChange::End;
        self.chats.iter().filter(|(_, class)| ends(*class)).filter_map(|(id, _)| lasted(*id)).collect()
    }

    /// Because of which contexts chats change, and how many of them.
    pub fn stories(&self) -> HashMap<Story, usize> {
        let of = |class: &Class| class.event.as_ref().and_then(|event| Story::of_event(event.agent, &event.payload));
        let stories: Vec<Option<Story>> = self.classes.iter().map(of).collect();
        let mut counts = HashMap::new();
        for story in self.chats.iter().filter_map(|(_, class)| stories[*class]) {
            *counts.entry(story).or_default() += 1;
        }
        counts
    }

    /// How many of the chats change in what they show.
    pub fn shown(&self) -> usize {
        self.chats.iter().filter(|(_, class)| self.classes[*class].event.is_some()).count()
    }
}

/// A chat of a batch, which is in the order of the ids.
fn find(chats: &[Loaded], id: Uuid) -> Option<&Loaded> {
    chats.binary_search_by_key(&id, |chat| chat.id).ok().map(|at| &chats[at])
}

/// Whether the chats have been converged as due, or were reached by their agent's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Due: their revisions have been seen.
    Due,
    /// Reached by fan-out: their own revisions are left alone.
    Fanout,
}

/// Writes the outcomes of a batch and their events, in one statement. All the chats are locked, and `chats` is what was read of
/// them since. Their rows are found where they were read; that each has the right id is looked at, in a form for which there is no index.
/// What is joined is looked up, each row by its place and each class by its number: no plan, for however few rows it was made, compares each of
/// a batch with each. The namespace is compared in a form of which PostgreSQL knows nothing: of one that its statistics do not know it would
/// take it that there is one row, and then go through the batch for each row that it finds.
/// The events are of what was read under the locks, and nothing is looked up again for them; one chat stands in their part for the namespace,
/// as from the arrays alone a sharded server would make a COPY and two phases (there the two parts are two statements). When the guard fires they
/// are written all the same, and rolled back with all else; when every chat is written, they all are.
pub async fn record(
    tx: &mut PgConnection,
    namespace: &str,
    outcomes: &Outcomes,
    chats: &[Loaded],
    lane: Lane,
    now: Timestamp,
    log: &mut TxLog,
) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.record";
    let classes = &outcomes.classes;
    // Arrays count from 1.
    let (ids, numbers): (Vec<Uuid>, Vec<i32>) =
        outcomes.chats.iter().map(|(id, class)| (*id, i32::try_from(class + 1).unwrap_or(i32::MAX))).unzip();
    let read: Vec<&Loaded> = ids.iter().map(|id| find(chats, *id).expect("an outcome is that of a chat of the batch")).collect();
    let places: Vec<&str> = read.iter().map(|chat| chat.place.as_str()).collect();
    let names: Vec<&str> = read.iter().map(|chat| chat.name.as_str()).collect();
    let chat_seqs: Vec<i64> = read.iter().map(|chat| chat.event_seq + 1).collect();
    let seqs: Vec<Option<i32>> = (outcomes.chats.iter())
        .map(|(_, class)| {
            classes[*class].event.as_ref()?;
            log.written += 1;
            Some(log.written)
        })
        .collect();
    let each = |f: fn(&Class) -> i16| classes.iter().map(f).collect::<Vec<i16>>();
    let pins = each(|class| match class.pin {
        PinChange::Keep => 0,
        PinChange::Move(..) => 1,
        PinChange::Clear => 2,
    });
    let dirties = each(|class| match class.dirty {
        DirtyChange::Keep => 0,
        DirtyChange::Begin => 1,
        DirtyChange::End => 2,
    });
    let moved = |class: &Class| match class.pin {
        PinChange::Move(to, cause) => Some((to.snapshot.0, cause)),
        PinChange::Keep | PinChange::Clear => None,
    };
    let snapshots: Vec<Option<i64>> = classes.iter().map(|class| moved(class).map(|(id, _)| id)).collect();
    let causes: Vec<Option<&str>> =
        classes.iter().map(|class| moved(class).map(|(_, cause): (i64, PinCause)| cause.as_str())).collect();
    let handled: Vec<bool> = classes.iter().map(|class| class.refresh_handled).collect();
    let tokens: Vec<Option<&str>> = classes.iter().map(|class| class.refresh_token.as_deref()).collect();
    let set: Vec<Value> = classes.iter().map(|class| Value::Object(class.conditions.set.clone())).collect();
    let drop: Vec<String> = classes.iter().map(|class| class.conditions.drop.join(",")).collect();
    let events = || classes.iter().map(|class| class.event.as_ref());
    let kinds: Vec<Option<&str>> = events().map(|event| event.map(|event| event.kind.as_str())).collect();
    let agents: Vec<Option<Uuid>> = events().map(|event| event.and_then(|event| event.agent)).collect();
    let payloads: Vec<Option<&Value>> = events().map(|event| event.map(|event| &event.payload)).collect();
    let done = sqlx::query!(
        r#"WITH told AS (
             INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
             SELECT c.namespace, $2, u.seq, ($13::text[])[u.class], u.id, u.name, u.id, ($21::uuid[])[u.class], u.chat_seq,
                    ($22::jsonb[])[u.class]
             FROM chats c
             JOIN unnest($3::uuid[], $4::integer[], $18::text[], $19::bigint[], $20::integer[]) AS u (id, class, name, chat_seq, seq) ON true
             WHERE c.namespace = $1 COLLATE "POSIX" AND c.ctid = $17::text::tid AND u.seq IS NOT NULL
         )
         UPDATE chats AS c SET
             snapshot_id = CASE k.pin WHEN 1 THEN k.snapshot WHEN 2 THEN NULL ELSE c.snapshot_id END,
             pin_cause = CASE k.pin WHEN 1 THEN k.cause WHEN 2 THEN NULL ELSE c.pin_cause END,
             pinned_at = CASE k.pin WHEN 1 THEN $14::timestamptz WHEN 2 THEN NULL ELSE c.pinned_at END,
             dirty_since = CASE k.dirty WHEN 1 THEN $14::timestamptz WHEN 2 THEN NULL ELSE c.dirty_since END,
             refresh_requested = coalesce(k.token, c.refresh_requested),
             refresh_handled = CASE WHEN k.handled THEN coalesce(k.token, c.refresh_requested) ELSE c.refresh_handled END,
             conditions = CASE WHEN k.dropped = '' THEN c.conditions || k.set
                               ELSE (c.conditions || k.set) - string_to_array(k.dropped, ',') END,
             event_seq = CASE WHEN k.kind IS NOT NULL THEN c.event_seq + 1 ELSE c.event_seq END,
             rv = CASE WHEN k.kind IS NOT NULL THEN $2 ELSE c.rv END,
             reconcile_handled = CASE WHEN $15 THEN c.reconcile_requested ELSE c.reconcile_handled END,
             observed_generation = CASE WHEN $15 THEN c.generation ELSE c.observed_generation END,
             converged_revision = CASE WHEN $15 THEN c.revision ELSE c.converged_revision END,
             attempts = CASE WHEN $15 THEN 0 ELSE c.attempts END,
             retry_at = CASE WHEN $15 THEN NULL ELSE c.retry_at END
         FROM unnest($3::uuid[], $4::integer[], $16::text[]::tid[]) AS u (id, class, place)
         CROSS JOIN LATERAL (
             SELECT ($5::smallint[])[u.class] AS pin, ($6::bigint[])[u.class] AS snapshot, ($7::text[])[u.class] AS cause,
                    ($8::smallint[])[u.class] AS dirty, ($9::boolean[])[u.class] AS handled, ($10::text[])[u.class] AS token,
                    ($11::jsonb[])[u.class] AS set, ($12::text[])[u.class] AS dropped, ($13::text[])[u.class] AS kind
         ) AS k
         WHERE c.namespace || '' = $1 AND c.ctid = u.place AND (c.id = u.id) IS TRUE AND c.rv <= $2"#,
        namespace,
        log.rv,
        &ids,
        &numbers,
        &pins,
        &snapshots as _,
        &causes as _,
        &dirties,
        &handled,
        &tokens as _,
        &set,
        &drop,
        &kinds as _,
        now.to_sqlx() as _,
        lane == Lane::Due,
        &places as _,
        places.first().copied(),
        &names as _,
        &chat_seqs,
        &seqs as _,
        &agents as _,
        &payloads as _,
    )
    .execute(&mut *tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())
}
