//! Credentials of the database that are replaced while we run.
//!
//! What a file newly says is tried before it is believed: a connection is made with it, and the schema that is found there must be
//! ours. Until that works everything goes on with what worked before. So it does not matter whether the file or the database is
//! changed first, and a broken file costs a line in the log.

use crate::{
    clock::Clock,
    config::database::{DatabaseUrlError, options_in},
    http::tail::Tail,
    metrics::METRICS,
    store::{
        StoreError,
        error::full_jitter,
        rotation::Rotation,
        schema::{self, SchemaError},
        session,
        turns::in_few_turns,
    },
    watched::Watched,
};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long trying may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// At least so long between two tries: longer than it takes to see that the file has changed again.
const PAUSE: Duration = Duration::from_secs(2);
/// What is added to it at most, at random; it doubles up to this.
const PAUSE_CAP: Duration = Duration::from_secs(10);

/// The word of this in the metric.
const WHAT: &str = "database_url";

/// Follows `file` until `stop`.
pub(super) async fn follow(mut file: Watched, rotation: Rotation, tail: Tail, clock: Clock, stop: CancellationToken) {
    let mut candidate: Option<PgConnectOptions> = None;
    let mut failures = 0;
    loop {
        let pause = PAUSE + full_jitter(PAUSE, PAUSE_CAP, failures, clock.random());
        let again = async {
            match candidate {
                Some(_) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = again => {}
            changed = file.changed() => {
                failures = 0;
                let read = changed.map_err(DatabaseUrlError::from).and_then(|content| options_in(&file, &content.concat()));
                candidate = read.inspect_err(|error| {
                    METRICS.reloaded(WHAT, "refused");
                    tracing::error!(%error, "the new credentials of the database are refused; the ones before stay in use");
                }).ok();
            }
        }
        let Some(options) = &candidate else { continue };
        match tokio::time::timeout(PATIENCE, check(options)).await.unwrap_or_else(|_| Err(silent())) {
            Ok(()) => {
                rotation.replace(options.clone());
                tail.connect_again();
                METRICS.reloaded(WHAT, "ok");
                tracing::info!("the credentials of the database were replaced; new connections use them");
                candidate = None;
            }
            Err(error) => {
                failures += 1;
                METRICS.reloaded(WHAT, "refused");
                tracing::error!(
                    %error, failures,
                    "nobody can connect with the new credentials of the database; the ones before stay in use, and these are tried again"
                );
            }
        }
    }
}

async fn check(options: &PgConnectOptions) -> Result<(), SchemaError> {
    let named = |source| SchemaError::Store(StoreError::Database { query: "db.credentials.connect", source });
    let mut connection = in_few_turns(session(options.clone()).connect()).await.map_err(named)?;
    schema::check(&mut connection).await?;
    connection.close().await.map_err(named)
}

fn silent() -> SchemaError {
    let error = std::io::Error::new(std::io::ErrorKind::TimedOut, format!("no answer within {PATIENCE:?}"));
    SchemaError::Store(StoreError::Database { query: "db.credentials.connect", source: sqlx::Error::Io(error) })
}
