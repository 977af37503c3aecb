//! Of what type a body says it is: JSON, or one of the patches.

use super::super::status::ApiError;
use axum::http::{HeaderMap, header};

/// The forms of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchForm {
    /// A merge patch (RFC 7396).
    Merge,
    /// A JSON patch (RFC 6902): a list of operations.
    Operations,
}

/// Their media types; OpenAPI lists them.
pub const PATCH_TYPES: [(&str, PatchForm); 2] =
    [("application/merge-patch+json", PatchForm::Merge), ("application/json-patch+json", PatchForm::Operations)];

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

/// The form of a patch; refuses others.
pub fn patch_form(headers: &HeaderMap) -> Result<PatchForm, ApiError> {
    let accepted = PATCH_TYPES.map(|(media, _)| media).join(" or ");
    if headers.get(header::CONTENT_TYPE).is_none() {
        return Err(ApiError::unsupported_media_type(format!("a patch needs a content type: {accepted} is accepted")));
    }
    if let Some((_, form)) = PATCH_TYPES.iter().find(|(media, _)| is_media_type(headers, media).is_ok()) {
        return Ok(*form);
    }
    is_media_type(headers, PATCH_TYPES[0].0).map(|_| PATCH_TYPES[0].1).map_err(|got| {
        let message = if got.eq_ignore_ascii_case("application/apply-patch+yaml") {
            "server-side apply is not served here: use `kubectl apply` without --server-side".to_owned()
        } else {
            format!("the body of the request was of type {got:?}: only {accepted} is accepted here")
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
        let error = patch_form(&of_type("application/apply-patch+yaml")).expect_err("refused");
        assert!(error.message().contains("without --server-side"));
        let form = |media| patch_form(&of_type(media)).ok();
        assert_eq!(form("application/merge-patch+json; charset=utf-8"), Some(PatchForm::Merge));
        assert_eq!(form("application/json-patch+json"), Some(PatchForm::Operations));
        assert_eq!(form("application/json"), None);
    }
}
