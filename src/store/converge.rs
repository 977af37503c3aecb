//! What the loop reads and writes: claiming chats that are due, reading each with its pin and its target, and writing the
//! outcomes of a whole batch in one statement.
//!
//! The statement of the outcomes sends each distinct outcome once (a *class*) and per chat only its id and the number of its
//! class: a batch in which a thousand chats become dirty sends one set of conditions and one payload. That is speed;
//! correctness is `rv <= $rv` and the count of rows.

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
    rows::At,
};
use crate::model::{snapshot::SnapshotId, word::UnknownWord};
use crate::{
    model::{
        chat::{ChatState, PinCause, RefreshPolicy},
        condition::{ConditionPatch, Conditions},
        event::EventKind,
        push::Phase,
        target::{Latest, Pin, Target},
    },
    plan::{ChatFacts, DirtyChange, PinChange},
    trace::Story,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use std::{collections::HashMap, str::FromStr, sync::Arc, time::Duration};
use uuid::Uuid;

/// Most chats that one transaction touches.
pub const BATCH_MAX: i64 = 1_000;

/// What conditions know of a snapshot, owned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotFacts {
    /// Its name.
    pub name: String,
    /// How many of its resources are not `Ok`.
    pub degraded: i32,
    /// How many it has.
    pub resources: i32,
    /// What the agent said was wrong with its scan.
    pub error: String,
}

/// A chat as the loop sees it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Its id.
    pub id: Uuid,
    /// What the decision knows of it.
    pub facts: ChatFacts,
    /// Its pin.
    pub pin: Option<(Pin, SnapshotFacts)>,
    /// The name of the pin's agent.
    pub pin_agent: Option<String>,
    /// What it names now.
    pub target: Target,
    /// The name of the target.
    pub target_agent: Option<String>,
    /// The name that the chat gives: an agent's or a workspace's.
    pub reference: Option<String>,
    /// How far the target's run has got.
    pub target_phase: Option<Phase>,
    /// What the target points at.
    pub latest: Option<SnapshotFacts>,
    /// The token that was asked for last.
    pub refresh_requested: Option<String>,
    /// The token that was handled last.
    pub refresh_handled: Option<String>,
    /// A reconcile token stands that has not been handled.
    pub reconcile_pending: bool,
    /// The conditions speak of an older generation.
    pub generation_behind: bool,
    /// It is due: somebody may be converging it right now, from what its agent was before the news.
    pub due: bool,
    /// What its conditions say.
    pub conditions: Arc<Conditions>,
    /// Since when a pin may have been possible: the later of the chat's last change by a person and the agent's last push.
    pub waiting_since: Timestamp,
    /// The start of its drift episode.
    pub dirty_since: Option<Timestamp>,
}

/// A row, or why it could not be read.
#[derive(Debug)]
pub enum Row {
    /// A chat.
    Chat(Box<Loaded>),
    /// A row that does not have its form.
    Bad {
        /// Its id.
        id: Uuid,
        /// What is wrong with it.
        error: StoreError,
    },
}

/// Claims chats of one namespace that are due: locked until the transaction ends; those that somebody else holds are left
/// to him.
pub async fn claim(tx: &mut PgConnection, namespace: &str, limit: i64, now: Timestamp) -> Result<Vec<Uuid>, StoreError> {
    const NAME: &str = "db.chats.claim";
    sqlx::query_scalar!(
        "SELECT id FROM chats
         WHERE namespace = $1 AND converged_revision < revision AND (retry_at IS NULL OR retry_at <= $2)
         ORDER BY id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED",
        namespace,
        now.to_sqlx() as _,
        limit
    )
    .fetch_all(tx)
    .named(NAME)
    .await
}

