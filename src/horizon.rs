//! How far readers of the event log are behind, and because of whom: a transaction that stays open anywhere in the database
//! cluster holds them all back (docs/event-log.md, "What holds the log back").
//!
//! It looks every few seconds, says so in the metrics, and when the lag lasts names the holder in the log, at most once a minute
//! for each. What it does not: end anybody's transaction, or tell what it is doing; the text of a query may hold anything.

use crate::{
    clock::Clock,
    metrics::METRICS,
    store::{
        self, StoreError,
        log::{self, Holder, Lag},
    },
};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How often to look; jittered by half.
const LOOK: Duration = Duration::from_secs(2);
/// A lag from which on the holder is named. A session of ours that stands idle in a transaction is ended before.
const LONG: Duration = Duration::from_secs(6);
/// The same holder is named again after this.
const AGAIN: Duration = Duration::from_mins(1);

/// What has been said so far of the present lag.
#[derive(Debug)]
struct Said {
    holder: Option<Holder>,
    at: Instant,
}

/// Looks until `stop`.
pub async fn run(pool: PgPool, clock: Clock, stop: CancellationToken) {
    let mut said = None;
    loop {
        if let Err(error) = look(&pool, &mut said).await {
            // Whether the database answers is others' to say.
            tracing::debug!(%error, "how far the event log can be read is not known");
        }
        let pause = LOOK.mul_f64(0.5 + clock.random());
        tokio::select! { () = stop.cancelled() => return, () = tokio::time::sleep(pause) => {} }
    }
}

async fn look(pool: &PgPool, said: &mut Option<Said>) -> Result<(), StoreError> {
    let mut connection = store::acquire(pool).await?;
    let Lag { oldest_open, transactions, time } = log::lag(&mut connection).await?;
    METRICS.horizon(transactions, time);
    if time < LONG {
        if said.take().is_some() {
            tracing::info!("the event log is no longer held back");
        }
        return Ok(());
    }
    let holder = log::holder(&mut connection, oldest_open).await?;
    if said.as_ref().is_some_and(|said| same(said.holder.as_ref(), holder.as_ref()) && said.at.elapsed() < AGAIN) {
        return Ok(());
    }
    tell(holder.as_ref(), time, transactions);
    *said = Some(Said { holder, at: Instant::now() });
    Ok(())
}

/// Whether it is one transaction still.
fn same(one: Option<&Holder>, other: Option<&Holder>) -> bool {
    let who = |holder: Option<&Holder>| holder.map(|holder| (holder.pid, holder.prepared.clone(), holder.query_start.clone()));
    who(one) == who(other)
}

fn tell(holder: Option<&Holder>, lag: Duration, transactions: i64) {
    let lag_seconds = lag.as_secs();
    let Some(Holder { pid, prepared, application_name, database, state, age_seconds, query_start }) = holder else {
        tracing::warn!(
            lag_seconds,
            transactions,
            "an open transaction holds the event log back, and has no session that can be seen; see docs/event-log.md"
        );
        return;
    };
    tracing::warn!(
        lag_seconds,
        transactions,
        pid,
        prepared,
        application_name,
        database,
        state,
        age_seconds,
        query_start,
        "an open transaction holds the event log back: whoever watches is behind until it ends; see docs/event-log.md"
    );
}
