//! `moorline serve`: the API and the loop, on a database that is already migrated.

use crate::{clock, config, kubernetes, server::Server, trace};
use clap::Args;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Serve the API and run the loop.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline serve --database-url postgres://moorline@db/moorline
  moorline serve --database-url postgres://moorline@db/moorline --auth token --token-auth-file tokens.csv --listen 0.0.0.0:8460
  moorline serve --database-url postgres://moorline@db/moorline --kubernetes on --mirror all")]
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
    let traces = trace::start()?;
    let cluster = kubernetes::connect::connect(&args.front.connect).await?;
    let server = Server::bind(args.server, args.database.options()?, clock::system()).await?;
    let server = match cluster {
        Some(cluster) => server.in_cluster(args.front, cluster),
        None => server,
    };
    tracing::info!(address = %server.address(), "serving the API; the loop starts when the database answers");
    let ended = server.run(shutdown).await;
    traces.end().await;
    ended?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
