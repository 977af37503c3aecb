//! Objects held against the schema of their kind before they become that kind: what has a wrong type, is no word that a field
//! knows, or is missing, is a fault of its field, told with all else that is wrong with the object (422, as from a
//! kube-apiserver), where serde would stop at the first.
//!
//! What is at fault is left out, or something that fits stands in for it, so that the rest can be read and its faults be told
//! too. An object with faults must not be written.
//!
//! What this does not: look at `metadata` or `status` (what cannot be read there is a bad request), at lengths and ranges
//! (`v1alpha1` does), or at fields that the kind does not know (`fieldValidation`). No spec that is written has a list.

use super::{
    negotiate::{FieldValidation, Json, Warnings},
    patch::short,
    status::{ApiError, Resource},
};
use crate::{
    model::fault::{Fault, FaultKind},
    v1alpha1::{Agent, AgentSnapshot, Chat},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::CustomResourceExt;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// An object as a client sent it.
#[derive(Clone, Debug)]
pub struct Typed<T> {
    /// It, without what is wrong with it.
    pub object: T,
    /// What the client should be told beside the answer.
    pub warnings: Warnings,
    /// What is wrong with its spec. While there is any of it, it must not be written.
    pub faults: Vec<Fault>,
}

/// Makes JSON an object of a kind.
pub fn read<T: DeserializeOwned>(resource: Resource, mut json: Json, validation: FieldValidation) -> Result<Typed<T>, ApiError> {
    let mut faults = Vec::new();
    if let Some(spec) = json.value.get_mut("spec")
        && !mend(schema(resource), "spec", spec, &mut faults)
    {
        *spec = stand_in(schema(resource));
    }
    let (object, warnings) = json.into_type(validation)?;
    Ok(Typed { object, warnings, faults })
}

/// The schema of a spec: the CRD's.
fn schema(resource: Resource) -> &'static JSONSchemaProps {
    static CHATS: LazyLock<JSONSchemaProps> = LazyLock::new(of_spec::<Chat>);
    static AGENTS: LazyLock<JSONSchemaProps> = LazyLock::new(of_spec::<Agent>);
    static SNAPSHOTS: LazyLock<JSONSchemaProps> = LazyLock::new(of_spec::<AgentSnapshot>);
    match resource {
        Resource::Chats => &CHATS,
        Resource::Agents => &AGENTS,
        Resource::AgentSnapshots => &SNAPSHOTS,
    }
}

fn of_spec<T: CustomResourceExt>() -> JSONSchemaProps {
    let served = T::crd().spec.versions.into_iter().find(|version| version.served);
    let whole = served.and_then(|version| version.schema).and_then(|schema| schema.open_api_v3_schema);
    let spec = whole.and_then(|whole| whole.properties).and_then(|mut fields| fields.remove("spec"));
    spec.expect("a published kind has a spec")
}

/// Notes what is wrong with a value. What can be left out of it is left out; false when it cannot stay itself.
fn mend(schema: &JSONSchemaProps, at: &str, value: &mut Value, faults: &mut Vec<Fault>) -> bool {
    let wanted = schema.type_.as_deref().unwrap_or_default();
    if let Some(whole) = whole(value).filter(|_| wanted == "integer") {
        *value = json!(whole);
    }
    if let Some((kind, message)) = fault(schema, wanted, at, value) {
        faults.push(Fault::new(at, kind, message));
        return false;
    }
    if let Value::Object(fields) = value {
        for (name, inner) in schema.properties.iter().flatten() {
            mend_field(schema, (name, inner), at, fields, faults);
        }
    }
    true
}

fn mend_field(
    of: &JSONSchemaProps,
    (name, schema): (&String, &JSONSchemaProps),
    at: &str,
    fields: &mut Map<String, Value>,
    faults: &mut Vec<Fault>,
) {
    let at = format!("{at}.{name}");
    let required = of.required.iter().flatten().any(|required| required == name);
    let stays = match fields.get_mut(name) {
        Some(value) => mend(schema, &at, value, faults),
        None if required => {
            faults.push(Fault::new(at, FaultKind::Required, "must be given"));
            false
        }
        None => true,
    };
    if !stays && required {
        fields.insert(name.clone(), stand_in(schema));
    } else if !stays {
        fields.remove(name);
    }
}

/// What is wrong with a value itself, in a kube-apiserver's words where it has some.
fn fault(schema: &JSONSchemaProps, wanted: &str, at: &str, value: &Value) -> Option<(FaultKind, String)> {
    let got = type_of(value);
    if got != wanted && !(wanted == "number" && got == "integer") {
        return Some((FaultKind::TypeInvalid, format!("{got:?}: {at} in body must be of type {wanted}: {got:?}")));
    }
    if let Some(words) = schema.enum_.as_ref().filter(|words| words.iter().all(|word| word.0 != *value)) {
        let words: Vec<&Value> = words.iter().map(|word| &word.0).collect();
        return Some((FaultKind::NotSupported, not_supported(value, &words)));
    }
    if wanted == "integer" && !fits(schema, value) {
        // It has no form in which its range could be looked at later.
        let bound = |bound: Option<f64>, without: i32| bound.unwrap_or_else(|| f64::from(without));
        let (low, high) = (bound(schema.minimum, i32::MIN), bound(schema.maximum, i32::MAX));
        return Some((FaultKind::Invalid, format!("must be from {low} to {high}, got {value}")));
    }
    None
}

/// A sentence about a value that is none of a field's words, as a kube-apiserver says it.
pub fn not_supported(value: &Value, words: &[&Value]) -> String {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    format!("{}: supported values: {}", short(value), words.join(", "))
}

/// The type of a value, as schemas name it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A whole number that is written with a point: it is one all the same.
#[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough for an f64 to hold it exactly")]
fn whole(value: &Value) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
    let number = value.as_f64().filter(|_| type_of(value) == "number")?;
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

/// Whether a whole number has room in its format.
fn fits(schema: &JSONSchemaProps, value: &Value) -> bool {
    let narrow = schema.format.as_deref() == Some("int32");
    value.as_i64().is_some_and(|number| !narrow || i32::try_from(number).is_ok())
}

/// The least that fits a schema, in place of what does not.
fn stand_in(schema: &JSONSchemaProps) -> Value {
    if let Some(word) = schema.enum_.iter().flatten().next() {
        return word.0.clone();
    }
    match schema.type_.as_deref() {
        Some("boolean") => json!(false),
        Some("integer" | "number") => json!(1),
        Some("array") => json!([]),
        Some("object") => {
            let required = |(name, _): &(&String, &JSONSchemaProps)| schema.required.iter().flatten().any(|one| one == *name);
            let fields = schema.properties.iter().flatten().filter(required);
            fields.map(|(name, inner)| (name.clone(), stand_in(inner))).collect()
        }
        Some(_) | None => json!("x"),
    }
}