/// Claims one chat, if it is due and nobody holds it.
pub async fn claim_one(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Vec<Uuid>, StoreError> {
    const NAME: &str = "db.chats.claim_one";
    sqlx::query_scalar!(
        "SELECT id FROM chats WHERE namespace = $1 AND id = $2 AND converged_revision < revision
         FOR NO KEY UPDATE SKIP LOCKED",
        namespace,
        id
    )
    .fetch_all(tx)
    .named(NAME)
    .await
}

#[expect(clippy::struct_excessive_bools, reason = "a row: one field a column")]
struct LoadedRow {
    id: Uuid,
    name: String,
    archived: bool,
    suspended: bool,
    state: String,
    refresh_policy: String,
    refresh_requested: Option<String>,
    refresh_handled: Option<String>,
    reconcile_pending: bool,
    generation_behind: bool,
    due: bool,
    dirty_since: Option<jiff_sqlx::Timestamp>,
    conditions: String,
    unbound: bool,
    waiting_since: jiff_sqlx::Timestamp,
    reference: Option<String>,
    p_id: Option<i64>,
    p_name: Option<String>,
    p_agent_id: Option<Uuid>,
    p_agent_name: Option<String>,
    p_hash: Option<Vec<u8>>,
    p_degraded: Option<i32>,
    p_resources: Option<i32>,
    p_error: Option<String>,
    t_id: Option<Uuid>,
    t_name: Option<String>,
    t_phase: Option<String>,
    l_id: Option<i64>,
    l_name: Option<String>,
    l_hash: Option<Vec<u8>>,
    l_degraded: Option<i32>,
    l_resources: Option<i32>,
    l_error: Option<String>,
}

/// Reads chats with pins, targets and latest snapshots, all in one statement. Each target is found once, however many
/// chats name it.
macro_rules! load_query {
    ($source:tt $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            LoadedRow,
            r#"
            WITH page AS MATERIALIZED (
                SELECT c.id, c.name, c.archived OR c.inherited_archived AS archived, c.suspend OR c.paused AS suspended, c.state,
                       c.refresh_policy, c.refresh_requested, c.refresh_handled,
                       c.reconcile_requested IS DISTINCT FROM c.reconcile_handled AS reconcile_pending,
                       c.observed_generation < c.generation AS generation_behind,
                       c.converged_revision < c.revision AS due, c.dirty_since, c.conditions, c.snapshot_id, c.updated_at, c.agent, c.workspace,
                       coalesce('a/' || c.agent, 'w/' || c.workspace) AS target
                FROM chats c WHERE c.namespace = $1 AND "# + $source + r#"
            ), named AS (
                SELECT DISTINCT target, agent, workspace FROM page WHERE target IS NOT NULL
            ), targets AS MATERIALIZED (
                SELECT n.target, t.id, t.name, t.phase, t.received_at, l.id AS l_id, l.name AS l_name, l.context_hash AS l_hash,
                       l.degraded_count AS l_degraded, l.resource_count AS l_resources, l.error AS l_error
                FROM named n
                CROSS JOIN LATERAL (
                    SELECT a.id, a.name, a.phase, a.latest_snapshot_id, a.received_at FROM agents a
                    WHERE a.namespace = $1 AND a.name = n.agent AND a.deletion_timestamp IS NULL
                    UNION ALL
                    (SELECT a.id, a.name, a.phase, a.latest_snapshot_id, a.received_at FROM agents a
                     WHERE a.namespace = $1 AND a.workspace = n.workspace AND a.deletion_timestamp IS NULL
                     ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1)
                ) t
                LEFT JOIN snapshots l ON l.namespace = $1 AND l.id = t.latest_snapshot_id
            )
            SELECT page.id AS "id!", page.name AS "name!", page.archived AS "archived!", page.suspended AS "suspended!",
                   page.state AS "state!", page.refresh_policy AS "refresh_policy!", page.refresh_requested, page.refresh_handled,
                   page.reconcile_pending AS "reconcile_pending!", page.generation_behind AS "generation_behind!",
                   page.due AS "due!", page.dirty_since AS "dirty_since?: _", page.conditions::text AS "conditions!", page.target IS NULL AS "unbound!",
                   greatest(page.updated_at, t.received_at) AS "waiting_since!: _",
                   coalesce('agent ' || page.agent, 'workspace ' || page.workspace) AS "reference?",
                   p.id AS "p_id?", p.name AS "p_name?", p.agent_id AS "p_agent_id?", p.agent_name AS "p_agent_name?",
                   p.context_hash AS "p_hash?", p.degraded_count AS "p_degraded?", p.resource_count AS "p_resources?",
                   p.error AS "p_error?",
                   t.id AS "t_id?", t.name AS "t_name?", t.phase AS "t_phase?",
                   t.l_id AS "l_id?", t.l_name AS "l_name?", t.l_hash AS "l_hash?", t.l_degraded AS "l_degraded?",
                   t.l_resources AS "l_resources?", t.l_error AS "l_error?"
            FROM page
            LEFT JOIN targets t ON t.target = page.target
            LEFT JOIN snapshots p ON p.namespace = $1 AND p.id = page.snapshot_id
            ORDER BY page.id
            "#
            $(, $arg)*
        )
    };
}

