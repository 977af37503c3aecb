//! Status out: makes the cluster show what PostgreSQL holds. Only the holder of the Lease writes.
//!
//! A level: for each object in the queue, what should be there (from PostgreSQL) is compared with what was last seen, and only a
//! difference is written. What is written names the version that was last seen, and the record is read after that version was:
//! whoever wrote meanwhile read the record earlier or makes this write fail. So an older state never replaces a newer one,
//! even when two replicas believe that they hold the Lease.

use super::{
    Mirror, Shared, apply,
    follow::CHECK,
    kind::{FINALIZER, Id, Kind},
    seen::{Entry, OWNED_BY_API},
    shown,
    wanted::{Record, refused},
};
use crate::{
    metrics::{Came, Controller, METRICS},
    model::object::{DeletionPolicy, Key},
    store::{self, StoreError, across::objects, manifests},
    trace::{self, Step},
};
use kube::{
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

/// Who owns the status of objects.
pub const CONTROLLER: &str = "moorline-controller";
/// Who owns the spec of objects that were made from records.
pub const MIRROR: &str = "moorline-mirror";
/// Objects that are written at once, at most.
const CONCURRENCY: u32 = 16;
/// Records that are read at once.
const BATCH: usize = 64;
/// How long the loop is given to end what it is about to change, before an object shows the state in between.
const MOTION: Duration = Duration::from_millis(500);
/// How the task is named that writes.
const TASK: &str = "mirror";
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(20);

/// Why an object is not yet as it should be.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster.
    #[error("{verb} {what}: {source}")]
    Cluster {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The Lease was lost before it was this request's turn.
    #[error("{verb} {what}: this replica does not hold the Lease any more")]
    Standby {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
    },
    /// The cluster took too long.
    #[error("{verb} {what}: no answer within {} s", REQUEST.as_secs())]
    Slow {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
    },
}

impl MirrorError {
    /// Somebody wrote the object since it was last seen; the watch brings it.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Cluster { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    }

    /// There is no such object, or no such namespace.
    fn is_not_found(&self) -> bool {
        matches!(self, Self::Cluster { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 404))
    }

    /// What it is counted as.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Store(_) => "database",
            Self::Slow { .. } => "slow",
            Self::Standby { .. } => "standby",
            Self::Cluster { source, .. } => match &**source {
                kube::Error::Api(status) => match status.code {
                    403 => "forbidden",
                    404 => "notfound",
                    409 => "conflict",
                    422 => "invalid",
                    429 => "throttled",
                    _ => "other",
                },
                _ => "connection",
            },
        }
    }
}

/// What looking at an object came to.
enum Next {
    /// It is as it should be.
    Done,
    /// It is to be looked at again after a while.
    After(Duration),
}

