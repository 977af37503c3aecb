//! Reading chats, each with its pin and its target.

use crate::{
    model::{
        chat::{ChatState, RefreshPolicy},
        condition::Conditions,
        push::Phase,
        snapshot::SnapshotId,
        target::{Latest, Pin, Target},
        word::UnknownWord,
    },
    plan::ChatFacts,
    store::{
        chats::Locked,
        error::{Named, StoreError, expect_rows},
        rows::At,
    },
};
use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use std::{collections::HashMap, str::FromStr, sync::Arc};
use uuid::Uuid;

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
    /// Where its row stood when it was read. It stands there still if it had been locked before.
    pub place: String,
    /// Its name.
    pub name: String,
    /// The number of its last event.
    pub event_seq: i64,
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

#[expect(clippy::struct_excessive_bools, reason = "a row: one field a column")]
struct LoadedRow {
    id: Uuid,
    place: String,
    name: String,
    event_seq: i64,
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
/// chats name it, and joined by hashes: a plan that thinks of few of either compares each with each, which a `FULL JOIN` cannot (no target
/// is without a chat, so nothing else is different). A pin is looked up by the namespace of its chat and not by the parameter: of a namespace that statistics do not know
/// PostgreSQL would go through all snapshots for each chat.
macro_rules! load_query {
    ($source:tt $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            LoadedRow,
            r#"
            WITH page AS MATERIALIZED (
                SELECT c.namespace, c.id, c.ctid::text AS place, c.name, c.event_seq, c.archived OR c.inherited_archived AS archived, c.suspend OR c.paused AS suspended, c.state,
                       c.refresh_policy, c.refresh_requested, c.refresh_handled,
                       c.reconcile_requested IS DISTINCT FROM c.reconcile_handled AS reconcile_pending,
                       c.observed_generation < c.generation AS generation_behind,
                       c.converged_revision < c.revision AS due, c.dirty_since, c.conditions, c.snapshot_id, c.updated_at, c.agent, c.workspace,
                       coalesce('a/' || c.agent, 'w/' || c.workspace) AS target
                FROM chats c WHERE "# + $source + r#"
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
            SELECT page.id AS "id!", page.place AS "place!", page.name AS "name!", page.event_seq AS "event_seq!", page.archived AS "archived!", page.suspended AS "suspended!",
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
            FULL JOIN targets t ON t.target = page.target
            LEFT JOIN snapshots p ON p.namespace = page.namespace AND p.id = page.snapshot_id
            ORDER BY page.id
            "#
            $(, $arg)*
        )
    };
}

/// Reads chats by id.
pub async fn load(tx: &mut PgConnection, namespace: &str, ids: &[Uuid]) -> Result<Vec<Row>, StoreError> {
    const NAME: &str = "db.chats.load";
    let rows = load_query!("c.namespace = $1 AND c.id = ANY($2)", namespace, ids).fetch_all(tx).named(NAME).await?;
    Ok(parse(namespace, rows))
}

/// Reads chats that this transaction has locked, and not written: all of them, for nobody else can write or remove one. They are in the
/// order of their ids.
pub async fn load_locked(tx: &mut PgConnection, namespace: &str, locked: &[Locked]) -> Result<Vec<Row>, StoreError> {
    const NAME: &str = "db.chats.load_locked";
    let places: Vec<&str> = locked.iter().map(|chat| chat.place.as_str()).collect();
    let rows = load_query!(r#"c.namespace = $1 COLLATE "POSIX" AND c.ctid = ANY($2::text[]::tid[])"#, namespace, &places as _);
    let rows = rows.fetch_all(tx).named(NAME).await?;
    let as_locked = rows.iter().zip(locked).filter(|(row, chat)| row.id == chat.id).count();
    expect_rows(NAME, locked.len().max(rows.len()), as_locked as u64)?;
    Ok(parse(namespace, rows))
}

/// The chats that an agent's news may concern: those that name it, its workspace, or a workspace it has left, and are not archived.
/// An archived one keeps what it has, and when it comes back it is due by itself.
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
        r#"c.namespace = $1 COLLATE "POSIX" AND c.ctid = ANY (ARRAY(
            SELECT u.place FROM (
                (SELECT n.id, n.ctid AS place FROM chats n WHERE n.namespace = $1 AND n.agent = $2 AND n.id > $5
                   AND NOT n.archived AND NOT n.inherited_archived ORDER BY n.id LIMIT $6)
                UNION
                (SELECT n.id, n.ctid FROM chats n WHERE n.namespace = $1 AND n.workspace = $3 AND n.id > $5
                   AND NOT n.archived AND NOT n.inherited_archived ORDER BY n.id LIMIT $6)
                UNION
                (SELECT n.id, n.ctid FROM chats n WHERE n.namespace = $1 AND n.workspace = ANY($4) AND n.id > $5
                   AND NOT n.archived AND NOT n.inherited_archived ORDER BY n.id LIMIT $6)
            ) u ORDER BY u.id LIMIT $6))"#,
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
        place: row.place,
        event_seq: row.event_seq,
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
        name: row.name,
    })
}

fn word<T: FromStr<Err = UnknownWord>>(at: At<'_>, column: &'static str, word: &str) -> Result<T, StoreError> {
    at.word(column, word)
}
