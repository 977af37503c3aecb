//! `Chat`: a conversation, and the snapshot it is moored to.

use super::{
    definition,
    meta::{self, AgentIdentity, LabelRef, NameRef},
};
use crate::model::{
    chat::{self as model, BoundAgent, ChatDetail, ChatState, ChatView, PinCause, Reference},
    drift,
    fault::{Fault, FaultKind},
    name,
    object::{DeletionPolicy, TextMap},
    resource::ResourceKind,
    snapshot::Snapshot,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest owner, in characters: a user name.
pub const OWNER_MAX: usize = 253;
/// Longest title, in characters.
pub const TITLE_MAX: usize = 512;
/// Longest `status.lastError`, in characters.
pub const LAST_ERROR_MAX: usize = 4096;

/// What is asked of a chat.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "moorline.dev",
    version = "v1alpha1",
    kind = "Chat",
    namespaced,
    status = "ChatStatus",
    derive = "PartialEq",
    derive = "Default",
    shortname = "mchat",
    category = "moorline",
    doc = "A conversation with an AI, moored to an immutable snapshot of its agent's context.",
    selectable = ".spec.owner",
    selectable = ".spec.agentRef.name",
    selectable = ".spec.workspaceRef.name",
    selectable = ".spec.archived",
    selectable = ".status.state",
    selectable = ".status.dirty",
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.boundAgent.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Drifted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Drifted\")].status"),
    printcolumn(name = "Pinned", type_ = "string", json_path = ".status.pinned.snapshot"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Drifting", type_ = "date", json_path = ".status.dirtySince", priority = 1),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state", priority = 1),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = definition::at_most_one())]
#[x_kube(validation = definition::immutable("owner"))]
#[x_kube(validation = definition::immutable("parentRef"))]
#[serde(rename_all = "camelCase")]
pub struct ChatSpec {
    /// Whose chat it is: a user name of at most 253 characters. Default: whoever creates it. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^\x00]*$"))]
    pub owner: Option<String>,
    /// For people; at most 512 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512), regex(pattern = r"^[^\x00]*$"))]
    pub title: String,
    /// The agent whose context it uses, of the same namespace. At most one of agentRef and workspaceRef; neither: unbound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ref: Option<LabelRef>,
    /// The workspace whose current agent's context it uses: the agent with the highest build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_ref: Option<LabelRef>,
    /// The chat it branched off; it starts with that one's pin unless it names another agent. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_ref: Option<NameRef>,
    /// What to do when the agent's context changes: Manual (mark it dirty and wait) or OnDrift (move to the latest at once).
    #[serde(default)]
    pub refresh_policy: RefreshPolicy,
    /// Leave it alone: nothing moves, not even the drift marker.
    #[serde(default)]
    pub suspend: bool,
    /// Put it away, with everything below it: nothing moves, and it cannot be refreshed.
    #[serde(default)]
    pub archived: bool,
    /// What deleting the manifest does to the record: Delete or Retain.
    #[serde(default)]
    pub deletion_policy: Deletion,
}

/// What to do when the agent's context changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RefreshPolicy {
    /// Mark the chat dirty and wait until somebody asks.
    #[default]
    Manual,
    /// Move to the latest snapshot at once.
    OnDrift,
}

impl From<model::RefreshPolicy> for RefreshPolicy {
    fn from(policy: model::RefreshPolicy) -> Self {
        match policy {
            model::RefreshPolicy::Manual => Self::Manual,
            model::RefreshPolicy::OnDrift => Self::OnDrift,
        }
    }
}

/// What deleting a manifest does to the record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Deletion {
    /// The record goes too.
    #[default]
    Delete,
    /// The record stays, and the API owns it from then on.
    Retain,
}

impl From<Deletion> for DeletionPolicy {
    fn from(deletion: Deletion) -> Self {
        match deletion {
            Deletion::Delete => Self::Delete,
            Deletion::Retain => Self::Retain,
        }
    }
}

impl From<DeletionPolicy> for Deletion {
    fn from(policy: DeletionPolicy) -> Self {
        match policy {
            DeletionPolicy::Delete => Self::Delete,
            DeletionPolicy::Retain => Self::Retain,
        }
    }
}

