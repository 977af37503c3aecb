//! Retention: a third, slow lane beside the worker's two. It removes snapshots that nobody is moored to beyond their agent's
//! limit, with their blobs, and events beyond their age.
//!
//! What it guarantees: a snapshot that a chat is pinned to, and what its agent points at, is never taken, whatever goes on
//! meanwhile; every removal of a snapshot is an event in the same transaction; a reader of the log is told `Expired` before
//! anything that it has not read is dropped; a pass that finds nothing to remove writes nothing. Batches are small, each one
//! transaction within one namespace, so a crash leaves work for the next pass and nothing half done. A pass ends: what an agent adds
//! meanwhile is for the next one, and an agent that the database refuses keeps nothing from the others.
//!
//! What it does not: decide anything that a chat shows, or hurry. Any number of replicas run it at once; what one removes the
//! others do not find. Where the log is too busy to be locked it comes again with the next pass.

use crate::{
    clock::Clock,
    metrics::METRICS,
    model::snapshot::SnapshotId,
    store::{
        self, StoreError, Write,
        across::{self, Hoard},
        error::full_jitter,
        log::{self, TxLog},
        retention::{self, BATCH_MAX, Superfluous},
        transact,
    },
    wake::Wake,
};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// SQLSTATE lock_not_available: the log is too busy now.
const BUSY: &str = "55P03";
/// How often a day's partition is tried to be dropped in one pass.
const DROP_TRIES: u32 = 5;
/// The first pause between two such tries, at most; it doubles up to [`DROP_PAUSE_CAP`].
const DROP_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two such tries.
const DROP_PAUSE_CAP: Duration = Duration::from_secs(2);

/// Removes what is superfluous from one database.
#[derive(Clone)]
pub struct Retention {
    /// The database.
    pub pool: PgPool,
    /// Time and jitter.
    pub clock: Clock,
    /// Told when there are new events.
    pub wake: Wake,
    /// Time between two passes; jittered by half of itself.
    pub interval: Duration,
    /// How old an event becomes before its day is dropped.
    pub event_age: Duration,
}

/// What a pass removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Snapshots.
    pub snapshots: u64,
    /// Blobs that only they referred to.
    pub blobs: u64,
    /// Days of events.
    pub days: u64,
    /// Events that had no day's partition.
    pub strays: u64,
}

impl Removed {
    fn count(&mut self, Pruned { snapshots, blobs }: Pruned) {
        self.snapshots += snapshots;
        self.blobs += blobs;
        METRICS.removed("snapshots", snapshots);
        METRICS.removed("blobs", blobs);
    }
}

