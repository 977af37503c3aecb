//! In which form a client wants what it reads: as it is, as a Table, or its metadata only.

use super::super::{negotiate::accept, status::ApiError};
use axum::http::HeaderMap;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The object, or the list, as it is.
    #[default]
    Json,
    /// A `meta.k8s.io/v1` Table: what a person reads.
    Table,
    /// The metadata only: `meta.k8s.io/v1` PartialObjectMetadata, or a list of them.
    PartialObjectMetadata,
}

impl Wanted {
    /// The form that `Accept` prefers among those that are served; the first of those that it likes equally. Without the
    /// header: JSON. When nothing that it accepts is served: 406.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, ApiError> {
        let ranges = accept::ranges(headers);
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        ranges.iter().find_map(Self::from_range).ok_or_else(|| {
            ApiError::not_acceptable(
                "only the following media types will be returned: application/json; of objects and lists also \
                 application/json;as=Table;v=v1;g=meta.k8s.io and application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            )
        })
    }

    fn from_range(range: &accept::Range) -> Option<Self> {
        if !range.is("application", "json") {
            return None;
        }
        let Some(kind) = range.parameter("as") else { return Some(Self::Json) };
        if (range.parameter("v"), range.parameter("g")) != (Some("v1"), Some("meta.k8s.io")) {
            return None;
        }
        match kind {
            "Table" => Some(Self::Table),
            // Which of the two it is follows from what is asked for: a list has items, an object has none.
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Self::PartialObjectMetadata),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, StatusCode, header};

    fn wanted(accept: &[&'static str]) -> Result<Wanted, StatusCode> {
        let headers = accept.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value))).collect();
        Wanted::from_headers(&headers).map_err(|error| error.code())
    }

    #[test]
    fn the_first_form_that_is_served_is_given() {
        let kubectl =
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for (accept, form) in [
            (&[][..], Wanted::Json),
            (&[""], Wanted::Json),
            (&["application/json"], Wanted::Json),
            (&["*/*"], Wanted::Json),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], Wanted::Json),
            (&[kubectl], Wanted::Table),
            (&[metadata], Wanted::PartialObjectMetadata),
            (&["application/json;as=Table;v=v1beta1;g=meta.k8s.io", "application/json"], Wanted::Json),
            (&["application/json;q=0.5, application/json; as=Table; v=v1; g=meta.k8s.io;q=0.9"], Wanted::Table),
            (&["application/json;as=Table;v=v1;g=meta.k8s.io;q=0, application/json;q=0.1"], Wanted::Json),
            (&["application/json;as=Sculpture;v=v1;g=meta.k8s.io,application/json"], Wanted::Json),
        ] {
            assert_eq!(wanted(accept), Ok(form), "{accept:?}");
        }
    }

    #[test]
    fn when_nothing_that_is_accepted_is_served_the_answer_is_406() {
        for accept in [
            "application/vnd.kubernetes.protobuf",
            "application/yaml",
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            "application/json;as=Table",
            "application/json;q=0",
        ] {
            assert_eq!(wanted(&[accept]), Err(StatusCode::NOT_ACCEPTABLE), "{accept}");
        }
    }
}
