//! Status out: makes the cluster show what PostgreSQL holds. Only the holder of the Lease writes.
//!
//! A level: for each object in the queue, what should be there (from PostgreSQL) is compared with what was last seen, and only a
//! difference is written. What is written names the version that was last seen, and the record is read after that version was:
//! whoever wrote meanwhile read the record earlier or makes this write fail. So an older state never replaces a newer one,
//! even when two replicas believe that they hold the Lease.

mod error;
mod records;
mod settle;
mod write;

pub use error::MirrorError;

use super::{Shared, follow::CHECK, kind::Id, queue::InHand, seen::Entry, wanted::Record};
use crate::{
    metrics::{Came, Controller, METRICS},
    trace::{self, Step},
};
use settle::Next;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use write::REQUEST;

/// Who owns the status of objects.
pub const CONTROLLER: &str = "moorline-controller";
/// Who owns the spec of objects that were made from records.
pub const MIRROR: &str = "moorline-mirror";
/// Objects that are written at once, at most.
const CONCURRENCY: u32 = 16;
/// Records that are read at once.
const BATCH: usize = 128;
/// How the task is named that writes.
const TASK: &str = "mirror";
/// How long what cannot be written without the Lease is put off.
const STANDBY: Duration = Duration::from_secs(1);
/// How often a deletion is looked at while the database is away.
const DELETION: Duration = Duration::from_secs(2);

/// An object that is to be made what its record says: what was seen of it, and then its record.
struct Found {
    id: Id,
    entry: Option<Entry>,
    record: Option<Record>,
    hand: InHand,
}

impl Shared {
    /// Works off the queue until `stop`, while this replica may write. Who may not puts everything off and drops nothing: `follow`
    /// does, because it compares everything when this replica may write again. Only so is nothing lost when that is very soon.
    pub(super) async fn mirror(self, stop: CancellationToken) {
        METRICS.workers(Controller::Mirror, CONCURRENCY);
        // While some are written the records of the next are read.
        let (found, finds) = mpsc::channel(BATCH);
        tokio::join!(self.find(found, &stop), self.settle_all(finds, &stop));
        self.liveness.ended(TASK);
    }

    /// Finds out what should be there, of each object in the queue.
    async fn find(&self, found: mpsc::Sender<Found>, stop: &CancellationToken) {
        loop {
            self.liveness.alive(TASK);
            let ids = tokio::select! {
                () = stop.cancelled() => return,
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
                let (record, hand) = (records.remove(&id), self.queue.in_hand(&id));
                if found.send(Found { id, entry, record, hand }).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Makes what was found what it should be: so many at once. What waits when `stop` comes is left to the next holder.
    async fn settle_all(&self, mut finds: mpsc::Receiver<Found>, stop: &CancellationToken) {
        let room = Arc::new(Semaphore::new(CONCURRENCY as usize));
        while let Some(Some(Found { id, entry, record, hand })) = stop.run_until_cancelled(finds.recv()).await {
            let Ok(turn) = Arc::clone(&room).acquire_owned().await else { break };
            let shared = self.clone();
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
                hand.told();
                shared.tell_of(&id, came, in_hand.since());
                in_hand.came_to(came);
                drop(turn);
            });
        }
        drop(finds);
        // What is in hand is one request each.
        tokio::time::timeout(REQUEST, room.acquire_many(CONCURRENCY)).await.ok();
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
                let error = crate::telemetry::reasons(error);
                tracing::warn!(object = %id, error, failures, "the cluster does not show it yet; it is tried again");
            }
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
}
