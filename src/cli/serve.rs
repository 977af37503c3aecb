//! `moorline serve`: the API and the loop, on a database that is already migrated.

use crate::{clock, config, server::Server};
use clap::Args;
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Serve the API and run the loop.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline serve --database-url postgres://moorline@db/moorline
  moorline serve --database-url postgres://moorline@db/moorline --auth token --token-auth-file tokens.csv")]
pub struct ServeArgs {
    #[command(flatten)]
    database: config::Database,
    #[command(flatten)]
    server: config::Server,
}

/// Runs it until `shutdown`.
pub async fn run(args: ServeArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let server = Server::bind(args.server, args.database.options()?, clock::system()).await?;
    tracing::info!(address = %server.address(), "serving the API; the loop starts when the database answers");
    server.run(shutdown).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
