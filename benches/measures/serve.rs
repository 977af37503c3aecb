//! The library's own server, in this process: for what is measured from one connection pool, or with one more path.

use axum::Router;
use moorline::{
    clock, config,
    http::{self, AppState, auth::Authentication},
    wake::{ListenNotify, Wake},
};
use sqlx::PgPool;
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// Serves these paths until `stop`.
pub async fn start(pool: &PgPool, routes: Router<AppState>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let config = config::Server {
        listen: "127.0.0.1:0".parse()?,
        auth: config::Auth::None,
        token_auth_file: None,
        listen_notify: ListenNotify::Off,
        poll_ms: 2000,
        database_connections: 8,
        retention_interval: config::RETENTION_INTERVAL,
        event_retention: config::EVENT_RETENTION,
        access: config::Access::default(),
        serving: config::Serving::default(),
    };
    let authentication = Authentication::from_config(&config)?;
    let state = AppState::new(pool.clone(), clock::system(), Wake::default(), authentication);
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(http::serve::serve(listener, http::router_of(state, routes), None, stop));
    Ok(address)
}
