//! The kinds of objects that the front has to do with, and what one is known by.

use crate::{
    model::object::Key,
    v1alpha1::{Agent, AgentSnapshot, Chat},
};
use kube::{
    Api, Client,
    core::{ApiResource, DynamicObject, Resource as _},
};
use std::fmt;

/// Our finalizer: a manifest that has it is seen to be deleted, whoever is away.
pub const FINALIZER: &str = "moorline.dev/cleanup";
/// Annotation on an object that the mirror made from a record: who owns its spec.
pub const SOURCE_ANNOTATION: &str = "moorline.dev/source";
/// The value of [`SOURCE_ANNOTATION`] on what the mirror made.
pub const SOURCE_API: &str = "api";

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An agent.
    Agent,
    /// A chat.
    Chat,
    /// A snapshot of an agent's context.
    Snapshot,
}

impl Kind {
    /// All of them; agents first, since chats name them.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Chat, Self::Snapshot];

    /// As a cluster knows it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Agent => ApiResource::erase::<Agent>(&()),
            Self::Chat => ApiResource::erase::<Chat>(&()),
            Self::Snapshot => ApiResource::erase::<AgentSnapshot>(&()),
        }
    }

    /// The plural, as in paths.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Agent => "agents",
            Self::Chat => "chats",
            Self::Snapshot => "agentsnapshots",
        }
    }

    /// Its objects, in one namespace or in all.
    pub fn api(self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource()),
            None => Api::all_with(client.clone(), &self.resource()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "Agent",
            Self::Chat => "Chat",
            Self::Snapshot => "AgentSnapshot",
        })
    }
}

/// What an object is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub key: Key,
}

impl Id {
    /// Of an object that the cluster gave us; none when it has no name or no namespace, which the cluster's do.
    pub fn of(kind: Kind, object: &DynamicObject) -> Option<Self> {
        let meta = object.meta();
        Some(Self { kind, key: Key::new(meta.namespace.clone()?, meta.name.clone()?) })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.key.namespace, self.key.name)
    }
}
