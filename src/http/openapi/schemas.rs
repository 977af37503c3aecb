//! The schemas of the components: made by schemars from the published types, the derive that the CRDs come from too, and
//! brought into the form that OpenAPI 3.0 and Kubernetes' own documents have.

use super::{super::context::RefreshRequest, plain};
use crate::v1alpha1::{
    API_VERSION, Agent, AgentSnapshot, Chat,
    chat::{DriftSummary, Latest},
    context::ChatContext,
    diff::ChatDiff,
    event::ContextEvent,
    push::{PushRequest, PushResponse, RunResponse},
    why::ChatWhy,
};
use k8s_openapi::{
    api::core::v1::Namespace,
    apimachinery::pkg::apis::meta::v1::{
        APIGroup, APIGroupList, APIResourceList, APIVersions, DeleteOptions, ListMeta, ObjectMeta, Status,
    },
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings, transform::AddNullable};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What the names of our own schemas begin with: the group, backwards.
const PREFIX: &str = "dev.moorline.v1alpha1.";
/// What the names of Kubernetes' schemas begin with.
const KUBERNETES: &str = "io.k8s.";
/// The kinds that have another name in Rust than on the wire.
const NAMES: &[(&str, &str)] =
    &[("PushRequest", "AgentSnapshotPush"), ("PushResponse", "AgentSnapshotPushAnswer"), ("RunResponse", "AgentRun")];

/// A reference to the schema of one of our kinds.
pub fn reference(kind: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{PREFIX}{kind}")})
}

/// A reference to a schema of Kubernetes' apimachinery.
pub fn meta_reference(kind: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{KUBERNETES}apimachinery.pkg.apis.meta.v1.{kind}")})
}

/// A kind, as Kubernetes marks it on operations and schemas.
pub fn group_version_kind(kind: &str) -> Value {
    json!({"group": crate::v1alpha1::GROUP, "version": crate::v1alpha1::VERSION, "kind": kind})
}

/// All of them, by name. `listed`: the kinds that are served as lists.
pub fn components(listed: &[&str]) -> Map<String, Value> {
    let mut generator = generator();
    register(&mut generator);
    let mut schemas = plain::components(generator.take_definitions(true), published);
    for kind in ["Chat", "Agent", "AgentSnapshot"] {
        add_object_fields(&mut schemas, kind);
    }
    for kind in ["ChatContext", "ChatDiff", "ChatWhy", "ContextEvent", "AgentRun", "AgentSnapshotPush"] {
        mark(&mut schemas, &format!("{PREFIX}{kind}"), json!([group_version_kind(kind)]));
    }
    for (field, kind, about) in READ_ALONE {
        let field_schema = json!({"description": about, "allOf": [reference(kind)]});
        schemas[&format!("{PREFIX}ChatStatus")]["properties"][*field] = field_schema;
    }
    for kind in listed {
        schemas.insert(format!("{PREFIX}{kind}List"), list(kind));
    }
    let core = |kind: &str| json!({"group": "", "version": "v1", "kind": kind});
    mark(&mut schemas, &meta_name("Status"), json!([core("Status")]));
    mark(&mut schemas, &meta_name("DeleteOptions"), json!([core("DeleteOptions"), group_version_kind("DeleteOptions")]));
    schemas.insert(meta_name("WatchEvent"), watch_event());
    schemas.insert(
        meta_name("Patch"),
        json!({"type": "object", "description": "What is to change, in the form of the object (RFC 7396); null takes a field away."}),
    );
    schemas
}

/// Those that discovery's documents use.
pub fn of_discovery() -> Map<String, Value> {
    let mut generator = generator();
    generator.subschema_for::<Status>();
    generator.subschema_for::<APIVersions>();
    generator.subschema_for::<APIGroup>();
    generator.subschema_for::<APIGroupList>();
    generator.subschema_for::<APIResourceList>();
    plain::components(generator.take_definitions(true), published)
}

fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.meta_schema = None;
        settings.transforms.retain(|transform| !transform.is::<AddNullable>());
    });
    SchemaGenerator::new(settings)
}

/// What a read of one chat shows beside the status that lists and the CRD have.
const READ_ALONE: &[(&str, &str, &str)] = &[
    (
        "latest",
        "Latest",
        "What its agent points at, as of the request. Only when one chat is read or written; not in lists, watches or the CRD.",
    ),
    (
        "drift",
        "DriftSummary",
        "How the latest differs from the pin, as of the request. Only when one chat is read or written; not in lists, watches or the CRD.",
    ),
];

