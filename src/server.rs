//! One process: the API, the loop, the wake-ups, on one database. Used by `serve` and by `dev`. Of the API and the loop it may
//! have only one: its [`config::Role`].
//!
//! Start: wait for the database, refuse a schema that is not ours, begin a new epoch of the log when the database is a copy.
//! While the database is away the process lives on and is not ready. Shutdown: go on for as long as one was told to, not ready; then
//! take no new request, finish those in hand and the loop's transaction, within twenty seconds.

mod credentials;
mod doors;

use crate::{
    census,
    clock::Clock,
    config, horizon,
    http::{self, audit::Audit, auth::Authentication},
    kubernetes::{self, Front, connect::Cluster},
    reconcile::Reconciler,
    retention::Retention,
    store::{
        self, StoreError,
        error::full_jitter,
        log,
        rotation::Rotation,
        schema::{self, SchemaError},
    },
    wake::{ListenNotify, Wake},
    watched::Watched,
    worker::{LaneFailed, Worker},
};
use doors::Doors;
use sqlx::PgPool;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long the loop's transactions in hand may take at shutdown, after the requests had their [`http::serve::GRACE`].
const LOOP_GRACE: Duration = Duration::from_secs(6);
/// How long connections may take to close.
const CLOSE: Duration = Duration::from_secs(1);
/// The first pause while the database is away at start, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause while the database is away at start.
const PAUSE_CAP: Duration = Duration::from_secs(10);

