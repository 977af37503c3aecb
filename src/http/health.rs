//! `/livez`, `/readyz`, `/metrics`: open to everybody who reaches the port, and saying nothing about records.

use super::AppState;
use crate::{
    metrics::{Format, METRICS},
    store,
};
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::time::Duration;

/// How long the database may take to answer a readiness probe.
const PATIENCE: Duration = Duration::from_secs(2);

/// The process lives, and none of its background tasks hangs. Whether the database or the cluster answers is another question:
/// restarting this process would not bring them back.
pub async fn livez(State(state): State<AppState>) -> Response {
    match state.liveness().silent().as_slice() {
        [] => "ok".into_response(),
        [(task, silent), ..] => {
            let why = format!("not alive: the {task} has shown no sign of life for {} s\n", silent.as_secs());
            (StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

/// The database answers, its schema is ours, and nobody has told this process to stop.
pub async fn readyz(State(state): State<AppState>) -> Response {
    if state.is_leaving() {
        return not_ready("the server is stopping");
    }
    if !state.has_started() {
        return not_ready("waiting for the database, or for its schema");
    }
    let asked = async {
        let mut connection = store::acquire(state.pool()).await?;
        store::log::horizon(&mut connection).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => "ok".into_response(),
        Ok(Err(_)) | Err(_) => not_ready("the database does not answer"),
    }
}

fn not_ready(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response()
}

/// OpenMetrics for who asks for it, else Prometheus' text format.
pub async fn metrics(headers: HeaderMap) -> Response {
    let format = Format::of(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    ([(header::CONTENT_TYPE, format.content_type())], METRICS.text(format)).into_response()
}
