//! The one tail of the event log that a process has: reads it as it grows, for as long as somebody watches, resolves each row to
//! what became of its object, and keeps the newest part for all watchers.
//!
//! What it does not do: decide who sees what (each watcher does), or read history (a watcher that starts before what is kept reads
//! that by itself, with [`read`]).

pub mod change;
mod part;
pub mod pieces;
pub mod ring;

use crate::{
    clock::Clock,
    store::{self, StoreError, error::full_jitter, events::Cursor, log},
    wake::Wake,
};
use change::Missed;
use futures::FutureExt as _;
pub use part::{Part, read, read_of};
use ring::Ring;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often to look when nobody says anything.
const LOOK: Duration = Duration::from_millis(500);
/// About how many bytes of the log are resolved at once.
const ROOM: usize = 4 << 20;
/// What is older than this, or than twice this, is kept for nobody: by then a watcher who takes nothing has been cut off.
const FORGET: Duration = Duration::from_mins(1);
/// The first pause after a failure, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(50);
/// The longest pause after a failure.
const PAUSE_CAP: Duration = Duration::from_secs(5);

/// The tail of the log.
#[derive(Clone, Debug, Default)]
pub struct Tail(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Ring,
    watchers: watch::Sender<usize>,
    connect_again: AtomicBool,
}

impl Default for Inner {
    fn default() -> Self {
        Self { ring: Ring::default(), watchers: watch::Sender::new(0), connect_again: AtomicBool::new(false) }
    }
}

/// Somebody watches, until this is dropped.
#[derive(Debug)]
pub struct Watching(Tail);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.watchers.send_modify(|watchers| *watchers -= 1);
        crate::metrics::METRICS.watchers(*self.0.0.watchers.borrow());
    }
}

impl Tail {
    /// Somebody watches: the log is read from now on.
    pub fn watch(&self) -> Watching {
        self.0.watchers.send_modify(|watchers| *watchers += 1);
        crate::metrics::METRICS.watchers(*self.0.watchers.borrow());
        Watching(self.clone())
    }

    /// The connection that is held is given back before the next look: others than it are made with other credentials now.
    pub fn connect_again(&self) {
        self.0.connect_again.store(true, Ordering::Release);
    }

    /// The newest part of the log.
    pub fn ring(&self) -> &Ring {
        &self.0.ring
    }

    /// Reads until `stop`. A defect in it ends no more than the reading: every watcher is sent back to the database, and the tail
    /// begins again.
    pub async fn run(self, pool: PgPool, wake: Wake, clock: Clock, stop: CancellationToken) {
        let follow = || self.follow(pool.clone(), wake.clone(), clock.clone(), stop.clone());
        again_after_panic(follow, || self.0.ring.pause(), PAUSE_CAP).await;
    }

    async fn follow(&self, pool: PgPool, wake: Wake, clock: Clock, stop: CancellationToken) {
        let mut watchers = self.0.watchers.subscribe();
        let mut hints = wake.on_events();
        let mut reading: Option<(Cursor, Missed)> = None;
        let mut forgot = Instant::now();
        // Kept as long as somebody watches: taking one for each look is a part of what watchers wait for.
        let mut connection = None;
        let mut failures = 0;
        loop {
            if *watchers.borrow_and_update() == 0 {
                (reading, connection) = (None, None);
                self.0.ring.pause();
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = watchers.changed() => if changed.is_err() { return },
                }
                continue;
            }
            if self.0.connect_again.swap(false, Ordering::AcqRel) {
                connection = None;
            }
            if forgot.elapsed() >= FORGET {
                self.0.ring.forget();
                forgot = Instant::now();
            }
            hints.mark_unchanged(); // registered before it looks
            let pause = match Box::pin(store::patiently(store::PATIENCE, self.look(&pool, &mut connection, &mut reading))).await {
                Ok(true) => {
                    failures = 0;
                    LOOK
                }
                Ok(false) => {
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    // It may never answer: it is dropped, not given back.
                    drop(connection.take().map(PoolConnection::detach));
                    let pause = full_jitter(PAUSE, PAUSE_CAP, failures, clock.random());
                    failures += 1;
                    tracing::warn!(%error, pause_ms = pause.as_millis(), failures, "reading the event log for watchers failed; it is tried again");
                    tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
                    continue;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                _ = hints.changed() => {}
                changed = watchers.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Reads what is new. Returns whether there is no more for now.
    async fn look(
        &self,
        pool: &PgPool,
        connection: &mut Option<PoolConnection<Postgres>>,
        reading: &mut Option<(Cursor, Missed)>,
    ) -> Result<bool, StoreError> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(store::acquire(pool).await?),
        };
        let Some((cursor, missed)) = reading else {
            let start = beginning(connection).await?;
            self.0.ring.begin(start, false);
            *reading = Some((start, Missed::default()));
            return Ok(false);
        };
        // What was missed is taken as it is told: not before the whole part has been read.
        let mut then = missed.clone();
        match read(connection, *cursor, &mut then, ROOM).await? {
            Part::Entries { entries, through, exhausted } => {
                (*cursor, *missed) = (through, then);
                self.0.ring.extend(entries, through);
                Ok(exhausted)
            }
            Part::Expired => {
                // The log begins anew, and so does every watcher.
                let start = Cursor::through(log::list_version(connection).await?);
                tracing::info!(start = start.rv, "the event log begins anew; every watcher is told to list again");
                self.0.ring.begin(start, true);
                *reading = Some((start, Missed::default()));
                Ok(false)
            }
        }
    }
}

/// Before the newest transaction of the log, if that is kept: whoever comes back after one of its events, as most do, finds all that
/// follows, and need not read the database to learn that there is nothing.
async fn beginning(connection: &mut PgConnection) -> Result<Cursor, StoreError> {
    let newest = log::list_version(connection).await?;
    let before = Cursor::through(newest - 1);
    Ok(if log::bounds(connection).await?.admit(before) { before } else { Cursor::through(newest) })
}

/// Runs `run` until it ends, and again, after `restart` and a pause, when it panics.
async fn again_after_panic<F: Future<Output = ()>>(mut run: impl FnMut() -> F, restart: impl Fn(), pause: Duration) {
    while AssertUnwindSafe(run()).catch_unwind().await.is_err() {
        tracing::error!("reading the event log for watchers met a defect of ours; it begins again");
        restart();
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test]
    async fn a_defect_in_reading_sends_every_watcher_back_to_the_database_and_the_tail_begins_again() {
        let (ring, runs) = (Ring::default(), Cell::new(0));
        ring.begin(Cursor::through(5), false);
        let mut place = ring.join(Cursor::through(5)).expect("a place");
        let run = || {
            let run = runs.replace(runs.get() + 1);
            async move { assert_ne!(run, 0, "a defect") }
        };
        again_after_panic(run, || ring.pause(), Duration::ZERO).await;
        assert_eq!(runs.get(), 2);
        assert!(matches!(ring.take(&mut place, 1), ring::Taken::Restarted), "nobody waits for what nobody reads");
        assert!(ring.join(Cursor::through(5)).is_none());
    }
}
