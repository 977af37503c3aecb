//! Field validation: what becomes of fields that a type does not know, or that stand twice.

use super::{
    super::status::ApiError,
    json::{Json, NOTES_MAX, cut},
};
use axum::http::{HeaderName, HeaderValue, header};
use serde::de::DeserializeOwned;

/// Most `Warning` headers of an answer.
const WARNINGS_MAX: usize = 32;
/// Most characters of one warning.
const WARNING_MAX: usize = 256;
/// Most bytes of all warnings of an answer together: proxies give all headers of an answer as little as 8 KiB.
const WARNINGS_BYTES_MAX: usize = 4096;

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
    /// As headers (RFC 7234 §5.5, code 299), as many as an answer has room for; the last one says how many others there are.
    pub fn into_headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let (mut values, mut bytes, all) = (Vec::new(), 0, self.0.len());
        for warning in &self.0 {
            let Some(value) = header_value(warning) else { continue };
            if values.len() == WARNINGS_MAX - 1 || bytes + value.len() > WARNINGS_BYTES_MAX {
                values.extend(header_value(&format!("and {} more", all - values.len())));
                break;
            }
            bytes += value.len();
            values.push(value);
        }
        values.into_iter().map(|value| (header::WARNING, value))
    }
}

/// One warning, shortened: whoever sends a long field name must not make us answer with a header as long.
fn header_value(warning: &str) -> Option<HeaderValue> {
    let mut short: String = warning.chars().take(WARNING_MAX).collect();
    if short.len() < warning.len() {
        short.push_str("...");
    }
    let quoted = short.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

impl Json {
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
            let (field, message) = (cut(dotted(&error.path().to_string())), cut(error.inner().to_string()));
            ApiError::bad_request(format!("{field}: {message}")).with_cause("FieldValueInvalid", &field, message)
        })?;
        notes.extend(self.duplicates().iter().map(|path| format!("duplicate field {path:?}")));
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

#[cfg(test)]
mod tests {
    use super::{super::json::NulAllowed, *};
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

    fn parse(text: &str) -> Json {
        Json::parse(text.as_bytes(), NulAllowed::Nowhere).expect("JSON")
    }

    fn warned(body: &str) -> Vec<String> {
        let (_, warnings) = parse(body).into_type::<Outer>(FieldValidation::Warn).expect("warned");
        warnings.into_headers().map(|(_, value)| String::from_utf8(value.as_bytes().to_vec()).expect("text")).collect()
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
    fn warnings_are_shortened_and_few_however_long_the_names_and_many_the_fields() {
        let long = "\u{e000}".repeat(10_000);
        let [only] = warned(&format!("{{\"{long}\": 1}}")).try_into().expect("one warning");
        assert!(only.len() < 512 && only.ends_with("...\""), "{only}");

        let fields: Vec<String> = (0..90).map(|n| format!("\"{n}{}\": 1", "x".repeat(300))).collect();
        let headers = warned(&format!("{{{}}}", fields.join(",")));
        assert!(headers.iter().map(String::len).sum::<usize>() < 5000, "{headers:?}");
        let told = headers.len() - 1;
        assert_eq!(headers.last(), Some(&format!("299 - \"and {} more\"", 90 - told)));

        let fields: Vec<String> = (0..90).map(|n| format!("\"x{n}\": 1")).collect();
        let headers = warned(&format!("{{{}}}", fields.join(",")));
        assert_eq!((headers.len(), headers.last()), (32, Some(&"299 - \"and 59 more\"".to_owned())));
    }
}
