//! Where a replica listens, and what it answers there.

use super::ServerError;
use crate::{
    clock::Clock,
    config,
    http::{self, AppState, tls::Certificates},
};
use futures::future::try_join_all;
use std::{io, net::SocketAddr};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
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
    tls: Option<TlsAcceptor>,
}

/// Where a replica listens.
pub(super) struct Doors {
    doors: Vec<Door>,
    certificates: Option<Certificates>,
}

impl Doors {
    /// Listens as configured. The first one is where the API is, if there is one.
    pub(super) async fn open(config: &config::Server, clock: &Clock) -> Result<Self, ServerError> {
        let config::Serving { role, health_listen, tls_cert_file, tls_key_file, shutdown_delay: _ } = &config.serving;
        let certificates = match (tls_cert_file, tls_key_file) {
            (Some(certificate), Some(key)) => Some(Certificates::open(certificate, key, clock.clone())?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ServerError::HalfTls),
        };
        let tls = certificates.as_ref().map(Certificates::acceptor).transpose()?;
        let first = match (role.serves(), health_listen) {
            (true, _) => Some((config.listen, Answers::Api, tls)),
            (false, None) => Some((config.listen, Answers::Probes, tls)),
            (false, Some(_)) => None,
        };
        let second = health_listen.map(|address| (address, Answers::Probes, None));
        let mut doors = Vec::new();
        for (address, answers, tls) in first.into_iter().chain(second) {
            let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
            doors.push(Door { listener, answers, tls });
        }
        Ok(Self { doors, certificates })
    }

    /// The address of the first.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.doors.first()?.listener.local_addr().ok()
    }

    /// Whether the first speaks TLS.
    pub(super) fn speak_tls(&self) -> bool {
        self.doors.first().is_some_and(|door| door.tls.is_some())
    }

    /// Serves all of them until `shutdown`, with certificates as they are replaced.
    pub(super) async fn serve(self, state: AppState, shutdown: CancellationToken) -> io::Result<()> {
        let Self { doors, certificates } = self;
        let following = async {
            if let Some(certificates) = certificates {
                certificates.follow(shutdown.clone()).await;
            }
        };
        let serving = doors.into_iter().map(|Door { listener, answers, tls }| {
            let router = match answers {
                Answers::Api => http::router(state.clone()),
                Answers::Probes => http::probe_router(state.clone()),
            };
            http::serve::serve(listener, router, tls, shutdown.clone())
        });
        let (served, ()) = tokio::join!(try_join_all(serving), following);
        served.map(drop)
    }
}