/// Reads chats by id.
pub async fn load(tx: &mut PgConnection, namespace: &str, ids: &[Uuid]) -> Result<Vec<Row>, StoreError> {
    const NAME: &str = "db.chats.load";
    let rows = load_query!("c.id = ANY($2)", namespace, ids).fetch_all(tx).named(NAME).await?;
    Ok(parse(namespace, rows))
}

/// The chats that an agent's news may concern: those that name it, its workspace, or a workspace it has left.
#[derive(Clone, Copy, Debug)]
pub struct Concerned<'a> {
    /// The agent's name.
    pub agent: &'a str,
    /// Its workspace.
    pub workspace: Option<&'a str>,
    /// Workspaces it has left.
    pub former: &'a [String],
    /// Only chats after this one.
    pub after: Uuid,
    /// At most so many.
    pub limit: i64,
}

/// Reads the next of them, unlocked.
pub async fn load_concerned(tx: &mut PgConnection, namespace: &str, page: &Concerned<'_>) -> Result<Vec<Row>, StoreError> {
    const NAME: &str = "db.chats.concerned";
    let Concerned { agent, workspace, former, after, limit } = page;
    // One branch an index, each in key order: an OR over both would sort all of a large workspace for every page.
    let rows = load_query!(
        "c.id = ANY (ARRAY(
            SELECT u.id FROM (
                (SELECT n.id FROM chats n WHERE n.namespace = $1 AND n.agent = $2 AND n.id > $5 ORDER BY n.id LIMIT $6)
                UNION
                (SELECT n.id FROM chats n WHERE n.namespace = $1 AND n.workspace = $3 AND n.id > $5 ORDER BY n.id LIMIT $6)
                UNION
                (SELECT n.id FROM chats n WHERE n.namespace = $1 AND n.workspace = ANY($4) AND n.id > $5 ORDER BY n.id LIMIT $6)
            ) u ORDER BY u.id LIMIT $6))",
        namespace,
        agent,
        *workspace,
        former,
        after,
        limit
    )
    .fetch_all(tx)
    .named(NAME)
    .await?;
    Ok(parse(namespace, rows))
}

fn parse(namespace: &str, rows: Vec<LoadedRow>) -> Vec<Row> {
    let mut conditions = HashMap::new();
    rows.into_iter()
        .map(|row| {
            let id = row.id;
            match loaded(namespace, row, &mut conditions) {
                Ok(chat) => Row::Chat(Box::new(chat)),
                Err(error) => Row::Bad { id, error },
            }
        })
        .collect()
}

