//! What every record has in common: identity, who owns its spec, and how far the loop has got with it.

use super::word::word_enum;
use jiff::Timestamp;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Annotation: re-pin to the latest snapshot (Chat), or all chats bound to it (Agent). An opaque token; a changed one asks.
pub const REFRESH_ANNOTATION: &str = "moorline.dev/refresh-requested-at";
/// Annotation: look again now. An opaque token; a changed one asks.
pub const RECONCILE_ANNOTATION: &str = "moorline.dev/reconcile-requested-at";
/// Annotation: `"true"` leaves the record alone, as `spec.suspend` does, for specs that somebody else owns.
pub const PAUSED_ANNOTATION: &str = "moorline.dev/paused";

/// The name of a record: where it lives and what it is called there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The tenant and the shard.
    pub namespace: String,
    /// Unique within the namespace and the kind.
    pub name: String,
}

impl Key {
    /// A key of two texts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// Text by text: labels and annotations.
pub type TextMap = BTreeMap<String, String>;

/// What Kubernetes calls metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    /// The tenant and the shard.
    pub namespace: String,
    /// The uid.
    pub id: Uuid,
    /// The name.
    pub name: String,
    /// Labels.
    pub labels: TextMap,
    /// Annotations.
    pub annotations: TextMap,
    /// Counts changes of spec.
    pub generation: i64,
    /// Version of what the object shows.
    pub rv: i64,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The requests that annotations carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// The refresh token.
    pub refresh: Option<String>,
    /// The reconcile token.
    pub reconcile: Option<String>,
    /// Whether the record is paused.
    pub paused: bool,
}

impl Requests {
    /// The requests that stand in `annotations`.
    pub fn of(annotations: &TextMap) -> Self {
        Self {
            refresh: annotations.get(REFRESH_ANNOTATION).cloned(),
            reconcile: annotations.get(RECONCILE_ANNOTATION).cloned(),
            paused: annotations.get(PAUSED_ANNOTATION).is_some_and(|value| value == "true"),
        }
    }
}

/// How far the loop has got with a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Counts changes of the record's inputs.
    pub revision: i64,
    /// The revision that the loop has seen.
    pub converged_revision: i64,
    /// The generation that the conditions speak of.
    pub observed_generation: i64,
    /// Failures in a row.
    pub attempts: i32,
    /// Not before then.
    pub retry_at: Option<Timestamp>,
}

word_enum! {
    /// What deleting a manifest does to the record.
    DeletionPolicy {
        /// The record goes too.
        Delete,
        /// The record stays, and the API owns it from then on.
        Retain,
    }
}

/// Who owns a record's spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The HTTP API.
    Api,
    /// A manifest in a cluster.
    Manifest,
}

impl Source {
    /// The word in SQL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Manifest => "manifest",
        }
    }

    /// From the word in SQL.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Api, Self::Manifest].into_iter().find(|source| source.as_str() == word)
    }
}
