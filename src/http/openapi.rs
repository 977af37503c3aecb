//! `/openapi/v3`: made from the published types (schemars, the derive that the CRDs come from too) and the table of what is
//! served, so that it cannot differ from either.
//!
//! kubectl needs of it: a `patch` operation that lists `fieldValidation`, and `x-kubernetes-group-version-kind` on operations
//! and on schemas.

use super::discovery::{Entry, TABLE};
use crate::v1alpha1::{
    Agent, AgentSnapshot, Chat,
    context::ChatContext,
    diff::ChatDiff,
    push::{PushRequest, PushResponse, RunResponse},
};
use axum::{Json, http::header, response::IntoResponse};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::sync::LazyLock;

const BASE: &str = "/apis/moorline.dev/v1alpha1";
const PATH: &str = "/openapi/v3/apis/moorline.dev/v1alpha1";
const PREFIX: &str = "dev.moorline.v1alpha1";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| build().to_string());
static HASH: LazyLock<String> = LazyLock::new(|| hex::encode(Sha256::digest(DOCUMENT.as_bytes())).to_uppercase());

/// Where the documents are.
pub async fn index() -> Json<Value> {
    Json(json!({"paths": {"apis/moorline.dev/v1alpha1": {"serverRelativeURL": format!("{PATH}?hash={}", *HASH)}}}))
}

/// The document of the group.
pub async fn document() -> impl IntoResponse {
    let etag = format!("\"{}\"", *HASH);
    ([(header::CONTENT_TYPE, "application/json".to_owned()), (header::ETAG, etag)], DOCUMENT.as_str())
}

fn gvk(kind: &str) -> Value {
    json!({"group": "moorline.dev", "version": "v1alpha1", "kind": kind})
}

fn reference(kind: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{PREFIX}.{kind}")})
}

/// The document: OpenAPI 3.0.
pub fn build() -> Value {
    let mut schemas = Map::new();
    add::<Chat>(&mut schemas, "Chat", true);
    add::<Agent>(&mut schemas, "Agent", true);
    add::<AgentSnapshot>(&mut schemas, "AgentSnapshot", true);
    add::<ChatContext>(&mut schemas, "ChatContext", true);
    add::<ChatDiff>(&mut schemas, "ChatDiff", true);
    add::<RunResponse>(&mut schemas, "AgentRun", false);
    add::<PushRequest>(&mut schemas, "AgentSnapshotPush", false);
    add::<PushResponse>(&mut schemas, "AgentSnapshotPushAnswer", false);
    for kind in ["Chat", "Agent", "AgentSnapshot"] {
        let list = json!({
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "metadata": {"type": "object", "properties": {
                    "resourceVersion": {"type": "string"}, "continue": {"type": "string"}, "remainingItemCount": {"type": "integer", "format": "int64"},
                }},
                "items": {"type": "array", "items": reference(kind)},
            },
            "x-kubernetes-group-version-kind": [gvk(&format!("{kind}List"))],
        });
        schemas.insert(format!("{PREFIX}.{kind}List"), list);
    }
    let mut paths = Map::new();
    for entry in TABLE {
        add_paths(&mut paths, entry);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Moorline", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// Adds the schema of a type, whole: nothing of it is a reference.
fn add<T: JsonSchema>(schemas: &mut Map<String, Value>, kind: &str, object: bool) {
    let settings = SchemaSettings::openapi3().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
        // The form that structural schemas have: enumerations as one list of words.
        settings.transforms.push(Box::new(kube::core::schema::StructuralSchemaRewriter));
    });
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    if let Some(fields) = schema.as_object_mut() {
        fields.remove("title");
        fields.insert("x-kubernetes-group-version-kind".into(), json!([gvk(kind)]));
        let properties = fields.entry("properties").or_insert_with(|| json!({}));
        if let (true, Some(properties)) = (object, properties.as_object_mut()) {
            properties.insert("apiVersion".into(), json!({"type": "string", "description": "moorline.dev/v1alpha1"}));
            properties.insert("kind".into(), json!({"type": "string", "description": kind}));
            properties.insert("metadata".into(), metadata());
        }
    }
    schemas.insert(format!("{PREFIX}.{kind}"), schema);
}

fn metadata() -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let map = |about: &str| json!({"type": "object", "additionalProperties": {"type": "string"}, "description": about});
    json!({
        "type": "object",
        "description": "Standard object metadata.",
        "properties": {
            "name": text("Chats: a DNS subdomain of at most 253 bytes. Agents: a DNS label of at most 63 bytes."),
            "generateName": text("A prefix for a name that the server makes, of at most 58 bytes."),
            "namespace": text("A DNS label of at most 63 bytes."),
            "labels": map("Labels."),
            "annotations": map("Annotations, of at most 256 KiB together."),
            "uid": text("Set by the server."),
            "resourceVersion": text("Set by the server. Given in an update, it must be the object's."),
            "generation": json!({"type": "integer", "format": "int64", "description": "Counts changes of spec."}),
            "creationTimestamp": json!({"type": "string", "format": "date-time", "description": "Set by the server."}),
            "deletionTimestamp": json!({"type": "string", "format": "date-time", "description": "Set when deletion was asked for."}),
            "managedFields": json!({"type": "array", "items": {"type": "object"}, "description": "Ignored."}),
            "ownerReferences": json!({"type": "array", "items": {"type": "object"}, "description": "Ignored."}),
            "finalizers": json!({"type": "array", "items": {"type": "string"}, "description": "Ignored."}),
        },
    })
}

