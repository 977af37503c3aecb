//! Manifests, as `moorline apply` reads them from files and as the front reads them from a cluster: what is printed as YAML is
//! read again as it was, what was applied once has no more to do, and what is taken over keeps the rules of its kind.

use kube::core::DynamicObject;
use moorline::{
    cli::{
        apply::{
            manifest::{Manifest, parse},
            merge::{LAST_APPLIED, changes, remembering},
        },
        kind::Kind as Listed,
        output::Format,
    },
    kubernetes::{
        ingest::{Said, read},
        kind::{Id, Kind},
        seen::Entry,
    },
    model::name,
};
use serde_json::{Value, json};

use super::merge::merge;

/// The bytes are a file of manifests.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // As YAML counts them: a lone CR ends a line.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n").lines().count() + 1;
    let documents = parse("f.yaml", text);
    for document in &documents {
        match document {
            Ok(manifest) => {
                printed(manifest);
                applied(&manifest.object);
                taken_over(manifest);
            }
            Err(fault) => {
                let told = fault.to_string();
                let place = told.strip_prefix("f.yaml, document ").and_then(|rest| rest.split_once(", line "));
                let (document, rest) = place.unwrap_or_else(|| panic!("a fault has a place: {told:?}"));
                let line = rest.split(':').next().and_then(|line| line.parse::<usize>().ok());
                assert!(document.parse::<usize>().is_ok_and(|n| n <= documents.len().max(lines)), "{told:?}");
                assert!(line.is_some_and(|line| (1..=lines + 1).contains(&line)), "of {lines} lines: {told:?}");
            }
        }
    }
}

/// What `moorline get -o yaml` prints can be applied; but for keys that no object of a server has.
fn printed(manifest: &Manifest) {
    if has_a_long_key(&manifest.object) {
        return;
    }
    for format in [Format::Yaml, Format::Json] {
        let text = format.write(&manifest.object).expect("a value can be written");
        let again = parse("f.yaml", &text);
        let [Ok(again)] = again.as_slice() else { panic!("printed, and not read again: {text:?} {again:?}") };
        assert_eq!(again.object, manifest.object, "printed and read again: {text:?}");
    }
}

/// YAML reads keys of at most 1,024 characters, quotes and escapes included (YAML 1.2.2, §7.4.2).
fn has_a_long_key(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.iter().any(|(key, value)| json!(key).to_string().chars().count() > 1_000 || has_a_long_key(value))
        }
        Value::Array(items) => items.iter().any(has_a_long_key),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Applying a manifest makes the object say what it says; applying it again does nothing; and what the next one leaves out goes.
fn applied(object: &Value) {
    let wanted = remembering(object, "team-a");
    let mut next = object.clone();
    if let Some(spec) = next.get_mut("spec").and_then(Value::as_object_mut) {
        spec.retain(|key, _| key < &"n".to_owned());
    }
    let mut current = json!({"metadata": {"namespace": "team-a", "uid": "u", "labels": {"theirs": "1"}},
                             "spec": {"theirs": {"a": 1}}, "status": {"dirty": true}});
    for wanted in [wanted, remembering(&next, "team-a")] {
        let before = current.clone();
        if let Some(change) = changes(&wanted, &current) {
            merge(&mut current, &change);
        }
        assert_eq!(changes(&wanted, &current), None, "applied twice: {wanted} to {before}");
        says(&wanted, &current, "");
        let silent = object["spec"].as_object().is_some_and(|spec| !spec.contains_key("theirs"));
        if silent {
            assert_eq!(current["spec"]["theirs"], json!({"a": 1}), "what others wrote stays");
        }
        assert_eq!(current["status"], json!({"dirty": true}), "a manifest says nothing of a status");
    }
}

/// All that a manifest says is so; null says that a field is not there.
fn says(wanted: &Value, current: &Value, at: &str) {
    match (wanted, current) {
        (Value::Object(wanted), Value::Object(current)) => {
            for (key, value) in wanted.iter().filter(|(key, _)| *key != LAST_APPLIED) {
                says(value, current.get(key).unwrap_or(&Value::Null), &format!("{at}.{key}"));
            }
        }
        // A merge patch has no way to say null within an object that is not there yet.
        (Value::Object(wanted), Value::Null) => assert!(wanted.values().all(Value::is_null), "{at}"),
        (wanted, current) => assert_eq!(wanted, current, "{at}"),
    }
}

/// The same manifest, as the front sees it.
fn taken_over(manifest: &Manifest) {
    let mut value = manifest.object.clone();
    for (key, given) in [("uid", "0191e0a0-0000-7000-8000-000000000001"), ("resourceVersion", "7"), ("namespace", "team-a")] {
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.insert(key.to_owned(), given.into());
        }
    }
    let Ok(object) = serde_json::from_value::<DynamicObject>(value) else { return };
    let kind = match manifest.kind {
        Listed::Chats => Kind::Chat,
        Listed::Agents | Listed::AgentSnapshots | Listed::ContextEvents => Kind::Agent,
    };
    let (Some(id), Some(entry)) = (Id::of(kind, &object), Entry::of(kind, &object)) else { return };
    match read(&id, &entry, &object) {
        Err(why) => assert!(!why.is_empty(), "a refusal says why"),
        Ok(Said::Chat(said, desired)) => {
            assert!(desired.spec.owner.chars().count() <= 253 && !desired.spec.owner.is_empty(), "{desired:?}");
            assert!(desired.spec.title.chars().count() <= 512, "{desired:?}");
            let named = desired.spec.reference.agent().or(desired.spec.reference.workspace());
            assert!(named.is_none_or(|named| name::dns_label("", named).is_none()), "{desired:?}");
            assert_eq!(said.bound, named.is_some(), "{desired:?}");
            assert_eq!(name::labels("", &desired.labels), []);
        }
        Ok(Said::Agent(_, desired)) => {
            assert!((1..=100).contains(&desired.spec.revision_history_limit), "{desired:?}");
            assert!(desired.spec.build.is_none_or(|build| (0..1 << 53).contains(&build)), "{desired:?}");
            assert_eq!(name::labels("", &desired.labels), []);
        }
    }
}