/// Every type that travels.
fn register(generator: &mut SchemaGenerator) {
    define::<Chat>(generator);
    define::<Agent>(generator);
    define::<AgentSnapshot>(generator);
    generator.subschema_for::<ChatContext>();
    generator.subschema_for::<ChatDiff>();
    generator.subschema_for::<ChatWhy>();
    generator.subschema_for::<ContextEvent>();
    generator.subschema_for::<RefreshRequest>();
    generator.subschema_for::<RunResponse>();
    generator.subschema_for::<PushRequest>();
    generator.subschema_for::<PushResponse>();
    generator.subschema_for::<DriftSummary>();
    generator.subschema_for::<Latest>();
    generator.subschema_for::<ObjectMeta>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<Status>();
    generator.subschema_for::<DeleteOptions>();
    generator.subschema_for::<APIResourceList>();
}

/// A kind has a name also when its schema is given in its place, as that of one with rules for the whole object is.
fn define<T: JsonSchema>(generator: &mut SchemaGenerator) {
    let schema = generator.subschema_for::<T>();
    if !generator.definitions().contains_key(T::schema_name().as_ref()) {
        generator.definitions_mut().insert(T::schema_name().into_owned(), schema.to_value());
    }
}

/// The published name of a type.
fn published(name: &str) -> String {
    if name.starts_with(KUBERNETES) {
        return name.to_owned();
    }
    let other = NAMES.iter().find(|(rust, _)| *rust == name).map(|(_, wire)| *wire);
    format!("{PREFIX}{}", other.unwrap_or(name))
}

fn meta_name(kind: &str) -> String {
    format!("{KUBERNETES}apimachinery.pkg.apis.meta.v1.{kind}")
}

fn mark(schemas: &mut Map<String, Value>, name: &str, kinds: Value) {
    schemas[name]["x-kubernetes-group-version-kind"] = kinds;
}

/// What every object has and `kube` leaves to the API server, in the words that Kubernetes has for its own kinds.
fn add_object_fields(schemas: &mut Map<String, Value>, kind: &str) {
    let like = Namespace::json_schema(&mut generator());
    let about = |field: &str| like.get("properties").and_then(|fields| fields[field].get("description")).cloned();
    let name = format!("{PREFIX}{kind}");
    let properties = &mut schemas[&name]["properties"];
    for (field, word) in [("apiVersion", API_VERSION), ("kind", kind)] {
        properties[field] = json!({"type": "string", "enum": [word], "description": about(field)});
    }
    properties["metadata"] = json!({"description": about("metadata"), "allOf": [meta_reference("ObjectMeta")]});
    if kind != "AgentSnapshot"
        && let Some(fields) = schemas[&name].as_object_mut()
    {
        fields.remove("required"); // a spec that is left out has all its defaults
    }
    mark(schemas, &name, json!([group_version_kind(kind)]));
}

fn list(kind: &str) -> Value {
    json!({
        "description": format!("A page of {kind}s."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": "moorline.dev/v1alpha1."},
            "kind": {"type": "string", "description": format!("{kind}List.")},
            "metadata": {
                "description": "The list's version, the same on every page, and `continue` when there are more.",
                "allOf": [meta_reference("ListMeta")],
            },
            "items": {"type": "array", "items": reference(kind), "description": "In the order that was asked for."},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(&format!("{kind}List"))],
    })
}

fn watch_event() -> Value {
    json!({
        "description": "One line of a watch.",
        "type": "object",
        "required": ["type", "object"],
        "properties": {
            "type": {"type": "string", "enum": ["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"], "description": "What happened."},
            "object": {"type": "object", "description": "The object as it is, or was last when it is deleted; a Status for ERROR."},
        },
        "x-kubernetes-group-version-kind": [
            {"group": "", "version": "v1", "kind": "WatchEvent"}, group_version_kind("WatchEvent"),
        ],
    })
}

/// Takes away what no path leads to.
pub fn keep_used(paths: &Map<String, Value>, schemas: &mut Map<String, Value>) {
    let mut used = BTreeSet::new();
    let mut next: Vec<String> = Vec::new();
    paths.values().for_each(|item| references(item, &mut next));
    while let Some(name) = next.pop() {
        if used.insert(name.clone())
            && let Some(schema) = schemas.get(&name)
        {
            references(schema, &mut next);
        }
    }
    schemas.retain(|name, _| used.contains(name));
}

/// The names of the schemas that a value refers to.
pub fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(plain::REFERENCES));
            found.extend(name.map(str::to_owned));
            fields.values().for_each(|inner| references(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
