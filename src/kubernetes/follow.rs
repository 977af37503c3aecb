//! What has changed is looked at: the cluster's watches, the event log, what failed before; and everything, when this replica becomes
//! the holder or has missed a part of the log.

use super::{
    Listed, Shared,
    connect::Cluster,
    ingest::{CONCURRENCY, READ},
    kind::{Id, Kind},
    seen::Entry,
};
use crate::{
    http::tail::{
        Watching,
        ring::{Place, Progress, Taken},
    },
    model::{event::EventKind, object::Key},
    store::{self, StoreError, manifests},
    trace::{self, Story},
};
use futures::StreamExt as _;
use kube::{
    core::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use std::{collections::HashSet, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Objects in one page of a list, and at most in one look at a watch.
const PAGE: u32 = 250;
/// Entries of the log that are taken at once.
const TAKE: usize = 512;
/// Records that are compared at once.
const COMPARE: i64 = 500;
/// How often to look whether this replica still holds the Lease, and to try a comparison again that failed.
const LOOK: Duration = Duration::from_secs(1);
/// How the task is named that reads manifests again.
const READER: &str = "reader of manifests";
/// When records without a manifest are looked for again, after that failed.
const OWED: Duration = Duration::from_secs(2);
/// How often a watch that says nothing is looked after, and a task that has nothing to do says that it is there.
pub(super) const CHECK: Duration = Duration::from_mins(1);
/// How long a watch may ask nothing of the cluster: it is ended, and asked for again, within five minutes. After that the request
/// has got lost.
const SILENCE: Duration = Duration::from_mins(6);

impl Shared {
    /// Follows one kind of object in the cluster until `stop`. What goes wrong with the watch is logged once a minute at most.
    pub(super) async fn watch(self, kind: Kind, namespace: Option<String>, cluster: Cluster, stop: CancellationToken) {
        let task = match &namespace {
            Some(namespace) => format!("watch of {} in {namespace}", kind.plural()),
            None => format!("watch of {}", kind.plural()),
        };
        let config = watcher::Config::default().page_size(PAGE);
        // A watch that has nothing to say is alive too: it ends and is asked for again, within five minutes.
        let (liveness, alive) = (self.liveness.clone(), task.clone());
        let client = match cluster.client_that_tells(move || liveness.alive(&alive)) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "there is no {task}");
                return;
            }
        };
        let api = kind.api(&client, namespace.as_deref());
        let begin = || {
            let stream = watcher(api.clone(), config.clone());
            let stream = stream.modify(|object: &mut DynamicObject| object.metadata.managed_fields = None);
            stream.default_backoff().ready_chunks(PAGE as usize).boxed()
        };
        let mut stream = begin();
        let mut histories = self.lease.histories();
        let mut history = *histories.borrow_and_update();
        let mut listing: Option<HashSet<Id>> = None;
        let mut quiet_until = Instant::now();
        // When the records of manifests that no list had are looked for.
        let mut owed: Option<Instant> = None;
        self.liveness.alive(&task);
        loop {
            let events = tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(owed.unwrap_or_else(Instant::now)), if owed.is_some() => {
                    owed = self.look_for_vanished(kind, namespace.as_deref()).await.err().map(|error| {
                        tracing::debug!(%error, kind = kind.plural(), "records without a manifest could not be looked for yet");
                        Instant::now() + OWED
                    });
                    continue;
                }
                () = sleep(CHECK) => {
                    if self.liveness.silence(&task) > SILENCE {
                        tracing::warn!("the {task} was not answered for {} s; it begins anew", SILENCE.as_secs());
                        stream = begin();
                    }
                    continue;
                }
                Ok(()) = histories.changed() => {
                    history = *histories.borrow_and_update();
                    // What was seen says nothing of what there is.
                    self.seen.keep_only(kind, namespace.as_deref(), &HashSet::new());
                    stream = begin();
                    continue;
                }
                events = stream.next() => events,
            };
            self.liveness.alive(&task);
            let Some(events) = events else { break };
            let mut objects = Vec::new();
            for event in events {
                match event {
                    Ok(watcher::Event::Init) => listing = Some(HashSet::new()),
                    Ok(watcher::Event::InitApply(object)) => {
                        if let (Some(there), Some(id)) = (&mut listing, Id::of(kind, &object)) {
                            there.insert(id);
                        }
                        objects.push(object);
                    }
                    Ok(watcher::Event::Apply(object)) => objects.push(object),
                    Ok(watcher::Event::Delete(object)) => {
                        self.saw(kind, std::mem::take(&mut objects), &task).await;
                        self.gone(kind, &object).await;
                    }
                    Ok(watcher::Event::InitDone) => {
                        self.saw(kind, std::mem::take(&mut objects), &task).await;
                        if let Some(there) = listing.take() {
                            for (id, _) in self.seen.keep_only(kind, namespace.as_deref(), &there) {
                                self.queue.add(&id);
                            }
                            owed = Some(Instant::now());
                            self.listed.send_modify(|listed| _ = listed.of(history).map(|listed| listed.has(&task)));
                        }
                    }
                    Err(error) => {
                        crate::metrics::METRICS.watch_failed(kind.plural());
                        if is_refused(&error) {
                            self.listed.send_modify(|listed| _ = listed.of(history).map(|listed| listed.has_refused(&task)));
                        }
                        if Instant::now() >= quiet_until {
                            quiet_until = Instant::now() + Duration::from_mins(1);
                            tracing::warn!(error = crate::telemetry::reasons(&error), "the {task} failed; it is tried again");
                        }
                    }
                }
            }
            self.saw(kind, objects, &task).await;
        }
        self.liveness.ended(&task);
    }

    /// Reads manifests again that could not be taken over, until `stop`: so many at once, and each ever more rarely.
    pub(super) async fn try_again(self, stop: CancellationToken) {
        let mut work = JoinSet::new();
        loop {
            while work.len() >= CONCURRENCY {
                work.join_next().await;
            }
            self.liveness.alive(READER);
            let ids = tokio::select! {
                () = stop.cancelled() => break,
                ids = self.again.take(1) => ids,
                () = sleep(CHECK) => continue,
            };
            for id in ids {
                let shared = self.clone();
                work.spawn(async move {
                    if shared.read_again(&id).await {
                        shared.again.failed(&id, shared.clock.random());
                    } else {
                        shared.again.done(&id);
                    }
                });
            }
        }
        self.liveness.ended(READER);
    }

    /// Reads one manifest again. Answers whether that has to be done once more.
    async fn read_again(&self, id: &Id) -> bool {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        match tokio::time::timeout(READ, api.get_opt(&id.key.name)).await {
            Ok(Ok(Some(object))) => {
                let Some(entry) = Entry::of(id.kind, &object) else { return false };
                self.seen.note(id, entry.clone());
                self.look(id, &entry, &object).await
            }
            Ok(Ok(None)) => match self.nowhere(id).await {
                Ok(again) => again,
                Err(error) => {
                    tracing::debug!(object = %id, %error, "a manifest is gone, and its record could not be released yet");
                    true
                }
            },
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// Follows the event log while this replica is the holder, until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let mut holding = self.lease.holding();
        // The log is followed only by who does something about it.
        let mut watching: Option<Watching> = None;
        let mut progress = self.tail.ring().progress();
        let mut lists = self.listed.subscribe();
        let mut histories = self.lease.histories();
        let mut place: Option<Place> = None;
        let mut late = 0;
        loop {
            let now = lists.borrow_and_update().late;
            if std::mem::replace(&mut late, now) != now {
                place = None; // what had been refused has been listed now
            }
            if histories.has_changed().unwrap_or(false) {
                histories.mark_unchanged();
                place = None;
            }
            self.liveness.alive("follower of the event log");
            if !self.may_write() {
                (place, watching) = (None, None);
                self.queue.clear();
            } else if let Some(at) = &mut place {
                match self.tail.ring().take(at, TAKE) {
                    Taken::Entries(entries) => {
                        let more = entries.len() == TAKE;
                        for entry in &entries {
                            self.heard(&entry.event);
                        }
                        if more {
                            continue;
                        }
                    }
                    Taken::TooSlow | Taken::Restarted => {
                        place = None;
                        continue;
                    }
                }
            } else if watching.is_none() {
                watching = Some(self.tail.watch());
                continue;
            } else if let Some(joined) = self.join(&mut progress, &mut lists) {
                // First the place, then the comparison: what changes in between is heard.
                match self.compare_all().await {
                    Ok((compared, different)) => {
                        tracing::info!(compared, different, "compared every record with the cluster");
                        place = Some(joined);
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "comparing the records with the cluster failed; it is tried again"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => break,
                _ = holding.changed() => {}
                _ = progress.changed() => {}
                _ = lists.changed() => {}
                Ok(()) = histories.changed() => histories.mark_changed(),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        self.liveness.ended("follower of the event log");
    }

    /// A place at the end of the log, once the cluster has been listed.
    fn join(&self, progress: &mut watch::Receiver<Progress>, lists: &mut watch::Receiver<Listed>) -> Option<Place> {
        let all = self.scopes().len() * Kind::ALL.len();
        let history = *self.lease.histories().borrow();
        {
            let listed = lists.borrow_and_update();
            if listed.history != history || !listed.is_whole(all) {
                return None;
            }
        }
        let through = progress.borrow_and_update().through?;
        self.tail.ring().join(through)
    }

    /// A row of the log: its object is looked at, and told of.
    fn heard(&self, event: &crate::store::events::Logged) {
        if !self.watches(&event.namespace) {
            return;
        }
        let (kind, name) = match event.kind {
            EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted => (Kind::Agent, &event.name),
            EventKind::SnapshotDeleted => (Kind::Snapshot, &event.name),
            EventKind::SnapshotAccepted => {
                self.heard_of_snapshot(event);
                return;
            }
            EventKind::ChatCreated
            | EventKind::ChatUpdated
            | EventKind::ChatDeleted
            | EventKind::ContextHydrated
            | EventKind::ContextDrifted
            | EventKind::ContextConverged
            | EventKind::ContextRefreshed
            | EventKind::AgentRebound
            | EventKind::ContextCleared => (Kind::Chat, &event.name),
        };
        let id = Id { kind, key: Key::new(&event.namespace, name) };
        self.is_part_of(&id, event);
        self.queue.add(&id);
        let Some(entry) = self.seen.get(&id) else { return };
        let gone = matches!(event.kind, EventKind::ChatDeleted | EventKind::AgentDeleted);
        if gone && !entry.mirrored {
            self.again.add(&id); // its record is gone: what was refused may be taken over, or its finalizer taken off
        }
        if is_told(event.kind) && !gone {
            self.tell(&id, entry.uid, event.kind.as_str(), &crate::v1alpha1::event::message(event), false);
        }
    }

    /// Notes because of what an object is looked at, before it is put into the queue.
    fn is_part_of(&self, id: &Id, event: &crate::store::events::Logged) {
        if self.may_write()
            && trace::is_told()
            && let Some(story) = Story::of_event(event.agent, &event.payload)
        {
            self.stories.lock().expect("no holder of this lock panics").insert(id.clone(), story);
        }
    }

    fn heard_of_snapshot(&self, event: &crate::store::events::Logged) {
        let id = Id { kind: Kind::Snapshot, key: Key::new(&event.namespace, &event.name) };
        self.is_part_of(&id, event);
        self.queue.add(&id);
        let Some(agent) = event.payload.get("agent").and_then(serde_json::Value::as_str) else { return };
        let agent = Id { kind: Kind::Agent, key: Key::new(&event.namespace, agent) };
        if let Some(entry) = self.seen.get(&agent) {
            self.tell(&agent, entry.uid, event.kind.as_str(), &crate::v1alpha1::event::message(event), false);
        }
    }

    /// Compares every record with what was last seen of the cluster, and every object of ours with its record; what differs is
    /// put into the queue. Writes nothing by itself.
    async fn compare_all(&self) -> Result<(usize, usize), StoreError> {
        let (mut compared, mut different) = (0, 0);
        for kind in Kind::ALL {
            let mut orphans: HashSet<Id> = self.seen.ids(kind).into_iter().collect();
            let mut after = Key::new("", "");
            loop {
                let mut connection = store::acquire(&self.pool).await?;
                let keys = match kind {
                    Kind::Agent => manifests::agents_after(&mut connection, &after, COMPARE).await?,
                    Kind::Chat => manifests::chats_after(&mut connection, &after, COMPARE).await?,
                    Kind::Snapshot => manifests::snapshots_after(&mut connection, &after, COMPARE).await?,
                };
                drop(connection);
                let Some(last) = keys.last() else { break };
                after = last.clone();
                let ids = keys.into_iter().filter(|key| self.watches(&key.namespace)).map(|key| Id { kind, key });
                let entries: Vec<_> = ids.map(|id| (id.clone(), self.seen.get(&id))).collect();
                let mut records = self.records(&entries).await?;
                for (id, entry) in entries {
                    orphans.remove(&id);
                    compared += 1;
                    let settled = records.remove(&id).is_some_and(|record| self.is_settled(entry.as_ref(), &record));
                    if !settled {
                        different += 1;
                        self.queue.add(&id);
                    }
                }
            }
            different += orphans.len();
            for id in &orphans {
                self.queue.add(id);
            }
        }
        Ok((compared, different))
    }
}

/// Whether the cluster has answered that there is no list for us, so that none is to be waited for.
fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
    }
}

/// Whether an event of the log is told as an Event: what a person would want to see below an object, and nothing that only says
/// that it was edited.
fn is_told(kind: EventKind) -> bool {
    match kind {
        EventKind::SnapshotAccepted
        | EventKind::ContextHydrated
        | EventKind::ContextDrifted
        | EventKind::ContextConverged
        | EventKind::ContextRefreshed
        | EventKind::AgentRebound
        | EventKind::ContextCleared => true,
        EventKind::ChatCreated
        | EventKind::ChatUpdated
        | EventKind::ChatDeleted
        | EventKind::AgentCreated
        | EventKind::AgentUpdated
        | EventKind::AgentDeleted
        | EventKind::SnapshotDeleted => false,
    }
}
