//! `cargo run --example dev-database -- <command…>`: runs a command with `DATABASE_URL` set to a fresh, migrated database,
//! which is gone afterwards, and ends as the command ended.

use anyhow::Context as _;
use moorline::{embedded, store};
use sqlx::{ConnectOptions as _, Connection as _};
use std::{os::unix::process::ExitStatusExt as _, process::ExitCode};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

/// The database's name.
const DATABASE: &str = "dev";

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("usage: dev-database <command> [arguments]")?;
    let server = embedded::start(embedded::Options {
        data_dir: std::env::temp_dir().join(format!("moorline-dev-{}", moorline::clock::system().new_id().simple())),
        pg_bin: None,
        ephemeral: true,
        settings: vec![("fsync".to_owned(), "off".to_owned())],
    })
    .await?;
    server.ensure_database(DATABASE).await?;
    let mut connection = server.connect_options(DATABASE).connect().await?;
    store::MIGRATOR.run(&mut connection).await.context("migrating")?;
    connection.close().await?;

    // Ctrl-C reaches the command too: what it makes of it is its own affair. Listened for before there is a command.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut child = Command::new(&program)
        .args(arguments)
        .env("DATABASE_URL", server.url(DATABASE))
        .spawn()
        .with_context(|| format!("running {}", program.display()))?;
    let status = loop {
        tokio::select! {
            ended = child.wait() => break ended?,
            _ = interrupted.recv() => {}
        }
    };
    server.stop().await?;
    // As a shell says it.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
