//! Manifests in: what the cluster's watches bring is noted, and what a manifest says becomes desired columns.
//!
//! Every replica does this, whoever holds the Lease: taking over is idempotent and never goes back (`writes::manifests`). What has
//! to be written to the cluster (finalizers, refusals) is left to the holder: the object is put into its queue.
//!
//! What it does not: keep objects. A manifest that could not be taken over is read from the cluster again when it is tried again.

use super::{
    Shared,
    kind::{Id, Kind, SOURCE_ANNOTATION},
    seen::{Entry, OWNED_BY_API, Refusal, Standing},
};
use crate::{
    model::{
        manifest::{Manifest, News},
        object::{DeletionPolicy, Key, Source, TextMap},
    },
    store::{self, StoreError, manifests, transact},
    v1alpha1::{Agent, Chat, agent, chat},
    writes::{
        WriteError,
        chats::Propagation,
        manifests::{LetAgentGo, LetChatGo, LetGo, MANIFESTS, TakeAgent, TakeChat, Taken, annotations},
    },
};
use kube::core::{DynamicObject, ObjectMeta, Resource as _};
use std::{collections::HashMap, time::Duration};

/// What came of looking at a manifest.
#[derive(Debug)]
pub enum Outcome {
    /// The record is as the manifest says, or is gone with it.
    Settled,
    /// The manifest was refused; time may heal that, or not.
    Refused(Refusal, Heals),
    /// The holder has to write to the cluster first.
    WaitsForHolder,
    /// The record is on its way out.
    WaitsForRecord,
    /// A later state of it, of this version, was taken over before: the cluster is to be asked.
    Doubtful(u64),
}

/// Whether a refusal may end without a change of the manifest or an event of a record of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heals {
    /// What it names may come.
    Perhaps,
    /// It has to be changed, or the record of its name has to go, which the log tells.
    No,
}

/// What a manifest says, read.
#[derive(Clone, Debug)]
pub enum Said {
    /// What is asked of a chat.
    Chat(Manifest, Box<chat::Desired>),
    /// What is asked of an agent.
    Agent(Manifest, Box<agent::Desired>),
}

impl Shared {
    /// Looks at a part of a watch: notes each object, and takes over what is new. The last state of an object counts. Each that is
    /// done with is a sign of life of `task`: a database that is away takes its time.
    pub(super) async fn saw(&self, kind: Kind, objects: Vec<DynamicObject>, task: &str) {
        let mut news: HashMap<Id, (Entry, DynamicObject)> = HashMap::new();
        for object in objects {
            let Some(id) = Id::of(kind, &object) else { continue };
            if self.seen.has(&id, &object) {
                continue; // most often the echo of our own write
            }
            let Some(entry) = Entry::of(kind, &object) else { continue };
            if self.seen.note(&id, entry.clone()) {
                news.insert(id, (entry, object));
            }
        }
        if kind == Kind::Snapshot {
            // Nobody asks for one by a manifest.
            for id in news.keys() {
                self.queue.add(id);
            }
            return;
        }
        if news.is_empty() {
            return;
        }
        let mut work = tokio::task::JoinSet::new();
        for (id, (entry, object)) in self.unless_known(kind, news).await {
            let shared = self.clone();
            if work.len() >= CONCURRENCY {
                work.join_next().await;
                self.liveness.alive(task);
            }
            let hand = self.again.in_hand(&id);
            work.spawn(async move {
                if shared.look(&id, &entry, &object).await {
                    shared.again.failed(&id, shared.clock.random());
                }
                hand.told();
            });
        }
        while work.join_next().await.is_some() {
            self.liveness.alive(task);
        }
    }

    /// Leaves out what says nothing that was not taken over already, in one statement for all. When the database is away,
    /// each is tried by itself, later.
    async fn unless_known(
        &self,
        kind: Kind,
        mut news: HashMap<Id, (Entry, DynamicObject)>,
    ) -> HashMap<Id, (Entry, DynamicObject)> {
        let keys: Vec<Key> = news.keys().map(|id| id.key.clone()).collect();
        let origins = async {
            let mut connection = store::acquire(&self.pool).await?;
            match kind {
                Kind::Chat => manifests::of_chats_named(&mut connection, &keys).await,
                Kind::Agent | Kind::Snapshot => manifests::of_agents_named(&mut connection, &keys).await,
            }
        };
        let Ok(origins) = origins.await else {
            // The database is away, and would be for each of them.
            for (id, (entry, _)) in news {
                self.again.failed(&id, self.clock.random());
                if entry.deleting.is_some() {
                    self.queue.add(&id);
                }
            }
            return HashMap::new();
        };
        news.retain(|id, (entry, object)| {
            let known = origins.get(&id.key).is_some_and(|origin| {
                let said = remembered(object, entry, false);
                let last = origin.manifest.as_ref().filter(|_| origin.source == Source::Manifest);
                last.is_some_and(|last| Manifest { bound: last.bound, ..said }.after(last, false) == News::None)
            });
            let settled = known && entry.deleting.is_none() && entry.held == (entry.policy == DeletionPolicy::Delete);
            if settled {
                self.seen.refuse(id, entry.uid, None);
                self.queue.add(id);
            }
            !settled
        });
        news
    }

