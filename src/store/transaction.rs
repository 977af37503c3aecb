//! A write is one transaction, tried again from the start when it lost a race. The body is a value with a method, not a
//! closure over mutable state, so that a second attempt begins as the first one did.

use super::{
    error::{Named, Retry, StoreError, full_jitter},
    rotation::{acquire, begin},
};
use crate::clock::Clock;
use sqlx::{Connection as _, PgConnection, PgPool};
use std::{future::Future, time::Duration};

/// How often one transaction is tried.
const ATTEMPTS: u32 = 12;
/// The first pause between two attempts, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(2);
/// The longest pause between two attempts.
const PAUSE_CAP: Duration = Duration::from_millis(200);

/// The body of a transaction.
pub trait Write: Sync {
    /// What it answers.
    type Output: Send;
    /// Its own refusals besides the store's failures.
    type Error: From<StoreError> + Send;

    /// Does it. Called again, on a fresh transaction, when the last call lost a race.
    fn run(&self, tx: &mut PgConnection) -> impl Future<Output = Result<Self::Output, Self::Error>> + Send;

    /// The store's failure in an error, if that is what it is.
    fn store_error(error: &Self::Error) -> Option<&StoreError>;
}

/// Runs `write` as one READ COMMITTED transaction, and again while it loses races, at most twelve times.
/// An error rolls it back: nothing of it is left.
pub async fn transact<W: Write>(pool: &PgPool, clock: &Clock, write: &W) -> Result<W::Output, W::Error> {
    let mut attempt = 0;
    loop {
        let error = match once(pool, write).await {
            Ok(output) => return Ok(output),
            Err(error) => error,
        };
        let retry = W::store_error(&error).map(StoreError::retry);
        attempt += 1;
        match retry {
            Some(Retry::Transaction) if attempt < ATTEMPTS => {
                tokio::time::sleep(full_jitter(PAUSE, PAUSE_CAP, attempt, clock.random())).await;
            }
            Some(Retry::AfterBump) if attempt < ATTEMPTS => {
                let mut connection = acquire(pool).named("db.log.bump").await?;
                super::log::bump(&mut connection, false).await?;
            }
            Some(Retry::Transaction | Retry::AfterBump | Retry::Later | Retry::Poison) | None => return Err(error),
        }
    }
}

/// Runs `write` once and rolls it back: what it would answer, without doing it.
pub async fn rehearse<W: Write>(pool: &PgPool, write: &W) -> Result<W::Output, W::Error> {
    let mut tx = begin(pool, None).named("db.begin").await?;
    let output = write.run(&mut tx).await?;
    tx.rollback().named("db.rollback").await?;
    Ok(output)
}

async fn once<W: Write>(pool: &PgPool, write: &W) -> Result<W::Output, W::Error> {
    let mut tx = begin(pool, None).named("db.begin").await?;
    match write.run(&mut tx).await {
        Ok(output) => {
            tx.commit().named("db.commit").await?;
            Ok(output)
        }
        Err(error) => {
            // Not left to the pool: until it came to it, what this transaction had locked would be skipped by the next claim.
            tx.rollback().named("db.rollback").await.ok();
            Err(error)
        }
    }
}

/// A transaction that reads, and whose statements all see one moment: for reads of more than one statement whose answers
/// must fit together. Dropping it ends it.
pub async fn one_moment(pool: &PgPool) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, StoreError> {
    begin(pool, Some(ONE_MOMENT)).named("db.begin_one_moment").await
}

/// The same on a connection of the caller's: a [`super::rotation::Whole`] one, if it may be left in the middle.
pub async fn moment_on(connection: &mut PgConnection) -> Result<sqlx::Transaction<'_, sqlx::Postgres>, StoreError> {
    connection.begin_with(ONE_MOMENT).named("db.begin_one_moment").await
}

/// Ends it, so that the connection is as it was.
pub async fn end(moment: sqlx::Transaction<'_, sqlx::Postgres>) -> Result<(), StoreError> {
    moment.commit().named("db.end_one_moment").await
}

const ONE_MOMENT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
