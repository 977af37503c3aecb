//! Somebody between clients and an apiserver who may refuse, delay or lose a request: a reverse proxy that speaks TLS with
//! the apiserver's own certificate, so that clients trust it as they trust that one, and know no other.

use super::{envtest::ControlPlane, until::until};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Response, StatusCode, header, request::Parts},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, time::sleep};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What may happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `429`, with the seconds of `Retry-After`: as a kube-apiserver with too much to do says it. It does not come there.
    TooMany(u32),
    /// Another status, as a broken load balancer says it. It does not come there either.
    Status(u16),
    /// It comes there so much later.
    Late(Duration),
    /// It comes there, and what comes back is lost on the way: the client cannot know whether it was done.
    AnswerLost,
    /// It comes there, and what comes back is held until [`Gateway::let_go`].
    AnswerHeld,
}

type Rule = Arc<dyn Fn(&Parts) -> Option<Fault> + Send + Sync>;

/// A running one. It ends with this, and so do the connections to it.
pub struct Gateway {
    /// `https://127.0.0.1:…`.
    pub url: String,
    passing: Arc<Passing>,
    _stop: DropGuard,
}

struct Passing {
    to: String,
    http: reqwest::Client,
    rule: Mutex<Rule>,
    faults: AtomicUsize,
    free: CancellationToken,
    let_go: AtomicUsize,
}

impl Gateway {
    /// One before a control plane, through which everything passes until it is told otherwise.
    pub async fn to(control_plane: &ControlPlane) -> Self {
        let (certificate, key) = control_plane.certificate_and_key();
        let trusted = reqwest::Certificate::from_pem_bundle(&certificate).unwrap();
        let chain = CertificateDer::pem_slice_iter(&certificate).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let tls = TlsAcceptor::from(Arc::new(tls));
        let http = reqwest::Client::builder().no_proxy().tls_certs_only(trusted).build().unwrap();
        let (to, rule) = (control_plane.url.clone(), Mutex::new(Arc::new(|_: &Parts| None) as Rule));
        let (faults, free, let_go) = (AtomicUsize::new(0), CancellationToken::new(), AtomicUsize::new(0));
        let passing = Arc::new(Passing { to, http, rule, faults, free, let_go });
        let router = Router::new().fallback(pass).with_state(passing.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let accept = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
                let serve = async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let connection = Builder::new(TokioExecutor::new()).http1_only();
                    connection.serve_connection(TokioIo::new(stream), service).await.ok();
                };
                tokio::spawn(stopped.clone().run_until_cancelled_owned(serve));
            }
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept));
        Self { url, passing, _stop: stop.drop_guard() }
    }

    /// From now on this happens to each request, by its method, path and headers.
    pub fn set(&self, rule: impl Fn(&Parts) -> Option<Fault> + Send + Sync + 'static) {
        *self.passing.rule.lock().unwrap() = Arc::new(rule);
    }

    /// From now on everything passes.
    pub fn calm(&self) {
        self.set(|_| None);
    }

    /// To how many requests something has happened.
    pub fn faults(&self) -> usize {
        self.passing.faults.load(Ordering::SeqCst)
    }

    /// From now on no answer is held. Returns when one that was has been let go.
    pub async fn let_go(&self) {
        self.passing.free.cancel();
        until("what was held is let go", || async { (self.passing.let_go.load(Ordering::SeqCst) > 0).then_some(()) }).await;
    }
}

async fn pass(State(passing): State<Arc<Passing>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let rule = passing.rule.lock().unwrap().clone();
    let fault = rule(&parts);
    passing.faults.fetch_add(usize::from(fault.is_some()), Ordering::SeqCst);
    match fault {
        Some(Fault::TooMany(after)) => {
            let refused = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header(header::RETRY_AFTER, after);
            return refused.body("Too many requests, please try again later.".into()).unwrap();
        }
        Some(Fault::Status(status)) => return Response::builder().status(status).body(Body::empty()).unwrap(),
        Some(Fault::Late(by)) => sleep(by).await,
        Some(Fault::AnswerLost | Fault::AnswerHeld) | None => {}
    }
    let answer = match passing.send(parts, body).await {
        Ok(answer) => answer,
        // As a load balancer does when nobody is behind it.
        Err(error) => return Response::builder().status(StatusCode::BAD_GATEWAY).body(error.to_string().into()).unwrap(),
    };
    if fault == Some(Fault::AnswerLost) {
        let lost = futures::stream::iter([Err::<Bytes, _>(io::Error::other("lost on the way"))]);
        return Response::new(Body::from_stream(lost));
    }
    if fault == Some(Fault::AnswerHeld) {
        passing.free.cancelled().await;
        passing.let_go.fetch_add(1, Ordering::SeqCst);
    }
    answer
}

impl Passing {
    async fn send(&self, parts: Parts, body: Body) -> reqwest::Result<Response<Body>> {
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        let mut headers = parts.headers;
        // What is between two neighbours only.
        for name in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let asked = self.http.request(parts.method, format!("{}{}", self.to, parts.uri)).headers(headers).body(body);
        let mut answer = Response::from(asked.send().await?).map(Body::new);
        answer.headers_mut().remove(header::TRANSFER_ENCODING);
        Ok(answer)
    }
}