impl Retention {
    /// Runs until `shutdown`, then finishes the transaction in hand. The first pass comes after a part of the interval, so that
    /// replicas that start together do not all begin with it.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = self.interval.mul_f64(self.clock.random());
        loop {
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
            match self.pass(&shutdown).await {
                Ok(removed) => {
                    METRICS.retained("ok");
                    if removed != Removed::default() {
                        let Removed { snapshots, blobs, days, strays } = removed;
                        tracing::info!(snapshots, blobs, days, strays, "retention removed what is superfluous");
                    }
                }
                Err(error) => {
                    METRICS.retained(error.label());
                    tracing::warn!(%error, "retention failed; it goes on with its next pass");
                }
            }
            pause = self.interval.mul_f64(0.5 + self.clock.random());
        }
    }

    /// One pass over everything. Ends early, and well, when `shutdown` is asked for.
    pub async fn pass(&self, shutdown: &CancellationToken) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        let snapshots = self.snapshots(shutdown, &mut removed).await;
        self.events(shutdown, &mut removed).await?;
        snapshots?;
        let oldest = log::oldest(&mut *self.connection().await?).await?;
        METRICS.oldest_event(oldest);
        Ok(removed)
    }

    async fn snapshots(&self, shutdown: &CancellationToken, removed: &mut Removed) -> Result<(), StoreError> {
        let (mut after, mut failed): (Option<Hoard>, Option<StoreError>) = (None, None);
        loop {
            let hoards = across::hoards(&mut *self.connection().await?, after.as_ref()).await?;
            if hoards.is_empty() {
                return failed.map_or(Ok(()), Err);
            }
            for hoard in &hoards {
                match self.prune(hoard, shutdown, removed).await {
                    // The database refuses this one; the others are not to wait for it.
                    Err(error) if error.sqlstate().is_some() => {
                        let Hoard { namespace, agent, newest: _ } = hoard;
                        tracing::warn!(namespace, %agent, %error, "retention failed with an agent's snapshots; it goes on with the others");
                        failed.get_or_insert(error);
                    }
                    result => result?,
                }
                if shutdown.is_cancelled() {
                    return failed.map_or(Ok(()), Err);
                }
            }
            after = hoards.into_iter().next_back();
        }
    }

    async fn prune(&self, hoard: &Hoard, shutdown: &CancellationToken, removed: &mut Removed) -> Result<(), StoreError> {
        let mut bodies_left = false;
        while !shutdown.is_cancelled() {
            // Looked at without a lock first: where nothing is superfluous nothing is written, not even a lock.
            let found = retention::superfluous(&mut *self.connection().await?, hoard).await?;
            if found.is_empty() {
                break;
            }
            let pruned = transact(&self.pool, &self.clock, &Prune { hoard }).await?;
            if pruned == Pruned::default() {
                break; // all of them are being pinned at this moment
            }
            if pruned.snapshots > 0 {
                bodies_left = pruned.blobs == 0;
                self.wake.events();
            }
            removed.count(pruned);
        }
        // What would have been the last batch is not superfluous any more: somebody returned to it, or raised the limit.
        while bodies_left && !shutdown.is_cancelled() {
            let blobs = transact(&self.pool, &self.clock, &Sweep { hoard }).await?;
            bodies_left = blobs > 0;
            removed.count(Pruned { snapshots: 0, blobs });
        }
        Ok(())
    }

    async fn events(&self, shutdown: &CancellationToken, removed: &mut Removed) -> Result<(), StoreError> {
        let age = SignedDuration::try_from(self.event_age).unwrap_or(SignedDuration::MAX);
        let Ok(cutoff) = self.clock.now().checked_sub(age) else { return Ok(()) };
        let days = log::days_before(&mut *self.connection().await?, cutoff).await?;
        for day in days {
            if shutdown.is_cancelled() {
                return Ok(());
            }
            if self.expire_day(day).await? && self.drop_day(day, shutdown).await? {
                removed.days += 1;
                METRICS.removed("event_days", 1);
            }
        }
        let strays = log::strays(&mut *self.connection().await?, cutoff).await?;
        for stray in strays {
            if !log::raise_floor(&mut *self.connection().await?, stray.last).await? {
                continue;
            }
            while !shutdown.is_cancelled() {
                let deleted = retention::delete_strays(&mut *self.connection().await?, &stray.namespace, cutoff).await?;
                removed.strays += deleted;
                METRICS.removed("events", deleted);
                if deleted < BATCH_MAX.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Raises the floor above everything that was written on a day, and commits that. False: not now.
    async fn expire_day(&self, day: Date) -> Result<bool, StoreError> {
        let Some((from, to)) = bounds(day) else { return Ok(false) };
        let mut connection = self.connection().await?;
        match log::last_between(&mut connection, from, to).await? {
            None => Ok(true),
            Some(last) => log::raise_floor(&mut connection, last).await,
        }
    }

    async fn drop_day(&self, day: Date, shutdown: &CancellationToken) -> Result<bool, StoreError> {
        let mut tries = 0;
        loop {
            let dropped = log::drop_day(&mut *self.connection().await?, day).await;
            match dropped {
                Err(error) if error.sqlstate().as_deref() == Some(BUSY) => {
                    tries += 1;
                    if tries == DROP_TRIES || shutdown.is_cancelled() {
                        tracing::info!(%day, "the log is too busy for a day of it to be dropped; the next pass tries again");
                        return Ok(false);
                    }
                    tokio::time::sleep(full_jitter(DROP_PAUSE, DROP_PAUSE_CAP, tries, self.clock.random())).await;
                }
                result => return result,
            }
        }
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
        store::acquire(&self.pool).await
    }
}

/// The first instant of a day (UTC), and that of the next.
fn bounds(day: Date) -> Option<(Timestamp, Timestamp)> {
    let start = |day: Date| day.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    Some((start(day)?, start(day.tomorrow().ok()?)?))
}

/// What one transaction removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: u64,
    /// Blobs.
    pub blobs: u64,
}

/// Removes a batch of one agent's superfluous snapshots.
pub struct Prune<'a> {
    /// Of which agent.
    pub hoard: &'a Hoard,
}

