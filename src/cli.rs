//! The command line: one file per command, each turning flags and `MOORLINE_*` variables into a call of the library.

pub mod agent;
pub mod crd;
pub mod migrate;
pub mod serve;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Keeps AI coding chats moored to immutable snapshots of their agent's context.
#[derive(Debug, Parser)]
#[command(name = "moorline", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report the context of a workspace.
    Agent(agent::AgentArgs),
    /// Serve the API and run the loop.
    Serve(serve::ServeArgs),
    /// Bring the database's schema to the version of this binary.
    Migrate(migrate::MigrateArgs),
    /// Print the custom resource definitions as YAML.
    Crd(crd::CrdArgs),
}

/// Runs a command until it is done or `shutdown`.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(args) => agent::run(args, shutdown).await,
        Command::Serve(args) => serve::run(args, shutdown).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Crd(args) => crd::run(&args),
    }
}
