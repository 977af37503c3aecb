//! Each request: an id, one line in the log, and the metrics. Labels are the matched route, never a name.

use crate::{
    metrics::METRICS,
    trace::{self, Context},
};
use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method},
    middleware::Next,
    response::Response,
};
use std::time::Instant;
use tracing::Instrument as _;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest request id that is taken over from a client, in bytes.
const ID_MAX: usize = 64;

/// What a request is called in the log.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Observes a request.
pub async fn observe(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = known(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "(none)".to_owned(), |path| path.as_str().to_owned());
    let given = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let given = given.filter(|id| id.len() <= ID_MAX && id.bytes().all(|byte| byte.is_ascii_graphic()));
    let id = given.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let path = request.uri().path().to_owned();
    let traced = is_worth_a_trace(&route).then(|| trace::Request::begin(method, &route, Context::of(request.headers())));
    let context = traced.as_ref().and_then(trace::Request::context);
    let span = tracing::info_span!("http", request_id = %id, trace_id = tracing::field::Empty);
    if let Some(context) = context {
        span.record("trace_id", tracing::field::display(context.trace));
    }
    request.extensions_mut().insert(RequestId(id.clone()));
    let answered = async {
        let response = next.run(request).await;
        let (code, took) = (response.status().as_u16(), began.elapsed());
        METRICS.request(method, &route, code, took);
        tracing::debug!(method, %path, code, ms = took.as_secs_f64() * 1e3, "answered");
        response
    };
    let mut response = trace::within(context, answered.instrument(span)).await;
    if let Some(traced) = traced {
        traced.end(response.status().as_u16());
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Probes and scrapes come all day and say nothing.
fn is_worth_a_trace(route: &str) -> bool {
    !["/livez", "/readyz", "/healthz", "/metrics"].contains(&route)
}

/// A client may invent methods; a label may not.
fn known(method: &Method) -> &'static str {
    [Method::GET, Method::PUT, Method::POST, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS]
        .iter()
        .zip(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"])
        .find_map(|(known, word)| (known == method).then_some(word))
        .unwrap_or("other")
}
