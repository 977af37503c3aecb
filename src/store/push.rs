//! A push: what it is judged by, and recording it.

use super::{
    error::{Named, StoreError, expect_rows},
    log::TxLog,
    rows::At,
};
use crate::model::{
    event::EventKind,
    hash::{ContentHash, ContextHash},
    object::Key,
    push::{Audience, Phase},
    snapshot::SnapshotId,
};
use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

/// A snapshot of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// The hash of its resources.
    pub hash: ContextHash,
    /// Counts the agent's distinct contexts.
    pub revision: i64,
}

/// What of an agent a push is judged and answered by.
#[derive(Clone, Debug, PartialEq)]
pub struct PushState {
    /// Its deletion was asked for.
    pub deleting: bool,
    /// It is suspended or paused.
    pub suspended: bool,
    /// The run that may push, and its epoch.
    pub run: Option<(Uuid, i64)>,
    /// The number of the last accepted push.
    pub seq: i64,
    /// sha256 of the last accepted push.
    pub digest: Option<Vec<u8>>,
    /// What it was answered.
    pub changed: Option<bool>,
    /// How far the run has got.
    pub phase: Option<Phase>,
    /// What the agent said was wrong with its scan.
    pub error: String,
    /// The live class.
    pub live: Value,
    /// The highest snapshot revision given out.
    pub snapshot_revision: i64,
    /// What it points at.
    pub latest: Option<Known>,
    /// The snapshot of the context that is asked about, if it has been made before.
    pub found: Option<Known>,
    /// Whom its news concern.
    pub audience: Audience,
    /// Which of the bodies that are asked about the agent does not have; of a context that has been made before, none.
    pub missing: Vec<ContentHash>,
}

/// Reads it of an agent that is locked, in view of a push of this context with these bodies.
pub async fn push_state(
    tx: &mut PgConnection,
    key: &Key,
    id: Uuid,
    context: Option<&ContextHash>,
    bodies: &[ContentHash],
) -> Result<PushState, StoreError> {
    const NAME: &str = "db.agents.push_state";
    let all: Vec<Vec<u8>> = bodies.iter().map(|hash| hash.as_bytes().to_vec()).collect();
    // A look for each body: of `hash = ANY(…)` PostgreSQL reads all that the agent has while it thinks that to be little.
    let row = sqlx::query!(
        r#"
        SELECT a.deletion_timestamp IS NOT NULL AS "deleting!", a.suspend OR a.paused AS "suspended!", a.run_id, a.epoch, a.seq,
               a.push_digest, a.push_changed, a.phase, a.latest_error, a.live_resources, a.snapshot_revision,
               l.id AS "l_id?", l.name AS "l_name?", l.context_hash AS "l_hash?", l.revision AS "l_revision?",
               f.id AS "f_id?", f.name AS "f_name?", f.context_hash AS "f_hash?", f.revision AS "f_revision?",
               CASE WHEN f.id IS NULL THEN ARRAY(
                   SELECT u.hash FROM unnest($4::bytea[]) AS u (hash)
                   WHERE (SELECT true FROM blobs b WHERE b.namespace = $1 AND b.agent_id = $2 AND b.hash = u.hash) IS NULL
               ) ELSE '{}' END AS "missing!",
               a.workspace IS NOT NULL OR a.former_workspaces <> '{}' OR (
                   SELECT true FROM chats c WHERE c.namespace = $1 AND c.agent = a.name AND NOT c.archived AND NOT c.inherited_archived LIMIT 1
               ) IS NOT NULL AS "followed!"
        FROM agents a
        LEFT JOIN snapshots l ON l.namespace = a.namespace AND l.id = a.latest_snapshot_id
        LEFT JOIN snapshots f ON f.namespace = a.namespace AND f.agent_id = a.id AND f.context_hash = $3
        WHERE a.namespace = $1 AND a.id = $2
        "#,
        key.namespace,
        id,
        context.map(|hash| &hash.as_bytes()[..]),
        &all
    )
    .fetch_one(tx)
    .named(NAME)
    .await?;
    let at = At { table: "agents", namespace: &key.namespace, name: &key.name };
    let known = |id: Option<i64>, name: Option<String>, hash: Option<Vec<u8>>, revision: Option<i64>| {
        let (Some(id), Some(name), Some(hash), Some(revision)) = (id, name, hash, revision) else { return Ok(None) };
        let hash = At { table: "snapshots", namespace: &key.namespace, name: &name }.hash("context_hash", &hash)?;
        Ok::<_, StoreError>(Some(Known { id: SnapshotId(id), name, hash, revision }))
    };
    Ok(PushState {
        deleting: row.deleting,
        suspended: row.suspended,
        run: row.run_id.map(|run| (run, row.epoch)),
        seq: row.seq,
        digest: row.push_digest,
        changed: row.push_changed,
        phase: row.phase.as_deref().map(|phase| at.word("phase", phase)).transpose()?,
        error: row.latest_error,
        live: row.live_resources,
        snapshot_revision: row.snapshot_revision,
        latest: known(row.l_id, row.l_name, row.l_hash, row.l_revision)?,
        found: known(row.f_id, row.f_name, row.f_hash, row.f_revision)?,
        audience: if row.followed { Audience::Chats } else { Audience::Nobody },
        missing: row.missing.iter().filter_map(|hash| ContentHash::from_slice(hash)).collect(),
    })
}

