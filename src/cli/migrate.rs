//! `moorline migrate`: bring the schema of a database to the version of this binary.

use crate::{config, store};
use clap::Args;
use std::process::ExitCode;

/// Bring the database's schema to the version of this binary. Safe to run any number of times, and from several replicas at
/// once: one waits for the other.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline migrate --database-url postgres://moorline@db/moorline")]
pub struct MigrateArgs {
    #[command(flatten)]
    database: config::Database,
    /// The database was restored from a backup: begin a new epoch of the event log, so that every watcher relists. Needed
    /// only when a data directory was put back in place; a dump and restore, a copy and a promotion are found without it.
    #[arg(long)]
    restored: bool,
}

/// Runs it.
pub async fn run(args: MigrateArgs) -> anyhow::Result<ExitCode> {
    let pool = store::migrating(args.database.access()?.options);
    let done = store::schema::migrate(&pool, args.restored).await?;
    pool.close().await;
    match done.from {
        Some(from) if from == done.to => println!("the schema is at version {}: nothing to do", done.to),
        Some(from) => println!("the schema was at version {from} and is now at {}", done.to),
        None => println!("the schema is now at version {}", done.to),
    }
    if let Some(epoch) = done.new_epoch {
        println!("the event log has begun epoch {epoch}: every watcher relists");
    }
    Ok(ExitCode::SUCCESS)
}
