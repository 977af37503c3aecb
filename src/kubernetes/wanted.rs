//! What an object of the cluster should show, from what PostgreSQL holds. Pure: rows in, objects out.

use super::{
    kind::{Id, Kind, SOURCE_ANNOTATION, SOURCE_API},
    seen::{Entry, Refusal},
    shown,
};
use crate::{
    model::{
        agent::AgentView,
        chat::ChatView,
        object::{Progress, Source, TextMap},
        snapshot::SnapshotWithManifest,
    },
    store::manifests::Origin,
    v1alpha1::{
        AgentSnapshot,
        agent::{AgentSpec, AgentStatus},
        chat::{ChatSpec, ChatStatus},
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Most resources that a mirrored snapshot lists.
const RESOURCES_MAX: usize = 500;
/// Longest `source` of a mirrored resource, in bytes.
const SOURCE_MAX: usize = 512;
/// Longest `error` of a mirrored resource, in bytes.
const ERROR_MAX: usize = 256;

/// A record, as it stands.
#[derive(Clone, Debug)]
pub enum Record {
    /// A chat, and where it comes from.
    Chat(Box<ChatView>, Origin),
    /// An agent, and where it comes from.
    Agent(Box<AgentView>, Origin),
    /// A snapshot, and whether an agent that was made from a manifest reported it.
    Snapshot(Box<SnapshotWithManifest>, bool),
}

impl Record {
    /// What it is known by in a cluster.
    pub fn id(&self) -> Id {
        let (kind, namespace, name) = match self {
            Self::Chat(view, _) => (Kind::Chat, &view.chat.meta.namespace, &view.chat.meta.name),
            Self::Agent(view, _) => (Kind::Agent, &view.agent.meta.namespace, &view.agent.meta.name),
            Self::Snapshot(found, _) => (Kind::Snapshot, &found.snapshot.namespace, &found.snapshot.name),
        };
        Id { kind, key: crate::model::object::Key::new(namespace, name) }
    }

    /// Whether it was made from this object and still is.
    pub fn is_of(&self, uid: Uuid) -> bool {
        self.origin().is_some_and(|origin| {
            origin.source == Source::Manifest && origin.manifest.as_ref().is_some_and(|manifest| manifest.uid == uid)
        })
    }

    /// Whether the API owns its spec.
    pub fn is_of_the_api(&self) -> bool {
        self.origin().is_none_or(|origin| origin.source == Source::Api)
    }

    /// Whether another object of its name has made it what it is.
    pub fn is_of_another(&self, uid: Uuid) -> bool {
        self.origin().is_some_and(|origin| {
            origin.source == Source::Manifest && origin.manifest.as_ref().is_some_and(|manifest| manifest.uid != uid)
        })
    }

    /// Whether it was made through the API and stands before every manifest of its name.
    pub fn was_never_a_manifests(&self) -> bool {
        self.origin().is_some_and(|origin| origin.source == Source::Api && origin.manifest.is_none())
    }

    fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Chat(_, origin) | Self::Agent(_, origin) => Some(origin),
            Self::Snapshot(..) => None,
        }
    }

    /// Whether the loop is about to change it: what it shows would be out of date at once.
    pub fn is_in_motion(&self) -> bool {
        let moving = |progress: &Progress| progress.converged_revision < progress.revision && progress.attempts == 0;
        match self {
            Self::Chat(view, _) => moving(&view.chat.progress),
            Self::Agent(..) | Self::Snapshot(..) => false, // a lap may be long, and shows its progress
        }
    }

    /// The status that an object of this generation should show.
    ///
    /// Generations of a record and of its object count different changes. An object's is observed once the loop has observed the
    /// record's newest; until then its last but one is the newest that can have been.
    pub fn status(&self, generation: i64) -> Option<Status> {
        let (mut status, progress, newest, origin) = match self {
            Self::Chat(view, origin) => {
                (Status::Chat(Box::new((&**view).into())), &view.chat.progress, view.chat.meta.generation, origin)
            }
            Self::Agent(view, origin) => {
                (Status::Agent(Box::new((&**view).into())), &view.agent.progress, view.agent.meta.generation, origin)
            }
            Self::Snapshot(..) => return None,
        };
        let taken =
            origin.manifest.as_ref().filter(|_| origin.source == Source::Manifest).map_or(generation, |last| last.generation);
        let observed = if progress.observed_generation >= newest { taken } else { taken - 1 }.max(0);
        let (generation, conditions) = match &mut status {
            Status::Chat(status) => (&mut status.observed_generation, &mut status.conditions),
            Status::Agent(status) => (&mut status.observed_generation, &mut status.conditions),
        };
        *generation = Some(observed);
        for condition in conditions {
            condition.observed_generation = Some(observed);
        }
        Some(status)
    }

    /// The spec that the mirror's own object should have.
    pub fn spec(&self) -> Value {
        match self {
            Self::Chat(view, _) => json(&ChatSpec::from(&**view)),
            Self::Agent(view, _) => json(&AgentSpec::from(&**view)),
            Self::Snapshot(found, _) => snapshot_spec(found),
        }
    }

    /// The mirror's own object, as it is made.
    pub fn object(&self) -> Value {
        let id = self.id();
        let labels: TextMap = match self {
            Self::Chat(view, _) => view.chat.meta.labels.clone(),
            Self::Agent(view, _) => view.agent.meta.labels.clone(),
            Self::Snapshot(found, _) => AgentSnapshot::from_model(found, String::new()).metadata.labels.unwrap_or_default(),
        };
        let resource = id.kind.resource();
        json!({
            "apiVersion": resource.api_version, "kind": resource.kind,
            "metadata": {
                "namespace": id.key.namespace, "name": id.key.name, "labels": labels,
                "annotations": {SOURCE_ANNOTATION: SOURCE_API},
            },
            "spec": self.spec(),
        })
    }

    /// The labels that the mirror's own object should have beside those of others; none when they are as they were made.
    pub fn labels(&self) -> Option<&TextMap> {
        match self {
            Self::Chat(view, _) => Some(&view.chat.meta.labels),
            Self::Agent(view, _) => Some(&view.agent.meta.labels),
            Self::Snapshot(..) => None,
        }
    }

    /// Whether the mirror's own object, but for its status, is as it should be.
    pub fn has_spec(&self, entry: &Entry) -> bool {
        let spec = match self {
            Self::Chat(view, _) => shown::chat_spec(Some(&(&**view).into())),
            Self::Agent(view, _) => shown::agent_spec(Some(&(&**view).into())),
            Self::Snapshot(found, _) => shown::spec(Kind::Snapshot, &snapshot_spec(found)),
        };
        spec == entry.spec && self.labels().is_none_or(|labels| shown::labels(labels) == entry.labels)
    }
}