impl Write for Prune<'_> {
    type Output = Pruned;
    type Error = StoreError;

    async fn run(&self, tx: &mut PgConnection) -> Result<Pruned, StoreError> {
        let Hoard { namespace, agent, newest: _ } = self.hoard;
        retention::lock(tx, namespace, *agent).await?; // locks the agent, or what it has left
        let found = retention::superfluous(tx, self.hoard).await?; // reads, after the lock
        let batch = batch(&found);
        // What bodies are needed for is known when few snapshots are left: while there are more than a batch, each would read what all the
        // others refer to. What those batches have left goes before the last one, whose snapshots say that there may be some.
        let is_last = batch.len() == found.len();
        if is_last {
            let blobs = retention::delete_unused_blobs(tx, namespace, *agent).await?; // writes
            if blobs > 0 {
                return Ok(Pruned { snapshots: 0, blobs });
            }
        }
        let ids: Vec<SnapshotId> = batch.iter().map(|snapshot| snapshot.id).collect();
        let locked = retention::lock_snapshots(tx, namespace, &ids).await?; // locks: no new pin from here on
        let again = retention::superfluous(tx, self.hoard).await?; // reads again, after the locks
        let doomed: Vec<SnapshotId> = again.iter().map(|snapshot| snapshot.id).filter(|id| locked.contains(id)).collect();
        if doomed.is_empty() {
            return Ok(Pruned::default());
        }
        let mut log = TxLog::open(tx).await?; // takes the version
        retention::delete(tx, namespace, &doomed, &mut log).await?; // writes, the events first
        let blobs = if is_last { retention::delete_unused_blobs(tx, namespace, *agent).await? } else { 0 }; // writes
        Ok(Pruned { snapshots: doomed.len() as u64, blobs })
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

/// Removes bodies of an agent that no snapshot needs, up to [`BATCH_MAX`].
struct Sweep<'a> {
    hoard: &'a Hoard,
}

impl Write for Sweep<'_> {
    type Output = u64;
    type Error = StoreError;

    async fn run(&self, tx: &mut PgConnection) -> Result<u64, StoreError> {
        let Hoard { namespace, agent, newest: _ } = self.hoard;
        retention::lock(tx, namespace, *agent).await?; // locks the agent, or what it has left
        retention::delete_unused_blobs(tx, namespace, *agent).await // writes
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

/// As many from the front as have at most [`BATCH_MAX`] rows, blobs included; at least one.
fn batch(found: &[Superfluous]) -> &[Superfluous] {
    let mut rows = 0;
    let fits = found.iter().take_while(|snapshot| {
        rows += 1 + i64::from(snapshot.resources);
        rows <= BATCH_MAX
    });
    let fits = fits.count().clamp(usize::from(!found.is_empty()), found.len());
    &found[..fits]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(resources: &[i32]) -> Vec<Superfluous> {
        let ids = (1..).map(SnapshotId);
        ids.zip(resources).map(|(id, resources)| Superfluous { id, resources: *resources }).collect()
    }

    #[test]
    fn a_batch_has_at_most_a_thousand_rows_and_at_least_one_snapshot() {
        assert_eq!(batch(&of(&[])).len(), 0);
        assert_eq!(batch(&of(&[1_000, 1])).len(), 1, "one snapshot always fits");
        assert_eq!(batch(&of(&[499, 499, 0])).len(), 2);
        assert_eq!(batch(&of(&[499, 500, 0])).len(), 1);
        assert_eq!(batch(&of(&[0; 2_000])).len(), 1_000);
    }

    #[test]
    fn a_day_lasts_from_midnight_to_midnight_in_utc() {
        let (from, to) = bounds(jiff::civil::date(2026, 2, 28)).expect("a day");
        assert_eq!((from.to_string(), to.to_string()), ("2026-02-28T00:00:00Z".into(), "2026-03-01T00:00:00Z".into()));
    }
}
