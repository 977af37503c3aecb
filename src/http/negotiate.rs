//! Requests before anybody looks at what they mean: bodies within limits, media types, JSON, unknown and duplicate fields,
//! preferences.

pub mod accept;

use super::status::ApiError;
use crate::model::fault::{Fault, FaultKind};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, header},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::RefCell, fmt, time::Duration};

/// Most bytes of a push's HTTP body: 8 MiB. (What its decoded bodies may hold together is less.)
pub const PUSH_BODY_MAX: usize = 8 << 20;
/// Most bytes of any other body: 1 MiB.
pub const BODY_MAX: usize = 1 << 20;
/// Most unknown or duplicate fields, or texts with U+0000, that an answer lists, as in a kube-apiserver.
const NOTES_MAX: usize = 100;
/// Most characters of a path that are shown.
const PATH_MAX: usize = 256;
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

/// What to do about fields that are not known, or that stand twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Refuse the request.
    Strict,
    /// Do it, and warn.
    #[default]
    Warn,
    /// Do it.
    Ignore,
}

impl FieldValidation {
    /// From the query parameter; absent means `Warn`, as in a kube-apiserver.
    pub fn from_query(value: Option<&str>) -> Result<Self, ApiError> {
        match value {
            None | Some("") => Ok(Self::default()),
            Some("Strict") => Ok(Self::Strict),
            Some("Warn") => Ok(Self::Warn),
            Some("Ignore") => Ok(Self::Ignore),
            Some(other) => Err(ApiError::bad_request(format!("fieldValidation: must be Strict, Warn or Ignore, got {other:?}"))),
        }
    }
}

/// What a client should be told beside the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warnings(Vec<String>);

impl Warnings {
    /// As headers (RFC 7234 §5.5, code 299), at most 32 of them.
    pub fn into_headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.into_iter().take(32).filter_map(|warning| {
            let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
            HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok().map(|value| (header::WARNING, value))
        })
    }
}

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

/// Where U+0000 may stand: the bodies of a push's resources are bytes, everything else becomes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NulAllowed {
    /// Nowhere.
    Nowhere,
    /// In `resources[…].body`.
    InResourceBodies,
}

/// A body as JSON, with the fields that stand twice.
#[derive(Debug)]
pub struct Json {
    /// The value; of a field that stands twice, the last one.
    pub value: Value,
    duplicates: Vec<String>,
}

impl Json {
    /// Parses a body. An empty one is an empty object.
    pub fn parse(bytes: &[u8], nul: NulAllowed) -> Result<Self, ApiError> {
        if bytes.is_empty() {
            return Ok(Self { value: Value::Object(Map::new()), duplicates: Vec::new() });
        }
        let duplicates = RefCell::new(Vec::new());
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let seed = Noting { at: At::Root, duplicates: &duplicates };
        let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        // serde_json's message ends with the line and the column.
        let value = parsed.map_err(|error| ApiError::bad_request(format!("the request's body is not valid JSON: {error}")))?;
        let mut faults = Vec::new();
        find_nul(&value, At::Root, nul, &mut faults);
        if !faults.is_empty() {
            return Err(ApiError::invalid("Status", "", &faults));
        }
        Ok(Self { value, duplicates: duplicates.into_inner() })
    }

    /// Another value with the same notes: a patch that was applied.
    #[must_use]
    pub fn with_value(&self, value: Value) -> Self {
        Self { value, duplicates: self.duplicates.clone() }
    }

    /// As a type; fields that the type does not know are handled as asked.
    pub fn into_type<T: DeserializeOwned>(self, validation: FieldValidation) -> Result<(T, Warnings), ApiError> {
        let mut notes: Vec<String> = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| {
            if notes.len() < NOTES_MAX {
                notes.push(format!("unknown field {:?}", cut(dotted(&path.to_string()))));
            }
        };
        let parsed = serde_path_to_error::deserialize(serde_ignored::Deserializer::new(&self.value, &mut note));
        let typed = parsed.map_err(|error| {
            let (field, message) = (dotted(&error.path().to_string()), error.inner().to_string());
            ApiError::bad_request(format!("{field}: {message}")).with_cause("FieldValueInvalid", &field, message)
        })?;
        notes.extend(self.duplicates.iter().map(|path| format!("duplicate field {path:?}")));
        match validation {
            FieldValidation::Strict if !notes.is_empty() => {
                Err(ApiError::bad_request(format!("strict decoding error: {}", notes.join(", "))))
            }
            FieldValidation::Strict | FieldValidation::Ignore => Ok((typed, Warnings::default())),
            FieldValidation::Warn => Ok((typed, Warnings(notes))),
        }
    }
}

/// serde_ignored writes `?` for the inside of an Option, and `.3.` for an index.
fn dotted(path: &str) -> String {
    let mut dotted = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) && !part.is_empty() {
            dotted.push('[');
            dotted.push_str(part);
            dotted.push(']');
        } else {
            if !dotted.is_empty() {
                dotted.push('.');
            }
            dotted.push_str(part);
        }
    }
    dotted
}

/// Where in a value; a path is written out only when there is something to say about it: whoever sends a long key with a long
/// list below it must not make us write that key once an item.
#[derive(Clone, Copy)]
enum At<'a> {
    Root,
    Field(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(Self::Root, key) => f.write_str(key),
            Self::Field(outer, key) => write!(f, "{outer}.{key}"),
            Self::Item(outer, n) => write!(f, "{outer}[{n}]"),
        }
    }
}

impl At<'_> {
    /// Whether this is `resources[…].body`.
    fn is_resource_body(&self) -> bool {
        matches!(self, Self::Field(Self::Item(Self::Field(Self::Root, "resources"), _), "body"))
    }
}