/// What is so of a chat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatStatus {
    /// The generation that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Reported by whoever runs the chat. Completed and Error are terminal, the others active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Likewise: why the state is Error; at most 4,096 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub last_error: Option<String>,
    /// The pin's agent; the target while there is no pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_agent: Option<AgentIdentity>,
    /// What it is moored to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<Pinned>,
    /// What its agent points at, as of the request. Only when one chat is read or written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub latest: Option<Latest>,
    /// Whether the pin differs from the latest, as converged.
    #[serde(default)]
    pub dirty: bool,
    /// When this drift began; absent when clean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_since: Option<Time>,
    /// How the latest differs from the pin, as of the request. Only when one chat is read or written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub drift: Option<DriftSummary>,
    /// Echo of the refresh token that was last handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_refresh: Option<String>,
    /// Echo of the reconcile token that was last handled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_reconcile: Option<String>,
    /// Ready, Drifted, ResourcesDegraded; Reconciling and Stalled only when True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// What whoever runs a chat says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// For its user.
    Waiting,
    /// Working.
    Running,
    /// Held by its user.
    Paused,
    /// Not begun.
    Pending,
    /// For an answer.
    RequiresAction,
    /// Ended well. Terminal.
    Completed,
    /// Ended badly. Terminal.
    Error,
}

impl From<State> for ChatState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Running => Self::Running,
            State::Paused => Self::Paused,
            State::Pending => Self::Pending,
            State::RequiresAction => Self::RequiresAction,
            State::Completed => Self::Completed,
            State::Error => Self::Error,
        }
    }
}

impl From<ChatState> for State {
    fn from(state: ChatState) -> Self {
        match state {
            ChatState::Waiting => Self::Waiting,
            ChatState::Running => Self::Running,
            ChatState::Paused => Self::Paused,
            ChatState::Pending => Self::Pending,
            ChatState::RequiresAction => Self::RequiresAction,
            ChatState::Completed => Self::Completed,
            ChatState::Error => Self::Error,
        }
    }
}

/// Why a pin is where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Cause {
    /// The first pin.
    Hydrated,
    /// Somebody asked.
    Refreshed,
    /// The policy asked.
    AutoRefreshed,
    /// The target became another agent.
    Rebound,
    /// Created with its parent's pin.
    Inherited,
}

impl From<PinCause> for Cause {
    fn from(cause: PinCause) -> Self {
        match cause {
            PinCause::Hydrated => Self::Hydrated,
            PinCause::Refreshed => Self::Refreshed,
            PinCause::AutoRefreshed => Self::AutoRefreshed,
            PinCause::Rebound => Self::Rebound,
            PinCause::Inherited => Self::Inherited,
        }
    }
}

/// What a chat is moored to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// The snapshot's name.
    #[schemars(length(max = 253))]
    pub snapshot: String,
    /// The hash of its resources: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub hash: String,
    /// The agent it came from, which may be gone.
    pub agent: AgentIdentity,
    /// Why the pin is there.
    pub cause: Cause,
    /// Since when.
    pub at: Time,
    /// How many resources it holds.
    pub resource_count: i32,
    /// What the agent said was wrong with its scan.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub error: String,
}

/// What an agent points at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Latest {
    /// The snapshot's name.
    pub snapshot: String,
    /// The hash of its resources.
    pub hash: String,
}

impl From<&Snapshot> for Latest {
    fn from(snapshot: &Snapshot) -> Self {
        Self { snapshot: snapshot.name.clone(), hash: snapshot.hash.to_string() }
    }
}

/// How the latest differs from the pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftSummary {
    /// How many resources were added.
    pub added: usize,
    /// How many were changed.
    pub changed: usize,
    /// How many were removed.
    pub removed: usize,
    /// The first 20 of them, in (kind, source) order.
    pub resources: Vec<DriftedResource>,
    /// Whether there are more.
    pub truncated: bool,
}

/// One resource that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DriftedResource {
    /// Its kind.
    pub kind: String,
    /// Its source.
    pub source: String,
    /// Added, Changed or Removed.
    pub change: String,
}

impl From<&drift::Drift> for DriftSummary {
    fn from(drift: &drift::Drift) -> Self {
        let drift::Drift { added, changed, removed, resources, truncated } = drift;
        let resource = |change: &drift::Change| DriftedResource {
            kind: ResourceKind::as_str(change.kind).to_owned(),
            source: change.source.clone(),
            change: change.change.to_string(),
        };
        Self {
            added: *added,
            changed: *changed,
            removed: *removed,
            resources: resources.iter().map(resource).collect(),
            truncated: *truncated,
        }
    }
}

/// A chat's desired columns, as a client sent them.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// The spec; `owner` is `default_owner` when none was given.
    pub spec: model::ChatSpec,
    /// Labels.
    pub labels: TextMap,
    /// Annotations.
    pub annotations: TextMap,
}

