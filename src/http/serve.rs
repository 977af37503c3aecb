//! Accepting connections, with the patience that a server on the open may have: a client that does not finish its request's
//! head within ten seconds is let go, and so is one that takes none of its answer for a minute: a watcher that stands still, say.
//! With TLS the same goes below it, and the handshake has ten seconds of its own.

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// How long a client may take over the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what is sent to it.
const WRITE_TIME: Duration = Duration::from_mins(1);
/// How long to wait when no connection can be accepted: the process is out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long requests in hand may take at shutdown.
pub const GRACE: Duration = Duration::from_secs(12);

type Http = Builder<TokioExecutor>;

/// Serves until `shutdown`, then finishes the requests in hand. With `tls`, speaks nothing else.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<TlsAcceptor>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // HTTP/1 only: clients of plain HTTP speak it, and telling the versions apart would wait for a silent client for ever.
    // And without upgrades, of which there are none: for them the first bytes are read apart, and every buffer is twice as large.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME);
    let builder = Arc::new(builder);
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
        let (stream, router, watcher) = (Box::pin(stream), router.clone(), connections.watcher());
        match tls.clone() {
            None => drop(tokio::spawn(attend(builder.clone(), stream, router, watcher))),
            Some(tls) => {
                let (builder, shutdown) = (builder.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let handshake = tokio::select! {
                        () = shutdown.cancelled() => return,
                        handshake = tokio::time::timeout(HEAD_TIME, tls.accept(stream)) => handshake,
                    };
                    match handshake {
                        Ok(Ok(stream)) => attend(builder, stream, router, watcher).await,
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                });
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, connections.shutdown()).await.is_err() {
        tracing::warn!(grace_seconds = GRACE.as_secs(), "requests in hand took too long at shutdown; they were dropped");
    }
    Ok(())
}

/// Serves one connection to its end.
async fn attend<S>(builder: Arc<Http>, stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    drop(builder);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
