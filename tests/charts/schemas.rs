//! Schemas for kubeconform, made of what a kube-apiserver says of itself (`/openapi/v2`), so that nothing is downloaded and they
//! are of exactly that version, with the kinds of others that are installed in it.
//!
//! Strict: where the apiserver names the fields of an object, others are refused.

use crate::support::{envtest::ControlPlane, until::until};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fs, path::Path};

const REFERENCE: &str = "#/definitions/";

/// Where kubeconform finds what [`write`] wrote.
pub fn location(folder: &Path) -> String {
    format!("{}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json", folder.display())
}

/// Writes a schema for each of these (`apiVersion`, `kind`), once the apiserver has told of all of them.
pub async fn write(control_plane: &ControlPlane, folder: &Path, kinds: &BTreeSet<(String, String)>) {
    let document = until("the apiserver has told of every kind", || async {
        let document = control_plane.send("GET", "/openapi/v2", None).await?;
        kinds.iter().all(|(version, kind)| definition(&document, version, kind).is_some()).then_some(document)
    })
    .await;
    for (version, kind) in kinds {
        let name = definition(&document, version, kind).unwrap();
        let mut used = Map::new();
        collect(&document, name, &mut used);
        let schema = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "definitions": used,
            "allOf": [{"$ref": format!("{REFERENCE}{name}")}],
        });
        // As kubeconform names them: the first word of the group, and the version.
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        let group = group.split('.').next().filter(|word| !word.is_empty()).map(|word| format!("-{word}")).unwrap_or_default();
        let file = format!("{}{group}-{version}.json", kind.to_lowercase());
        fs::write(folder.join(file), schema.to_string()).unwrap();
    }
}

/// The name of the definition of a kind.
fn definition<'a>(document: &'a Value, version: &str, kind: &str) -> Option<&'a str> {
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let wanted = json!({"group": group, "kind": kind, "version": version});
    let is_it = |definition: &Value| {
        definition["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all == std::slice::from_ref(&wanted))
    };
    document["definitions"].as_object()?.iter().find(|(_, definition)| is_it(definition)).map(|(name, _)| name.as_str())
}

/// A definition and those that it refers to.
fn collect(document: &Value, name: &str, used: &mut Map<String, Value>) {
    if used.contains_key(name) {
        return;
    }
    let mut schema = document["definitions"][name].clone();
    let mut referred = Vec::new();
    strict(&mut schema, &mut referred);
    used.insert(name.to_owned(), schema);
    for name in referred {
        collect(document, &name, used);
    }
}

/// Makes a schema of OpenAPI 2 one of JSON Schema, and strict. Says what it refers to.
fn strict(schema: &mut Value, referred: &mut Vec<String>) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(|one| strict(one, referred)),
        Value::Object(fields) => {
            if fields.get("format").is_some_and(|format| format == "int-or-string")
                || fields.get("x-kubernetes-int-or-string").is_some_and(|it| it == true)
            {
                fields.insert("type".into(), json!(["integer", "string"]));
            }
            let open = fields.contains_key("additionalProperties") || fields.contains_key("x-kubernetes-preserve-unknown-fields");
            if fields.get("properties").is_some_and(Value::is_object) && !open {
                fields.insert("additionalProperties".into(), json!(false));
            }
            if let Some(name) = fields.get("$ref").and_then(|name| name.as_str()?.strip_prefix(REFERENCE)) {
                referred.push(name.to_owned());
            }
            fields.values_mut().for_each(|value| strict(value, referred));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
