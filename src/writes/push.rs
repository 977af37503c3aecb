//! A push: one report of an agent becomes, or finds, a snapshot. Row by row the table of the API's page on pushes.

use super::{Refusal, WriteError};
use crate::{
    clock::Clock,
    model::{
        agent::AgentView,
        event::EventKind,
        hash::{ContentHash, ContextHash},
        object::Key,
        push::{Audience, Phase, Push},
        resource::Resource,
        snapshot::{name, name_with_uid},
    },
    store::{
        self, StoreError, Write, agents,
        log::TxLog,
        push::{Accepted, AgentEvent, Known, PushState, Repeated, Shown, accept, accept_repeated, push_state},
        snapshots::{self, NewSnapshot},
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use std::collections::BTreeMap;

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
    /// Whom that concerns.
    pub audience: Audience,
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

impl From<&Known> for PushedSnapshot {
    fn from(Known { id: _, name, hash, revision }: &Known) -> Self {
        Self { name: name.clone(), hash: *hash, revision: *revision }
    }
}

impl Write for AcceptPush<'_> {
    type Output = PushAnswer;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<PushAnswer, WriteError> {
        let Self { clock, key, push } = self;
        let (context, bodies) = match push.phase {
            Phase::Complete => (Some(push.context_hash()), distinct_bodies(&push.pinned)),
            // A half-finished report never becomes a snapshot.
            Phase::Pending => (None, BTreeMap::new()),
        };
        let hashes: Vec<ContentHash> = bodies.keys().copied().collect();
        let digest = push.digest();
        let id = agents::lock(tx, key).await?.ok_or(WriteError::NotFound)?; // locks
        let old = push_state(tx, key, id, context.as_ref(), &hashes).await?; // reads, after the lock
        if let Judged::Replay { changed } = judge(&old, push, &digest)? {
            return Ok(PushAnswer {
                changed,
                snapshot: old.latest.as_ref().map(PushedSnapshot::from),
                replayed: true,
                shown: false,
                audience: old.audience,
            });
        }
        let before = old.latest.as_ref().map(|latest| latest.hash);
        // A→B→A returns to the snapshot that there is.
        let target = context.map_or(before, Some);
        let changed = target != before;
        let shown = changed || old.phase != Some(push.phase) || old.error != push.error;
        let now = clock.now();
        let mut log = if shown { Some(TxLog::open(tx).await?) } else { None }; // takes the version
        let made = match (target, &log) {
            (Some(hash), Some(log)) if changed && old.found.is_none() => {
                let manifest: Vec<_> = push.pinned.iter().map(|resource| resource.meta.clone()).collect();
                let missing: Vec<_> = old.missing.iter().map(|hash| (*hash, bodies[hash])).collect();
                let new = NewSnapshot {
                    namespace: &key.namespace,
                    agent_id: id,
                    agent_name: &key.name,
                    revision: old.snapshot_revision + 1,
                    hash: &hash,
                    error: &push.error,
                    manifest: &manifest,
                    bodies: &missing,
                    now,
                    rv: log.rv,
                };
                Some(make(tx, new).await?) // writes
            }
            _ => None,
        };
        let latest = made.as_ref().or(if changed { old.found.as_ref() } else { old.latest.as_ref() });
        let live = Value::Array(push.live.iter().map(live_json).collect());
        let taken = made.as_ref().map(|made| AgentEvent {
            kind: EventKind::SnapshotAccepted,
            subject: None,
            name: &made.name,
            payload: json!({"agent": key.name, "hash": made.hash, "revision": made.revision, "resources": push.pinned.len()}),
        });
        let updated = AgentEvent {
            kind: EventKind::AgentUpdated,
            subject: Some(id),
            name: &key.name,
            payload: json!({"from": before, "to": target, "phase": push.phase}),
        };
        let events: Vec<_> = taken.into_iter().chain([updated]).collect();
        let accepted = Accepted {
            seq: push.seq,
            digest: &digest,
            changed,
            now,
            phase: push.phase,
            error: &push.error,
            latest: latest.map(|latest| latest.id),
            snapshot_revision: made.as_ref().map_or(old.snapshot_revision, |made| made.revision),
            live: (live != old.live).then_some(&live),
            made: made.as_ref().map(|made| made.name.as_str()),
        };
        let log = log.as_mut().map(|log| Shown { log, events: &events });
        accept(tx, &key.namespace, id, &accepted, log).await?; // writes, and the events
        Ok(PushAnswer { changed, snapshot: latest.map(PushedSnapshot::from), replayed: false, shown, audience: old.audience })
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
    let found = accept_repeated(&mut *store::acquire(pool).await?, key, &repeated).await?;
    Ok(found.map(|(name, revision)| PushAnswer {
        changed: false,
        snapshot: Some(PushedSnapshot { name, hash, revision }),
        replayed: false,
        shown: false,
        audience: Audience::Nobody,
    }))
}

enum Judged {
    Fresh,
    Replay { changed: bool },
}

/// Fencing: only the agent's run may push, each push counts up, and only the last one can be repeated.
fn judge(state: &PushState, push: &Push, digest: &[u8; 32]) -> Result<Judged, Refusal> {
    if state.deleting {
        return Err(Refusal::Deleting);
    }
    if state.suspended {
        return Err(Refusal::Suspended);
    }
    if state.run != Some((push.run_id, push.epoch)) {
        let current = state.run.map_or(0, |(_, epoch)| epoch);
        return Err(Refusal::StaleRun { got_run: push.run_id, got: push.epoch, current });
    }
    if push.seq > state.seq {
        return Ok(Judged::Fresh);
    }
    let same = push.seq == state.seq && state.digest.as_deref() == Some(&digest[..]);
    match (same, state.changed) {
        (true, Some(changed)) => Ok(Judged::Replay { changed }),
        (true, None) | (false, _) => Err(Refusal::OutOfOrder { got: push.seq, accepted: state.seq }),
    }
}

/// Makes a snapshot, under the first of its names that is free.
async fn make(tx: &mut PgConnection, mut new: NewSnapshot<'_>) -> Result<Known, StoreError> {
    let NewSnapshot { agent_id, agent_name, revision, hash, .. } = new;
    let names = (1..=NAMES_MAX).map(|n| name(agent_name, hash, n));
    for name in names.chain([name_with_uid(agent_name, hash, agent_id)]) {
        if let Some(id) = snapshots::insert(tx, &name, &new).await? {
            return Ok(Known { id, name, hash: *hash, revision });
        }
        new.bodies = &[]; // the first attempt has kept them
    }
    let message = format!("{} snapshots share the digits {}", NAMES_MAX + 1, hash.short());
    Err(StoreError::Inconsistent { table: "snapshots", column: "name", id: agent_name.to_owned(), message })
}

/// Each body once.
fn distinct_bodies(resources: &[Resource]) -> BTreeMap<ContentHash, &[u8]> {
    resources.iter().filter_map(|resource| Some((resource.meta.content_hash?, resource.body.as_deref()?))).collect()
}

/// A live resource as it is kept with the agent: its manifest entry, and the body in base64.
fn live_json(resource: &Resource) -> Value {
    let mut value = serde_json::to_value(&resource.meta).expect("a manifest entry is plain data");
    if let (Some(object), Some(body)) = (value.as_object_mut(), &resource.body) {
        object.insert("bodyBase64".into(), Value::String(STANDARD.encode(body)));
    }
    value
}
