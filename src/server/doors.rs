//! Where a replica listens, and what it answers there.

use super::ServerError;
use crate::{
    config,
    http::{self, AppState},
};
use futures::future::try_join_all;
use std::{io, net::SocketAddr};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// The API, probes and metrics.
    Api,
    /// Probes and metrics.
    Probes,
}

/// An address that is listened on.
struct Door {
    listener: TcpListener,
    answers: Answers,
}

/// Where a replica listens.
pub(super) struct Doors(Vec<Door>);

impl Doors {
    /// Listens as configured. The first one is where the API is, if there is one.
    pub(super) async fn open(config: &config::Server) -> Result<Self, ServerError> {
        let config::Serving { role, health_listen } = &config.serving;
        let first = match (role.serves(), health_listen) {
            (true, _) => Some((config.listen, Answers::Api)),
            (false, None) => Some((config.listen, Answers::Probes)),
            (false, Some(_)) => None,
        };
        let second = health_listen.map(|address| (address, Answers::Probes));
        let mut doors = Vec::new();
        for (address, answers) in first.into_iter().chain(second) {
            let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
            doors.push(Door { listener, answers });
        }
        Ok(Self(doors))
    }

    /// The address of the first.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.0.first()?.listener.local_addr().ok()
    }

    /// Serves all of them until `shutdown`.
    pub(super) async fn serve(self, state: AppState, shutdown: CancellationToken) -> io::Result<()> {
        let serving = self.0.into_iter().map(|Door { listener, answers }| {
            let router = match answers {
                Answers::Api => http::router(state.clone()),
                Answers::Probes => http::probe_router(state.clone()),
            };
            http::serve::serve(listener, router, shutdown.clone())
        });
        try_join_all(serving).await.map(drop)
    }
}
