//! Parse, start telemetry, dispatch.

use moorline::{cli, telemetry};
use std::{io, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What was freed is given back within a second or two, by a thread of its own: a controller is busy for moments and idle for hours.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::parse();
    rustls::crypto::ring::default_provider().install_default().ok();
    telemetry::start(cli.log_format, cli.command.default_log());
    let shutdown = CancellationToken::new();
    if let Err(error) = stop_on_signal(shutdown.clone()) {
        eprintln!("moorline: signals cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    cli::run(cli, shutdown).await.unwrap_or_else(|error| cli::exit::tell(&error))
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
