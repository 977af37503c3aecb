//! Connections whose credentials may be replaced while they are used: what is under way goes on, and what comes after is made
//! with the new ones.

use super::{check_out, log, session};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::{
    future::Future,
    sync::{Arc, RwLock},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// When the credentials were last replaced.
type Since = Arc<RwLock<Option<Instant>>>;

/// How long to ask again for a connection.
const INSIST: Duration = Duration::from_secs(3);
/// The first pause between two askings; it doubles up to [`AGAIN_CAP`].
const AGAIN: Duration = Duration::from_millis(20);
/// The longest pause.
const AGAIN_CAP: Duration = Duration::from_millis(320);

/// Gets a connection of `pool`. When the pool would have to make one and the server refuses our credentials (the password has
/// been changed there, and not here yet), asks again for a while: those that were made before are still good, and come back.
pub(super) async fn insisting<T, F>(pool: &PgPool, get: impl Fn() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let (began, mut pause) = (Instant::now(), AGAIN);
    loop {
        match get().await {
            Err(error) if refused(&error) && pool.size() > 0 && began.elapsed() < INSIST => tokio::time::sleep(pause).await,
            done => return done,
        }
        pause = AGAIN_CAP.min(pause * 2);
    }
}

/// Whether the server does not take us for who we say we are: class 28, invalid authorization.
fn refused(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code.starts_with("28"))
}

/// Replaces the credentials of a pool, and of those who connect for themselves.
#[derive(Clone, Debug)]
pub struct Rotation {
    pool: PgPool,
    since: Since,
    options: watch::Sender<PgConnectOptions>,
}

impl Rotation {
    /// A pool of at most `size` connections, which connects lazily, and what replaces its credentials.
    pub fn pool(options: PgConnectOptions, size: u32) -> (PgPool, Self) {
        let since = Since::default();
        let replaced = since.clone();
        let pool = PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(Duration::from_secs(3))
            .after_connect(|connection, _| Box::pin(log::on_connect(connection)))
            .test_before_acquire(false)
            .before_acquire(move |connection, used| {
                let since = *replaced.read().expect("no holder of this lock panics");
                let older = since.is_some_and(|since| since.elapsed() < used.age);
                Box::pin(async move { if older { Ok(false) } else { check_out(connection, used.idle_for).await } })
            })
            .connect_lazy_with(session(options.clone()));
        let rotation = Self { pool: pool.clone(), since, options: watch::Sender::new(session(options)) };
        (pool, rotation)
    }

    /// How to connect, now and later: for those who hold a connection of their own.
    pub fn options(&self) -> watch::Receiver<PgConnectOptions> {
        self.options.subscribe()
    }

    /// From now on connections are made like this. One that is older is closed when it comes back and is next asked for;
    /// whoever holds one goes on with it.
    pub fn replace(&self, options: PgConnectOptions) {
        let options = session(options);
        self.pool.set_connect_options(options.clone());
        *self.since.write().expect("no holder of this lock panics") = Some(Instant::now());
        self.options.send_replace(options);
    }
}