    /// Looks at one object, and sees to what comes of it. Answers whether it has to be looked at once more, after a while.
    ///
    /// What is out of date by now is left: a record that was made of it would be one that nobody deletes.
    pub(super) async fn look(&self, id: &Id, entry: &Entry, object: &DynamicObject) -> bool {
        let _turn = self.turns.of(id).await;
        match self.seen.standing(id, entry) {
            Standing::Latest => {}
            Standing::Outdated => return true,
            Standing::Gone => return false, // the watch has told of it, or brings another
        }
        let mut taken = if entry.mirrored { Ok(Outcome::WaitsForHolder) } else { self.take(id, entry, object, None).await };
        if let Ok(Outcome::Doubtful(version)) = taken {
            taken = self.take_anew(id, version).await;
        }
        let again = match taken {
            Ok(Outcome::Settled) => {
                self.seen.refuse(id, entry.uid, None);
                false
            }
            Ok(Outcome::Refused(refusal, heals)) => {
                if self.seen.refuse(id, entry.uid, Some(refusal.clone())) {
                    tracing::info!(object = %id, reason = refusal.reason, message = refusal.message, "a manifest is refused");
                    self.tell(id, entry.uid, refusal.reason, &refusal.message, true);
                }
                heals == Heals::Perhaps
            }
            Ok(Outcome::WaitsForHolder) => false,
            Ok(Outcome::WaitsForRecord) => true,
            Ok(Outcome::Doubtful(_)) => return true,
            Err(error) => {
                tracing::debug!(object = %id, %error, "a manifest could not be taken over yet");
                if entry.deleting.is_some() {
                    self.queue.add(id); // it is not held up for ever
                }
                return true;
            }
        };
        self.queue.add(id);
        again
    }

    /// Takes over what the cluster says now, which is what counts, whatever version was taken over before.
    async fn take_anew(&self, id: &Id, version: u64) -> Result<Outcome, StoreError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let read = tokio::time::timeout(READ, api.get_opt(&id.key.name)).await;
        let there = read.ok().and_then(Result::ok).flatten();
        let Some((object, entry)) = there.and_then(|object| Entry::of(id.kind, &object).map(|entry| (object, entry))) else {
            return Ok(Outcome::Doubtful(version));
        };
        if entry.mirrored {
            return Ok(Outcome::WaitsForHolder);
        }
        if !self.seen.answered(id, entry.clone()) {
            return Ok(Outcome::Doubtful(version)); // the watch has not brought it yet, or has told that it is gone
        }
        self.take(id, &entry, &object, Some(version)).await
    }

    /// Takes over what a manifest says, or lets its record go.
    async fn take(
        &self,
        id: &Id,
        entry: &Entry,
        object: &DynamicObject,
        asked_after: Option<u64>,
    ) -> Result<Outcome, StoreError> {
        if entry.deleting.is_some() {
            return self.let_go(id, entry, entry.policy).await;
        }
        if (entry.policy == DeletionPolicy::Delete) != entry.held {
            return Ok(Outcome::WaitsForHolder); // first the finalizer, then the record: its deletion cannot be missed
        }
        let said = match read(id, entry, object) {
            Ok(said) => said,
            Err(message) => return Ok(self.refused(entry, "InvalidSpec", message, Heals::No)),
        };
        let taken = match &said {
            Said::Chat(manifest, desired) => {
                let take = TakeChat { clock: &self.clock, key: &id.key, manifest, asked_after, spec: &desired.spec };
                transact(&self.pool, &self.clock, &take).await
            }
            Said::Agent(manifest, desired) => {
                let take = TakeAgent { clock: &self.clock, key: &id.key, manifest, asked_after, spec: &desired.spec };
                transact(&self.pool, &self.clock, &take).await
            }
        };
        match taken {
            Ok(Taken::Created | Taken::Changed) => {
                self.wake.work();
                self.wake.events();
                Ok(Outcome::Settled)
            }
            Ok(Taken::Unchanged) => Ok(Outcome::Settled),
            Ok(Taken::Doubtful(version)) => Ok(Outcome::Doubtful(version)),
            Err(WriteError::Store(error)) => Err(error),
            Err(WriteError::BeingDeleted) => Ok(Outcome::WaitsForRecord),
            Err(error @ WriteError::OwnedByApi { .. }) => Ok(self.refused(entry, OWNED_BY_API, error.to_string(), Heals::No)),
            Err(WriteError::Invalid(faults)) => Ok(self.refused(entry, "InvalidSpec", Refusal::faults(&faults), Heals::Perhaps)),
            Err(error) => Ok(self.refused(entry, "InvalidSpec", error.to_string(), Heals::Perhaps)),
        }
    }

    fn refused(&self, entry: &Entry, reason: &'static str, message: String, heals: Heals) -> Outcome {
        Outcome::Refused(Refusal { reason, message, since: self.clock.now(), generation: entry.generation }, heals)
    }

    /// Lets the record of a manifest go.
    pub(super) async fn let_go(&self, id: &Id, entry: &Entry, policy: DeletionPolicy) -> Result<Outcome, StoreError> {
        drop(store::acquire(&self.pool).await?); // what follows is not waited for
        if policy == DeletionPolicy::Delete && self.seen.is_abandoned(id, entry.uid) {
            return Ok(Outcome::Settled);
        }
        let gone = match id.kind {
            Kind::Chat => {
                let propagation = if entry.orphans { Propagation::Orphan } else { Propagation::Background };
                let write = LetChatGo { clock: &self.clock, key: &id.key, uid: entry.uid, policy, propagation };
                transact(&self.pool, &self.clock, &write).await
            }
            Kind::Agent => {
                let write = LetAgentGo { clock: &self.clock, key: &id.key, uid: entry.uid, policy };
                transact(&self.pool, &self.clock, &write).await
            }
            Kind::Snapshot => Ok(LetGo::Done),
        };
        match gone {
            Ok(gone) => {
                self.wake.work();
                self.wake.events();
                Ok(if gone == LetGo::Done { Outcome::Settled } else { Outcome::WaitsForRecord })
            }
            Err(WriteError::Store(error)) => Err(error),
            Err(error) => Ok(self.refused(entry, "NotDeleted", error.to_string(), Heals::Perhaps)),
        }
    }

    /// An object is gone. Its record, if there is one still, only loses its manifest.
    pub(super) async fn gone(&self, kind: Kind, object: &DynamicObject) {
        let (Some(id), Some(entry)) = (Id::of(kind, object), Entry::of(kind, object)) else { return };
        self.seen.forget(&id, entry.uid);
        self.queue.add(&id);
        if entry.mirrored || kind == Kind::Snapshot {
            return;
        }
        let _turn = self.turns.of(&id).await;
        // What was to go with it has gone before its finalizer was taken off.
        if let Err(error) = self.let_go(&id, &entry, DeletionPolicy::Retain).await {
            tracing::debug!(object = %id, %error, "a manifest is gone, and its record could not be released yet");
            self.again.failed(&id, self.clock.random());
        }
    }
}

