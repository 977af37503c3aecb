//! `ContextEvent`: what happened, as it is told to whoever follows the log; and the same as a core/v1 Event, for `kubectl describe`.

use super::{API_VERSION, meta};
use crate::{
    model::{drift::Drift, event::EventKind},
    store::events::{Cursor, Logged},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How many resources a message names.
const NAMED: usize = 3;

/// One typed transition, in the order of the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextEvent {
    /// `moorline.dev/v1alpha1`.
    pub api_version: String,
    /// `ContextEvent`.
    pub kind: String,
    /// Where it happened, and its cursor.
    pub metadata: EventMeta,
    /// What happened: ContextHydrated, ContextDrifted, ContextConverged, ContextRefreshed, AgentRebound, ContextCleared, ChatCreated,
    /// ChatUpdated, ChatDeleted, AgentCreated, AgentUpdated, AgentDeleted, SnapshotAccepted or SnapshotDeleted.
    #[serde(rename = "type")]
    pub type_: String,
    /// The chat it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<EventChat>,
    /// The agent it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<EventAgent>,
    /// The context hash before: `sha256:` and 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The context hash after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// When its transaction began.
    pub at: Time,
    /// A sentence for people. Its form may change.
    pub message: String,
}

/// Where an event is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventMeta {
    /// The namespace.
    pub namespace: String,
    /// The cursor: what comes after it is what was not yet told. Opaque.
    pub name: String,
}

/// The chat of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventChat {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Numbers the chat's events, from 1, without a gap.
    pub seq: i64,
}

/// The agent of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventAgent {
    /// Its name, when the event tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its uid.
    pub uid: String,
}

/// A cursor, on the wire.
pub fn cursor_text(cursor: Cursor) -> String {
    format!("{}-{}", cursor.rv, cursor.seq)
}

/// Reads a cursor.
pub fn read_cursor(text: &str) -> Option<Cursor> {
    let (rv, seq) = text.split_once('-')?;
    let cursor = Cursor { rv: rv.parse().ok()?, seq: seq.parse().ok()? };
    (cursor_text(cursor) == text && cursor.rv >= 0 && cursor.seq >= 0).then_some(cursor)
}

/// Whether an event is about an agent itself.
fn is_of_agent(kind: EventKind) -> bool {
    matches!(kind, EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted)
}

impl ContextEvent {
    /// An event as it is shown.
    pub fn from_logged(event: &Logged) -> Self {
        let text = |field: &str| event.payload.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
        let agent_name = if is_of_agent(event.kind) { Some(event.name.clone()) } else { text("agent") };
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "ContextEvent".to_owned(),
            metadata: EventMeta { namespace: event.namespace.clone(), name: cursor_text(event.cursor) },
            type_: event.kind.to_string(),
            chat: event.chat.map(|(id, seq)| EventChat { name: event.name.clone(), uid: id.to_string(), seq }),
            agent: event.agent.map(|id| EventAgent { name: agent_name, uid: id.to_string() }),
            from: text("from"),
            to: text("to"),
            at: meta::time(event.at),
            message: message(event),
        }
    }
}

/// An event as core/v1 has them.
pub fn core_event(event: &Logged, version: &str) -> Value {
    let (kind, api_version) = match event.kind {
        EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted => ("Agent", API_VERSION),
        EventKind::SnapshotAccepted | EventKind::SnapshotDeleted => ("AgentSnapshot", API_VERSION),
        EventKind::ChatCreated
        | EventKind::ChatUpdated
        | EventKind::ChatDeleted
        | EventKind::ContextHydrated
        | EventKind::ContextDrifted
        | EventKind::ContextConverged
        | EventKind::ContextRefreshed
        | EventKind::AgentRebound
        | EventKind::ContextCleared => ("Chat", API_VERSION),
    };
    let name = format!("{}.{}", event.name, cursor_text(event.cursor));
    let uid = uuid::Uuid::from_u64_pair(event.cursor.rv.unsigned_abs(), u64::from(event.cursor.seq.unsigned_abs()));
    let at = meta::time(event.at);
    json!({
        "kind": "Event", "apiVersion": "v1",
        "metadata": {
            "namespace": event.namespace, "name": name, "uid": uid, "resourceVersion": version, "creationTimestamp": at,
        },
        "involvedObject": {
            "kind": kind, "apiVersion": api_version, "namespace": event.namespace, "name": event.name,
            "uid": event.subject.map(|id| id.to_string()).unwrap_or_default(),
        },
        "reason": event.kind.to_string(), "message": message(event), "type": "Normal",
        "source": {"component": "moorline"}, "reportingComponent": "moorline", "reportingInstance": "",
        "firstTimestamp": at, "lastTimestamp": at, "count": 1, "eventTime": null,
    })
}

/// What happened, in a sentence.
pub fn message(event: &Logged) -> String {
    let text = |field: &str| event.payload.get(field).and_then(Value::as_str);
    let to = || text("toSnapshot").unwrap_or("another snapshot");
    match event.kind {
        EventKind::ChatCreated => "the chat was created".into(),
        EventKind::ChatUpdated => "what the chat asks for or shows changed".into(),
        EventKind::ChatDeleted => "the chat was deleted".into(),
        EventKind::ContextHydrated => format!("pinned to {}", to()),
        EventKind::ContextDrifted => differences(event),
        EventKind::ContextConverged if text("to").is_none() => "there is nothing to compare with any more".into(),
        EventKind::ContextConverged => format!("the agent is back at {}", to()),
        EventKind::ContextRefreshed if text("from") == text("to") => format!("refreshed: up to date at {}", to()),
        EventKind::ContextRefreshed => format!("refreshed to {}: {}", to(), differences(event)),
        EventKind::AgentRebound => format!("pinned to {} of agent {}", to(), text("agent").unwrap_or("(gone)")),
        EventKind::ContextCleared => "the pin was let go: the chat names no agent".into(),
        EventKind::AgentCreated => "the agent was created".into(),
        EventKind::AgentUpdated if text("to").is_some() && text("from") != text("to") => {
            "the agent reported a new context".into()
        }
        EventKind::AgentUpdated => "what the agent asks for or shows changed".into(),
        EventKind::AgentDeleted => "the agent was deleted; its chats keep their pins".into(),
        EventKind::SnapshotAccepted => format!("a new context of agent {}", text("agent").unwrap_or("(gone)")),
        EventKind::SnapshotDeleted => "retention removed the snapshot".into(),
    }
}

/// `3 resources changed: AGENTS.md, skills/tdd, skills/plans`.
fn differences(event: &Logged) -> String {
    let drift = event.payload.get("drift").and_then(|drift| serde_json::from_value::<Drift>(drift.clone()).ok());
    let Some(drift) = drift else { return "another context".into() };
    let named: Vec<&str> = drift.resources.iter().take(NAMED).map(|change| change.source.as_str()).collect();
    let more = drift.total().saturating_sub(named.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let resources = if drift.total() == 1 { "resource" } else { "resources" };
    format!("{} {resources} changed: {}{more}", drift.total(), named.join(", "))
}