/// A path as it is shown: not longer than somebody reads.
fn cut(path: String) -> String {
    if path.chars().nth(PATH_MAX).is_some() { path.chars().take(PATH_MAX).chain("...".chars()).collect() } else { path }
}

fn find_nul(value: &Value, at: At<'_>, nul: NulAllowed, faults: &mut Vec<Fault>) {
    let fault = |at: At<'_>, faults: &mut Vec<Fault>| {
        if faults.len() < NOTES_MAX {
            let path = cut(at.to_string()).replace('\0', "\\u0000");
            faults.push(Fault::new(path, FaultKind::Invalid, "must not contain the character U+0000"));
        }
    };
    match value {
        Value::String(text) if text.contains('\0') => {
            if !(nul == NulAllowed::InResourceBodies && at.is_resource_body()) {
                fault(at, faults);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                find_nul(item, At::Item(&at, n), nul, faults);
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                let inner = At::Field(&at, key);
                if key.contains('\0') {
                    fault(inner, faults);
                }
                find_nul(item, inner, nul, faults);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Reads any JSON and notes the paths of keys that stand twice.
struct Noting<'a> {
    at: At<'a>,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) =
            seq.next_element_seed(Noting { at: At::Item(&self.at, items.len()), duplicates: self.duplicates })?
        {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = At::Field(&self.at, &key);
            if object.contains_key(&key) && self.duplicates.borrow().len() < NOTES_MAX {
                self.duplicates.borrow_mut().push(cut(at.to_string()));
            }
            let value = map.next_value_seed(Noting { at, duplicates: self.duplicates })?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

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
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code, reason = "read by serde alone")]
        spec: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "read by serde alone")]
        title: String,
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header"))])
    }

    fn parse(text: &str) -> Json {
        Json::parse(text.as_bytes(), NulAllowed::Nowhere).expect("JSON")
    }

    #[test]
    fn unknown_and_duplicate_fields_are_refused_warned_of_or_ignored_as_asked() {
        let body = r#"{"spec":{"title":"a","foo":1,"title":"b"},"bar":2}"#;
        let strict = parse(body).into_type::<Outer>(FieldValidation::Strict).expect_err("strict");
        let message = "strict decoding error: unknown field \"bar\", unknown field \"spec.foo\", duplicate field \"spec.title\"";
        let mut got: Vec<&str> = strict.message().trim_start_matches("strict decoding error: ").split(", ").collect();
        let mut wanted: Vec<&str> = message.trim_start_matches("strict decoding error: ").split(", ").collect();
        got.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(got, wanted);
        let (_, warnings) = parse(body).into_type::<Outer>(FieldValidation::Warn).expect("warned");
        let headers: Vec<_> = warnings.into_headers().map(|(_, value)| value.to_str().expect("text").to_owned()).collect();
        assert!(headers.contains(&r#"299 - "unknown field \"spec.foo\"""#.to_owned()), "{headers:?}");
        let (_, warnings) = parse(body).into_type::<Outer>(FieldValidation::Ignore).expect("ignored");
        assert_eq!(warnings, Warnings::default());
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_by_its_path() {
        let error = parse(r#"{"spec":{"title":7}}"#).into_type::<Outer>(FieldValidation::Warn).expect_err("a number");
        assert!(error.message().starts_with("spec.title: "), "{}", error.message());
    }

    #[test]
    fn malformed_json_says_where() {
        let error = Json::parse(b"{\n  \"a\": }", NulAllowed::Nowhere).expect_err("malformed");
        assert!(error.message().contains("line 2 column"), "{}", error.message());
    }

    #[test]
    fn a_nul_is_refused_by_path_except_in_the_body_of_a_resource() {
        let error = Json::parse(br#"{"spec":{"title":"a\u0000b"}}"#, NulAllowed::Nowhere).expect_err("a NUL");
        assert!(error.message().contains("spec.title"), "{}", error.message());
        let push = br#"{"resources":[{"body":"a\u0000b"}]}"#;
        assert!(Json::parse(push, NulAllowed::InResourceBodies).is_ok());
        assert!(Json::parse(push, NulAllowed::Nowhere).is_err());
        let source = br#"{"resources":[{"source":"a\u0000b"}]}"#;
        assert!(Json::parse(source, NulAllowed::InResourceBodies).is_err());
    }

    #[test]
    fn preferences_are_clamped_and_nonsense_is_none() {
        assert_eq!(prefer(&headers("prefer", "wait=5")), Prefer::Wait(Duration::from_secs(5)));
        assert_eq!(prefer(&headers("prefer", "wait=999")), Prefer::Wait(Duration::from_secs(30)));
        assert_eq!(prefer(&headers("prefer", "respond-async, wait=5")), Prefer::Async);
        assert_eq!(prefer(&headers("prefer", "wait=soon")), Prefer::Unsaid);
    }

    #[test]
    fn the_refusal_of_a_server_side_apply_says_what_to_do_instead() {
        let error = expect_merge_patch(&headers("content-type", "application/apply-patch+yaml")).expect_err("refused");
        assert!(error.message().contains("without --server-side"));
        assert!(expect_merge_patch(&headers("content-type", "application/merge-patch+json; charset=utf-8")).is_ok());
        assert!(expect_merge_patch(&headers("content-type", "application/json-patch+json")).is_err());
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_by_what_it_announces_and_by_what_arrives() {
        let announced = read_body(&headers("content-length", "11"), Body::from("x"), 10).await.expect_err("announced");
        assert!(announced.message().contains("at most 10 bytes, got 11"));
        let arrived = read_body(&HeaderMap::new(), Body::from("12345678901"), 10).await.expect_err("arrived");
        assert_eq!(arrived.code().as_u16(), 413);
    }
}