impl Shared {
    /// Works off the queue until `stop`, while this replica may write. Who may not puts everything off and drops nothing: `follow`
    /// does, because it compares everything when this replica may write again. Only so is nothing lost when that is very soon.
    pub(super) async fn mirror(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONCURRENCY as usize));
        METRICS.workers(Controller::Mirror, CONCURRENCY);
        loop {
            self.liveness.alive(TASK);
            let ids = tokio::select! {
                () = stop.cancelled() => break,
                ids = self.queue.take(BATCH) => ids,
                () = tokio::time::sleep(CHECK) => continue,
            };
            if !self.may_write() {
                for id in &ids {
                    self.queue.done(id);
                    self.queue.add_after(id, STANDBY);
                }
                self.stories.lock().expect("no holder of this lock panics").clear();
                continue;
            }
            METRICS.mirror_looked(ids.len());
            // The versions before the records: see the module's head.
            let entries: Vec<(Id, Option<Entry>)> = ids.into_iter().map(|id| (id.clone(), self.seen.get(&id))).collect();
            let mut records = match self.records(&entries).await {
                Ok(records) => records,
                Err(error) => {
                    self.put_off(&entries, &error.into()).await;
                    continue;
                }
            };
            for (id, entry) in entries {
                let Ok(turn) = Arc::clone(&room).acquire_owned().await else { break };
                let (shared, record) = (self.clone(), records.remove(&id));
                tokio::spawn(async move {
                    let in_hand = METRICS.take_in_hand(Controller::Mirror);
                    let came = match shared.settle(&id, entry, record).await {
                        Ok(Next::Done) => {
                            shared.waited.lock().expect("no holder of this lock panics").remove(&id);
                            shared.queue.done(&id);
                            Came::Success
                        }
                        Ok(Next::After(pause)) => {
                            shared.queue.done(&id);
                            shared.queue.add_after(&id, pause);
                            Came::After
                        }
                        Err(error) => {
                            shared.failed(std::iter::once(&id), &error);
                            Came::Error
                        }
                    };
                    shared.tell_of(&id, came, in_hand.since());
                    in_hand.came_to(came);
                    drop(turn);
                });
            }
        }
        // What is in hand is one request each.
        tokio::time::timeout(REQUEST, room.acquire_many(CONCURRENCY)).await.ok();
        self.liveness.ended(TASK);
    }

    /// Tells of a look at an object as part of what it was because of, unless it comes again.
    fn tell_of(&self, id: &Id, came: Came, began: std::time::Instant) {
        if !trace::is_told() || came == Came::After {
            return;
        }
        let Some(story) = self.stories.lock().expect("no holder of this lock panics").remove(id) else { return };
        let (namespace, name) = (id.key.namespace.as_str(), id.key.name.as_str());
        trace::tell(&story, &Step::Mirror { resource: id.kind.plural(), namespace, name, result: came.word() }, began);
    }

    fn failed<'a>(&self, ids: impl Iterator<Item = &'a Id>, error: &MirrorError) {
        METRICS.mirror_failed(error.word());
        for (index, id) in ids.enumerate() {
            let failures = self.queue.failed(id, self.clock.random());
            if error.is_conflict() {
                tracing::debug!(object = %id, %error, "somebody wrote it since it was seen");
            } else if matches!(error, MirrorError::Standby { .. }) {
                tracing::debug!(object = %id, %error, "it is left to the next holder");
            } else if failures.is_power_of_two() && (index == 0 || !matches!(error, MirrorError::Store(_))) {
                tracing::warn!(object = %id, %error, failures, "the cluster does not show it yet; it is tried again");
            }
        }
    }

    /// The records of these objects, as they stand at one moment: what they show must fit together.
    pub(super) async fn records(&self, entries: &[(Id, Option<Entry>)]) -> Result<HashMap<Id, Record>, StoreError> {
        let mut connection = store::acquire_whole(&self.pool).await?;
        let read = store::patiently(store::PATIENCE, Self::read(&mut connection, entries)).await;
        if read.is_ok() {
            connection.give_back(); // else it may never answer, and is closed
        }
        read
    }

    async fn read(connection: &mut PgConnection, entries: &[(Id, Option<Entry>)]) -> Result<HashMap<Id, Record>, StoreError> {
        let keys = |kind| entries.iter().filter(|(id, _)| id.kind == kind).map(|(id, _)| id.key.clone()).collect::<Vec<Key>>();
        let mut connection = store::moment_on(connection).await?;
        let mut found = Vec::new();
        let (chats, agents, snapshots) = (keys(Kind::Chat), keys(Kind::Agent), keys(Kind::Snapshot));
        if !chats.is_empty() {
            let mut origins = manifests::of_chats_named(&mut connection, &chats).await?;
            let views = objects::chats_named(&mut connection, &chats).await?;
            found.extend(views.into_iter().filter_map(|view| {
                let key = Key::new(&view.chat.meta.namespace, &view.chat.meta.name);
                Some(Record::Chat(Box::new(view), origins.remove(&key)?))
            }));
        }
        if !agents.is_empty() {
            let mut origins = manifests::of_agents_named(&mut connection, &agents).await?;
            let views = objects::agents_named(&mut connection, &agents).await?;
            found.extend(views.into_iter().filter_map(|view| {
                let key = Key::new(&view.agent.meta.namespace, &view.agent.meta.name);
                Some(Record::Agent(Box::new(view), origins.remove(&key)?))
            }));
        }
        if !snapshots.is_empty() {
            let owned = objects::snapshots(&mut connection, &snapshots).await?;
            let of = |owned: &objects::OwnedSnapshot| (owned.found.snapshot.namespace.clone(), owned.found.snapshot.agent_id);
            let (namespaces, agents): (Vec<String>, Vec<_>) = owned.iter().map(of).unzip();
            let made = manifests::made_agents(&mut connection, &namespaces, &agents).await?;
            found.extend(owned.into_iter().map(|owned| {
                let from_manifest = made.contains(&owned.found.snapshot.agent_id);
                Record::Snapshot(Box::new(owned.found), from_manifest)
            }));
        }
        store::end(connection).await?;
        Ok(found.into_iter().map(|record| (record.id(), record)).collect())
    }

    /// Whether a record that no manifest made is shown by an object of ours.
    pub(super) fn shows(&self, record: &Record) -> bool {
        match (self.options.mirror, record) {
            (Mirror::Off, _) | (Mirror::Manifests, Record::Chat(..) | Record::Agent(..)) => false,
            (Mirror::Manifests, Record::Snapshot(_, from_manifest)) => *from_manifest,
            (Mirror::All, Record::Chat(..) | Record::Agent(..)) => record.is_of_the_api(),
            (Mirror::All, Record::Snapshot(..)) => true,
        }
    }

    /// Whether what was seen shows what the record holds: the one comparison that an idle object costs.
    pub(super) fn is_settled(&self, entry: Option<&Entry>, record: &Record) -> bool {
        let kind = record.id().kind;
        match entry {
            None => !self.shows(record),
            Some(entry) if entry.deleting.is_some() => false,
            Some(entry)
                if !entry.mirrored && (entry.policy == DeletionPolicy::Delete) != entry.held && kind != Kind::Snapshot =>
            {
                false
            }
            Some(entry) => {
                let status = || record.status(entry.generation).map_or(0, |status| shown::status(kind, &status)) == entry.status;
                match (entry.mirrored, self.options.mirror) {
                    (_, Mirror::Off) => true,
                    (true, _) if !record.is_of(entry.uid) => record.is_of_the_api() && record.has_spec(entry) && status(),
                    (true | false, _) => record.is_of(entry.uid) && entry.refusal.is_none() && status(),
                }
            }
        }
    }

    /// Makes one object what it should be.
    async fn settle(&self, id: &Id, entry: Option<Entry>, record: Option<Record>) -> Result<Next, MirrorError> {
        match (entry, record) {
            (None, None) => Ok(Next::Done),
            (None, Some(record)) if !self.shows(&record) => Ok(Next::Done),
            (None, Some(record)) if record.is_in_motion() && !self.waited(id) => Ok(Next::After(MOTION)),
            (None, Some(record)) => self.make(id, &record).await,
            // Whatever it calls itself: what a record was made from is a manifest.
            (Some(entry), Some(record)) if record.is_of(entry.uid) => self.settle_manifest(id, entry, Some(record)).await,
            (Some(entry), record) if entry.mirrored => self.settle_own(id, entry, record).await,
            (Some(_), _) if id.kind == Kind::Snapshot => Ok(Next::Done), // somebody else's
            (Some(entry), record) => self.settle_manifest(id, entry, record).await,
        }
    }

    /// An object that the mirror made.
    async fn settle_own(&self, id: &Id, entry: Entry, record: Option<Record>) -> Result<Next, MirrorError> {
        let record = match record {
            Some(record) if record.is_of_the_api() => record,
            Some(_) | None if entry.deleting.is_some() => return Ok(Next::Done),
            Some(_) | None if self.options.mirror == Mirror::Off => return Ok(Next::Done),
            Some(_) | None => return self.remove(id, &entry).await,
        };
        if entry.deleting.is_some() || self.options.mirror == Mirror::Off {
            return Ok(Next::Done); // it is made again when it is gone
        }
        if !record.has_spec(&entry) {
            if id.kind == Kind::Snapshot {
                return self.remove(id, &entry).await; // it cannot be changed; it is made again
            }
            return match self.respecify(id, &entry, &record).await {
                Ok(()) => Ok(Next::Done), // the answer has been noted, and with it what is left to be done
                Err(error) if error.is_not_found() => Ok(self.is_gone(id, &entry)),
                Err(error) => Err(error),
            };
        }
        self.show(id, &entry, &record).await
    }

    /// An object that somebody applied.
    async fn settle_manifest(&self, id: &Id, entry: Entry, record: Option<Record>) -> Result<Next, MirrorError> {
        if entry.deleting.is_some() {
            let ours = record.as_ref().is_some_and(|record| record.is_of(entry.uid));
            if ours || !entry.held {
                if ours {
                    self.again.add(id);
                }
                return Ok(Next::Done); // the log tells when the record is gone
            }
            return self.hold(id, &entry, false).await;
        }
        if (entry.policy == DeletionPolicy::Delete) != entry.held {
            return self.hold(id, &entry, entry.policy == DeletionPolicy::Delete).await;
        }
        if self.options.mirror == Mirror::Off {
            return Ok(Next::Done);
        }
        if let Some(refusal) = &entry.refusal {
            // The record may have gone while nobody followed the log.
            if refusal.reason == OWNED_BY_API && !record.as_ref().is_some_and(Record::was_never_a_manifests) {
                self.again.add(id);
                return Ok(Next::Done);
            }
            let mut status = refused(refusal);
            if let Some(record) = record.filter(|record| record.is_of(entry.uid))
                && let Some(mut shown) = record.status(entry.generation)
            {
                // What the record still holds is shown beside why the manifest's news were not taken over.
                let conditions = status["conditions"].take();
                shown["observedGeneration"] = status["observedGeneration"].take();
                let kept = shown["conditions"].as_array().cloned().unwrap_or_default().into_iter();
                let kept = kept.filter(|condition| condition["type"] != "Ready" && condition["type"] != "Stalled");
                shown["conditions"] = conditions.as_array().cloned().unwrap_or_default().into_iter().chain(kept).collect();
                status = shown;
            }
            return self.write_status(id, &entry, status).await;
        }
        match record {
            Some(record) if record.is_of(entry.uid) => self.show(id, &entry, &record).await,
            // Not taken over yet, or its record went another way.
            Some(_) | None => {
                self.again.add(id);
                Ok(Next::Done)
            }
        }
    }

    /// Writes the status of a record, if another one is shown.
    async fn show(&self, id: &Id, entry: &Entry, record: &Record) -> Result<Next, MirrorError> {
        let Some(status) = record.status(entry.generation) else { return Ok(Next::Done) };
        if shown::status(id.kind, &status) == entry.status {
            METRICS.mirror_skipped();
            return Ok(Next::Done);
        }
        if record.is_in_motion() && !self.waited(id) {
            return Ok(Next::After(MOTION));
        }
        self.write_status(id, entry, status).await
    }

    /// Whether an object has been waited for already; the next time it is not again.
    fn waited(&self, id: &Id) -> bool {
        let mut waited = self.waited.lock().expect("no holder of this lock panics");
        if waited.remove(id) {
            return true;
        }
        waited.insert(id.clone());
        false
    }

    async fn write_status(&self, id: &Id, entry: &Entry, status: Value) -> Result<Next, MirrorError> {
        self.waited.lock().expect("no holder of this lock panics").remove(id);
        if shown::status(id.kind, &status) == entry.status {
            METRICS.mirror_skipped();
            return Ok(Next::Done);
        }
        let request = apply::status(&self.client, id, entry, &status);
        match self.request("patch", format!("{}/status", id.kind.plural()), request).await {
            Ok(version) => {
                METRICS.mirrored();
                if let Some(version) = version {
                    let status = shown::status(id.kind, &status);
                    self.seen.answered(id, Entry { version, status, ..entry.clone() });
                }
                Ok(Next::Done)
            }
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// Makes an object of a record.
    async fn make(&self, id: &Id, record: &Record) -> Result<Next, MirrorError> {
        if let Some(pause) = self.absent(&id.key.namespace) {
            return Ok(Next::After(pause));
        }
        let object: DynamicObject = serde_json::from_value(record.object()).expect("it has a kind, a name and a spec");
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let params = PostParams { field_manager: Some(MIRROR.into()), dry_run: false };
        match self.request("create", id.kind.plural().to_owned(), api.create(&params, &object)).await {
            // The watch brings it, and then its status is written.
            Ok(_) => {
                crate::metrics::METRICS.mirrored();
                self.absent.lock().expect("no holder of this lock panics").remove(&id.key.namespace);
                Ok(Next::Done)
            }
            Err(error) if error.is_conflict() => Ok(Next::Done), // there is one: the watch brings it
            Err(error) if error.is_not_found() => {
                tracing::debug!(object = %id, "the cluster has no such namespace");
                let mut absent = self.absent.lock().expect("no holder of this lock panics");
                absent.insert(id.key.namespace.clone(), Instant::now() + NO_NAMESPACE);
                Ok(Next::After(NO_NAMESPACE))
            }
            Err(error) => Err(error),
        }
    }

    /// How long a namespace is not asked for, because the cluster did not have it. The first who comes when that is over asks for
    /// all who wait.
    fn absent(&self, namespace: &str) -> Option<Duration> {
        let mut absent = self.absent.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        let until = absent.get_mut(namespace)?;
        if *until > now {
            return Some(*until - now);
        }
        *until = now + REQUEST;
        None
    }

    /// Makes the spec of an object of ours what its record's is again.
    async fn respecify(&self, id: &Id, entry: &Entry, record: &Record) -> Result<(), MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let request = async {
            let there = api.get(&id.key.name).await?;
            let (mut spec, wanted) = (serde_json::Map::new(), record.spec());
            for field in there.data.get("spec").and_then(Value::as_object).into_iter().flat_map(|spec| spec.keys()) {
                spec.insert(field.clone(), Value::Null);
            }
            spec.extend(wanted.as_object().cloned().unwrap_or_default());
            let patch = json!({"metadata": {"uid": entry.uid, "resourceVersion": entry.version.to_string()}, "spec": spec});
            let params = PatchParams { field_manager: Some(MIRROR.into()), ..PatchParams::default() };
            api.patch(&id.key.name, &params, &Patch::Merge(&patch)).await
        };
        let object = self.request("patch", id.kind.plural().to_owned(), request).await?;
        self.written(id, &object);
        self.queue.add(id);
        Ok(())
    }

    /// Removes an object of ours whose record is gone.
    async fn remove(&self, id: &Id, entry: &Entry) -> Result<Next, MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let uid = Some(entry.uid.to_string());
        let params =
            DeleteParams::default().preconditions(Preconditions { uid, resource_version: Some(entry.version.to_string()) });
        match self.request("delete", id.kind.plural().to_owned(), api.delete(&id.key.name, &params)).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// Puts our finalizer on a manifest, or takes it off.
    async fn hold(&self, id: &Id, entry: &Entry, held: bool) -> Result<Next, MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let request = async {
            let there = api.get(&id.key.name).await?;
            let mut finalizers = there.metadata.finalizers.unwrap_or_default();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if held {
                finalizers.push(FINALIZER.into());
            }
            let version = entry.version.to_string();
            let patch = json!({"metadata": {"uid": entry.uid, "resourceVersion": version, "finalizers": finalizers}});
            let params = PatchParams { field_manager: Some(CONTROLLER.into()), ..PatchParams::default() };
            api.patch(&id.key.name, &params, &Patch::Merge(&patch)).await
        };
        match self.request("patch", id.kind.plural().to_owned(), request).await {
            Ok(object) => {
                let there = self.written(id, &object).filter(|entry| entry.deleting.is_none());
                if let Some(entry) = there
                    && self.look(id, &entry, &object).await
                {
                    self.again.failed(id, self.clock.random());
                }
                Ok(Next::Done)
            }
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// The database is away: everything is tried again after a while, and deletions soon, because they wait only so long.
    async fn put_off(&self, entries: &[(Id, Option<Entry>)], error: &MirrorError) {
        let (deleting, others): (Vec<_>, Vec<_>) =
            entries.iter().partition(|(_, entry)| entry.as_ref().is_some_and(|entry| entry.held && entry.deleting.is_some()));
        self.failed(others.into_iter().map(|(id, _)| id), error);
        for (id, entry) in deleting {
            self.without_database(id, entry.as_ref()).await;
            self.queue.done(id);
            self.queue.add_after(id, DELETION);
        }
    }

    /// While the database is away nothing can be settled; but a deletion that has waited for so long is let through, and its
    /// record stays.
    async fn without_database(&self, id: &Id, entry: Option<&Entry>) {
        let Some(entry) = entry.filter(|entry| entry.held) else { return };
        let Some(since) = entry.deleting else { return };
        if self.clock.now().duration_since(since).unsigned_abs() < self.options.finalizer_timeout {
            return;
        }
        self.seen.abandon(id, entry.uid); // before the object can be gone
        if self.hold(id, entry, false).await.is_ok() {
            let message = "deleted while the database was away: the record was kept, and the API may delete it";
            tracing::warn!(object = %id, "{message}");
            self.tell(id, entry.uid, "RecordRetained", message, true);
        }
    }

    /// Notes what a write of ours was answered, so that its echo is known. Answers with what is there now, if it is.
    fn written(&self, id: &Id, object: &DynamicObject) -> Option<Entry> {
        METRICS.mirrored();
        Entry::of(id.kind, object).filter(|entry| self.seen.answered(id, entry.clone()))
    }

    /// There is no such object, whatever was seen.
    fn is_gone(&self, id: &Id, entry: &Entry) -> Next {
        self.seen.forget(id, entry.uid);
        Next::After(GONE)
    }

    /// One request, within its time, when the bucket has a token for it and while this replica may write.
    async fn request<T>(
        &self,
        verb: &'static str,
        what: String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, MirrorError> {
        self.bucket.take().await;
        // Waiting for a turn may take longer than the Lease is held.
        if !self.may_write() {
            return Err(MirrorError::Standby { verb, what });
        }
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                if let kube::Error::Api(status) = &source
                    && status.code == 429
                {
                    let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds);
                    self.bucket.pause(Duration::from_secs(u64::from(seconds).clamp(1, 30)));
                }
                Err(MirrorError::Cluster { verb, what, source: Box::new(source) })
            }
            Err(_) => Err(MirrorError::Slow { verb, what }),
        }
    }
}

/// When an object is looked at again that is gone though it was seen.
const GONE: Duration = Duration::from_millis(250);
/// How long what cannot be written without the Lease is put off.
const STANDBY: Duration = Duration::from_secs(1);
/// How often a deletion is looked at while the database is away.
const DELETION: Duration = Duration::from_secs(2);
/// When a namespace that the cluster does not have is asked for again.
const NO_NAMESPACE: Duration = Duration::from_mins(1);
