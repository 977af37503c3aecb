//! `Agent`: who reports the context of one workspace build.

use super::{chat::Deletion, meta};
use crate::model::{
    agent::{self as model, AgentView},
    fault::{Fault, FaultKind},
    name,
    object::TextMap,
    push,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// First build number that a JSON reader may round.
const BUILD_MAX: i64 = 1 << 53;
/// Default of `spec.revisionHistoryLimit`.
const HISTORY_DEFAULT: i32 = 10;
/// Longest user name, in characters.
const SERVICE_ACCOUNT_MAX: usize = 253;

/// What is asked of an agent.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "moorline.dev",
    version = "v1alpha1",
    kind = "Agent",
    namespaced,
    status = "AgentStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "magent",
    category = "moorline",
    doc = "Reports the context that it finds in one build of a workspace.",
    selectable = ".spec.workspace",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Snapshot", type_ = "string", json_path = ".status.latestSnapshot.name"),
    printcolumn(name = "Rev", type_ = "integer", json_path = ".status.latestSnapshot.revision"),
    printcolumn(name = "Workspace", type_ = "string", json_path = ".spec.workspace", priority = 1),
    printcolumn(name = "Build", type_ = "integer", json_path = ".spec.build", priority = 1),
    printcolumn(name = "Run", type_ = "integer", json_path = ".status.run.epoch", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// The workspace it belongs to; agents of one workspace share it. A DNS label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub workspace: Option<String>,
    /// The workspace's build, from 0; the highest build is the workspace's current agent, none counts lowest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub build: Option<i64>,
    /// The user name that may push as this agent; at most 253 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\x00]*$"))]
    pub service_account_name: Option<String>,
    /// Refuse pushes.
    #[serde(default)]
    pub suspend: bool,
    /// How many snapshots that nobody is pinned to are kept, 1 to 100.
    #[serde(default = "history_default")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: i32,
    /// What deleting the manifest does to the record: Delete or Retain.
    #[serde(default)]
    pub deletion_policy: Deletion,
}

fn history_default() -> i32 {
    HISTORY_DEFAULT
}

impl Default for AgentSpec {
    fn default() -> Self {
        Self {
            workspace: None,
            build: None,
            service_account_name: None,
            suspend: false,
            revision_history_limit: HISTORY_DEFAULT,
            deletion_policy: Deletion::default(),
        }
    }
}

/// What is so of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The process lifetime that may push.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// What it currently points at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_snapshot: Option<LatestSnapshot>,
    /// Pending while a run has not yet reported everything it knows of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What the agent said was wrong with its own scan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub error: Option<String>,
    /// Echo of the token that refreshed all its chats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_refresh: Option<String>,
    /// Echo of the reconcile token that was last handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_reconcile: Option<String>,
    /// Ready, ResourcesDegraded; Reconciling and Stalled only when True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far a run has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// It has not yet reported everything it knows of.
    Pending,
    /// It has.
    Complete,
}

impl From<push::Phase> for Phase {
    fn from(phase: push::Phase) -> Self {
        match phase {
            push::Phase::Pending => Self::Pending,
            push::Phase::Complete => Self::Complete,
        }
    }
}

/// One process lifetime of an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    #[schemars(length(max = 36))]
    pub id: String,
    /// The fencing number of its pushes.
    pub epoch: i64,
    /// When it was registered.
    pub started_at: Time,
}

/// What an agent points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LatestSnapshot {
    /// The snapshot's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The hash of its resources.
    #[schemars(length(max = 71))]
    pub hash: String,
    /// Counts the agent's distinct contexts.
    pub revision: i64,
    /// How many resources it holds.
    pub resource_count: i32,
    /// Sum of their sizes in bytes.
    pub size_bytes: i64,
}

/// An agent's desired columns, as a client sent them.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The spec.
    pub spec: model::AgentSpec,
    /// Labels.
    pub labels: TextMap,
    /// Annotations.
    pub annotations: TextMap,
}

impl Agent {
    /// Reads what a client asks of an agent. Every fault is listed.
    pub fn desired(&self) -> Result<Desired, Vec<Fault>> {
        let (labels, annotations, mut faults) = meta::labels_and_annotations(&self.metadata);
        let AgentSpec { workspace, build, service_account_name, suspend, revision_history_limit, deletion_policy } = &self.spec;
        if let Some(workspace) = workspace {
            faults.extend(name::dns_label("spec.workspace", workspace));
        }
        if let Some(build) = build.filter(|build| !(0..BUILD_MAX).contains(build)) {
            let message = format!("must be from 0 to {}, got {build}", BUILD_MAX - 1);
            faults.push(Fault::new("spec.build", FaultKind::Invalid, message));
        }
        if let Some(account) = service_account_name {
            if account.is_empty() {
                faults.push(Fault::new("spec.serviceAccountName", FaultKind::Required, "must not be empty"));
            }
            faults.extend(meta::length_fault("spec.serviceAccountName", account, SERVICE_ACCOUNT_MAX));
        }
        if !(1..=100).contains(revision_history_limit) {
            let message = format!("must be from 1 to 100, got {revision_history_limit}");
            faults.push(Fault::new("spec.revisionHistoryLimit", FaultKind::Invalid, message));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let spec = model::AgentSpec {
            workspace: workspace.clone(),
            build: *build,
            service_account: service_account_name.clone(),
            suspend: *suspend,
            revision_history_limit: *revision_history_limit,
            deletion_policy: (*deletion_policy).into(),
        };
        Ok(Desired { spec, labels, annotations })
    }

    /// An agent as it is shown. `version` is its version on the wire.
    pub fn from_view(view: &AgentView, version: String) -> Self {
        let agent = &view.agent;
        let mut metadata = meta::object_meta(&agent.meta, version);
        metadata.deletion_timestamp = agent.deletion_timestamp.map(meta::time);
        Self { metadata, spec: view.into(), status: Some(view.into()) }
    }
}

impl From<&AgentView> for AgentSpec {
    fn from(view: &AgentView) -> Self {
        let agent = &view.agent;
        Self {
            workspace: agent.spec.workspace.clone(),
            build: agent.spec.build,
            service_account_name: agent.spec.service_account.clone(),
            suspend: agent.spec.suspend,
            revision_history_limit: agent.spec.revision_history_limit,
            deletion_policy: agent.spec.deletion_policy.into(),
        }
    }
}

impl From<&AgentView> for AgentStatus {
    fn from(view: &AgentView) -> Self {
        let agent = &view.agent;
        Self {
            observed_generation: Some(agent.progress.observed_generation),
            run: agent.run.as_ref().map(|run| Run {
                id: run.id.to_string(),
                epoch: run.epoch,
                started_at: meta::time(run.started_at),
            }),
            latest_snapshot: view.latest.as_ref().map(|latest| LatestSnapshot {
                name: latest.name.clone(),
                hash: latest.hash.to_string(),
                revision: latest.revision,
                resource_count: latest.resource_count,
                size_bytes: latest.size_bytes,
            }),
            phase: agent.phase.map(Phase::from),
            error: (!agent.latest_error.is_empty()).then(|| agent.latest_error.clone()),
            last_handled_refresh: agent.refresh_handled.clone(),
            last_handled_reconcile: agent.reconcile_handled.clone(),
            conditions: meta::conditions(&agent.conditions, &agent.progress),
        }
    }
}
