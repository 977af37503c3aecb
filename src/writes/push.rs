//! A push: one report of an agent becomes, or finds, a snapshot. Row by row the table of the API's page on pushes.

use super::{
    Refusal, WriteError,
    agents::{append, locked},
};
use crate::{
    clock::Clock,
    model::{
        agent::AgentView,
        event::EventKind,
        hash::{ContentHash, ContextHash},
        object::Key,
        push::{Phase, Push},
        resource::{Resource, ResourceMeta},
        snapshot::{Snapshot, SnapshotId, name, name_with_uid},
    },
    store::{
        self, StoreError, Write,
        agents::{self, Accepted, PushState, Repeated},
        events::{self, NewEvent},
        log::TxLog,
        snapshots::{self, NewSnapshot},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many snapshots may share an agent's name and the first twelve digits of a hash before the agent's uid is put behind
/// them: agents of one name, created again and again, report the same.
const NAMES_MAX: usize = 64;

/// Takes a push.
pub struct AcceptPush<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Of which agent.
    pub key: &'a Key,
    /// What it reports; already checked against the limits.
    pub push: &'a Push,
}

/// What a push is answered.
#[derive(Clone, Debug, PartialEq)]
pub struct PushAnswer {
    /// Whether the agent points at another snapshot than before.
    pub changed: bool,
    /// What it points at; none before its first complete push.
    pub snapshot: Option<PushedSnapshot>,
    /// Whether this was a repetition of the last accepted push.
    pub replayed: bool,
    /// Whether the agent shows something else than before, and there is an event of it.
    pub shown: bool,
}

/// What an agent points at after a push.
#[derive(Clone, Debug, PartialEq)]
pub struct PushedSnapshot {
    /// `metadata.name`.
    pub name: String,
    /// The hash of its resources.
    pub hash: ContextHash,
    /// Counts the agent's distinct contexts.
    pub revision: i64,
}

impl From<&Snapshot> for PushedSnapshot {
    fn from(snapshot: &Snapshot) -> Self {
        Self { name: snapshot.name.clone(), hash: snapshot.hash, revision: snapshot.revision }
    }
}

impl Write for AcceptPush<'_> {
    type Output = PushAnswer;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<PushAnswer, WriteError> {
        let Self { clock, key, push } = self;
        let old = locked(tx, key).await?; // locks, then reads
        let id = old.agent.meta.id;
        let state = agents::push_state(tx, &key.namespace, id).await?;
        let digest = push.digest();
        if let Judged::Replay { changed } = judge(&old, &state, push, &digest)? {
            return Ok(PushAnswer {
                changed,
                snapshot: old.latest.as_ref().map(PushedSnapshot::from),
                replayed: true,
                shown: false,
            });
        }
        let target = self.target(tx, &old).await?;
        let changed = !matches!(target, Pointing::Same);
        let shown = changed || old.agent.phase != Some(push.phase) || old.agent.latest_error != push.error;
        let now = clock.now();
        let mut log = if shown { Some(TxLog::open(tx).await?) } else { None };
        let (latest, pushed, snapshot_revision) = match (target, log.as_mut()) {
            (Pointing::Known(snapshot), _) => (Some(snapshot.id), Some(PushedSnapshot::from(&snapshot)), state.snapshot_revision),
            (Pointing::New(hash), Some(log)) => {
                let revision = state.snapshot_revision + 1;
                let (snapshot, pushed) = self.make(tx, &old, hash, revision, now, log).await?;
                (Some(snapshot), Some(pushed), revision)
            }
            (Pointing::New(_) | Pointing::Same, _) => {
                (old.agent.latest, old.latest.as_ref().map(PushedSnapshot::from), state.snapshot_revision)
            }
        };
        let live = Value::Array(push.live.iter().map(live_json).collect());
        let accepted = Accepted {
            seq: push.seq,
            digest: &digest,
            changed,
            now,
            phase: push.phase,
            error: &push.error,
            latest,
            snapshot_revision,
            live: (live != state.live).then_some(&live),
            shown: log.as_ref().map(|log| log.rv),
        };
        agents::accept(tx, &key.namespace, id, &accepted).await?;
        if let Some(log) = log.as_mut() {
            let hash = |snapshot: Option<ContextHash>| snapshot.map_or(Value::Null, |hash| json!(hash));
            let payload = json!({
                "from": hash(old.latest.as_ref().map(|latest| latest.hash)),
                "to": hash(pushed.as_ref().map(|pushed| pushed.hash)),
                "phase": push.phase,
            });
            append(tx, log, EventKind::AgentUpdated, &old.agent, payload).await?;
        }
        Ok(PushAnswer { changed, snapshot: pushed, replayed: false, shown })
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Takes a push that says what the last one said, in one statement. `known` is the agent as it was a moment ago, and only spares
/// asking in vain: without a repetition no connection is taken. None when it has to be taken as any other: then nothing is written.
pub async fn take_repeated(pool: &PgPool, accept: &AcceptPush<'_>, known: &AgentView) -> Result<Option<PushAnswer>, StoreError> {
    let AcceptPush { clock, key, push } = accept;
    let agent = &known.agent;
    let hash = push.context_hash();
    let same = push.phase == Phase::Complete
        && agent.phase == Some(push.phase)
        && agent.latest_error == push.error
        && known.latest.as_ref().is_some_and(|latest| latest.hash == hash);
    if !same {
        return Ok(None);
    }
    let digest = push.digest();
    let repeated = Repeated { run: push.run_id, epoch: push.epoch, seq: push.seq, digest: &digest, now: clock.now() };
    // A complete push of this digest left the agent at the snapshot of this hash, and only a push moves it.
    let found = agents::accept_repeated(&mut *store::acquire(pool).await?, key, &repeated).await?;
    Ok(found.map(|(name, revision)| PushAnswer {
        changed: false,
        snapshot: Some(PushedSnapshot { name, hash, revision }),
        replayed: false,
        shown: false,
    }))
}

enum Judged {
    Fresh,
    Replay { changed: bool },
}

/// Fencing: only the agent's run may push, each push counts up, and only the last one can be repeated.
fn judge(agent: &AgentView, state: &PushState, push: &Push, digest: &[u8; 32]) -> Result<Judged, Refusal> {
    let record = &agent.agent;
    if record.deletion_timestamp.is_some() {
        return Err(Refusal::Deleting);
    }
    if record.spec.suspend || record.paused {
        return Err(Refusal::Suspended);
    }
    let current = record.run.as_ref().map_or(0, |run| run.epoch);
    if record.run.as_ref().is_none_or(|run| run.id != push.run_id || run.epoch != push.epoch) {
        return Err(Refusal::StaleRun { got_run: push.run_id, got: push.epoch, current });
    }
    if push.seq > record.seq {
        return Ok(Judged::Fresh);
    }
    let same = push.seq == record.seq && state.digest.as_deref() == Some(&digest[..]);
    match (same, state.changed) {
        (true, Some(changed)) => Ok(Judged::Replay { changed }),
        (true, None) | (false, _) => Err(Refusal::OutOfOrder { got: push.seq, accepted: record.seq }),
    }
}

/// What the agent is to point at.
enum Pointing {
    /// What it points at already.
    Same,
    /// A snapshot that it made before: A→B→A returns to the same row.
    Known(Snapshot),
    /// One that is yet to be made.
    New(ContextHash),
}

impl AcceptPush<'_> {
    async fn target(&self, tx: &mut PgConnection, old: &AgentView) -> Result<Pointing, StoreError> {
        match self.push.phase {
            // A half-finished report never becomes a snapshot.
            Phase::Pending => return Ok(Pointing::Same),
            Phase::Complete => {}
        }
        let hash = self.push.context_hash();
        if old.latest.as_ref().is_some_and(|latest| latest.hash == hash) {
            return Ok(Pointing::Same);
        }
        let found = snapshots::find(tx, &self.key.namespace, old.agent.meta.id, &hash).await?;
        Ok(found.map_or(Pointing::New(hash), Pointing::Known))
    }

    /// Makes a snapshot and keeps the bodies that the agent did not have yet.
    async fn make(
        &self,
        tx: &mut PgConnection,
        old: &AgentView,
        hash: ContextHash,
        revision: i64,
        now: jiff::Timestamp,
        log: &mut TxLog,
    ) -> Result<(SnapshotId, PushedSnapshot), StoreError> {
        let Self { key, push, clock: _ } = self;
        let agent = &old.agent.meta;
        keep_bodies(tx, &key.namespace, agent.id, &push.pinned).await?;
        let manifest: Vec<ResourceMeta> = push.pinned.iter().map(|resource| resource.meta.clone()).collect();
        let names = (1..=NAMES_MAX).map(|n| name(&agent.name, &hash, n));
        for name in names.chain([name_with_uid(&agent.name, &hash, agent.id)]) {
            let new = NewSnapshot {
                namespace: &key.namespace,
                agent_id: agent.id,
                agent_name: &agent.name,
                name: &name,
                revision,
                hash: &hash,
                error: &push.error,
                manifest: &manifest,
                now,
                rv: log.rv,
            };
            let Some(id) = snapshots::insert(tx, &new).await? else { continue };
            if events::deleted_later(tx, &key.namespace, &name, EventKind::SnapshotDeleted, log.rv).await? {
                // Retention freed the name with a later version than ours: with a fresh one we come after it.
                return Err(StoreError::Guard { query: "db.snapshots.insert", expected: 1, got: 0 });
            }
            let event = NewEvent {
                namespace: &key.namespace,
                kind: EventKind::SnapshotAccepted,
                subject: None,
                name: &name,
                chat: None,
                agent: Some(agent.id),
                payload: json!({"agent": agent.name, "hash": hash, "revision": revision, "resources": manifest.len()}),
            };
            events::append(tx, log, event).await?;
            return Ok((id, PushedSnapshot { name, hash, revision }));
        }
        let message = format!("{} snapshots share the digits {}", NAMES_MAX + 1, hash.short());
        Err(StoreError::Inconsistent { table: "snapshots", column: "name", id: agent.name.clone(), message })
    }
}

async fn keep_bodies(tx: &mut PgConnection, namespace: &str, agent: Uuid, resources: &[Resource]) -> Result<(), StoreError> {
    let bodies: BTreeMap<ContentHash, &[u8]> =
        resources.iter().filter_map(|resource| Some((resource.meta.content_hash?, resource.body.as_deref()?))).collect();
    if bodies.is_empty() {
        return Ok(());
    }
    let hashes: Vec<ContentHash> = bodies.keys().copied().collect();
    let missing = snapshots::missing_blobs(tx, namespace, agent, &hashes).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let new: Vec<(ContentHash, &[u8])> = missing.into_iter().map(|hash| (hash, bodies[&hash])).collect();
    snapshots::insert_blobs(tx, namespace, agent, &new).await
}

/// A live resource as it is kept with the agent: its manifest entry, and the body in base64.
fn live_json(resource: &Resource) -> Value {
    let mut value = serde_json::to_value(&resource.meta).expect("a manifest entry is plain data");
    if let (Some(object), Some(body)) = (value.as_object_mut(), &resource.body) {
        object.insert("bodyBase64".into(), Value::String(STANDARD.encode(body)));
    }
    value
}
