//! The objects that events are about: what they are known by in the log, what selectors and authorization look at, how they are sent.

use crate::{
    http::{page::object_version, status::Resource},
    model::{
        agent::AgentView,
        chat::ChatView,
        event::EventKind,
        object::{Key, TextMap},
        snapshot::SnapshotWithManifest,
    },
    store::{Deleted, across::objects::OwnedSnapshot, events::Logged},
    v1alpha1::{
        Agent, AgentSnapshot, Chat,
        snapshot::{AGENT_LABEL, HASH_LABEL},
    },
};
use axum::body::Bytes;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What selectors and authorization look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Labels.
    pub labels: TextMap,
    /// Selectable fields by path; empty when absent.
    pub fields: BTreeMap<&'static str, String>,
    /// Whose it is: a chat's owner, an agent's service account.
    pub owner: Option<String>,
}

impl Look {
    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        let labels = self.labels.iter().map(|(key, value)| 128 + key.len() + value.len());
        let fields = self.fields.values().map(|value| 64 + value.len());
        256 + labels.chain(fields).sum::<usize>()
    }
}

/// An object as it stands or stood.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A chat.
    Chat(Box<ChatView>),
    /// An agent.
    Agent(Box<AgentView>),
    /// A snapshot.
    Snapshot(Box<OwnedSnapshot>),
}

impl From<Deleted> for Object {
    fn from(deleted: Deleted) -> Self {
        match deleted {
            Deleted::Chat(chat) => Self::Chat(chat),
            Deleted::Agent(agent) => Self::Agent(agent),
            Deleted::Snapshot(snapshot) => Self::Snapshot(snapshot),
        }
    }
}

impl Object {
    /// What it is known by in the log.
    pub fn id(&self) -> Id {
        match self {
            Self::Chat(view) => Id::Chat(view.chat.meta.id),
            Self::Agent(view) => Id::Agent(view.agent.meta.id),
            Self::Snapshot(owned) => {
                let snapshot = &owned.found.snapshot;
                Id::Snapshot(Key::new(&snapshot.namespace, &snapshot.name))
            }
        }
    }

    /// Where it is.
    pub fn key(&self) -> Key {
        match self {
            Self::Chat(view) => Key::new(&view.chat.meta.namespace, &view.chat.meta.name),
            Self::Agent(view) => Key::new(&view.agent.meta.namespace, &view.agent.meta.name),
            Self::Snapshot(owned) => Key::new(&owned.found.snapshot.namespace, &owned.found.snapshot.name),
        }
    }

    /// The version of what it shows.
    pub fn rv(&self) -> i64 {
        match self {
            Self::Chat(view) => view.chat.meta.rv,
            Self::Agent(view) => view.agent.meta.rv,
            Self::Snapshot(owned) => owned.found.snapshot.rv,
        }
    }

    /// What selectors and authorization look at.
    pub fn look(&self) -> Look {
        let key = self.key();
        let mut fields = BTreeMap::from([("metadata.namespace", key.namespace), ("metadata.name", key.name)]);
        match self {
            Self::Chat(view) => {
                let chat = &view.chat;
                let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
                fields.insert("spec.owner", chat.spec.owner.clone());
                fields.insert("spec.agentRef.name", text(chat.spec.reference.agent()));
                fields.insert("spec.workspaceRef.name", text(chat.spec.reference.workspace()));
                fields.insert("spec.archived", chat.spec.archived.to_string());
                fields.insert("status.state", chat.state.to_string());
                fields.insert("status.dirty", chat.dirty_since.is_some().to_string());
                Look { labels: chat.meta.labels.clone(), fields, owner: Some(chat.spec.owner.clone()) }
            }
            Self::Agent(view) => {
                let agent = &view.agent;
                fields.insert("spec.workspace", agent.spec.workspace.clone().unwrap_or_default());
                Look { labels: agent.meta.labels.clone(), fields, owner: agent.spec.service_account.clone() }
            }
            Self::Snapshot(owned) => {
                let snapshot = &owned.found.snapshot;
                fields.insert("spec.agentRef.name", snapshot.agent_name.clone());
                let labels = [(AGENT_LABEL, snapshot.agent_name.clone()), (HASH_LABEL, snapshot.hash.short())];
                let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
                Look { labels, fields, owner: owned.service_account.clone() }
            }
        }
    }

    /// As it stands on the wire, labelled with a version of the store.
    pub fn json(&self, rv: i64) -> Bytes {
        let version = object_version(rv);
        let text = match self {
            Self::Chat(view) => serde_json::to_vec(&Chat::from_view(view, version)),
            Self::Agent(view) => serde_json::to_vec(&Agent::from_view(view, version)),
            Self::Snapshot(owned) => {
                let SnapshotWithManifest { .. } = owned.found;
                serde_json::to_vec(&AgentSnapshot::from_model(&owned.found, version))
            }
        };
        text.expect("an object is plain data").into()
    }
}

/// What an object is known by in the log. Snapshots are known by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Id {
    /// A chat's uid.
    Chat(Uuid),
    /// An agent's uid.
    Agent(Uuid),
    /// Where a snapshot is.
    Snapshot(Key),
}

impl Id {
    /// The object that an event is about.
    pub fn of(event: &Logged) -> Option<Self> {
        match event.kind {
            EventKind::ChatCreated
            | EventKind::ChatUpdated
            | EventKind::ChatDeleted
            | EventKind::ContextHydrated
            | EventKind::ContextDrifted
            | EventKind::ContextConverged
            | EventKind::ContextRefreshed
            | EventKind::AgentRebound
            | EventKind::ContextCleared => event.subject.map(Self::Chat),
            EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted => event.subject.map(Self::Agent),
            EventKind::SnapshotAccepted | EventKind::SnapshotDeleted => {
                Some(Self::Snapshot(Key::new(&event.namespace, &event.name)))
            }
        }
    }

    pub(super) fn resource(&self) -> Resource {
        match self {
            Self::Chat(_) => Resource::Chats,
            Self::Agent(_) => Resource::Agents,
            Self::Snapshot(_) => Resource::AgentSnapshots,
        }
    }
}
