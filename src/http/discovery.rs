//! What is served, told the way Kubernetes clients ask: `/version`, `/api`, `/apis`, and the list of resources. One table, from
//! which discovery and OpenAPI are both made.
//!
//! Clients ask for aggregated discovery first; plain JSON is what they fall back to.

use super::{
    contextevents::core_v1,
    objects, openapi,
    routes::{Routes, get},
    status::{ApiError, Resource},
};
use axum::{Json, extract::Path};
use serde_json::{Value, json};

/// A resource, or a subresource.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// `chats`, `chats/status`.
    pub name: &'static str,
    /// The kind that it takes and gives.
    pub kind: &'static str,
    /// `chat`; empty for a subresource.
    pub singular: &'static str,
    /// What kubectl lets one type instead.
    pub short: &'static [&'static str],
    /// What it may be asked.
    pub verbs: &'static [&'static str],
}

/// Everything that is served.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "agents",
        kind: "Agent",
        singular: "agent",
        short: &["magent"],
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    },
    Entry { name: "agents/runs", kind: "AgentRun", singular: "", short: &[], verbs: &["create"] },
    Entry { name: "agents/snapshot", kind: "AgentSnapshotPush", singular: "", short: &[], verbs: &["update"] },
    Entry {
        name: "agentsnapshots",
        kind: "AgentSnapshot",
        singular: "agentsnapshot",
        short: &["msnap"],
        verbs: &["get", "list", "watch"],
    },
    Entry {
        name: "chats",
        kind: "Chat",
        singular: "chat",
        short: &["mchat"],
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
    },
    Entry { name: "chats/context", kind: "ChatContext", singular: "", short: &[], verbs: &["get", "update"] },
    Entry { name: "chats/diff", kind: "ChatDiff", singular: "", short: &[], verbs: &["get"] },
    Entry { name: "chats/status", kind: "Chat", singular: "", short: &[], verbs: &["get", "patch"] },
    Entry { name: "chats/why", kind: "ChatWhy", singular: "", short: &[], verbs: &["get"] },
    Entry { name: "contextevents", kind: "ContextEvent", singular: "contextevent", short: &[], verbs: &["list", "watch"] },
];

/// The paths of discovery and of OpenAPI.
pub fn routes() -> Routes {
    Routes::new()
        .route("/version", get(version))
        .route("/api", get(async || Json(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}))))
        .route("/apis", get(async || Json(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group()]}))))
        .route("/apis/moorline.dev", get(async || Json(group_alone())))
        .route("/apis/moorline.dev/v1alpha1", get(async || Json(resources())))
        .route("/api/v1", get(async || Json(core_resources())))
        .route("/api/v1/events", get(core_v1::list_all))
        .route("/api/v1/namespaces/{namespace}/events", get(core_v1::list))
        .route("/api/v1/namespaces/{namespace}", get(namespace))
        .route("/openapi/v3", get(openapi::index))
        .route("/openapi/v3/{*document}", get(openapi::document))
}

/// The version of this build, with the fields that Kubernetes clients look for. `gitVersion` begins with the Kubernetes
/// version whose API conventions it follows, because clients compare it with their own.
async fn version() -> Json<Value> {
    Json(json!({
        "major": "1", "minor": "33", "gitVersion": concat!("v1.33.0+moorline-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    }))
}

/// A namespace needs no creating, so each is there. kubectl looks at it when an object is not found, to tell which is missing.
async fn namespace(Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    objects::check_namespace(Resource::Chats, &name)?;
    let labels = json!({"kubernetes.io/metadata.name": name});
    Ok(Json(json!({
        "kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels},
        "spec": {}, "status": {"phase": "Active"},
    })))
}

/// What little of core/v1 there is: where `kubectl describe` and `kubectl events` look.
fn core_resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
        {"name": "events", "singularName": "event", "namespaced": true, "kind": "Event", "shortNames": ["ev"], "verbs": ["list", "watch"]},
        {"name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace", "shortNames": ["ns"], "verbs": ["get"]},
    ]})
}

fn group() -> Value {
    let version = json!({"groupVersion": "moorline.dev/v1alpha1", "version": "v1alpha1"});
    json!({"name": "moorline.dev", "versions": [version], "preferredVersion": version})
}

fn group_alone() -> Value {
    let mut group = group();
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

fn resources() -> Value {
    let entry = |entry: &Entry| {
        let Entry { name, kind, singular, short, verbs } = entry;
        let mut resource = json!({"name": name, "singularName": singular, "namespaced": true, "kind": kind, "verbs": verbs});
        if !short.is_empty() {
            resource["shortNames"] = json!(short);
            resource["categories"] = json!(["moorline"]);
        }
        resource
    };
    let resources: Vec<Value> = TABLE.iter().map(entry).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "moorline.dev/v1alpha1", "resources": resources})
}
