//! The command line: one file per command, each turning flags and `MOORLINE_*` variables into a call of the library.

pub mod agent;
pub mod crd;
pub mod dev;
pub mod migrate;
pub mod serve;
pub mod uninstall;

use crate::config::LogFormat;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tokio_util::sync::CancellationToken;

/// Keeps AI coding chats moored to immutable snapshots of their agent's context.
#[derive(Debug, Parser)]
#[command(name = "moorline", version)]
pub struct Cli {
    /// How log lines look. What is logged: RUST_LOG.
    #[arg(long, global = true, env = "MOORLINE_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Report the context of a workspace.
    ///
    /// Exit codes: 0 told to stop, or pushed with --once; 1 failed; 3 another process reports for this agent now.
    Agent(agent::AgentArgs),
    /// Run everything on a private PostgreSQL, for one workspace.
    Dev(dev::DevArgs),
    /// Serve the API and run the loop.
    Serve(serve::ServeArgs),
    /// Bring the database's schema to the version of this binary.
    Migrate(migrate::MigrateArgs),
    /// Print the custom resource definitions as YAML.
    Crd(crd::CrdArgs),
    /// Take what Moorline has put on the objects of a cluster off again.
    Uninstall(uninstall::UninstallArgs),
}

impl Command {
    /// What is logged when `RUST_LOG` does not say: `dev` tells a story of its own on standard output.
    pub const fn default_log(&self) -> &'static str {
        match self {
            Self::Dev(_) | Self::Uninstall(_) => "warn",
            Self::Agent(_) | Self::Serve(_) | Self::Migrate(_) | Self::Crd(_) => "info,sqlx=warn",
        }
    }
}

/// Runs a command until it is done or `shutdown`.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Agent(args) => agent::run(args, shutdown).await,
        Command::Dev(args) => dev::run(args, shutdown).await,
        Command::Serve(args) => serve::run(args, shutdown).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Crd(args) => crd::run(&args),
        Command::Uninstall(args) => uninstall::run(args, shutdown).await,
    }
}
