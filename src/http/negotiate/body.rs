//! Bodies as bytes: within a limit, within a time.

use super::super::status::ApiError;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::time::Duration;

/// Most bytes of a push's HTTP body: 8 MiB. (What its decoded bodies may hold together is less.)
pub const PUSH_BODY_MAX: usize = 8 << 20;
/// Most bytes of any other body: 1.5 MiB, which is the most that a cluster could keep (etcd's `--max-request-bytes`).
pub const BODY_MAX: usize = 3 << 19;
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Reads a body of at most `limit` bytes: what is announced as larger is refused before a byte of it is kept.
pub async fn read_body(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    if let Some(announced) = announced.filter(|length: &u64| *length > limit as u64) {
        return Err(ApiError::too_large(limit, Some(announced)));
    }
    match tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit, None)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("the request's body did not arrive whole: {error}"))),
        Err(_) => Err(ApiError::request_timeout(BODY_TIME.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_by_what_it_announces_and_by_what_arrives() {
        let announced =
            read_body(&[(header::CONTENT_LENGTH, HeaderValue::from_static("11"))].into_iter().collect(), Body::from("x"), 10)
                .await
                .expect_err("announced");
        assert!(announced.message().contains("at most 10 bytes, got 11"));
        let arrived = read_body(&HeaderMap::new(), Body::from("12345678901"), 10).await.expect_err("arrived");
        assert_eq!(arrived.code().as_u16(), 413);
    }
}
