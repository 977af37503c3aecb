//! The lanes: who calls `reconcile`, how often, and what happens when the database is away.
//!
//! Two lanes, each a task of its own with its own connection and its own back-off: **chats** that are due, because a person is
//! waiting, never stand behind **agents** that are due, whose laps may be long. Any number of processes run both at once; what
//! one has claimed the others skip. Shutdown: no new claim, the transaction in hand is finished.

use crate::{
    clock::Clock,
    metrics::METRICS,
    reconcile::{Batch, Reconciler},
    store::{Retry, StoreError, across, error::full_jitter, log},
    wake::Wake,
};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The first pause of a lane after a failure, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause of a lane after a failure.
const PAUSE_CAP: Duration = Duration::from_secs(10);
/// How often the queue is measured and the log's partitions are looked after.
const UPKEEP: Duration = Duration::from_secs(15);

/// Runs the lanes on one database.
#[derive(Clone)]
pub struct Worker {
    /// The loop's transactions.
    pub reconciler: Reconciler,
    /// The database.
    pub pool: PgPool,
    /// Time and jitter.
    pub clock: Clock,
    /// Hints.
    pub wake: Wake,
    /// How long to wait for a hint before looking anyway; jittered by half of itself.
    pub poll: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Chats,
    Agents,
}

impl Lane {
    const fn label(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Agents => "agents",
        }
    }
}

impl Worker {
    /// Runs until `shutdown`, then finishes the transactions in hand.
    pub async fn run(self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        for lane in [Lane::Chats, Lane::Agents] {
            tasks.spawn(self.clone().lane(lane, shutdown.clone()));
        }
        tasks.spawn(self.clone().upkeep(shutdown.clone()));
        tasks.close();
        tasks.wait().await;
    }

    async fn lane(self, lane: Lane, shutdown: CancellationToken) {
        let mut hints = self.wake.on_work();
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            hints.mark_unchanged(); // registered before it looks
            let pause = match self.sweep(lane, &shutdown).await {
                Ok(0) => {
                    failures = 0;
                    None
                }
                Ok(_) => {
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    METRICS.reconcile_failed(lane.label(), error.label());
                    let pause = full_jitter(PAUSE, PAUSE_CAP, failures, self.clock.random());
                    failures += 1;
                    tracing::warn!(lane = lane.label(), %error, pause_ms = pause.as_millis(), failures, "the loop failed; it tries again");
                    Some(pause)
                }
            };
            self.rest(pause, &mut hints, &shutdown).await;
        }
    }

    /// Waits for a hint or the poll; after a failure for its pause, whatever the hints say.
    async fn rest(&self, pause: Option<Duration>, hints: &mut watch::Receiver<()>, shutdown: &CancellationToken) {
        let poll = self.poll.mul_f64(0.5 + self.clock.random());
        let hint = async {
            if pause.is_some() || hints.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause.unwrap_or(poll)) => {}
            () = hint => {}
        }
    }

    /// One look over all namespaces. Returns how many records were claimed.
    async fn sweep(&self, lane: Lane, shutdown: &CancellationToken) -> Result<usize, StoreError> {
        let mut connection = self.connection().await?;
        let namespaces = match lane {
            Lane::Chats => across::namespaces_with_due_chats(&mut connection, self.clock.now()).await?,
            Lane::Agents => across::namespaces_with_due_agents(&mut connection, self.clock.now()).await?,
        };
        drop(connection);
        let mut claimed = 0;
        for namespace in namespaces {
            while !shutdown.is_cancelled() {
                let began = Instant::now();
                let batch = match lane {
                    Lane::Chats => self.reconciler.converge_due(&namespace).await,
                    Lane::Agents => self.reconciler.fan_out(&namespace).await.map(Option::unwrap_or_default),
                };
                let batch = self.bumped(batch).await?;
                if batch.seen == 0 {
                    break;
                }
                claimed += batch.seen;
                self.tell(lane, &batch, began.elapsed());
            }
        }
        Ok(claimed)
    }

    /// When the log turns out to belong to another timeline, begins a new epoch and lets the lane try again.
    async fn bumped(&self, batch: Result<Batch, StoreError>) -> Result<Batch, StoreError> {
        if let Err(error) = &batch
            && error.retry() == Retry::AfterBump
        {
            log::bump(&mut *self.connection().await?, false).await?;
        }
        batch
    }

    fn tell(&self, lane: Lane, batch: &Batch, took: Duration) {
        METRICS.reconciled(lane.label(), took, batch.seen, batch.changed, batch.poisoned);
        for waited in &batch.hydrated {
            METRICS.hydrated(*waited);
        }
        // Whoever waits for a record to converge looks again, even when nothing that it shows has changed.
        self.wake.events();
        if lane == Lane::Agents {
            self.wake.work(); // it may have made chats due
        }
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
        crate::store::acquire(&self.pool).await
    }

    async fn upkeep(self, shutdown: CancellationToken) {
        loop {
            match self.look_after().await {
                Ok(()) => METRICS.database_up(true),
                Err(error) => {
                    METRICS.database_up(false);
                    tracing::warn!(%error, "looking after the queue and the log failed; it is tried again");
                }
            }
            let pause = UPKEEP.mul_f64(0.5 + self.clock.random());
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let depth = across::depth(&mut connection).await?;
        METRICS.depth(Lane::Chats.label(), depth.chats);
        METRICS.depth(Lane::Agents.label(), depth.agents);
        if log::partitions_missing(&mut connection, across::PARTITIONS_AHEAD).await? {
            let made = log::make_partitions(&mut connection, across::PARTITIONS_AHEAD).await?;
            tracing::info!(made, "made partitions of the event log ahead");
        }
        let rows = log::default_partition_rows(&mut connection).await?;
        METRICS.default_rows(rows);
        if rows > 0 {
            tracing::warn!(rows, "events stand in the default partition: their day had none of its own; see docs/event-log.md");
        }
        Ok(())
    }
}
