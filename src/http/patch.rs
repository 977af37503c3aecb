//! Patches: a merge patch (RFC 7396) or a JSON patch (RFC 6902), applied to an object as it is shown.
//!
//! What it does: bounds what a JSON patch may cost, and refuses, with every fault, what would change a status that is not
//! written by patching the object. What it does not: decide what may change in `spec` (the write does), or lock (the write is
//! tied to the version that the patch was applied to).

use super::{
    negotiate::{self, FieldValidation, Json, NulAllowed, PatchForm},
    objects,
    status::{ApiError, Resource},
    typed::{self, Typed},
};
use crate::model::fault::{Fault, FaultKind};
use axum::{body::Body, http::HeaderMap};
use json_patch::PatchOperation;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Operations of one JSON patch, as a kube-apiserver's limit.
pub const OPERATIONS_MAX: usize = 10_000;
/// How deep a path of a JSON patch may point. No field of ours is half as deep.
const PATH_DEPTH_MAX: usize = 32;
/// How deep a value that is copied or moved may be.
const VALUE_DEPTH_MAX: usize = 128;
/// How many values one JSON patch may copy and move in all: copying what was just copied doubles it each time.
const COPIED_MAX: usize = 100_000;
/// How many bytes of text they may hold in all.
const COPIED_BYTES_MAX: usize = 3 << 20;

/// A patch, read.
#[derive(Debug)]
pub struct Patch {
    json: Json,
    operations: Option<Vec<PatchOperation>>,
    /// Whether it says which version it is for: then it is not tried again.
    pub versioned: bool,
}

impl Patch {
    /// Reads one.
    pub async fn read(headers: &HeaderMap, body: Body) -> Result<Self, ApiError> {
        let form = negotiate::patch_form(headers)?;
        let bytes = negotiate::read_body(headers, body, negotiate::BODY_MAX).await?;
        let json = Json::parse(&bytes, NulAllowed::Nowhere)?;
        match form {
            PatchForm::Merge => {
                if !json.value.is_object() {
                    return Err(ApiError::bad_request("a merge patch of an object must be a JSON object"));
                }
                let versioned = json.value.pointer("/metadata/resourceVersion").is_some_and(|version| !version.is_null());
                Ok(Self { json, operations: None, versioned })
            }
            PatchForm::Operations => {
                let operations = read_operations(&json.value)?;
                let names_version = |operation: &PatchOperation| {
                    !matches!(operation, PatchOperation::Test(_))
                        && matches!(operation.path().as_str(), "" | "/metadata" | "/metadata/resourceVersion")
                };
                let versioned = operations.iter().any(names_version);
                Ok(Self { json, operations: Some(operations), versioned })
            }
        }
    }

    /// Whether it is a list of operations: these were tested against the object as it was shown, and hold for no other.
    pub fn is_conditional(&self) -> bool {
        self.operations.is_some()
    }

    /// The object as it would be, with what is wrong with it. Its status must be as it was.
    pub fn apply<T: Serialize + DeserializeOwned>(
        &self,
        resource: Resource,
        name: &str,
        object: &T,
        validation: FieldValidation,
    ) -> Result<Typed<T>, ApiError> {
        let old = serde_json::to_value(object).map_err(|_| ApiError::internal())?;
        let mut new = self.applied(resource, name, &old)?;
        let Some(fields) = new.as_object_mut() else { return Err(no_object()) };
        let status = fields.remove("status").unwrap_or(Value::Null);
        let faults = status_faults(resource, old.get("status").unwrap_or(&Value::Null), &status);
        if !faults.is_empty() {
            return Err(ApiError::invalid(resource.kind(), name, &faults));
        }
        objects::take_type(resource, &mut new)?;
        typed::read(resource, self.json.with_value(new), validation)
    }

    /// What it says, as a merge patch: of operations, what they change in the object as it is shown.
    pub fn says<T: Serialize>(&self, resource: Resource, name: &str, object: &T) -> Result<Value, ApiError> {
        if self.operations.is_none() {
            return Ok(self.json.value.clone());
        }
        let old = serde_json::to_value(object).map_err(|_| ApiError::internal())?;
        let new = self.applied(resource, name, &old)?;
        let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else {
            return Err(no_object());
        };
        let mut said = difference(before, after);
        for part in ["metadata", "status"] {
            if let (Some(Value::Object(before)), Some(Value::Object(after))) = (before.get(part), after.get(part))
                && said.contains_key(part)
            {
                said.insert(part.to_owned(), Value::Object(difference(before, after)));
            }
        }
        Ok(Value::Object(said))
    }

