//! `AgentSnapshot`: an immutable revision of an agent's context. Metadata of resources only, never a body.

use super::{
    definition,
    meta::{self, AgentIdentity},
};
use crate::model::{
    resource::ResourceMeta,
    snapshot::{Snapshot, SnapshotWithManifest},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label: the agent that reported it.
pub const AGENT_LABEL: &str = "moorline.dev/agent";
/// Label: the first twelve digits of its hash.
pub const HASH_LABEL: &str = "moorline.dev/snapshot-hash";

/// What a snapshot holds. Read-only: made by pushes, removed by retention.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "moorline.dev",
    version = "v1alpha1",
    kind = "AgentSnapshot",
    namespaced,
    derive = "PartialEq",
    shortname = "msnap",
    category = "moorline",
    doc = "An immutable, content-addressed revision of an agent's context.",
    selectable = ".spec.agentRef.name",
    printcolumn(name = "Agent", type_ = "string", json_path = ".spec.agentRef.name"),
    printcolumn(name = "Rev", type_ = "integer", json_path = ".spec.revision"),
    printcolumn(name = "Resources", type_ = "integer", json_path = ".spec.resourceCount"),
    printcolumn(name = "Hash", type_ = "string", json_path = ".spec.hash", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = definition::immutable_object())]
#[serde(rename_all = "camelCase")]
pub struct AgentSnapshotSpec {
    /// The agent that reported it, which may be gone.
    pub agent_ref: AgentIdentity,
    /// The hash of its resources: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(min = 71, max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub hash: String,
    /// Counts the agent's distinct contexts, from 1.
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub revision: i64,
    /// How many resources it holds.
    #[schemars(range(min = 0))]
    pub resource_count: i32,
    /// Sum of their sizes in bytes.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
    /// The resources, in (kind, source) order, without bodies.
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["kind", "source"]))]
    pub resources: Vec<SnapshotResource>,
    /// Whether the list is cut: an object in a cluster lists at most 500, with sources of at most 512 bytes. The API lists all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A resource of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotResource {
    /// InstructionFile, Skill, McpConfig; Plugin, Hook, Subagent and Command are reserved.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its identity within the kind.
    #[schemars(length(max = 1024))]
    pub source: String,
    /// Where it was found, relative to the workspace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub source_path: String,
    /// sha256 of its content; absent without content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 71, max = 71), regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub content_hash: Option<String>,
    /// Size of its content in bytes.
    #[schemars(range(min = 0))]
    pub size_bytes: i64,
    /// Ok, Oversize, Unreadable, Invalid or Excluded.
    #[schemars(length(max = 63))]
    pub status: String,
    /// Why, when it is not Ok.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub error: String,
}

impl From<&ResourceMeta> for SnapshotResource {
    fn from(resource: &ResourceMeta) -> Self {
        let ResourceMeta { kind, source, source_path, content_hash, size_bytes, status, error } = resource;
        Self {
            kind: kind.to_string(),
            source: source.clone(),
            source_path: source_path.clone(),
            content_hash: content_hash.map(|hash| hash.to_string()),
            size_bytes: i64::try_from(*size_bytes).unwrap_or(i64::MAX),
            status: status.to_string(),
            error: error.clone(),
        }
    }
}

impl AgentSnapshot {
    /// A snapshot as it is shown. `version` is its version on the wire.
    pub fn from_model(found: &SnapshotWithManifest, version: String) -> Self {
        let SnapshotWithManifest { snapshot, manifest } = found;
        let Snapshot { namespace, name, agent_id, agent_name, revision, hash, resource_count, size_bytes, created_at, .. } =
            snapshot;
        let labels = [(AGENT_LABEL.to_owned(), agent_name.clone()), (HASH_LABEL.to_owned(), hash.short())];
        let metadata = ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            // A snapshot has no uid of its own; its agent's, with its revision, names it for good.
            uid: Some(uuid::Uuid::from_u128(agent_id.as_u128() ^ u128::from(revision.unsigned_abs())).to_string()),
            labels: Some(labels.into()),
            generation: Some(1),
            resource_version: Some(version),
            creation_timestamp: Some(meta::time(*created_at)),
            ..ObjectMeta::default()
        };
        let spec = AgentSnapshotSpec {
            agent_ref: AgentIdentity::new(agent_name, *agent_id),
            hash: hash.to_string(),
            revision: *revision,
            resource_count: *resource_count,
            size_bytes: *size_bytes,
            resources: manifest.iter().map(SnapshotResource::from).collect(),
            truncated: false,
        };
        Self { metadata, spec }
    }
}
