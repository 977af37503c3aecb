//! `moorline serve`: the API and the loop, on a database that is already migrated.

use crate::{clock, config, kubernetes, server::Server};
use clap::Args;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Serve the API and run the loop.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline serve --database-url postgres://moorline@db/moorline
  moorline serve --database-url postgres://moorline@db/moorline --auth token --token-auth-file tokens.csv --listen 0.0.0.0:8460
  moorline serve --database-url postgres://moorline@db/moorline --kubernetes on --mirror all
  moorline serve --database-url-file /etc/moorline/uri --tls-cert-file tls.crt --tls-key-file tls.key
  moorline serve --database-url postgres://moorline@db/moorline --role controller --health-listen 0.0.0.0:8461")]
pub struct ServeArgs {
    #[command(flatten)]
    database: config::Database,
    #[command(flatten)]
    server: config::Server,
    #[command(flatten)]
    front: kubernetes::FrontOptions,
}

/// Runs it until `shutdown`.
pub async fn run(args: ServeArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    args.front.lease.check()?;
    let cluster = kubernetes::connect::connect(&args.front.connect).await?;
    let role = args.server.serving.role;
    let server = Server::bind(args.server, args.database.access()?, clock::system()).await?;
    let server = match cluster {
        Some(cluster) => server.in_cluster(args.front, cluster),
        None => server,
    };
    let tls = server.speaks_tls();
    match role {
        config::Role::All => {
            tracing::info!(address = %server.address(), tls, "serving the API; the loop starts when the database answers");
        }
        config::Role::Api => tracing::info!(address = %server.address(), tls, "serving the API; other replicas run the loop"),
        config::Role::Controller => {
            tracing::info!(address = %server.address(), tls, "serving probes and metrics; the loop starts when the database answers");
        }
    }
    server.run(shutdown).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