fn loaded(namespace: &str, row: LoadedRow, seen: &mut HashMap<String, Arc<Conditions>>) -> Result<Loaded, StoreError> {
    let at = At { table: "chats", namespace, name: &row.name };
    let conditions = if let Some(conditions) = seen.get(&row.conditions) {
        Arc::clone(conditions)
    } else {
        let stored: Value = serde_json::from_str(&row.conditions).map_err(|error| at.bad("conditions", error))?;
        let parsed = Arc::new(at.conditions(&stored)?);
        seen.insert(row.conditions, Arc::clone(&parsed));
        parsed
    };
    let state: ChatState = word(at, "state", &row.state)?;
    let policy: RefreshPolicy = word(at, "refresh_policy", &row.refresh_policy)?;
    let target_phase = row.t_phase.as_deref().map(|phase| word(at, "phase", phase)).transpose()?;
    let facts_of = |name, degraded, resources, error| {
        Some(SnapshotFacts { name: name?, degraded: degraded?, resources: resources?, error: error? })
    };
    let pin = match (row.p_id, row.p_agent_id, &row.p_hash) {
        (Some(id), Some(agent), Some(hash)) => {
            let hash = at.hash("context_hash", hash)?;
            let facts = facts_of(row.p_name, row.p_degraded, row.p_resources, row.p_error);
            facts.map(|facts| (Pin { snapshot: SnapshotId(id), agent, hash }, facts))
        }
        _ => None,
    };
    let latest = match (row.l_id, &row.l_hash) {
        (Some(id), Some(hash)) => Some(Latest { snapshot: SnapshotId(id), hash: at.hash("context_hash", hash)? }),
        _ => None,
    };
    let target = match (row.unbound, row.t_id) {
        (true, _) => Target::Unbound,
        (false, None) => Target::Missing,
        (false, Some(id)) => Target::Agent { id, latest },
    };
    let refresh_pending = row.refresh_requested.is_some() && row.refresh_requested != row.refresh_handled;
    Ok(Loaded {
        id: row.id,
        facts: ChatFacts {
            archived: row.archived,
            suspended: row.suspended,
            state,
            policy,
            refresh_pending,
            dirty: row.dirty_since.is_some(),
        },
        pin,
        pin_agent: row.p_agent_name,
        target,
        target_agent: row.t_name,
        reference: row.reference,
        target_phase,
        latest: facts_of(row.l_name, row.l_degraded, row.l_resources, row.l_error),
        refresh_requested: row.refresh_requested,
        refresh_handled: row.refresh_handled,
        reconcile_pending: row.reconcile_pending,
        generation_behind: row.generation_behind,
        due: row.due,
        conditions,
        waiting_since: row.waiting_since.to_jiff(),
        dirty_since: row.dirty_since.map(jiff_sqlx::Timestamp::to_jiff),
    })
}