/// The status that an object should show.
#[derive(Clone, Debug)]
pub enum Status {
    /// Of a chat.
    Chat(Box<ChatStatus>),
    /// Of an agent.
    Agent(Box<AgentStatus>),
}

impl Status {
    /// As it is compared.
    pub fn number(&self) -> u64 {
        match self {
            Self::Chat(status) => shown::chat_status(Some((**status).clone())),
            Self::Agent(status) => shown::agent_status(Some((**status).clone())),
        }
    }

    /// As it is written.
    pub fn json(&self) -> Value {
        match self {
            Self::Chat(status) => json(status),
            Self::Agent(status) => json(status),
        }
    }
}

/// The status of a manifest that was refused.
pub fn refused(refusal: &Refusal) -> Value {
    let condition = |kind: &str, status: &str| {
        json!({
            "type": kind, "status": status, "reason": refusal.reason, "message": cut(&refusal.message, 4_096),
            "observedGeneration": refusal.generation, "lastTransitionTime": crate::v1alpha1::meta::time(refusal.since),
        })
    };
    json!({"observedGeneration": refusal.generation, "conditions": [condition("Ready", "False"), condition("Stalled", "True")]})
}

fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("our types have no maps with other keys than text")
}

/// A snapshot's spec, small enough for any etcd.
fn snapshot_spec(found: &SnapshotWithManifest) -> Value {
    let mut spec = AgentSnapshot::from_model(found, String::new()).spec;
    let all = spec.resources.len();
    for resource in &mut spec.resources {
        resource.source = cut(&resource.source, SOURCE_MAX).to_owned();
        resource.source_path = cut(&resource.source_path, SOURCE_MAX).to_owned();
        resource.error = cut(&resource.error, ERROR_MAX).to_owned();
    }
    spec.resources.dedup_by(|a, b| (&a.kind, &a.source) == (&b.kind, &b.source)); // which only cutting can have made equal
    spec.resources.truncate(RESOURCES_MAX);
    spec.truncated = spec.resources.len() < all;
    json(&spec)
}

/// At most so many bytes of a text, in whole characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}
