//! What the event log tells of is looked at; and everything is, when this replica becomes the holder or has missed a part of it.

use super::{
    Listed, Mirror, Shared,
    kind::{Id, Kind},
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
use std::time::Duration;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Entries of the log that are taken at once.
const TAKE: usize = 512;
/// Records that are compared at once.
const COMPARE: i64 = 200;
/// How often to look whether this replica still holds the Lease, and to try a comparison again that failed.
const LOOK: Duration = Duration::from_secs(1);
/// How often a watch that says nothing is looked after, and a task that has nothing to do says that it is there.
pub(super) const CHECK: Duration = Duration::from_mins(1);

impl Shared {
    /// Follows the event log while this replica is the holder, until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) {
        let mut holding = self.lease.holding();
        // The log is followed only by who does something about it.
        let mut watching: Option<Watching> = None;
        let mut progress = self.tail.ring().progress();
        let mut lists = self.listed.subscribe();
        let mut histories = self.lease.histories();
        let mut place: Option<Place> = None;
        let (mut late, mut rest) = (0, Rest::default());
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
            } else if !rest.is_over() {
                // A log that overflows while all is compared would be compared with without end.
            } else if let Some(joined) = self.join(&mut progress, &mut lists) {
                // First the place, then the comparison: what changes in between is heard.
                let compared = rest.after(Box::pin(self.compare_all())).await;
                match compared {
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
        let shows_it = self.options.mirror != Mirror::Off && !entry.is_refused_for_a_record();
        let gone = matches!(event.kind, EventKind::ChatDeleted | EventKind::AgentDeleted);
        if gone && !entry.mirrored {
            self.again.add(&id); // its record is gone: what was refused may be taken over, or its finalizer taken off
        }
        if is_told(event.kind) && !gone && shows_it {
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
        if let Some(entry) = self.seen.get(&agent)
            && self.options.mirror != Mirror::Off
            && !entry.is_refused_for_a_record()
        {
            self.tell(&agent, entry.uid, event.kind.as_str(), &crate::v1alpha1::event::message(event), false);
        }
    }

    /// Compares every record with what was last seen of the cluster, and every object of ours with its record; what differs is
    /// put into the queue. Writes nothing by itself.
    async fn compare_all(&self) -> Result<(usize, usize), StoreError> {
        let (mut compared, mut different) = (0, 0);
        for kind in Kind::ALL {
            let mut orphans = self.seen.ids(kind, None);
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

/// How long nothing is compared after all was: as long as that took, so that it is never all that is done.
#[derive(Debug, Default)]
struct Rest(Option<Instant>);

impl Rest {
    fn is_over(&self) -> bool {
        self.0.is_none_or(|until| until <= Instant::now())
    }

    async fn after<T>(&mut self, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let done = work.await;
        self.0 = Some(Instant::now() + began.elapsed());
        done
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_all_was_compared_it_is_not_again_for_as_long_as_that_took() {
        let mut rest = Rest::default();
        assert!(rest.is_over());
        for seconds in [7, 2] {
            rest.after(tokio::time::sleep(Duration::from_secs(seconds))).await;
            assert!(!rest.is_over());
            tokio::time::advance(Duration::from_secs(seconds - 1)).await;
            assert!(!rest.is_over());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(rest.is_over());
        }
    }
}