fn word<T: FromStr<Err = UnknownWord>>(at: At<'_>, column: &'static str, word: &str) -> Result<T, StoreError> {
    at.word(column, word)
}

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
        let waited = |id: Uuid| {
            let chat = chats.binary_search_by_key(&id, |chat| chat.id).ok().map(|at| &chats[at]);
            chat.map(|chat| Duration::try_from(now.duration_since(chat.waiting_since)).unwrap_or_default())
        };
        let first =
            |class: usize| self.classes[class].event.as_ref().is_some_and(|event| event.kind == EventKind::ContextHydrated);
        self.chats.iter().filter(|(_, class)| first(*class)).filter_map(|(id, _)| waited(*id)).collect()
    }

    /// How long each chat of `chats` whose drift ends by this had drifted.
    pub fn drifts_ended(&self, chats: &[Loaded], now: Timestamp) -> Vec<Duration> {
        let lasted = |id: Uuid| {
            let since = chats.binary_search_by_key(&id, |chat| chat.id).ok().and_then(|at| chats[at].dirty_since)?;
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

/// Whether the chats have been converged as due, or were reached by their agent's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Due: their revisions have been seen.
    Due,
    /// Reached by fan-out: their own revisions are left alone.
    Fanout,
}

/// Writes the outcomes of a batch in one statement, and appends their events. All the chats are locked.
pub async fn record(
    tx: &mut PgConnection,
    namespace: &str,
    outcomes: &Outcomes,
    lane: Lane,
    now: Timestamp,
    log: &mut TxLog,
) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.record";
    let (ids, numbers) = columns(&outcomes.chats);
    let classes = &outcomes.classes;
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
    let shown: Vec<bool> = classes.iter().map(|class| class.event.is_some()).collect();
    let done = sqlx::query!(
        "UPDATE chats AS c SET
             snapshot_id = CASE k.pin WHEN 1 THEN k.snapshot WHEN 2 THEN NULL ELSE c.snapshot_id END,
             pin_cause = CASE k.pin WHEN 1 THEN k.cause WHEN 2 THEN NULL ELSE c.pin_cause END,
             pinned_at = CASE k.pin WHEN 1 THEN $14::timestamptz WHEN 2 THEN NULL ELSE c.pinned_at END,
             dirty_since = CASE k.dirty WHEN 1 THEN $14::timestamptz WHEN 2 THEN NULL ELSE c.dirty_since END,
             refresh_requested = coalesce(k.token, c.refresh_requested),
             refresh_handled = CASE WHEN k.handled THEN coalesce(k.token, c.refresh_requested) ELSE c.refresh_handled END,
             conditions = CASE WHEN k.dropped = '' THEN c.conditions || k.set
                               ELSE (c.conditions || k.set) - string_to_array(k.dropped, ',') END,
             event_seq = CASE WHEN k.shown THEN c.event_seq + 1 ELSE c.event_seq END,
             rv = CASE WHEN k.shown THEN $2 ELSE c.rv END,
             reconcile_handled = CASE WHEN $15 THEN c.reconcile_requested ELSE c.reconcile_handled END,
             observed_generation = CASE WHEN $15 THEN c.generation ELSE c.observed_generation END,
             converged_revision = CASE WHEN $15 THEN c.revision ELSE c.converged_revision END,
             attempts = CASE WHEN $15 THEN 0 ELSE c.attempts END,
             retry_at = CASE WHEN $15 THEN NULL ELSE c.retry_at END
         FROM unnest($3::uuid[], $4::integer[]) AS u (id, class)
         JOIN unnest($5::smallint[], $6::bigint[], $7::text[], $8::smallint[], $9::boolean[], $10::text[], $11::jsonb[],
                     $12::text[], $13::boolean[])
              WITH ORDINALITY AS k (pin, snapshot, cause, dirty, handled, token, set, dropped, shown, class)
              ON k.class = u.class
         WHERE c.namespace = $1 AND c.id = u.id AND c.rv <= $2",
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
        &shown,
        now.to_sqlx() as _,
        lane == Lane::Due,
    )
    .execute(&mut *tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())?;
    append(tx, namespace, outcomes, log).await
}

async fn append(tx: &mut PgConnection, namespace: &str, outcomes: &Outcomes, log: &mut TxLog) -> Result<(), StoreError> {
    const NAME: &str = "db.events.append_batch";
    let shown: Vec<(Uuid, usize)> =
        outcomes.chats.iter().filter(|(_, class)| outcomes.classes[*class].event.is_some()).copied().collect();
    if shown.is_empty() {
        return Ok(());
    }
    let (ids, numbers) = columns(&shown);
    let events = || outcomes.classes.iter().map(|class| class.event.as_ref());
    let kinds: Vec<Option<&str>> = events().map(|event| event.map(|event| event.kind.as_str())).collect();
    let agents: Vec<Option<Uuid>> = events().map(|event| event.and_then(|event| event.agent)).collect();
    let payloads: Vec<Value> = events().map(|event| event.map_or(Value::Null, |event| event.payload.clone())).collect();
    let done = sqlx::query!(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         SELECT c.namespace, c.rv, $3 + u.o::integer, k.kind, c.id, c.name, c.id, k.agent_id, c.event_seq, k.payload
         FROM chats c
         JOIN unnest($4::uuid[], $5::integer[]) WITH ORDINALITY AS u (id, class, o) ON u.id = c.id
         JOIN unnest($6::text[], $7::uuid[], $8::jsonb[]) WITH ORDINALITY AS k (kind, agent_id, payload, class)
              ON k.class = u.class
         WHERE c.namespace = $1 AND c.rv = $2",
        namespace,
        log.rv,
        log.written,
        &ids,
        &numbers,
        &kinds as _,
        &agents as _,
        &payloads
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())?;
    log.written += i32::try_from(ids.len()).unwrap_or(i32::MAX);
    Ok(())
}

