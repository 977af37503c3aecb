//! A server's no, taken apart and told in words: one sentence, and each cause in a line of its own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use std::fmt;

/// A server's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    /// The word: `NotFound`, `Invalid`; empty when whoever answered does not speak this API.
    pub reason: String,
    /// The sentence.
    pub message: String,
    /// Each cause in words, with the field that it is about.
    pub causes: Vec<String>,
}

impl Refusal {
    /// Reads the body of an answer of the server at `place` with such a code.
    pub fn read(place: &str, code: u16, body: &[u8]) -> Self {
        let status = serde_json::from_slice::<Status>(body).ok().filter(|status| status.message.is_some());
        let Some(Status { message, reason, details, .. }) = status else {
            return Self {
                code,
                reason: String::new(),
                message: format!(
                    "the answer of {place} (HTTP {code}) is not that of a Moorline server: check --server and --context"
                ),
                causes: Vec::new(),
            };
        };
        let message = message.unwrap_or_default();
        let causes = details.and_then(|details| details.causes).unwrap_or_default().into_iter().filter_map(|cause| {
            let text = cause.message.filter(|text| !text.is_empty()).or(cause.reason)?;
            Some(match cause.field.filter(|field| !field.is_empty()) {
                Some(field) => format!("{field}: {text}"),
                None => text,
            })
        });
        // A sentence that says its only cause already is not followed by the same words.
        let causes = causes.filter(|cause| !message.contains(cause.as_str())).collect();
        Self { code, reason: reason.unwrap_or_default(), message, causes }
    }

    /// Whether an object is not there; not: the path or the server.
    pub fn is_not_found(&self) -> bool {
        self.code == 404 && matches!(self.reason.as_str(), "NotFound" | "NotPinned")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code: _, reason, message, causes } = self;
        match reason.as_str() {
            "" => write!(f, "{message}")?,
            reason => write!(f, "{message} ({reason})")?,
        }
        causes.iter().try_for_each(|cause| write!(f, "\n  {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_is_told_with_every_cause_in_a_line() {
        let status = json!({"kind": "Status", "code": 422, "reason": "Invalid", "message": "Chat \"x\" is invalid", "details": {"causes": [
            {"reason": "FieldValueTooLong", "message": "must be at most 3 characters, got 4", "field": "spec.title"}, {"reason": "Odd"}]}});
        let refusal = Refusal::read("here", 422, status.to_string().as_bytes());
        assert_eq!(
            refusal.to_string(),
            "Chat \"x\" is invalid (Invalid)\n  spec.title: must be at most 3 characters, got 4\n  Odd"
        );
    }

    #[test]
    fn words_that_the_sentence_has_are_not_said_twice() {
        let status = json!({"reason": "Conflict", "message": "the run is stale", "details": {"causes": [{"message": "the run is stale"}]}});
        assert_eq!(Refusal::read("here", 409, status.to_string().as_bytes()).to_string(), "the run is stale (Conflict)");
    }

    #[test]
    fn a_page_of_a_proxy_is_no_status() {
        let refusal = Refusal::read("here", 404, b"<html>nothing here</html>");
        assert!(!refusal.is_not_found());
        assert_eq!(
            refusal.to_string(),
            "the answer of here (HTTP 404) is not that of a Moorline server: check --server and --context"
        );
    }
}
