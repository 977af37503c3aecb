//! Bodies as JSON: any value, with the paths of the fields that stand twice; U+0000 only where bytes are meant.

use super::super::status::ApiError;
use crate::model::fault::{Fault, FaultKind};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::RefCell, fmt};

/// Most unknown or duplicate fields, or texts with U+0000, that an answer lists, as in a kube-apiserver.
pub(super) const NOTES_MAX: usize = 100;
/// Most characters of a path that are shown.
const PATH_MAX: usize = 256;
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

    /// The paths of the fields that stand twice.
    pub(super) fn duplicates(&self) -> &[String] {
        &self.duplicates
    }
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
pub(super) fn cut(path: String) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
