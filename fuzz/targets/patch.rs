//! Patches of objects, merge and JSON: what a patch makes of an object is what its standard says, the status is never among
//! it, and a refusal is the client's fault and not ours.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
};
use moorline::{
    http::{negotiate::FieldValidation, patch::Patch, status::Resource, typed::Typed},
    v1alpha1::{Agent, Chat},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{fmt::Debug, sync::LazyLock};

use super::{merge::merge, operations::operate};

/// The first byte says which kind is patched, in which form, and what becomes of unknown fields; the rest is the patch.
pub fn run(data: &[u8]) {
    let (how, body) = data.split_first().map_or((0, data), |(how, body)| (*how, body));
    let validation = [FieldValidation::Warn, FieldValidation::Strict, FieldValidation::Ignore][usize::from(how >> 2) % 3];
    let Some(patch) = read(how & 1 == 0, body) else { return };
    if how & 2 == 0 {
        of_object::<Chat>(&patch, Resource::Chats, &CHAT, validation, body);
    } else {
        of_object::<Agent>(&patch, Resource::Agents, &AGENT, validation, body);
    }
}

fn read(merge: bool, body: &[u8]) -> Option<Patch> {
    let media = if merge { "application/merge-patch+json" } else { "application/json-patch+json" };
    let headers: HeaderMap = [(header::CONTENT_TYPE, HeaderValue::from_static(media))].into_iter().collect();
    let read = RUNTIME.with(|runtime| runtime.block_on(Patch::read(&headers, Body::from(body.to_vec()))));
    match read {
        Ok(patch) => Some(patch),
        Err(error) => {
            assert!(matches!(error.code().as_u16(), 400 | 413 | 422), "{}", error.message());
            None
        }
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
}

fn of_object<T>(patch: &Patch, resource: Resource, object: &Value, validation: FieldValidation, body: &[u8])
where
    T: Serialize + DeserializeOwned + Clone + Debug + PartialEq,
{
    let old: T = serde_json::from_value(object.clone()).expect("an object of ours");
    let made = match patch.apply(resource, "fix", &old, validation) {
        Ok(made) => made,
        Err(error) => return assert!(matches!(error.code().as_u16(), 400 | 422), "{}", error.message()),
    };
    let new = serde_json::to_value(&made.object).expect("an object of ours");
    assert_eq!(new.get("status"), None, "a patch of an object writes no status");
    let size = new.to_string().len();
    assert!(size <= object.to_string().len() + body.len() + (3 << 20), "{size} bytes from {}", body.len());
    let Ok(said) = serde_json::from_slice(body) else { return };
    if patch.is_conditional() {
        // RFC 6902, written down once more.
        let mut wanted = serde_json::to_value(&old).expect("an object of ours");
        assert_eq!(operate(&mut wanted, &said), Some(()), "RFC 6902 has it refused");
        if made.faults.is_empty()
            && let Ok(wanted) = serde_json::from_value::<T>(wanted)
        {
            assert_eq!(without_status(&made.object), without_status(&wanted), "what RFC 6902 says");
        }
        return;
    }
    // RFC 7396 in its own ten lines; and a merge patch that was applied once has no more to do.
    if made.faults.is_empty() {
        let mut wanted = object.clone();
        merge(&mut wanted, &said);
        if let Ok(wanted) = serde_json::from_value::<T>(wanted) {
            let wanted = without_status(&wanted);
            assert_eq!(without_status(&made.object), wanted, "what RFC 7396 says");
        }
        let mut once = new;
        once["status"] = object["status"].clone();
        let once: T = serde_json::from_value(once).expect("an object of ours");
        let twice = patch.apply(resource, "fix", &once, validation);
        let twice: Typed<T> = twice.unwrap_or_else(|error| panic!("it was done before: {}", error.message()));
        assert_eq!(twice.object, made.object, "twice is once");
    }
}

fn without_status<T: Serialize>(object: &T) -> Value {
    let mut value = serde_json::to_value(object).expect("an object of ours");
    if let Some(fields) = value.as_object_mut() {
        fields.remove("status");
    }
    value
}

static CHAT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Chat",
        "metadata": {"name": "fix", "namespace": "team-a", "uid": "0191e0a0-0000-7000-8000-000000000001", "generation": 2,
                     "resourceVersion": "35184372103516", "creationTimestamp": "2026-11-21T11:00:00Z",
                     "labels": {"a": "b", "c": "d"}, "annotations": {"moorline.dev/refresh-requested-at": "x"}},
        "spec": {"owner": "alice", "title": "Fix it", "agentRef": {"name": "ws-42"}, "refreshPolicy": "Manual",
                 "suspend": false, "archived": false, "deletionPolicy": "Delete"},
        "status": {"observedGeneration": 2, "state": "Waiting", "dirty": false, "boundAgent": {"name": "ws-42", "uid": "u"}},
    })
});

static AGENT: LazyLock<Value> = LazyLock::new(|| {
    serde_json::json!({
        "apiVersion": "moorline.dev/v1alpha1", "kind": "Agent",
        "metadata": {"name": "ws-42", "namespace": "team-a", "uid": "0191e0a0-0000-7000-8000-000000000002", "generation": 1,
                     "resourceVersion": "35184372103518", "creationTimestamp": "2026-11-21T11:00:00Z", "labels": {"a": "b"}},
        "spec": {"workspace": "ws", "build": 7, "serviceAccountName": "ws-42", "suspend": false, "revisionHistoryLimit": 10,
                 "deletionPolicy": "Delete"},
        "status": {"observedGeneration": 1, "phase": "Complete"},
    })
});
