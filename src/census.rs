//! What stands in the database, measured for the metrics: how much is due and since when, how many chats there are, and what
//! keeps vacuum back.
//!
//! Each replica measures by timers of its own, never a scrape. The queue is looked at about every 15 s; all else about once a
//! minute, and less often where it takes long: at most a hundredth of a connection's time. What it does not: decide anything.

use crate::{
    clock::Clock,
    metrics::{Census, Controller, METRICS},
    store::{
        self, StoreError,
        across::census::{self, Due},
    },
};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often to look at the queue; jittered by half.
const QUEUE: Duration = Duration::from_secs(15);
/// How often to count, at most.
const COUNT: Duration = Duration::from_mins(1);
/// Counting, which reads every chat, is let rest for so many times what it took.
const REST: u32 = 100;

/// Measures until `stop`.
pub async fn run(pool: PgPool, clock: Clock, stop: CancellationToken) {
    let (mut chats, mut agents) = (Waiting::default(), Waiting::default());
    let mut count_at = Instant::now();
    loop {
        METRICS.connections(&pool);
        if let Err(error) = look(&pool, &mut chats, &mut agents).await {
            // Whether the database answers is others' to say.
            tracing::debug!(%error, "how much is due is not known");
        }
        if Instant::now() >= count_at {
            let began = Instant::now();
            match count(&pool).await {
                Ok(counted) => METRICS.census(&counted),
                Err(error) => tracing::debug!(%error, "what stands in the database is not known"),
            }
            count_at = Instant::now() + COUNT.max(began.elapsed() * REST);
        }
        let pause = QUEUE.mul_f64(0.5 + clock.random());
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
    }
}

async fn look(pool: &PgPool, chats: &mut Waiting, agents: &mut Waiting) -> Result<(), StoreError> {
    let mut connection = store::acquire(pool).await?;
    let depth = census::chats_due(&mut connection).await?;
    METRICS.depth(Controller::Chats, depth.due);
    METRICS.set_aside(Controller::Chats, depth.aside);
    METRICS.oldest_due(Controller::Chats, chats.seen(&census::chats_waiting(&mut connection).await?, Instant::now()));
    let depth = census::agents_due(&mut connection).await?;
    METRICS.depth(Controller::Agents, depth.due);
    METRICS.set_aside(Controller::Agents, depth.aside);
    METRICS.oldest_due(Controller::Agents, agents.seen(&census::agents_waiting(&mut connection).await?, Instant::now()));
    Ok(())
}

async fn count(pool: &PgPool) -> Result<Census, StoreError> {
    let mut connection = store::acquire(pool).await?;
    let census::Chats { all, with_pin, drifted } = census::chats(&mut connection).await?;
    Ok(Census {
        unpinned: all - with_pin,
        pinned: with_pin - drifted,
        drifted,
        dead: census::dead(&mut connection).await?,
        oldest_xmin: census::oldest_xmin(&mut connection).await?,
    })
}

/// Records that wait, and since when they have been seen to. There is no column that says since when a record is due, and none
/// is needed: what waits for long is seen again and again.
#[derive(Debug, Default)]
struct Waiting(HashMap<Due, Instant>);

impl Waiting {
    /// These wait now. Answers for how long the first of them has been seen waiting.
    fn seen(&mut self, due: &[Due], now: Instant) -> Duration {
        self.0 = due.iter().map(|due| (*due, self.0.get(due).copied().unwrap_or(now))).collect();
        self.0.values().min().map_or(Duration::ZERO, |since| now.duration_since(*since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_waits_is_as_old_as_it_was_first_seen_and_converging_begins_anew() {
        let (mut waiting, began) = (Waiting::default(), Instant::now());
        let due = |n: u128, converged| Due { id: Uuid::from_u128(n), converged, place: None };
        let after = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(waiting.seen(&[due(1, 0), due(2, 5)], began), Duration::ZERO);
        assert_eq!(waiting.seen(&[due(1, 0), due(3, 0)], after(20)), Duration::from_secs(20));
        assert_eq!(waiting.seen(&[due(1, 1), due(3, 0)], after(40)), Duration::from_secs(20), "1 has converged, and is due anew");
        assert_eq!(waiting.seen(&[], after(60)), Duration::ZERO);
        assert_eq!(waiting.seen(&[due(3, 0)], after(80)), Duration::ZERO);
    }
}
