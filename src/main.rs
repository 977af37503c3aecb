//! Parse, start telemetry, dispatch.

use clap::Parser as _;
use moorline::cli::{self, Cli};
use std::{io, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    rustls::crypto::ring::default_provider().install_default().ok();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).init();
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signal(shutdown.clone()) {
        eprintln!("moorline: signals cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    cli::run(cli, shutdown).await.unwrap_or_else(|error| {
        eprintln!("moorline: {error:#}");
        ExitCode::FAILURE
    })
}

/// Cancels `shutdown` at SIGINT or SIGTERM.
fn stop_on_signal(shutdown: CancellationToken) -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}
