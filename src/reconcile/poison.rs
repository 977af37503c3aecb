//! A record that the loop fails on is set aside: it says so in its conditions, stays due, and waits for its own `retry_at`,
//! so that it starves nobody.

use super::stalled;
use crate::{
    clock::Clock,
    model::condition::Conditions,
    store::{
        StoreError, Write,
        converge::{self, Poison},
        error::full_jitter,
        fanout,
        log::TxLog,
        transact,
    },
};
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

/// The first wait of a poisoned record, at most; it doubles with each failure.
const BASE: Duration = Duration::from_secs(1);
/// The longest wait of a poisoned record.
const CAP: Duration = Duration::from_mins(5);

#[derive(Clone, Copy)]
enum Kind {
    Chat,
    Agent,
}

struct SetAside<'a> {
    kind: Kind,
    clock: &'a Clock,
    namespace: &'a str,
    id: Uuid,
    error: &'a StoreError,
}

/// Sets a chat aside.
pub(super) async fn chat(pool: &PgPool, clock: &Clock, namespace: &str, id: Uuid, error: &StoreError) -> Result<(), StoreError> {
    set_aside(pool, clock, &SetAside { kind: Kind::Chat, clock, namespace, id, error }).await
}

/// Sets an agent aside.
pub(super) async fn agent(pool: &PgPool, clock: &Clock, namespace: &str, id: Uuid, error: &StoreError) -> Result<(), StoreError> {
    set_aside(pool, clock, &SetAside { kind: Kind::Agent, clock, namespace, id, error }).await
}

async fn set_aside(pool: &PgPool, clock: &Clock, write: &SetAside<'_>) -> Result<(), StoreError> {
    let kind = match write.kind {
        Kind::Chat => "chat",
        Kind::Agent => "agent",
    };
    tracing::error!(namespace = write.namespace, id = %write.id, error = %write.error, "the loop fails on this {kind}; it is set aside and tried again later");
    transact(pool, clock, write).await
}

impl Write for SetAside<'_> {
    type Output = ();
    type Error = StoreError;

    async fn run(&self, tx: &mut PgConnection) -> Result<(), StoreError> {
        let Self { kind, clock, namespace, id, error } = self;
        let found = match kind {
            Kind::Chat => converge::lock_poisoned(tx, namespace, *id).await?,
            Kind::Agent => fanout::lock_poisoned(tx, namespace, *id).await?,
        };
        let Some((attempts, stored)) = found else { return Ok(()) };
        let now = clock.now();
        // Conditions that cannot be read are the trouble itself; what is said of them is then all that is said.
        let conditions = stalled(&Conditions::from_stored(&stored).unwrap_or_default(), error, now);
        let retry_at = retry_at(now, attempts, clock.random());
        let poison = Poison { id: *id, retry_at, conditions: &conditions, shown: !conditions.is_empty() };
        let mut log = TxLog::open(tx).await?;
        match kind {
            Kind::Chat => converge::set_aside(tx, namespace, &poison, &mut log).await,
            Kind::Agent => fanout::set_aside(tx, namespace, &poison, &mut log).await,
        }
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

/// Half of the wait is fixed, so that a poisoned record never spins; the other half is jitter.
fn retry_at(now: Timestamp, attempts: i32, random: f64) -> Timestamp {
    let wait = full_jitter(BASE, CAP, attempts.unsigned_abs(), 0.5 + random / 2.0);
    now.checked_add(wait).unwrap_or(now)
}