    fn applied(&self, resource: Resource, name: &str, old: &Value) -> Result<Value, ApiError> {
        let mut new = old.clone();
        match &self.operations {
            None => json_patch::merge(&mut new, &self.json.value),
            Some(operations) => {
                operate(&mut new, operations).map_err(|fault| ApiError::invalid(resource.kind(), name, &[fault]))?;
                objects::drop_nulls(&mut new);
            }
        }
        Ok(new)
    }
}

fn no_object() -> ApiError {
    ApiError::bad_request("what the patch makes of the object is no JSON object")
}

/// The fields that differ, with what they are afterwards; null when they are gone.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    changed.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect()
}

fn status_faults(resource: Resource, old: &Value, new: &Value) -> Vec<Fault> {
    let message = match resource {
        Resource::Chats => "is not written with the object: state and lastError through …/status, the rest by the loop",
        Resource::Agents => "is not written with the object: by runs, by pushes and by the loop",
        Resource::AgentSnapshots => "is read-only",
    };
    match (old, new) {
        _ if old == new => Vec::new(),
        (Value::Object(before), Value::Object(after)) => {
            let fields = difference(before, after).into_iter().map(|(field, _)| format!("status.{field}"));
            fields.map(|field| Fault::new(field, FaultKind::Forbidden, message)).collect()
        }
        _ => vec![Fault::new("status", FaultKind::Forbidden, message)],
    }
}

fn read_operations(value: &Value) -> Result<Vec<PatchOperation>, ApiError> {
    let Some(items) = value.as_array() else {
        return Err(ApiError::bad_request("a JSON patch must be a list of operations"));
    };
    if items.len() > OPERATIONS_MAX {
        return Err(ApiError::too_many_operations(OPERATIONS_MAX, items.len()));
    }
    let read = |(n, item): (usize, &Value)| {
        let operation: PatchOperation = serde_json::from_value(item.clone())
            .map_err(|error| ApiError::bad_request(format!("operation {n} of the JSON patch: {error}")))?;
        for path in [Some(operation.path().as_str()), from(&operation)].into_iter().flatten() {
            let depth = path.matches('/').count();
            if depth > PATH_DEPTH_MAX {
                let message =
                    format!("operation {n} of the JSON patch: a path must be at most {PATH_DEPTH_MAX} deep, got {depth}");
                return Err(ApiError::bad_request(message));
            }
        }
        Ok(operation)
    };
    items.iter().enumerate().map(read).collect()
}

fn from(operation: &PatchOperation) -> Option<&str> {
    match operation {
        PatchOperation::Copy(copy) => Some(copy.from.as_str()),
        PatchOperation::Move(moved) => Some(moved.from.as_str()),
        PatchOperation::Add(_) | PatchOperation::Remove(_) | PatchOperation::Replace(_) | PatchOperation::Test(_) => None,
    }
}

fn word(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

/// Does the operations in their order. The fault of the first that cannot be done names it.
fn operate(value: &mut Value, operations: &[PatchOperation]) -> Result<(), Fault> {
    let (mut copied, mut bytes) = (0, 0);
    for (n, operation) in operations.iter().enumerate() {
        let path = operation.path().as_str();
        let fault = |why: String| {
            let message = format!("operation {n} of the JSON patch, {} {path:?}, cannot be done: {why}", word(operation));
            Fault::new(dotted(path), FaultKind::Invalid, message)
        };
        if let Some(source) = from(operation).and_then(|from| value.pointer(from)) {
            let extent = Extent::of(source);
            copied += extent.values;
            bytes += extent.bytes;
            if extent.depth > VALUE_DEPTH_MAX {
                return Err(fault(format!("its value must be at most {VALUE_DEPTH_MAX} deep, got {}", extent.depth)));
            }
            if copied > COPIED_MAX || bytes > COPIED_BYTES_MAX {
                let got = format!("got {copied} values and {bytes} bytes");
                return Err(fault(format!(
                    "all that is copied or moved must be at most {COPIED_MAX} values and {COPIED_BYTES_MAX} bytes, {got}"
                )));
            }
        }
        json_patch::patch_unsafe(value, std::slice::from_ref(operation)).map_err(|error| match (operation, error.kind) {
            (PatchOperation::Test(test), json_patch::PatchErrorKind::TestFailed) => {
                fault(format!("it expects {}, and that is not what is there", short(&test.value)))
            }
            (_, kind) => fault(kind.to_string()),
        })?;
    }
    Ok(())
}

/// A value as it is told: not longer than somebody reads.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().nth(200).is_some() { text.chars().take(200).chain("…".chars()).collect() } else { text }
}

