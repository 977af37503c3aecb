//! The custom resource definitions: what kube's derive makes of the types, and what it cannot know of them.
//!
//! The rules that a schema cannot say are here, in CEL, each naming the field that the HTTP API names too; a table of objects
//! sent to both (`tests/rules.rs`) holds the two together. What this does not: validate anything here. `Chat::desired` and
//! its like do, for the HTTP API and for manifests alike.

use super::{Agent, AgentSnapshot, Chat};
use crate::model::name;
use kube::{
    CustomResourceExt as _,
    core::{Reason, Rule},
};
use serde_json::{Map, Value, json};

/// Most resources that an `AgentSnapshot` in a cluster lists: etcd takes objects of 1.5 MiB.
pub const RESOURCES_MAX: usize = 500;
/// Longest `source` of one of them.
pub const SOURCE_MAX: usize = 512;
/// Longest `error` of one of them.
pub const ERROR_MAX: usize = 256;

/// At most one of `agentRef` and `workspaceRef`.
pub(super) fn at_most_one() -> Rule {
    Rule::new("!(has(self.agentRef) && has(self.workspaceRef))")
        .message("at most one of agentRef and workspaceRef may be given, got both")
        .reason(Reason::FieldValueForbidden)
        .field_path(".workspaceRef")
}

/// A field of `spec` that is what it was, or is not there as it was not.
pub(super) fn immutable(field: &str) -> Rule {
    let rule = format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})");
    Rule::new(rule).message("is immutable").reason(Reason::FieldValueForbidden).field_path(format!(".{field}"))
}

/// A `spec` that never changes.
pub(super) fn immutable_object() -> Rule {
    Rule::new("self == oldSelf").message("is immutable").reason(Reason::FieldValueForbidden)
}

/// Each definition, as JSON, with the plural of its kind.
pub fn all() -> Vec<(&'static str, Value)> {
    let json = |definition| serde_json::to_value(definition).expect("a definition has string keys");
    let mut all =
        vec![("agents", json(Agent::crd())), ("agentsnapshots", json(AgentSnapshot::crd())), ("chats", json(Chat::crd()))];
    for (plural, definition) in &mut all {
        let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        each(schema, &null_is_absence);
        if let Some(conditions) = schema.pointer_mut("/properties/status/properties/conditions/items/properties") {
            bound_condition(conditions);
        }
        match *plural {
            "agents" => {
                spec_may_be_absent(schema);
                name_is_label(schema);
            }
            "chats" => {
                spec_may_be_absent(schema);
                no_own_parent(schema);
            }
            _ => bound_resources(&mut schema["properties"]["spec"]["properties"]["resources"]),
        }
    }
    all
}

/// Null counts as absence, as it does in the HTTP API: a kube-apiserver drops the nulls of fields that are not nullable.
fn null_is_absence(schema: &mut Map<String, Value>) {
    schema.remove("nullable");
}

/// All of a spec has defaults, so an object without one is an object.
fn spec_may_be_absent(schema: &mut Value) {
    schema["properties"]["spec"]["default"] = json!({});
    if let Some(root) = schema.as_object_mut() {
        root.remove("required");
    }
}

/// A chat is not its own parent. It needs the name, so it is a rule of the whole object.
fn no_own_parent(schema: &mut Value) {
    let rule = Rule::new("!has(self.spec.parentRef) || self.spec.parentRef.name != self.metadata.name")
        .message("a chat cannot be its own parent")
        .field_path(".spec.parentRef.name");
    schema["x-kubernetes-validations"] = json!([rule]);
}

/// An object whose name is the value of a label elsewhere. Of metadata a definition may restrict the names and nothing else.
fn name_is_label(schema: &mut Value) {
    let name = json!({"type": "string", "maxLength": name::LABEL_MAX, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"});
    schema["properties"]["metadata"] = json!({"type": "object", "properties": {"name": name}});
}

/// The limits of `metav1.Condition` (k8s.io/apimachinery), which the Rust type does not have.
fn bound_condition(condition: &mut Value) {
    let limits = [
        (
            "type",
            json!({"maxLength": 316, "pattern":
                r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$"}),
        ),
        ("status", json!({"enum": ["True", "False", "Unknown"]})),
        ("reason", json!({"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"})),
        ("message", json!({"maxLength": 32768})),
        ("observedGeneration", json!({"minimum": 0})),
    ];
    for (field, limits) in limits {
        if let (Value::Object(limits), Some(field)) = (limits, condition[field].as_object_mut()) {
            field.extend(limits);
        }
    }
}

/// The HTTP API lists every resource whole; an object in a cluster is cut, and says so.
fn bound_resources(resources: &mut Value) {
    resources["maxItems"] = json!(RESOURCES_MAX);
    let fields = &mut resources["items"]["properties"];
    fields["source"]["maxLength"] = json!(SOURCE_MAX);
    fields["error"]["maxLength"] = json!(ERROR_MAX);
}

/// Does something to a schema and to all within it.
fn each(schema: &mut Value, change: &impl Fn(&mut Map<String, Value>)) {
    let Value::Object(fields) = schema else { return };
    change(fields);
    for (keyword, value) in fields.iter_mut() {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(|inner| each(inner, change)),
            ("items" | "additionalProperties", inner) => each(inner, change),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unbounded(path: &str, schema: &Value, found: &mut Vec<String>) {
        let has = |keyword: &str| schema.get(keyword).is_some();
        let bounded = match schema["type"].as_str() {
            Some("string") => has("maxLength") || has("enum") || schema["format"] == "date-time",
            Some("array") => has("maxItems"),
            Some("object") => !has("additionalProperties") || has("maxProperties"),
            Some("boolean" | "integer") => true,
            other => panic!("{path} is {other:?}"),
        };
        if !bounded {
            found.push(path.to_owned());
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            unbounded(&format!("{path}.{name}"), inner, found);
        }
        if has("items") {
            unbounded(&format!("{path}[]"), &schema["items"], found);
        }
    }

    #[test]
    fn everything_in_a_definition_has_a_limit_nothing_is_nullable_and_it_is_small_enough_to_apply() {
        for (plural, definition) in all() {
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            let mut found = Vec::new();
            unbounded(plural, schema, &mut found);
            assert_eq!(found, Vec::<String>::new());
            let text = definition.to_string();
            assert!(!text.contains("nullable"), "{plural}");
            // Applied from the client it stands in an annotation too, and all annotations have 256 KiB.
            assert!(text.len() < 200_000, "{plural}: {} bytes", text.len());
        }
    }
}