impl Chat {
    /// Reads what a client asks of a chat. Every fault is listed.
    pub fn desired(&self, default_owner: &str) -> Result<Desired, Vec<Fault>> {
        let (labels, annotations, mut faults) = meta::labels_and_annotations(&self.metadata);
        let ChatSpec { owner, title, agent_ref, workspace_ref, parent_ref, refresh_policy, suspend, archived, deletion_policy } =
            &self.spec;
        let owner = owner.as_deref().unwrap_or(default_owner);
        if owner.is_empty() {
            faults.push(Fault::new("spec.owner", FaultKind::Required, "must not be empty"));
        }
        faults.extend(meta::length_fault("spec.owner", owner, OWNER_MAX));
        faults.extend(meta::length_fault("spec.title", title, TITLE_MAX));
        if let Some(agent) = agent_ref {
            faults.extend(name::dns_label("spec.agentRef.name", &agent.name));
        }
        if let Some(workspace) = workspace_ref {
            faults.extend(name::dns_label("spec.workspaceRef.name", &workspace.name));
        }
        if let Some(parent) = parent_ref {
            faults.extend(name::dns_subdomain("spec.parentRef.name", &parent.name));
        }
        let reference = match (agent_ref, workspace_ref) {
            (None, None) => Reference::Unbound,
            (Some(agent), None) => Reference::Agent(agent.name.clone()),
            (None, Some(workspace)) => Reference::Workspace(workspace.name.clone()),
            (Some(_), Some(_)) => {
                let message = "at most one of agentRef and workspaceRef may be given, got both";
                faults.push(Fault::new("spec.workspaceRef", FaultKind::Forbidden, message));
                Reference::Unbound
            }
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let spec = model::ChatSpec {
            owner: owner.to_owned(),
            title: title.clone(),
            reference,
            parent: parent_ref.as_ref().map(|parent| parent.name.clone()),
            refresh_policy: match refresh_policy {
                RefreshPolicy::Manual => model::RefreshPolicy::Manual,
                RefreshPolicy::OnDrift => model::RefreshPolicy::OnDrift,
            },
            suspend: *suspend,
            archived: *archived,
            deletion_policy: (*deletion_policy).into(),
        };
        Ok(Desired { spec, labels, annotations })
    }

    /// A chat as a list shows it. `version` is its version on the wire.
    pub fn from_view(view: &ChatView, version: String) -> Self {
        let (spec, status) = (ChatSpec::from(view), ChatStatus::from(view));
        Self { metadata: meta::object_meta(&view.chat.meta, version), spec, status: Some(status) }
    }

    /// A chat as a read of that one chat shows it.
    pub fn from_detail(detail: &ChatDetail, version: String) -> Self {
        let mut chat = Self::from_view(&detail.view, version);
        if let Some(status) = chat.status.as_mut() {
            status.latest = detail.latest.as_ref().map(Latest::from);
            status.drift = detail.drift.as_ref().map(DriftSummary::from);
        }
        chat
    }
}

impl From<&ChatView> for ChatSpec {
    fn from(view: &ChatView) -> Self {
        let chat = &view.chat;
        let labelled = |name: Option<&str>| name.map(|name| LabelRef { name: name.to_owned() });
        Self {
            owner: Some(chat.spec.owner.clone()),
            title: chat.spec.title.clone(),
            agent_ref: labelled(chat.spec.reference.agent()),
            workspace_ref: labelled(chat.spec.reference.workspace()),
            parent_ref: chat.spec.parent.clone().map(|name| NameRef { name }),
            refresh_policy: chat.spec.refresh_policy.into(),
            suspend: chat.spec.suspend,
            archived: chat.spec.archived,
            deletion_policy: chat.spec.deletion_policy.into(),
        }
    }
}

/// As a list shows it.
impl From<&ChatView> for ChatStatus {
    fn from(view: &ChatView) -> Self {
        let chat = &view.chat;
        let pinned = view.pinned.as_ref().zip(chat.pin.as_ref()).map(|(snapshot, pin)| Pinned {
            snapshot: snapshot.name.clone(),
            hash: snapshot.hash.to_string(),
            agent: AgentIdentity::new(&snapshot.agent_name, snapshot.agent_id),
            cause: pin.cause.into(),
            at: meta::time(pin.at),
            resource_count: snapshot.resource_count,
            error: snapshot.error.clone(),
        });
        Self {
            observed_generation: Some(chat.progress.observed_generation),
            state: Some(chat.state.into()),
            last_error: (!chat.last_error.is_empty()).then(|| chat.last_error.clone()),
            bound_agent: view.bound_agent().map(|BoundAgent { id, name }| AgentIdentity::new(&name, id)),
            pinned,
            latest: None,
            dirty: chat.dirty_since.is_some(),
            dirty_since: chat.dirty_since.map(meta::time),
            drift: None,
            last_handled_refresh: chat.refresh_handled.clone(),
            last_handled_reconcile: chat.reconcile_handled.clone(),
            conditions: meta::conditions(&chat.conditions, &chat.progress),
        }
    }
}
