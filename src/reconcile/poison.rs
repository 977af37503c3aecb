//! A record that the loop fails on is set aside: it says so in its conditions, stays due, and waits for its own `retry_at`,
//! so that it starves nobody. How long it waits is decided here; when that is over is for the database's clock to say, which all
//! replicas share, and not for theirs.
//!
//! It says `Reconciling` while the next try may well mend it, and `Stalled` once that is not to be expected: after a few
//! failures in a row, or at once when its row cannot be read. Never both. It is tried again all the same.

use super::stalled;
use crate::{
    clock::Clock,
    model::condition::{ConditionPatch, ConditionType, Conditions, Truth, Verdict, Verdicts, reason, since_key},
    store::{
        StoreError, Write,
        converge::{self, Poison},
        error::full_jitter,
        fanout,
        log::TxLog,
        poison, transact,
    },
};
use jiff::Timestamp;
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use uuid::Uuid;

/// The failure in a row with which a record is said to be stalled.
const STALLED_AFTER: i32 = 3;
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
        let read = Conditions::from_stored(&stored);
        let hopeless = read.is_err() || attempts + 1 >= STALLED_AFTER || matches!(error, StoreError::Inconsistent { .. });
        let conditions = match &read {
            Ok(stored) if hopeless => given_up(stored, error, now),
            Ok(stored) => trying_again(stored, error, now),
            Err(_) => only_given_up(error, now),
        };
        let behind = match kind {
            Kind::Chat => poison::chat_is_behind(tx, namespace, *id).await?,
            Kind::Agent => poison::agent_is_behind(tx, namespace, *id).await?,
        };
        let wait = wait(attempts, clock.random());
        let aside = Poison { id: *id, wait, conditions: &conditions, shown: !conditions.is_empty() || (hopeless && behind) };
        let mut log = TxLog::open(tx).await?;
        match kind {
            Kind::Chat => converge::set_aside(tx, namespace, &aside, &mut log).await?,
            Kind::Agent => fanout::set_aside(tx, namespace, &aside, &mut log).await?,
        }
        match kind {
            Kind::Chat if hopeless => poison::chat_was_seen(tx, namespace, *id, &conditions.drop).await,
            Kind::Agent if hopeless => poison::agent_was_seen(tx, namespace, *id, &conditions.drop).await,
            Kind::Chat | Kind::Agent => Ok(()),
        }
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

/// Says that the next try may mend it.
fn trying_again(stored: &Conditions, error: &StoreError, now: Timestamp) -> ConditionPatch {
    let mut verdicts = stored.verdicts();
    let message = match error.sqlstate() {
        Some(code) => format!("the loop failed on this record and tries again: SQLSTATE {code}; the log of moorline has more"),
        None => format!("the loop failed on this record and tries again: {error}"),
    };
    verdicts.insert(ConditionType::Reconciling, Verdict::new(Truth::True, reason::PROGRESSING_WITH_RETRY, message));
    // Once stalled it stays so until it converges, even if the record's revision began its count anew.
    if stored.get(ConditionType::Stalled).is_some() {
        verdicts.remove(&ConditionType::Reconciling);
    }
    stored.patch(&verdicts, now)
}

/// Keeps what was said of failures, for a write that does not show that they are over.
pub(super) fn still_fails(said: &Conditions, verdicts: &mut Verdicts) {
    if let Some(stalled) = said.get(ConditionType::Stalled) {
        verdicts.insert(ConditionType::Stalled, stalled.verdict.clone());
        verdicts.remove(&ConditionType::Reconciling);
    } else if let Some(retrying) = said.get(ConditionType::Reconciling)
        && retrying.verdict.reason == reason::PROGRESSING_WITH_RETRY
    {
        verdicts.insert(ConditionType::Reconciling, retrying.verdict.clone());
    }
}

/// Says that somebody should look.
fn given_up(stored: &Conditions, error: &StoreError, now: Timestamp) -> ConditionPatch {
    let mut patch = stalled(stored, error, now);
    if stored.get(ConditionType::Reconciling).is_some() {
        let mut verdicts = stored.verdicts();
        verdicts.remove(&ConditionType::Reconciling);
        patch.drop = stored.patch(&verdicts, now).drop;
    }
    patch
}

/// Says that somebody should look, of conditions that cannot be read: they are the trouble, so nothing else is left of them.
fn only_given_up(error: &StoreError, now: Timestamp) -> ConditionPatch {
    let mut patch = stalled(&Conditions::default(), error, now);
    let others = ConditionType::ALL.iter().filter(|kind| **kind != ConditionType::Stalled);
    patch.drop = others.flat_map(|kind| [kind.to_string(), since_key(*kind)]).collect();
    patch
}

/// Half of the wait is fixed, so that a poisoned record never spins; the other half is jitter.
fn wait(attempts: i32, random: f64) -> Duration {
    full_jitter(BASE, CAP, attempts.unsigned_abs(), 0.5 + random / 2.0)
}
