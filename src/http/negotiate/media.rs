//! Of what type a body says it is: JSON, or one of the patches.

use super::super::status::ApiError;
use axum::http::{HeaderMap, header};

/// The patches that are taken; OpenAPI lists them.
pub const PATCH_TYPES: &[&str] = &["application/merge-patch+json"];

/// Whether a body is of a media type, parameters aside. A body without one counts as JSON, as in a kube-apiserver.
fn is_media_type(headers: &HeaderMap, wanted: &str) -> Result<bool, String> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(true) };
    let text = value.to_str().unwrap_or("(not text)");
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(wanted) { Ok(true) } else { Err(essence.to_owned()) }
}

/// Refuses a body that is not JSON.
pub fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    is_media_type(headers, "application/json").map(drop).map_err(|got| {
        ApiError::unsupported_media_type(format!(
            "the body of the request was of type {got:?}: only application/json is accepted here"
        ))
    })
}

/// Refuses a patch that is not a merge patch.
pub fn expect_merge_patch(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(header::CONTENT_TYPE).is_none() {
        return Err(ApiError::unsupported_media_type("a patch needs a content type: application/merge-patch+json is accepted"));
    }
    is_media_type(headers, "application/merge-patch+json").map(drop).map_err(|got| {
        let message = if got.eq_ignore_ascii_case("application/apply-patch+yaml") {
            "server-side apply is not served here: use `kubectl apply` without --server-side".to_owned()
        } else {
            format!("the body of the request was of type {got:?}: only application/merge-patch+json is accepted here")
        };
        ApiError::unsupported_media_type(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn of_type(media: &'static str) -> HeaderMap {
        [(header::CONTENT_TYPE, HeaderValue::from_static(media))].into_iter().collect()
    }

    #[test]
    fn the_refusal_of_a_server_side_apply_says_what_to_do_instead() {
        let error = expect_merge_patch(&of_type("application/apply-patch+yaml")).expect_err("refused");
        assert!(error.message().contains("without --server-side"));
        assert!(expect_merge_patch(&of_type("application/merge-patch+json; charset=utf-8")).is_ok());
        assert!(expect_merge_patch(&of_type("application/json-patch+json")).is_err());
    }
}
