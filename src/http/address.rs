//! What stands in an address: the parts of its path and its query. What cannot be read there is refused with a `Status`, as
//! everything is.

use super::status::ApiError;
use axum::{
    extract::{FromRequestParts, Request},
    http::request::Parts,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use serde::de::DeserializeOwned;

/// The parts of a path.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

/// A query. What is not known is passed over.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Path::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = axum::extract::Query::from_request_parts(parts, state).await;
        read.map(|query| Self(query.0)).map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// Nothing has a name with U+0000 in it, and PostgreSQL takes no such text: it is refused before anybody looks it up.
pub async fn refuse_nul(request: Request, next: Next) -> Response {
    if request.uri().path_and_query().is_some_and(|address| address.as_str().contains("%00")) {
        return ApiError::bad_request("the address must not contain the character U+0000").into_response();
    }
    next.run(request).await
}
