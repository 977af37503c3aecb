//! Connections whose credentials may be replaced while they are used: what is under way goes on, and what comes after is made
//! with the new ones.

use super::{
    check_out, connect, session,
    turns::{in_few_turns, to_its_end},
};
use sqlx::{
    PgConnection, Postgres, Transaction,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions},
};
use std::{
    future::Future,
    ops::{Deref, DerefMut},
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
async fn insisting<T, F>(pool: &PgPool, get: impl Fn() -> F) -> Result<T, sqlx::Error>
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

/// A connection of `pool`.
pub(super) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    insisting(pool, || in_few_turns(pool.acquire())).await
}

/// Begins a transaction of `pool`, by this statement or plainly, to its end, also when nobody waits any more:
/// a client that has hung up, a look that has taken too long.
///
/// A `BEGIN` that is sent and then forgotten by whoever waited leaves the connection inside a transaction, and sqlx, which
/// counts it as begun only when it is answered, gives it back as it is. The next to use it would write what is never
/// committed, be refused because it may only read, or look at one moment for ever.
pub(super) async fn begin(pool: &PgPool, statement: Option<&'static str>) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let begun = || {
        let pool = pool.clone();
        to_its_end(in_few_turns(async move {
            match statement {
                Some(statement) => pool.begin_with(statement).await,
                None => pool.begin().await,
            }
        }))
    };
    insisting(pool, begun).await
}

/// A connection on which its holder begins a transaction himself. It goes back to the pool when he says so; when he goes away in
/// the middle it is closed: a `BEGIN` that he has sent and forgotten would be whose is next.
#[derive(Debug)]
pub struct Whole(Option<PoolConnection<Postgres>>);

impl From<PoolConnection<Postgres>> for Whole {
    fn from(connection: PoolConnection<Postgres>) -> Self {
        Self(Some(connection))
    }
}

impl Whole {
    /// Gives it back: nothing is under way on it.
    pub fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Whole {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Whole {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
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
            .after_connect(|connection, _| Box::pin(connect::on_connect(connection)))
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
