//! `ChatWhy`: the rule that decided about a chat, with what it saw.

use super::{
    API_VERSION,
    chat::{Latest, RefreshPolicy, State},
    meta::{AgentIdentity, time},
};
use crate::{
    model::{hash::ContextHash, target::Target},
    plan::why::{Remedy as PlanRemedy, Seen, Why, action_name},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a chat is what it is: `GET …/chats/{name}/why`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatWhy {
    /// `moorline.dev/v1alpha1`.
    pub api_version: String,
    /// `ChatWhy`.
    pub kind: String,
    /// The chat's name, namespace, uid and version.
    pub metadata: ObjectMeta,
    /// The number of the rule that made the chat what it is, or that is about to change it: 1 to 8.
    pub rule: u8,
    /// What that rule did, or is about to do: `MarkDirty`, `Repin(Refreshed)`.
    pub action: String,
    /// What the loop would do now, by which rule; absent when it would keep the chat as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStep>,
    /// All of it in a sentence.
    pub message: String,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
    /// What the decision saw.
    pub saw: Saw,
}

/// What the loop would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextStep {
    /// The number of the rule.
    pub rule: u8,
    /// What it says to do.
    pub action: String,
}

/// What a person can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Remedy {
    /// Refresh the chat.
    Refresh,
    /// Unarchive it, or the ancestor that is archived.
    Unarchive,
    /// Resume it: `spec.suspend`, or the annotation that pauses it.
    Resume,
    /// Create the agent that it names, or name another.
    CreateAgent,
    /// Have the agent report a complete context.
    Report,
    /// Name an agent or a workspace.
    NameAgent,
}

impl From<PlanRemedy> for Remedy {
    fn from(remedy: PlanRemedy) -> Self {
        match remedy {
            PlanRemedy::Refresh => Self::Refresh,
            PlanRemedy::Unarchive => Self::Unarchive,
            PlanRemedy::Resume => Self::Resume,
            PlanRemedy::CreateAgent => Self::CreateAgent,
            PlanRemedy::Report => Self::Report,
            PlanRemedy::NameAgent => Self::NameAgent,
        }
    }
}

/// The inputs of the decision, as one reading of the database gave them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "the decision is made over exactly these independent facts")]
pub struct Saw {
    /// Archived by its own wish or by an ancestor's.
    pub archived: bool,
    /// Suspended, or paused by annotation.
    pub suspended: bool,
    /// What its runner reports.
    pub state: State,
    /// What to do when it drifts.
    pub refresh_policy: RefreshPolicy,
    /// A refresh was asked for and has not been handled.
    pub refresh_pending: bool,
    /// A drift episode is recorded.
    pub dirty: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty_since: Option<Time>,
    /// The pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<SawPin>,
    /// What the chat names: `agent ws-42`, `workspace ws`; absent when it names nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<String>,
    /// The agent that is; absent when it does not exist or is being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<AgentIdentity>,
    /// What that agent points at; absent before its first complete report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<Latest>,
    /// Whether the loop has seen everything that was asked of the chat itself.
    pub converged: bool,
    /// Not before then will the loop try again, because it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Time>,
}

/// The pin, as the decision saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SawPin {
    /// The snapshot's name.
    pub snapshot: String,
    /// Its hash.
    pub hash: String,
    /// The agent it came from.
    pub agent: AgentIdentity,
    /// Since when it is pinned.
    pub at: Time,
}

/// What stands on the wire and not in the decision.
#[derive(Clone, Copy, Debug)]
pub struct Beside<'a> {
    /// The name of the pin's snapshot.
    pub pinned_snapshot: Option<&'a str>,
    /// The name of the target's latest snapshot.
    pub latest_snapshot: Option<&'a str>,
    /// Whether the chat is not due.
    pub converged: bool,
    /// When the loop tries again.
    pub retry_at: Option<jiff::Timestamp>,
}

impl ChatWhy {
    /// The answer on the wire.
    pub fn new(metadata: ObjectMeta, seen: &Seen<'_>, why: Why, beside: &Beside<'_>) -> Self {
        let Why { rule, action, next, message, remedy } = why;
        Self {
            api_version: API_VERSION.into(),
            kind: "ChatWhy".into(),
            metadata,
            rule: rule.number(),
            action: action.into(),
            next: next.map(|next| NextStep { rule: next.rule.number(), action: action_name(next.action).into() }),
            message,
            remedy: remedy.map(Remedy::from),
            saw: Saw::new(seen, beside),
        }
    }
}

impl Saw {
    fn new(seen: &Seen<'_>, beside: &Beside<'_>) -> Self {
        let Seen { name: _, facts, inherited_archived: _, pin, target, target_agent, reference, dirty_since } = *seen;
        let Beside { pinned_snapshot, latest_snapshot, converged, retry_at } = *beside;
        let hash = |hash: ContextHash| hash.to_string();
        let identity = match target {
            Target::Agent { id, .. } => target_agent.map(|name| AgentIdentity::new(name, id)),
            Target::Unbound | Target::Missing => None,
        };
        Self {
            archived: facts.archived,
            suspended: facts.suspended,
            state: facts.state.into(),
            refresh_policy: facts.policy.into(),
            refresh_pending: facts.refresh_pending,
            dirty: facts.dirty,
            dirty_since: dirty_since.map(time),
            pinned: pin.zip(pinned_snapshot).map(|(seen, snapshot)| SawPin {
                snapshot: snapshot.into(),
                hash: hash(seen.pin.hash),
                agent: AgentIdentity::new(seen.agent, seen.pin.agent),
                at: time(seen.at),
            }),
            names: reference.map(str::to_owned),
            target: identity,
            latest: target
                .latest()
                .zip(latest_snapshot)
                .map(|(latest, name)| Latest { snapshot: name.into(), hash: hash(latest.hash) }),
            converged,
            retry_at: retry_at.map(time),
        }
    }
}