fn columns(chats: &[(Uuid, usize)]) -> (Vec<Uuid>, Vec<i32>) {
    // WITH ORDINALITY counts from 1.
    chats.iter().map(|(id, class)| (*id, i32::try_from(class + 1).unwrap_or(i32::MAX))).unzip()
}

/// A chat that the loop fails on: how often it did, and when to try again.
#[derive(Clone, Debug)]
pub struct Poison<'a> {
    /// Which.
    pub id: Uuid,
    /// Not before then.
    pub retry_at: Timestamp,
    /// What the conditions should say of it.
    pub conditions: &'a ConditionPatch,
    /// Whether that changes what the chat shows.
    pub shown: bool,
}

/// How often the loop has failed on a chat in a row; locks it. None when it is gone.
pub async fn lock_poisoned(tx: &mut PgConnection, namespace: &str, id: Uuid) -> Result<Option<(i32, Value)>, StoreError> {
    const NAME: &str = "db.chats.lock_poisoned";
    let row = sqlx::query!(
        "SELECT attempts, conditions FROM chats WHERE namespace = $1 AND id = $2 AND converged_revision < revision
             FOR NO KEY UPDATE",
        namespace,
        id
    );
    Ok(row.fetch_optional(tx).named(NAME).await?.map(|row| (row.attempts, row.conditions)))
}

/// Sets a chat aside until its `retry_at`: it stays due, and says so.
pub async fn set_aside(tx: &mut PgConnection, namespace: &str, poison: &Poison<'_>, log: &mut TxLog) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.set_aside";
    let Poison { id, retry_at, conditions, shown } = poison;
    let set = Value::Object(conditions.set.clone());
    let row = sqlx::query!(
        "UPDATE chats SET attempts = attempts + 1, retry_at = $3, conditions = conditions || $4,
                          rv = CASE WHEN $5 THEN $6 ELSE rv END, event_seq = CASE WHEN $5 THEN event_seq + 1 ELSE event_seq END
         WHERE namespace = $1 AND id = $2 AND rv <= $6
         RETURNING name, event_seq",
        namespace,
        id,
        retry_at.to_sqlx() as _,
        set,
        shown,
        log.rv
    )
    .fetch_optional(&mut *tx)
    .named(NAME)
    .await?;
    let row = row.ok_or(StoreError::Guard { query: NAME, expected: 1, got: 0 })?;
    if *shown {
        let event = super::events::NewEvent {
            namespace,
            kind: EventKind::ChatUpdated,
            subject: Some(*id),
            name: &row.name,
            chat: Some((*id, row.event_seq)),
            agent: None,
            payload: serde_json::json!({}),
        };
        super::events::append(tx, log, event).await?;
    }
    Ok(())
}

/// Makes chats due that their agent's news could not be written to as a batch: the chat lane takes them one by one.
pub async fn make_due(
    tx: &mut PgConnection,
    namespace: &str,
    ids: &[Uuid],
    token: Option<(Uuid, &str)>,
) -> Result<(), StoreError> {
    const NAME: &str = "db.chats.make_due";
    let (agent, token) = token.unzip();
    let done = sqlx::query!(
        "UPDATE chats AS c SET revision = revision + 1, refresh_requested = CASE
             WHEN $4::text IS NOT NULL AND NOT c.archived AND NOT c.inherited_archived AND c.refresh_handled IS DISTINCT FROM $4
                  AND EXISTS (SELECT FROM snapshots s
                              WHERE s.namespace = $1 AND s.id = c.snapshot_id AND s.agent_id = $3)
             THEN $4 ELSE c.refresh_requested END
         WHERE c.namespace = $1 AND c.id = ANY($2)",
        namespace,
        ids,
        agent,
        token
    )
    .execute(tx)
    .named(NAME)
    .await?;
    expect_rows(NAME, ids.len(), done.rows_affected())
}
