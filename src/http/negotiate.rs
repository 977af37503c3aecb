//! Requests before anybody looks at what they mean: bodies within limits, media types, JSON, unknown and duplicate fields,
//! preferences.

pub mod accept;
mod body;
mod fields;
mod json;
mod media;

pub use body::{BODY_MAX, PUSH_BODY_MAX, read_body};
pub use fields::{FieldValidation, Warnings};
pub use json::{Json, NulAllowed};
pub use media::{PATCH_TYPES, PatchForm, expect_json, patch_form};

use axum::http::{HeaderMap, header};
use std::time::Duration;

/// What a client prefers about waiting (RFC 7240).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// It does not say.
    Unsaid,
    /// Answer when the loop has caught up, after at most so long.
    Wait(Duration),
    /// Answer at once.
    Async,
}

/// Longest wait that is granted, in seconds.
pub const WAIT_MAX: u64 = 30;

/// Reads `Prefer`. What cannot be read is no preference, as the RFC says.
pub fn prefer(headers: &HeaderMap) -> Prefer {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    for preference in values.flat_map(|value| value.split([',', ';'])) {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        match (name.trim().to_ascii_lowercase().as_str(), value.trim().trim_matches('"').parse::<u64>()) {
            ("respond-async", _) => return Prefer::Async,
            ("wait", Ok(seconds)) => return Prefer::Wait(Duration::from_secs(seconds.min(WAIT_MAX))),
            _ => {}
        }
    }
    Prefer::Unsaid
}

/// Whether `If-None-Match` names this entity tag.
pub fn none_match(headers: &HeaderMap, etag: &str) -> bool {
    let named =
        |value: &str| value.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim().trim_start_matches("W/") == etag);
    headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))])
    }

    #[test]
    fn preferences_are_clamped_and_nonsense_is_none() {
        assert_eq!(prefer(&headers("prefer", "wait=5")), Prefer::Wait(Duration::from_secs(5)));
        assert_eq!(prefer(&headers("prefer", "wait=999")), Prefer::Wait(Duration::from_secs(30)));
        assert_eq!(prefer(&headers("prefer", "respond-async, wait=5")), Prefer::Async);
        assert_eq!(prefer(&headers("prefer", "wait=soon")), Prefer::Unsaid);
    }
}
