//! What every kind has: metadata, conditions, references by name.

use crate::model::{
    condition::Conditions,
    fault::{Fault, FaultKind},
    name,
    object::{Metadata, PAUSED_ANNOTATION, Progress, RECONCILE_ANNOTATION, REFRESH_ANNOTATION, TextMap},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
    jiff::Timestamp,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A reference to an object of the same namespace, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// The object's name.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
}

/// A reference to something whose name is a DNS label: an agent of the same namespace, or a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// An agent, by name and uid: a name can be given to another agent later, a uid cannot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentIdentity {
    /// The agent's name.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The agent's uid.
    #[schemars(length(max = 36))]
    pub uid: String,
}

impl AgentIdentity {
    /// Of an agent.
    pub fn new(name: &str, id: Uuid) -> Self {
        Self { name: name.to_owned(), uid: id.to_string() }
    }
}

/// Reads labels and annotations; every fault of them, and of the request annotations among them, is listed.
pub fn labels_and_annotations(metadata: &ObjectMeta) -> (TextMap, TextMap, Vec<Fault>) {
    let labels = metadata.labels.clone().unwrap_or_default();
    let annotations = metadata.annotations.clone().unwrap_or_default();
    let mut faults = name::labels("metadata.labels", &labels);
    faults.extend(name::annotations("metadata.annotations", &annotations));
    for key in [REFRESH_ANNOTATION, RECONCILE_ANNOTATION] {
        if let Some(token) = annotations.get(key) {
            faults.extend(token_fault(&format!("metadata.annotations[{key}]"), token));
        }
    }
    if let Some(paused) = annotations.get(PAUSED_ANNOTATION).filter(|paused| !matches!(paused.as_str(), "true" | "false")) {
        let message = format!("must be \"true\" or \"false\", got {paused:?}");
        faults.push(Fault::new(format!("metadata.annotations[{PAUSED_ANNOTATION}]"), FaultKind::NotSupported, message));
    }
    (labels, annotations, faults)
}

/// What is wrong with a request token: 1 to 64 characters.
pub fn token_fault(field: &str, token: &str) -> Option<Fault> {
    let length = token.chars().count();
    if length == 0 {
        return Some(Fault::new(field, FaultKind::Required, "a request token must not be empty"));
    }
    (length > name::TOKEN_MAX).then(|| {
        let message = format!("a request token must be at most {} characters, got {length}", name::TOKEN_MAX);
        Fault::new(field, FaultKind::TooLong, message)
    })
}

/// What is wrong with a text that must not be longer than `max` characters, as a schema's `maxLength` counts them.
pub fn length_fault(field: &str, text: &str, max: usize) -> Option<Fault> {
    let length = text.chars().count();
    (length > max).then(|| Fault::new(field, FaultKind::TooLong, format!("must be at most {max} characters, got {length}")))
}

/// Metadata as it is shown. `version` is the object's version on the wire.
pub fn object_meta(meta: &Metadata, version: String) -> ObjectMeta {
    let some = |map: &TextMap| (!map.is_empty()).then(|| map.clone());
    ObjectMeta {
        namespace: Some(meta.namespace.clone()),
        name: Some(meta.name.clone()),
        uid: Some(meta.id.to_string()),
        labels: some(&meta.labels),
        annotations: some(&meta.annotations),
        generation: Some(meta.generation),
        resource_version: Some(version),
        creation_timestamp: Some(time(meta.created_at)),
        ..ObjectMeta::default()
    }
}

/// A time, to the second as Kubernetes writes them.
pub fn time(at: Timestamp) -> Time {
    Time(at)
}

/// Conditions as they are shown.
pub fn conditions(conditions: &Conditions, progress: &Progress) -> Vec<Condition> {
    let shown = conditions.0.iter().map(|(kind, condition)| Condition {
        type_: kind.to_string(),
        status: condition.verdict.status.to_string(),
        reason: condition.verdict.reason.clone(),
        message: condition.verdict.message.clone(),
        observed_generation: Some(progress.observed_generation),
        last_transition_time: time(condition.since),
    });
    shown.collect()
}