/// An accepted push.
#[derive(Clone, Debug)]
pub struct Accepted<'a> {
    /// Its number.
    pub seq: i64,
    /// sha256 of what it said.
    pub digest: &'a [u8; 32],
    /// What it was answered.
    pub changed: bool,
    /// When.
    pub now: Timestamp,
    /// How far the run has got.
    pub phase: Phase,
    /// What the agent says is wrong with its scan.
    pub error: &'a str,
    /// What it points at now.
    pub latest: Option<SnapshotId>,
    /// The highest snapshot revision given out.
    pub snapshot_revision: i64,
    /// The live class, when it changed.
    pub live: Option<&'a Value>,
    /// The name of the snapshot that was made in this transaction.
    pub made: Option<&'a str>,
}

/// An event of an agent's.
#[derive(Clone, Debug)]
pub struct AgentEvent<'a> {
    /// What.
    pub kind: EventKind,
    /// The object's uid; none for snapshots.
    pub subject: Option<Uuid>,
    /// The object's name.
    pub name: &'a str,
    /// What the transaction saw. Never a body.
    pub payload: Value,
}

/// What of an accepted push the agent shows: then it becomes due, too.
#[derive(Debug)]
pub struct Shown<'a> {
    /// With the version of the transaction.
    pub log: &'a mut TxLog,
    /// What happened.
    pub events: &'a [AgentEvent<'a>],
}

/// Records an accepted push of an agent that is locked, with its events, in one statement. The guard fires, too, when a snapshot of the name
/// that was made has been deleted with a later version: retention has freed the name since this transaction took its own, and with a fresh one we
/// come after it. The events are then written all the same, and rolled back with all else; when the agent is written, they all are.
pub async fn accept(
    tx: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    push: &Accepted<'_>,
    shown: Option<Shown<'_>>,
) -> Result<(), StoreError> {
    const NAME: &str = "db.agents.accept";
    let Accepted { seq, digest, changed, now, phase, error, latest, snapshot_revision, live, made } = push;
    let (rv, written) = shown.as_ref().map(|shown| (shown.log.rv, shown.log.written)).unzip();
    let events = shown.as_ref().map_or(&[][..], |shown| shown.events);
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    let subjects: Vec<Option<Uuid>> = events.iter().map(|event| event.subject).collect();
    let names: Vec<&str> = events.iter().map(|event| event.name).collect();
    let payloads: Vec<&Value> = events.iter().map(|event| &event.payload).collect();
    let done = sqlx::query!(
        "WITH told AS (
             INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
             SELECT a.namespace, $12::bigint, $19 + u.o::integer, u.kind, u.subject, u.name, a.id, u.payload
             FROM agents a
             JOIN unnest($15::text[], $16::uuid[], $17::text[], $18::jsonb[]) WITH ORDINALITY AS u (kind, subject, name, payload, o) ON true
             WHERE a.namespace = $1 AND a.id = $2
         )
         UPDATE agents SET seq = $3, push_digest = $4, push_changed = $5, received_at = $6, phase = $7, latest_error = $8,
                           latest_snapshot_id = $9, snapshot_revision = $10,
                           live_resources = coalesce($11, live_resources),
                           live_revision = live_revision + CASE WHEN $11::jsonb IS NULL THEN 0 ELSE 1 END,
                           revision = revision + CASE WHEN $12::bigint IS NULL THEN 0 ELSE 1 END,
                           rv = coalesce($12, rv)
         WHERE namespace = $1 AND id = $2 AND ($12::bigint IS NULL OR rv <= $12)
               AND NOT EXISTS (SELECT FROM events e WHERE e.rv > $12 AND e.namespace = $1 AND e.name = $13 AND e.kind = $14)",
        namespace,
        id,
        seq,
        &digest[..],
        changed,
        now.to_sqlx() as _,
        phase.as_str(),
        error,
        latest.map(|latest| latest.0),
        snapshot_revision,
        *live,
        rv,
        *made,
        EventKind::SnapshotDeleted.as_str(),
        &kinds as _,
        &subjects as _,
        &names as _,
        &payloads as _,
        written
    )
    .execute(tx)
    .named(NAME)
    .await?;
    if let Some(Shown { log, events }) = shown {
        log.written += i32::try_from(events.len()).unwrap_or(i32::MAX);
    }
    expect_rows(NAME, 1, done.rows_affected())
}

/// A push that may say what the last one said.
#[derive(Clone, Copy, Debug)]
pub struct Repeated<'a> {
    /// The run that sends it.
    pub run: Uuid,
    /// The run's epoch.
    pub epoch: i64,
    /// Its number.
    pub seq: i64,
    /// sha256 of what it says.
    pub digest: &'a [u8; 32],
    /// When.
    pub now: Timestamp,
}

/// Records, in one statement that needs no lock held before, a push that says what the last accepted one said. Returns the name
/// and the revision of what the agent points at. None when it is not such a push, or not to be accepted: then nothing is written.
pub async fn accept_repeated(
    connection: &mut PgConnection,
    key: &Key,
    push: &Repeated<'_>,
) -> Result<Option<(String, i64)>, StoreError> {
    const NAME: &str = "db.agents.accept_repeated";
    // Everything that is decided from is a column of the row that is written, so it is looked at again after a wait for the row.
    let row = sqlx::query!(
        "UPDATE agents a SET seq = $5, push_changed = false, received_at = $7
         FROM snapshots s
         WHERE a.namespace = $1 AND a.name = $2 AND a.run_id = $3 AND a.epoch = $4 AND a.seq < $5 AND a.push_digest = $6
               AND a.deletion_timestamp IS NULL AND NOT a.suspend AND NOT a.paused
               AND s.namespace = a.namespace AND s.id = a.latest_snapshot_id
         RETURNING s.name, s.revision",
        key.namespace,
        key.name,
        push.run,
        push.epoch,
        push.seq,
        &push.digest[..],
        push.now.to_sqlx() as _
    );
    Ok(row.fetch_optional(connection).named(NAME).await?.map(|row| (row.name, row.revision)))
}
