//! Certificates that are replaced while we serve.
//!
//! A new handshake gets the newest pair that is any good; connections that are there go on with theirs. A pair that cannot be
//! read, or whose key is not that of its certificate, is refused with a line in the log, and the one before stays in use. Its dates are measured, and
//! one that is past them is served all the same, with an error in the log: no certificate at all would help nobody. What it does
//! not: look at names. Whether a certificate is to be trusted is its clients' to say.

mod dates;

use crate::{
    clock::Clock,
    metrics::METRICS,
    watched::{Contents, Unreadable, Watched},
};
pub use dates::Dates;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    path::Path,
    sync::{Arc, RwLock},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// The word of this in the metric.
const WHAT: &str = "tls_certificate";

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One of the files cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The file of certificates has something else in it.
    #[error("{path} holds no certificate in PEM form: {why}")]
    Certificate {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file of the key has something else in it.
    #[error("{path} holds no private key in PEM form: {why}")]
    Key {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// They do not go together, or are of a kind that is not known.
    #[error("the certificate in {certificate} and the key in {key} cannot be used together: {source}")]
    Pair {
        /// The file of the certificate.
        certificate: String,
        /// The file of the key.
        key: String,
        /// Why not.
        source: rustls::Error,
    },
    /// The library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The pair in use.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().expect("no holder of this lock panics").clone())
    }
}

/// A certificate and its key, in files that may be replaced.
pub struct Certificates {
    files: Watched,
    current: Arc<Current>,
    clock: Clock,
}

impl Certificates {
    /// Reads them.
    pub fn open(certificate: &Path, key: &Path, clock: Clock) -> Result<Self, TlsError> {
        let (files, contents) = Watched::open(&[certificate, key])?;
        let pair = pair(&files, &contents)?;
        measure(&pair, &clock);
        let current = Arc::new(Current(RwLock::new(Arc::new(pair))));
        Ok(Self { files, current, clock })
    }

    /// What makes TLS of a connection, always with the newest pair.
    pub fn acceptor(&self) -> Result<TlsAcceptor, TlsError> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().map_err(TlsError::Setup)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(self.current.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Follows the files until `stop`.
    pub async fn follow(mut self, stop: CancellationToken) {
        loop {
            let changed = tokio::select! { () = stop.cancelled() => return, changed = self.files.changed() => changed };
            match changed.map_err(TlsError::from).and_then(|contents| pair(&self.files, &contents)) {
                Ok(pair) => {
                    measure(&pair, &self.clock);
                    *self.current.0.write().expect("no holder of this lock panics") = Arc::new(pair);
                    METRICS.reloaded(WHAT, "ok");
                    tracing::info!("the serving certificate was replaced; new connections get the new one");
                }
                Err(error) => {
                    METRICS.reloaded(WHAT, "refused");
                    tracing::error!(%error, "the new serving certificate is refused; the one before stays in use");
                }
            }
        }
    }
}

/// Says until when a pair is good that is in use from now on.
fn measure(pair: &CertifiedKey, clock: &Clock) {
    let dates = Dates::of(&pair.cert);
    METRICS.certificate(dates.map(|dates| (dates.from, dates.until)));
    match dates {
        Some(Dates { from: _, until }) if until <= clock.now() => {
            tracing::error!(%until, "the serving certificate has expired, and clients refuse it: replace it");
        }
        Some(Dates { from, until: _ }) if from > clock.now() => {
            tracing::error!(%from, "the serving certificate is not good yet, and clients refuse it: look at its dates and at this machine's clock");
        }
        Some(_) => {}
        None => tracing::warn!("the dates of the serving certificate cannot be read; nobody is told before it expires"),
    }
}

fn pair(files: &Watched, contents: &Contents) -> Result<CertifiedKey, TlsError> {
    let path = |at: usize| files.paths().get(at).map(|path| path.display().to_string()).unwrap_or_default();
    let content = |at: usize| contents.get(at).map_or(&[][..], Vec::as_slice);
    let not_certificates = |why: String| TlsError::Certificate { path: path(0), why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content(0)).collect();
    let chain = chain.map_err(|error| not_certificates(error.to_string()))?;
    if chain.is_empty() {
        return Err(not_certificates("there is none in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(content(1));
    let key = key.map_err(|error| TlsError::Key { path: path(1), why: error.to_string() })?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|source| TlsError::Pair {
        certificate: path(0),
        key: path(1),
        source,
    })
}
