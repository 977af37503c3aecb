//! Accepting connections, with the patience that a server on the open may have: a client that does not finish its request's
//! head within ten seconds is let go, and so is one that takes none of its answer for a minute: a watcher that stands still, say.

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use std::{io, time::Duration};
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

/// How long a client may take over the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is sent to it.
const WRITE_TIME: Duration = Duration::from_mins(1);
/// How long to wait when no connection can be accepted: the process is out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in hand may take at shutdown.
pub const GRACE: Duration = Duration::from_secs(12);

/// Serves until `shutdown`, then finishes the requests in hand.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) -> io::Result<()> {
    // HTTP/1 only: clients of plain HTTP speak it, and telling the versions apart would wait for a silent client for ever.
    // And without upgrades, of which there are none: for them the first bytes are read apart, and every buffer is twice as large.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let connections = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers go out at once.
        stream.set_nodelay(true).ok();
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIME));
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service).into_owned();
        let watched = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!(grace_seconds = GRACE.as_secs(), "requests in hand took too long at shutdown; they were dropped");
    }
    Ok(())
}
