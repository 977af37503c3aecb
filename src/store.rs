//! PostgreSQL: the source of truth. SQL lives here and nowhere else, one file per aggregate, each query in a function named
//! by its verb, on a connection that the caller owns.
//!
//! What it does: connect, migrate, refuse a schema it does not know; run a [`Write`] as one transaction, again when the
//! database asks for it. What it does not: decide. The forms of SQL that may be used are those that run unchanged on a
//! database sharded by namespace; every statement that looks across namespaces is in [`across`] or in [`log`].

pub mod across;
pub mod agents;
pub mod chats;
pub mod connect;
pub mod context;
pub mod converge;
pub mod diff;
pub mod error;
pub mod events;
pub mod fanout;
pub mod lists;
pub mod log;
pub mod manifests;
pub mod poison;
pub mod push;
pub mod retention;
pub mod rotation;
pub mod rows;
pub mod schema;
pub mod snapshots;
pub mod transaction;
pub mod turns;
pub mod why;

pub use error::{Retry, StoreError};
pub use rows::deleted::Deleted;
pub use transaction::{Write, end, moment_on, one_moment, rehearse, transact};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use std::{future::Future, time::Duration};

/// The migrations, in the binary.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// How long a transaction of ours may stand idle before the server ends it: it would hold back every reader of the log.
const IDLE_IN_TRANSACTION: &str = "5s";
/// How long one statement of ours may take.
const STATEMENT_TIMEOUT: &str = "30s";

/// Session settings that every connection of ours has.
pub fn session(options: PgConnectOptions) -> PgConnectOptions {
    options
        .application_name("moorline")
        .options([("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION), ("statement_timeout", STATEMENT_TIMEOUT)])
        .options([("bytea_output", "hex")]) // as events of deletions hold hashes, whatever the role's setting
        .options([("default_transaction_isolation", "read committed")]) // "lock, then read again" and the log's rules rest on it
}

/// A connection that was idle for longer is asked whether it lives before it is used again. One that was used just now is
/// taken at its word: asking is a round trip, and what broke since then is found by the statement that comes.
const TRUSTED: Duration = Duration::from_secs(1);

/// A pool of at most `size` connections. Connects lazily: a database that is away does not keep a process from starting.
pub fn pool(options: PgConnectOptions, size: u32) -> PgPool {
    rotation::Rotation::pool(options, size).0
}

/// A connection for migrating. It does not look at the log when it connects: migrating does, and tells what it did.
pub fn migrating(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(3)).connect_lazy_with(session(options))
}

/// Whether a connection of a pool that was idle for so long may be used.
async fn check_out(connection: &mut sqlx::PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for > TRUSTED {
        connection.ping().await?;
    }
    Ok(true)
}

/// How long we wait for what is read for watchers: longer than a statement may take, so that only a database that has gone
/// without a word is given up.
pub const PATIENCE: Duration = Duration::from_secs(35);

/// Waits so long. Whoever has waited in vain must drop the connection, and not give it back.
pub async fn patiently<T>(patience: Duration, read: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    tokio::time::timeout(patience, read).await.unwrap_or_else(|_| {
        let silent = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {patience:?}"));
        Err(StoreError::Database { query: "db.patience", source: sqlx::Error::Io(silent) })
    })
}

/// A connection of the pool.
pub async fn acquire(pool: &PgPool) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
    use error::Named as _;
    rotation::acquire(pool).named("db.acquire").await
}

/// A connection of the pool on which a transaction will be begun by whoever holds it.
pub async fn acquire_whole(pool: &PgPool) -> Result<rotation::Whole, StoreError> {
    acquire(pool).await.map(Into::into)
}

/// How long to look for a reason.
const REASON: Duration = Duration::from_secs(2);

/// A connection of the pool, or why there is none: for starts and for the loop, whose lines in the log people read, and not for requests,
/// which do not wait for the reason.
pub async fn acquire_or_why(pool: &PgPool) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
    match acquire(pool).await {
        Ok(connection) => Ok(connection),
        Err(error) => Err(why_none(pool, error).await),
    }
}

/// Why there was no connection, when all that the pool says is that it waited in vain: that nobody listens there it keeps to itself. A
/// connection is tried for nothing else.
async fn why_none(pool: &PgPool, error: StoreError) -> StoreError {
    let StoreError::Database { query, source: sqlx::Error::PoolTimedOut } = error else { return error };
    if pool.size() > 0 {
        return error; // they are all busy
    }
    let options = pool.connect_options();
    let source = match tokio::time::timeout(REASON, turns::in_few_turns(options.connect())).await {
        Ok(Err(sqlx::Error::Io(reason))) => {
            let socket = options.get_socket().map(|socket| socket.display().to_string());
            let at = socket.unwrap_or_else(|| format!("{}:{}", options.get_host(), options.get_port()));
            sqlx::Error::Io(std::io::Error::new(reason.kind(), format!("{at}: {reason}")))
        }
        Ok(Err(reason)) => reason,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    };
    StoreError::Database { query, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_has_gone_without_a_word_is_given_up_and_tried_again() {
        let silent = std::future::pending::<Result<(), StoreError>>();
        let error = patiently(Duration::from_millis(1), silent).await.expect_err("nobody answers");
        assert_eq!(error.retry(), Retry::Later);
        assert!(error.to_string().contains("no answer within 1ms"), "{error}");
        assert_eq!(patiently(PATIENCE, async { Ok(7) }).await.expect("an answer"), 7);
    }
}
