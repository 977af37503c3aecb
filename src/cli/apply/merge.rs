//! The three-way merge of `kubectl apply`: what a manifest says, what the last one said, and what there is become one merge patch.
//!
//! The last manifest is kept where kubectl keeps it, in the same bytes, so that either tool can go on where the other was.

use serde_json::{Map, Value};
use std::fmt::Write as _;

/// The annotation that remembers the last manifest.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manifest as it is sent: in this namespace, and remembering itself in its annotation.
pub fn remembering(manifest: &Value, namespace: &str) -> Value {
    let mut object = manifest.clone();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return object };
    metadata.insert("namespace".into(), namespace.into());
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
    if annotations.is_null() {
        *annotations = Value::Object(Map::new());
    }
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    // What only a server says is not remembered.
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    let remembered = as_kubectl_writes(&object);
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(LAST_APPLIED.into(), remembered.into());
    }
    object
}

/// What an object remembers of the last manifest; null when nothing has been applied to it, or somebody broke it.
fn remembered(object: &Value) -> Value {
    let text = object["metadata"]["annotations"][LAST_APPLIED].as_str();
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// JSON in the bytes that Go writes: keys in order, `<`, `>`, `&` and two ends of lines escaped, a newline at the end.
fn as_kubectl_writes(object: &Value) -> String {
    let mut text = String::new();
    for letter in object.to_string().chars() {
        match letter {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(letter));
            }
            letter => text.push(letter),
        }
    }
    text.push('\n');
    text
}

/// What is to be done: `patch`, but that labels are each a field of its own. A manifest that has none any more takes away those
/// that the last one had, and not those that others put there.
pub fn changes(wanted: &Value, current: &Value) -> Option<Value> {
    let last = remembered(current);
    if wanted.pointer("/metadata/labels").is_some() || !current["metadata"]["labels"].is_object() {
        return patch(&last, wanted, current);
    }
    let mut wanted = wanted.clone();
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("labels".into(), Value::Object(Map::new()));
    }
    patch(&last, &wanted, current)
}

/// The merge patch that makes `current` say what `wanted` says, and takes away what `last` said and `wanted` does not. None when
/// there is nothing to do.
fn patch(last: &Value, wanted: &Value, current: &Value) -> Option<Value> {
    let (Value::Object(wanted), Value::Object(current)) = (wanted, current) else {
        return (wanted != current).then(|| wanted.clone());
    };
    let mut changes = Map::new();
    for (key, value) in wanted {
        match current.get(key) {
            None | Some(Value::Null) if value.is_null() => {}
            Some(Value::Null) | None => {
                changes.insert(key.clone(), value.clone());
            }
            Some(there) => {
                if let Some(change) = patch(last.get(key).unwrap_or(&Value::Null), value, there) {
                    changes.insert(key.clone(), change);
                }
            }
        }
    }
    let dropped = last.as_object().into_iter().flatten().filter(|(key, _)| !wanted.contains_key(*key));
    for (key, _) in dropped.filter(|(key, _)| current.get(*key).is_some_and(|value| !value.is_null())) {
        changes.insert(key.clone(), Value::Null);
    }
    (!changes.is_empty()).then_some(Value::Object(changes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_the_manifest_no_longer_says_goes_and_what_others_wrote_stays() {
        let last = json!({"spec": {"title": "a", "workspace": "w", "gone": 1}, "metadata": {"labels": {"x": "1", "y": "2"}}});
        let wanted = json!({"spec": {"title": "b"}, "metadata": {"labels": {"x": "1"}}});
        let current = json!({"spec": {"title": "a", "workspace": "w", "owner": "alice"},
                             "metadata": {"labels": {"x": "1", "y": "2", "z": "3"}}, "status": {"dirty": true}});
        let change = json!({"spec": {"title": "b", "workspace": null}, "metadata": {"labels": {"y": null}}});
        assert_eq!(patch(&last, &wanted, &current), Some(change));
        assert_eq!(patch(&wanted, &wanted, &json!({"spec": {"title": "b"}, "metadata": {"labels": {"x": "1"}}})), None);
    }

    #[test]
    fn null_takes_away_what_is_there_and_asks_for_nothing_where_there_is_nothing() {
        let wanted = json!({"spec": {"title": null, "workspace": null}});
        assert_eq!(patch(&Value::Null, &wanted, &json!({"spec": {"title": "a"}})), Some(json!({"spec": {"title": null}})));
        assert_eq!(patch(&Value::Null, &wanted, &json!({"spec": {}})), None);
    }

    #[test]
    fn nothing_is_taken_away_from_an_object_that_remembers_nothing() {
        let current = json!({"spec": {"title": "a", "workspace": "w"}, "metadata": {"annotations": {LAST_APPLIED: "{broken"}}});
        let wanted = json!({"spec": {"title": "a"}});
        assert_eq!(patch(&remembered(&current), &wanted, &current), None);
    }

    #[test]
    fn a_manifest_is_remembered_without_what_was_remembered_before() {
        let manifest = json!({"kind": "Chat", "metadata": {"name": "fix", "annotations": {LAST_APPLIED: "old", "a": "<&>"}}});
        let sent = remembering(&manifest, "team-a");
        let text = sent["metadata"]["annotations"][LAST_APPLIED].as_str().unwrap();
        let said = r#"{"kind":"Chat","metadata":{"annotations":{"a":"\u003c\u0026\u003e"},"name":"fix","namespace":"team-a"}}"#;
        assert_eq!(text, format!("{said}\n"));
        assert_eq!(remembered(&sent)["metadata"]["annotations"], json!({"a": "<&>"}));
    }
}