/// How many manifests are taken over at once.
pub const CONCURRENCY: usize = 8;
/// How long reading one manifest may take.
pub const READ: Duration = Duration::from_secs(20);

/// What is remembered of an object.
fn remembered(object: &DynamicObject, entry: &Entry, bound: bool) -> Manifest {
    let meta = object.meta();
    let text = |map: &Option<TextMap>| map.clone().unwrap_or_default();
    let mut annotations = annotations(&text(&meta.annotations));
    annotations.remove(SOURCE_ANNOTATION);
    Manifest {
        uid: entry.uid,
        version: entry.version,
        generation: entry.generation,
        labels: text(&meta.labels),
        annotations,
        bound,
    }
}

/// Reads what a manifest says; the error names each field that is wrong.
pub fn read(id: &Id, entry: &Entry, object: &DynamicObject) -> Result<Said, String> {
    // Only what is ours to read: other managers' noise is not.
    let manifest = remembered(object, entry, false);
    let metadata = ObjectMeta {
        namespace: Some(id.key.namespace.clone()),
        name: Some(id.key.name.clone()),
        labels: Some(manifest.labels.clone()),
        annotations: Some(manifest.annotations.clone()),
        ..ObjectMeta::default()
    };
    let spec = object.data.get("spec").cloned().unwrap_or_else(|| serde_json::json!({}));
    let typed = |error: serde_json::Error| format!("spec: {error}");
    match id.kind {
        Kind::Chat => {
            let spec: chat::ChatSpec = serde_json::from_value(spec).map_err(typed)?;
            let bound = spec.agent_ref.is_some() || spec.workspace_ref.is_some();
            let desired = Chat { metadata, spec, status: None }.desired(MANIFESTS);
            Ok(Said::Chat(Manifest { bound, ..manifest }, Box::new(desired.map_err(|faults| Refusal::faults(&faults))?)))
        }
        Kind::Agent | Kind::Snapshot => {
            let spec: agent::AgentSpec = serde_json::from_value(spec).map_err(typed)?;
            let desired = Agent { metadata, spec, status: None }.desired();
            Ok(Said::Agent(manifest, Box::new(desired.map_err(|faults| Refusal::faults(&faults))?)))
        }
    }
}
