//! What an object shows of what the mirror writes, brought into one form, so that two of them can be compared by a number.
//!
//! Only what is ours counts: another manager's conditions, labels and annotations are its own.

use super::kind::Kind;
use crate::model::object::TextMap;
use crate::v1alpha1::{
    agent::{AgentSpec, AgentStatus},
    chat::{ChatSpec, ChatStatus},
    snapshot::AgentSnapshotSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash as _, Hasher as _},
};

/// The types of our conditions.
const CONDITIONS: [&str; 5] = ["Ready", "Drifted", "ResourcesDegraded", "Reconciling", "Stalled"];

/// A status in that form: one that cannot be read is like none.
pub fn status(kind: Kind, status: &Value) -> u64 {
    match kind {
        Kind::Chat => chat_status(read(status)),
        Kind::Agent => agent_status(read(status)),
        Kind::Snapshot => 0,
    }
}

/// A chat's.
pub fn chat_status(status: Option<ChatStatus>) -> u64 {
    number(&status.map(|status| ChatStatus { conditions: ours(status.conditions), latest: None, drift: None, ..status }))
}

/// An agent's.
pub fn agent_status(status: Option<AgentStatus>) -> u64 {
    number(&status.map(|status| AgentStatus { conditions: ours(status.conditions), ..status }))
}

/// A spec in that form.
pub fn spec(kind: Kind, spec: &Value) -> u64 {
    match kind {
        Kind::Chat => chat_spec(read(spec).as_ref()),
        Kind::Agent => agent_spec(read(spec).as_ref()),
        Kind::Snapshot => number(&read::<AgentSnapshotSpec>(spec)),
    }
}

/// A chat's.
pub fn chat_spec(spec: Option<&ChatSpec>) -> u64 {
    number(&spec)
}

/// An agent's.
pub fn agent_spec(spec: Option<&AgentSpec>) -> u64 {
    number(&spec)
}

/// Labels in that form.
pub fn labels(labels: &TextMap) -> u64 {
    number(labels)
}

/// Labels and annotations in that form, whoever's they are.
pub fn texts(labels: Option<&TextMap>, annotations: Option<&TextMap>) -> u64 {
    number(&(labels, annotations))
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

fn ours(mut conditions: Vec<Condition>) -> Vec<Condition> {
    conditions.retain(|condition| CONDITIONS.contains(&condition.type_.as_str()));
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

fn number<T: Serialize>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(value).expect("our types have no maps with other keys than text").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"})
    }

    #[test]
    fn the_order_of_conditions_and_those_of_others_make_no_difference_and_ours_do() {
        let one = json!({"dirty": false, "conditions": [condition("Ready", "True"), condition("Drifted", "False")]});
        let other =
            json!({"conditions": [condition("Drifted", "False"), condition("Theirs", "True"), condition("Ready", "True")]});
        let third = json!({"conditions": [condition("Drifted", "True"), condition("Ready", "True")]});
        assert_eq!(status(Kind::Chat, &one), status(Kind::Chat, &other));
        assert_ne!(status(Kind::Chat, &one), status(Kind::Chat, &third));
    }

    #[test]
    fn no_status_is_not_an_empty_one() {
        assert_ne!(status(Kind::Agent, &Value::Null), status(Kind::Agent, &json!({})));
    }
}