/// Why a server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The schema is not the one that this binary was built for.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The address cannot be listened on.
    #[error("listening on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The audit log cannot be written.
    #[error("opening the audit log {path}: {source}")]
    Audit {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The certificate cannot be served with.
    #[error(transparent)]
    Tls(#[from] http::tls::TlsError),
    /// A certificate without a key, or the other way round.
    #[error("--tls-cert-file and --tls-key-file go together")]
    HalfTls,
    /// Callers cannot be known as asked.
    #[error(transparent)]
    Auth(#[from] http::auth::AuthError),
    /// Serving failed.
    #[error("serving: {0}")]
    Serve(std::io::Error),
    /// The loop cannot go on.
    #[error(transparent)]
    Loop(#[from] LaneFailed),
}

/// A server that listens and is about to serve.
pub struct Server {
    doors: Doors,
    authentication: Authentication,
    audit: Audit,
    config: config::Server,
    credentials: Option<Watched>,
    rotation: Rotation,
    pool: PgPool,
    clock: Clock,
    wake: Wake,
    front: Option<(kubernetes::FrontOptions, Cluster)>,
}

impl Server {
    /// Listens. Nothing is asked of the database yet.
    pub async fn bind(
        config: config::Server,
        access: impl Into<config::DatabaseAccess>,
        clock: Clock,
    ) -> Result<Self, ServerError> {
        let authentication = Authentication::from_config(&config)?;
        Self::bind_for(config, authentication, access, clock).await
    }

    /// The same for callers who are known in this way.
    pub async fn bind_for(
        config: config::Server,
        authentication: Authentication,
        access: impl Into<config::DatabaseAccess>,
        clock: Clock,
    ) -> Result<Self, ServerError> {
        let doors = Doors::open(&config, &clock).await?;
        let config::DatabaseAccess { options, file: credentials } = access.into();
        let (pool, rotation) = Rotation::pool(options, config.database_connections);
        let audit = match (&config.access.audit_log, config.auth) {
            (Some(path), _) => Audit::to_file(path).map_err(|source| ServerError::Audit { path: path.clone(), source })?,
            (None, config::Auth::Kubernetes) => Audit::Log,
            (None, config::Auth::None | config::Auth::Token) => Audit::Off,
        };
        let wake = Wake::default();
        Ok(Self { doors, authentication, audit, config, credentials, rotation, pool, clock, wake, front: None })
    }

    /// The same, with this cluster in front.
    #[must_use]
    pub fn in_cluster(self, options: kubernetes::FrontOptions, cluster: Cluster) -> Self {
        Self { front: Some((options, cluster)), ..self }
    }

    /// Where it listens: for the API, if it serves that.
    pub fn address(&self) -> SocketAddr {
        self.doors.address().unwrap_or(self.config.listen)
    }

    /// Whether it speaks TLS there.
    pub fn speaks_tls(&self) -> bool {
        self.doors.speak_tls()
    }

    /// The wake-ups of this process.
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// The connections of this process.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    /// Serves until `shutdown`. The API answers from the start: `/livez` lives, `/readyz` waits for the database.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServerError> {
        let Self { doors, authentication, audit, config, credentials, rotation, pool, clock, wake, front } = self;
        // What goes on in the background ends with this token, whether asked for or because serving failed.
        let stop = CancellationToken::new();
        let state = http::AppState::new(pool.clone(), clock.clone(), wake.clone(), authentication).until(stop.clone());
        let state = state.limited(config.rate()).audited(audit);
        let tasks = TaskTracker::new();
        tasks.spawn(leave(shutdown, state.clone(), config.serving.shutdown_delay, stop.clone()));
        let mut serving = tasks.spawn(doors.serve(state.clone(), stop.clone()));
        if let Some(file) = credentials {
            let (rotation, tail) = (rotation.clone(), state.tail().clone());
            tasks.spawn(credentials::follow(file, rotation, tail, clock.clone(), stop.clone()));
        }
        let mut working = None;
        let role = config.serving.role;
        let ready = async { wait_for_database(&pool, &clock).await };
        tokio::select! {
            () = stop.cancelled() => {}
            ready = ready => {
                if let Err(error) = ready {
                    stop.cancel();
                    return Err(error.into());
                }
                state.started();
                tasks.spawn(state.tail().clone().run(pool.clone(), wake.clone(), clock.clone(), stop.clone()));
                if config.listen_notify == ListenNotify::On {
                    let (wake, options, clock, stop) = (wake.clone(), rotation.options(), clock.clone(), stop.clone());
                    tasks.spawn(async move { wake.run(options, clock, stop).await });
                }
                tasks.spawn(horizon::run(pool.clone(), clock.clone(), stop.clone()));
                tasks.spawn(census::run(pool.clone(), clock.clone(), stop.clone()));
                let reconciler = Reconciler::new(pool.clone(), clock.clone());
                let worker = Worker {
                    reconciler,
                    pool: pool.clone(),
                    clock: clock.clone(),
                    wake: wake.clone(),
                    poll: config.poll(),
                };
                if role.converges() {
                    if let Some((options, cluster)) = front {
                        let (pool, clock, wake) = (pool.clone(), clock.clone(), wake.clone());
                        let (tail, liveness) = (state.tail().clone(), state.liveness().clone());
                        let front = Front { options, pool, clock, wake, tail, liveness };
                        tasks.spawn(front.run(cluster, stop.clone()));
                    }
                    let retention = Retention {
                        pool: pool.clone(),
                        clock: clock.clone(),
                        wake,
                        interval: config.retention_interval,
                        event_age: config.event_retention,
                    };
                    tasks.spawn(retention.run(stop.clone()));
                    working = Some(tasks.spawn(worker.run(stop.clone())));
                } else {
                    tasks.spawn(worker.upkeep(stop.clone()));
                }
            }
        }
        tasks.close();
        // The API goes first or is told to, or the loop has a defect; then everything has one and the same time to end.
        let ended = tokio::select! {
            served = &mut serving => Ended::Serving(served),
            failed = lane_failure(working) => Ended::Loop(failed),
        };
        stop.cancel();
        let ended = match ended {
            Ended::Serving(served) => {
                served.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(ServerError::Serve)
            }
            Ended::Loop(failed) => Err(ServerError::Loop(failed)),
        };
        if tokio::time::timeout(LOOP_GRACE, tasks.wait()).await.is_err() {
            tracing::warn!(
                grace_seconds = LOOP_GRACE.as_secs(),
                "shutdown took too long; what was left is dropped, and stays due"
            );
        }
        // A connection that hangs is not waited for; what it did not commit stays due.
        tokio::time::timeout(CLOSE, pool.close()).await.ok();
        ended
    }
}

/// Stops everything when it is asked for, after having been not ready for `delay`.
async fn leave(shutdown: CancellationToken, state: http::AppState, delay: Duration, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = shutdown.cancelled() => {
            state.leaves();
            tokio::time::sleep(delay).await;
            stop.cancel();
        }
    }
}

/// What ended first.
enum Ended {
    Serving(Result<std::io::Result<()>, tokio::task::JoinError>),
    Loop(LaneFailed),
}

/// Waits for the loop to fail; for ever, when it ends as it should.
async fn lane_failure(working: Option<tokio::task::JoinHandle<Result<(), LaneFailed>>>) -> LaneFailed {
    if let Some(working) = working
        && let Ok(Err(failed)) = working.await
    {
        return failed;
    }
    std::future::pending().await
}

/// Waits until the database answers; refuses a schema that is not ours.
async fn wait_for_database(pool: &PgPool, clock: &Clock) -> Result<(), SchemaError> {
    let mut failures = 0;
    loop {
        let error = match check(pool).await {
            Ok(()) => return Ok(()),
            Err(SchemaError::Store(error)) => error,
            Err(other) => return Err(other),
        };
        let pause = full_jitter(PAUSE, PAUSE_CAP, failures, clock.random());
        failures += 1;
        tracing::warn!(%error, pause_ms = pause.as_millis(), "the database is away; waiting for it");
        tokio::time::sleep(pause).await;
    }
}

async fn check(pool: &PgPool) -> Result<(), SchemaError> {
    let mut connection = store::acquire_or_why(pool).await?;
    schema::check(&mut connection).await?;
    bump(&mut connection).await?;
    Ok(())
}

async fn bump(connection: &mut sqlx::PgConnection) -> Result<(), StoreError> {
    log::bump(connection, false).await.map(drop)
}