/// A JSON pointer in the form of other faults' fields.
fn dotted(pointer: &str) -> String {
    let parts = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    let path = parts.collect::<Vec<_>>().join(".");
    if path.is_empty() { "object".to_owned() } else { path.chars().take(256).collect() }
}

/// How large a value is. Walked without recursion: how deep it is is what is asked.
struct Extent {
    values: usize,
    bytes: usize,
    depth: usize,
}

impl Extent {
    fn of(value: &Value) -> Self {
        let mut extent = Self { values: 0, bytes: 0, depth: 0 };
        let mut rest = vec![(value, 1)];
        while let Some((value, depth)) = rest.pop() {
            extent.values += 1;
            extent.depth = extent.depth.max(depth);
            match value {
                Value::String(text) => extent.bytes += text.len(),
                Value::Array(items) => rest.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(fields) => {
                    extent.bytes += fields.keys().map(String::len).sum::<usize>();
                    rest.extend(fields.values().map(|field| (field, depth + 1)));
                }
                Value::Null | Value::Bool(_) | Value::Number(_) => {}
            }
        }
        extent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operations(operations: &Value) -> Vec<PatchOperation> {
        read_operations(operations).expect("operations")
    }

    #[test]
    fn a_patch_that_doubles_what_it_copied_is_stopped_in_time() {
        let doubling: Vec<Value> = (0..60).map(|_| json!({"op": "copy", "from": "/a", "path": "/a/-"})).collect();
        let mut value = json!({"a": ["x"]});
        let fault = operate(&mut value, &operations(&json!(doubling))).expect_err("too much");
        assert!(fault.message.contains("at most 100000 values"), "{fault}");
        let text = json!({"a": "x".repeat(1 << 20)});
        let copies: Vec<Value> = (0..4).map(|n| json!({"op": "copy", "from": "/a", "path": format!("/b{n}")})).collect();
        let fault = operate(&mut text.clone(), &operations(&json!(copies))).expect_err("too much");
        assert!(fault.message.contains("operation 3"), "{fault}");
    }

    #[test]
    fn a_patch_that_nests_what_it_moves_is_stopped_before_it_is_too_deep_to_be_dropped() {
        let mut nest = vec![json!({"op": "add", "path": "/a", "value": {}})];
        for _ in 0..1_000 {
            nest.push(json!({"op": "add", "path": "/b", "value": {"c": {"c": {"c": {"c": {}}}}}}));
            nest.push(json!({"op": "move", "from": "/a", "path": "/b/c/c/c/c/c"}));
            nest.push(json!({"op": "move", "from": "/b", "path": "/a"}));
        }
        let fault = operate(&mut json!({}), &operations(&json!(nest))).expect_err("too deep");
        assert!(fault.message.contains("at most 128 deep, got 1"), "{fault}");
        let deep = json!([{"op": "remove", "path": "/x".repeat(33)}]);
        assert!(read_operations(&deep).expect_err("too deep").message().contains("at most 32 deep, got 33"));
    }

    #[test]
    fn a_failed_operation_is_named_with_its_path() {
        let test = operations(
            &json!([{"op": "add", "path": "/spec/a~1b", "value": 1}, {"op": "test", "path": "/spec/a~1b", "value": 2}]),
        );
        let fault = operate(&mut json!({"spec": {}}), &test).expect_err("fails");
        assert_eq!(fault.field, "spec.a/b");
        assert!(fault.message.contains("operation 1") && fault.message.contains("it expects 2"), "{fault}");
        for bad in [
            json!({}),
            json!([{"op": "swap", "path": "/a"}]),
            json!([{"op": "add", "path": "/a"}]),
            json!([{"op": "remove", "path": "a"}]),
        ] {
            assert_eq!(read_operations(&bad).expect_err("no patch").code().as_u16(), 400, "{bad}");
        }
        let many = json!(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS_MAX + 1]);
        let error = read_operations(&many).expect_err("too many");
        assert_eq!(error.code().as_u16(), 413);
        assert!(error.message().contains("10000, got 10001"), "{}", error.message());
    }
}