fn parameter(name: &str, place: &str, about: &str) -> Value {
    json!({"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}, "description": about})
}

fn add_paths(paths: &mut Map<String, Value>, entry: &Entry) {
    let (resource, subresource) = entry.name.split_once('/').map_or((entry.name, None), |(name, sub)| (name, Some(sub)));
    let one = match subresource {
        None => format!("{BASE}/namespaces/{{namespace}}/{resource}/{{name}}"),
        Some(sub) => format!("{BASE}/namespaces/{{namespace}}/{resource}/{{name}}/{sub}"),
    };
    let collection = format!("{BASE}/namespaces/{{namespace}}/{resource}");
    for verb in entry.verbs {
        let (path, method) = match (*verb, subresource) {
            ("list", _) => (&collection, "get"),
            ("create", None) => (&collection, "post"),
            ("create", Some(_)) => (&one, "post"),
            ("update", _) => (&one, "put"),
            (other, _) => (&one, other),
        };
        insert(paths, path, method, operation(entry, verb, path));
        if *verb == "list" {
            let everywhere = format!("{BASE}/{resource}");
            insert(paths, &everywhere, "get", operation(entry, "list", &everywhere));
        }
    }
}

fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let parameters: Vec<Value> = [("namespace", "The namespace: a DNS label."), ("name", "The object's name.")]
        .into_iter()
        .filter(|(name, _)| path.contains(&format!("{{{name}}}")))
        .map(|(name, about)| parameter(name, "path", about))
        .collect();
    let item = paths.entry(path).or_insert_with(|| json!({"parameters": parameters}));
    item[method] = operation;
}

fn operation(entry: &Entry, verb: &str, path: &str) -> Value {
    let Entry { kind, name, .. } = entry;
    let (takes, gives) = match (*name, verb) {
        ("agents/snapshot", _) => (Some("AgentSnapshotPush".to_owned()), "AgentSnapshotPushAnswer".to_owned()),
        ("agents/runs", _) | ("chats/context", "get") => (None, (*kind).to_owned()),
        ("chats/context", _) => (None, "Chat".to_owned()),
        (_, "list") => (None, format!("{kind}List")),
        (_, "create" | "update" | "patch") => (Some((*kind).to_owned()), (*kind).to_owned()),
        _ => (None, (*kind).to_owned()),
    };
    let everywhere = if path.contains("{namespace}") || verb != "list" { "Namespaced" } else { "AllNamespaces" };
    let words: String = name.split('/').map(capital).collect();
    let mut parameters = Vec::new();
    if matches!(verb, "create" | "update" | "patch") {
        parameters.push(parameter(
            "fieldValidation",
            "query",
            "Unknown and duplicate fields: Strict refuses, Warn (default) warns, Ignore ignores.",
        ));
        parameters.push(parameter("dryRun", "query", "All: answer as if, and do nothing."));
        parameters.push(parameter("fieldManager", "query", "Ignored."));
    }
    if (*name, verb) == ("chats/context", "get") {
        parameters.push(parameter("bodies", "query", "false: leave the bodies out."));
        parameters.push(parameter("format", "query", "json (default), or prompt: one sanitised text/markdown."));
    }
    if verb == "list" {
        parameters.push(parameter("limit", "query", "At most so many objects; 0 or absent: all."));
        parameters.push(parameter("continue", "query", "From the list before: what comes after it."));
        parameters.push(parameter("fieldSelector", "query", "metadata.name=… and metadata.namespace=…"));
    }
    if verb == "delete" {
        parameters.push(parameter(
            "propagationPolicy",
            "query",
            "Of a chat: Background (default) deletes what is below it, Orphan keeps that.",
        ));
        parameters.push(parameter("dryRun", "query", "All: answer as if, and do nothing."));
    }
    let code = if verb == "create" { "201" } else { "200" };
    let mut operation = json!({
        "operationId": format!("{verb}{everywhere}{words}"),
        "tags": ["moorline_v1alpha1"],
        "description": format!("{verb} {name}"),
        "parameters": parameters,
        "responses": {code: {"description": "OK", "content": {"application/json": {"schema": reference(&gives)}}}},
        "x-kubernetes-action": if verb == "create" { "post" } else if verb == "update" { "put" } else { verb },
        "x-kubernetes-group-version-kind": gvk(kind),
    });
    if let Some(takes) = takes {
        let media = if verb == "patch" { "application/merge-patch+json" } else { "application/json" };
        let schema = if verb == "patch" { json!({"type": "object"}) } else { reference(&takes) };
        operation["requestBody"] = json!({"required": true, "content": {media: {"schema": schema}}});
    }
    operation
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
