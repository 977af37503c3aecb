//! Errors on the wire: always a Kubernetes `Status`, with every cause, and a message that says what to do.

use crate::{
    model::fault::{Fault, FaultKind},
    store::{Retry, StoreError},
    writes::{Refusal, WriteError},
};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The resources of the API group, by their plural.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// `chats`
    Chats,
    /// `agents`
    Agents,
    /// `agentsnapshots`
    AgentSnapshots,
}

impl Resource {
    /// As it stands in paths.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::AgentSnapshots => "agentsnapshots",
        }
    }

    /// As it stands in objects.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Chats => "Chat",
            Self::Agents => "Agent",
            Self::AgentSnapshots => "AgentSnapshot",
        }
    }
}

/// The API group.
pub const GROUP: &str = "moorline.dev";

/// How long a client should wait before it asks again while the database is away, in seconds.
const RETRY_AFTER: u32 = 1;

/// An error, ready for the wire.
#[derive(Clone, Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: StatusCode,
    reason: &'static str,
    message: String,
    name: String,
    kind: &'static str,
    causes: Vec<(String, String, String)>,
    retry_after: Option<u32>,
    headers: Vec<(header::HeaderName, HeaderValue)>,
}

impl ApiError {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            reason,
            message: message.into(),
            name: String::new(),
            kind: "",
            causes: Vec::new(),
            retry_after: None,
            headers: Vec::new(),
        }))
    }

    fn of(mut self, kind: &'static str, name: &str) -> Self {
        self.0.kind = kind;
        name.clone_into(&mut self.0.name);
        self
    }

    /// Adds a cause: a CamelCase word, the field it is about (may be empty), and a sentence.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, field: &str, message: impl Into<String>) -> Self {
        self.0.causes.push((reason.to_owned(), field.to_owned(), message.into()));
        self
    }

    fn with_header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.headers.push((name, value));
        self
    }

    /// The status code.
    pub fn code(&self) -> StatusCode {
        self.0.code
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// 404: no object of that name.
    pub fn not_found(resource: Resource, name: &str) -> Self {
        let message = format!("{}.{GROUP} {name:?} not found", resource.plural());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).of(resource.plural(), name)
    }

    /// 404: no such path.
    pub fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// 404: the chat has no pin yet.
    pub fn not_pinned(name: &str) -> Self {
        let message = format!("chat {name:?} is not pinned to a snapshot yet: wait for its condition Ready");
        Self::new(StatusCode::NOT_FOUND, "NotPinned", message).of(Resource::Chats.plural(), name)
    }

    /// 409: an object of that name exists.
    pub fn already_exists(resource: Resource, name: &str) -> Self {
        let message = format!("{}.{GROUP} {name:?} already exists", resource.plural());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message).of(resource.plural(), name)
    }

    /// 409: it cannot be done to the object as it is.
    pub fn conflict(resource: Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {}.{GROUP} {name:?}: {why}", resource.plural());
        Self::new(StatusCode::CONFLICT, "Conflict", message).of(resource.plural(), name)
    }

    /// 422: fields are wrong, all of them listed.
    pub fn invalid(kind: &'static str, name: &str, faults: &[Fault]) -> Self {
        let listed: Vec<String> = faults.iter().map(|fault| format!("{}: {}", fault.field, sentence(fault))).collect();
        let listed = if let [only] = listed.as_slice() { only.clone() } else { format!("[{}]", listed.join(", ")) };
        let message = format!("{kind}.{GROUP} {name:?} is invalid: {listed}");
        let error = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message).of(kind, name);
        faults.iter().fold(error, |error, fault| error.with_cause(cause(fault.kind), &fault.field, sentence(fault)))
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 401: the caller is not known.
    pub fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized: send a known token as `Authorization: Bearer …`")
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    /// 403: the caller may not.
    pub fn forbidden(resource: Resource, name: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message).of(resource.plural(), name)
    }

    /// 403: nobody may do this here.
    pub fn denied(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 405: the path takes other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 406: nothing that the caller accepts is served.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// 408: the body did not come in time.
    pub fn request_timeout(seconds: u64) -> Self {
        let message = format!("the request's body did not arrive within {seconds} seconds");
        Self::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
    }

    /// 410: the continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// 504: the list cannot be as new as it was asked to be.
    pub fn too_large_version(asked: &str, current: &str) -> Self {
        let message =
            format!("Timeout: Too large resource version: {asked}, current: {current}; ask again, or without resourceVersion");
        let mut error = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        error.0.retry_after = Some(RETRY_AFTER);
        error.with_cause("ResourceVersionTooLarge", "", "Too large resource version")
    }

    /// 413: the body is larger than the limit, in bytes.
    pub fn too_large(limit: usize, got: Option<u64>) -> Self {
        let got = got.map_or_else(|| "more".to_owned(), |got| got.to_string());
        let message = format!("the request's body must be at most {limit} bytes, got {got}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 413: a JSON patch has more operations than the limit.
    pub fn too_many_operations(limit: usize, got: usize) -> Self {
        let message = format!("the allowed maximum of operations in a JSON patch is {limit}, got {got}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message)
    }

    /// 415: the body's media type is not served here.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// 429: there is more to take at once than there is room for.
    pub fn too_many_requests() -> Self {
        let message = "too many pushes are being taken at once: push again after the time in Retry-After";
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.0.retry_after = Some(RETRY_AFTER);
        error
    }

    /// 503: the database is away. Nothing was done, or nothing that will not be found done when it is asked again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message);
        error.0.retry_after = Some(RETRY_AFTER);
        error
    }

    /// 429: the caller sends more than its share.
    pub fn too_fast(rate: u32, wait: Duration) -> Self {
        let message = format!("you may send {rate} requests a second on average: try again after the time in Retry-After");
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message);
        error.0.retry_after = Some(u32::try_from(wait.as_secs()).map_or(u32::MAX, |whole| whole.saturating_add(1)));
        error
    }

    /// 500: a fault of ours. What it is stands in the log.
    pub fn internal() -> Self {
        let message = "an internal error occurred; the server's log has more, under this response's x-request-id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// From a refused write.
    pub fn from_write(resource: Resource, name: &str, error: WriteError) -> Self {
        let why = error.to_string();
        match error {
            WriteError::NotFound => Self::not_found(resource, name),
            WriteError::AlreadyExists => Self::already_exists(resource, name),
            WriteError::Changed | WriteError::OtherUid { .. } | WriteError::BeingDeleted => Self::conflict(resource, name, &why),
            WriteError::OwnedByApi { .. } => Self::conflict(resource, name, &why).with_cause("OwnedByApi", "", why),
            WriteError::OwnedByManifest { .. } => Self::conflict(resource, name, &why).with_cause("OwnedByManifest", "", why),
            WriteError::Archived => Self::conflict(resource, name, &why).with_cause("Archived", "spec.archived", why),
            WriteError::Invalid(faults) => Self::invalid(resource.kind(), name, &faults),
            WriteError::Refused(refusal) => match refusal {
                Refusal::StaleRun { .. } => Self::conflict(resource, name, &why).with_cause("StaleRun", "epoch", why),
                Refusal::OutOfOrder { .. } => Self::conflict(resource, name, &why).with_cause("OutOfOrder", "seq", why),
                Refusal::Deleting => Self::conflict(resource, name, &why).with_cause("Deleting", "", why),
                Refusal::Suspended => {
                    Self::forbidden(resource, name, format!("{}.{GROUP} {name:?} is forbidden: {why}", resource.plural()))
                        .with_cause("Suspended", "spec.suspend", why)
                }
            },
            WriteError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.retry() {
            Retry::Later | Retry::AfterBump | Retry::Transaction => {
                tracing::warn!(%error, "the database could not do it now; the client is told to ask again");
                Self::unavailable("the database is not available, or too busy: ask again")
            }
            Retry::Poison => {
                tracing::error!(%error, "a request failed for a reason of ours");
                Self::internal()
            }
        }
    }
}

/// A fault's sentence in the form of apimachinery's `field.Error`: kubectl prints it as it is.
fn sentence(fault: &Fault) -> String {
    let word = match fault.kind {
        FaultKind::Required => "Required value",
        FaultKind::Invalid | FaultKind::TypeInvalid => "Invalid value",
        FaultKind::NotSupported => "Unsupported value",
        FaultKind::Duplicate => "Duplicate value",
        FaultKind::TooLong => "Too long",
        FaultKind::TooMany => "Too many",
        FaultKind::NotFound => "Not found",
        FaultKind::Forbidden => "Forbidden",
    };
    format!("{word}: {}", fault.message)
}

const fn cause(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::Required => "FieldValueRequired",
        FaultKind::Invalid => "FieldValueInvalid",
        FaultKind::TypeInvalid => "FieldValueTypeInvalid",
        FaultKind::NotSupported => "FieldValueNotSupported",
        FaultKind::Duplicate => "FieldValueDuplicate",
        FaultKind::TooLong => "FieldValueTooLong",
        FaultKind::TooMany => "FieldValueTooMany",
        FaultKind::NotFound => "FieldValueNotFound",
        FaultKind::Forbidden => "FieldValueForbidden",
    }
}

impl ApiError {
    /// As a `Status` object.
    pub fn to_status(&self) -> Value {
        let Inner { code, reason, message, name, kind, causes, retry_after, headers: _ } = &*self.0;
        let mut details = Map::new();
        if !kind.is_empty() {
            details.insert("name".into(), json!(name));
            details.insert("group".into(), json!(GROUP));
            details.insert("kind".into(), json!(kind));
        }
        if !causes.is_empty() {
            let cause = |(reason, field, message): &(String, String, String)| {
                let mut cause = json!({"reason": reason, "message": message});
                if !field.is_empty() {
                    cause["field"] = json!(field);
                }
                cause
            };
            details.insert("causes".into(), causes.iter().map(cause).collect());
        }
        if let Some(seconds) = retry_after {
            details.insert("retryAfterSeconds".into(), json!(seconds));
        }
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        if !details.is_empty() {
            body["details"] = Value::Object(details);
        }
        body
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.to_status();
        let Inner { code, retry_after, headers, .. } = *self.0;
        let mut response = (code, Json(body)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_in_the_message_and_a_cause() {
        let faults = [
            Fault::new("spec.title", FaultKind::TooLong, "must be at most 3 bytes, got 4"),
            Fault::new("spec.owner", FaultKind::Required, "must not be empty"),
        ];
        let error = ApiError::invalid("Chat", "x", &faults);
        assert_eq!(
            error.message(),
            "Chat.moorline.dev \"x\" is invalid: [spec.title: Too long: must be at most 3 bytes, got 4, \
             spec.owner: Required value: must not be empty]"
        );
        assert_eq!(error.0.causes.len(), 2);
        assert_eq!(error.code(), StatusCode::UNPROCESSABLE_ENTITY);
    }

    #[test]
    fn a_database_that_is_away_is_a_503_that_says_when_to_ask_again() {
        let away = StoreError::Database { query: "db.x", source: sqlx::Error::PoolTimedOut };
        let response = ApiError::from(away).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get(header::RETRY_AFTER), Some(&HeaderValue::from_static("1")));
    }
}
