//! `ChatDiff`: what would change if a chat moved from its pin to what its agent has now.

use super::{API_VERSION, meta::AgentIdentity, snapshot::SnapshotResource};
use crate::model::{
    diff::Diff,
    resource::{ResourceKind, ResourceMeta},
    unified::{ALL_MAX, BODY_MAX, Compared, Side, Unifier},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A chat's pin against its target's latest snapshot: `GET …/chats/{name}/diff`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatDiff {
    /// `moorline.dev/v1alpha1`.
    pub api_version: String,
    /// `ChatDiff`.
    pub kind: String,
    /// The chat's name, namespace, uid and version.
    pub metadata: ObjectMeta,
    /// What the chat is pinned to.
    pub from: DiffEnd,
    /// What its target points at; absent when there is none, as `note` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<DiffEnd>,
    /// What is only in `to`, in (kind, source) order.
    pub added: Vec<SnapshotResource>,
    /// What is only in `from`.
    pub removed: Vec<SnapshotResource>,
    /// What has the same content under another source, and the same kind.
    pub renamed: Vec<RenamedResource>,
    /// What is in both, with another content or status.
    pub changed: Vec<ChangedResource>,
    /// Anything to know about the comparison as a whole; a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One end of a comparison: a snapshot, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiffEnd {
    /// The snapshot's name.
    #[schemars(length(max = 253))]
    pub snapshot: String,
    /// The hash of its resources: `sha256:` and 64 hexadecimal digits.
    #[schemars(length(max = 71))]
    pub hash: String,
    /// The agent it came from, which may be gone.
    pub agent: AgentIdentity,
}

/// A resource that has another source now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RenamedResource {
    /// Its kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its source in the pin.
    #[schemars(length(max = 1024))]
    pub from: String,
    /// Its source in the latest.
    #[schemars(length(max = 1024))]
    pub to: String,
}

/// A resource that has another content or status now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedResource {
    /// Its kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Its source.
    #[schemars(length(max = 1024))]
    pub source: String,
    /// As it is in the pin.
    pub from: ChangedSide,
    /// As it is in the latest.
    pub to: ChangedSide,
    /// A unified diff of the two bodies, at most 64 KiB; absent when there is none, as `binary` or `note` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unified: Option<String>,
    /// Whether `unified` was cut, at the end of a line, or left out, because of a limit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Whether one of the bodies is no text: not UTF-8, or with a NUL in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub binary: bool,
    /// Why there is no `unified`, when it is not that they are binary; a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// A changed resource on one side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangedSide {
    /// sha256 of its content; absent without content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
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

impl From<&ResourceMeta> for ChangedSide {
    fn from(meta: &ResourceMeta) -> Self {
        let SnapshotResource { kind: _, source: _, source_path: _, content_hash, size_bytes, status, error } = meta.into();
        Self { content_hash, size_bytes, status, error }
    }
}

/// The bodies that a diff is told with.
pub trait Bodies {
    /// The body of a resource of the pin; none when none is kept.
    fn from(&self, resource: &ResourceMeta) -> Option<&[u8]>;
    /// The same, of the latest.
    fn to(&self, resource: &ResourceMeta) -> Option<&[u8]>;
}

impl ChatDiff {
    /// A diff without any change.
    pub fn new(metadata: ObjectMeta, from: DiffEnd, to: Option<DiffEnd>, note: String) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: "ChatDiff".into(),
            metadata,
            from,
            to,
            added: Vec::new(),
            removed: Vec::new(),
            renamed: Vec::new(),
            changed: Vec::new(),
            note,
        }
    }

    /// The same, with these changes. Without `bodies` the reader may not see any. It takes a processor for as long as
    /// [`unified`](crate::model::unified) says.
    #[must_use]
    pub fn with(self, diff: &Diff<'_>, bodies: Option<&impl Bodies>) -> Self {
        let Diff { added, removed, renamed, changed } = diff;
        let mut unifier = Unifier::new();
        Self {
            added: added.iter().copied().map(SnapshotResource::from).collect(),
            removed: removed.iter().copied().map(SnapshotResource::from).collect(),
            renamed: renamed.iter().map(|(a, b)| RenamedResource::new(a, b)).collect(),
            changed: changed.iter().map(|(a, b)| ChangedResource::new(a, b, bodies, &mut unifier)).collect(),
            ..self
        }
    }
}

impl RenamedResource {
    fn new(from: &ResourceMeta, to: &ResourceMeta) -> Self {
        Self { kind: from.kind.to_string(), from: from.source.clone(), to: to.source.clone() }
    }
}

impl ChangedResource {
    fn new(from: &ResourceMeta, to: &ResourceMeta, bodies: Option<&impl Bodies>, unifier: &mut Unifier) -> Self {
        let unchanged = Self {
            kind: from.kind.to_string(),
            source: from.source.clone(),
            from: from.into(),
            to: to.into(),
            unified: None,
            truncated: false,
            binary: false,
            note: String::new(),
        };
        let noted = |note: &str| Self { note: note.to_owned(), ..unchanged.clone() };
        if from.kind == ResourceKind::McpConfig {
            return noted("the body of an McpConfig is never kept, because it holds tokens");
        }
        if from.content_hash.is_some() && from.content_hash == to.content_hash {
            return noted(&format!("the content is the same; it was {}, and is {}", from.status, to.status));
        }
        let Some(bodies) = bodies else { return noted("bodies are only for those who may get chats/context") };
        let (old, new) = match (bodies.from(from), bodies.to(to)) {
            (Some(old), Some(new)) => (old, new),
            (None, Some(_)) => return noted(&format!("no body is kept of what it was: {}", from.status)),
            (Some(_), None) => return noted(&format!("no body is kept of what it is: {}", to.status)),
            (None, None) => return noted(&format!("no body is kept: it was {}, and is {}", from.status, to.status)),
        };
        match unifier.compare(Side { path: path(from), body: old }, Side { path: path(to), body: new }) {
            Compared::Unified { text, truncated } => Self { unified: Some(text), truncated, ..unchanged },
            Compared::Binary => Self { binary: true, ..unchanged },
            Compared::TooLarge => {
                Self { truncated: true, ..noted(&format!("a body is larger than the {BODY_MAX} bytes that are compared")) }
            }
            Compared::NoRoom => {
                let note = format!("left out: the diffs of all resources together are at most {ALL_MAX} bytes");
                Self { truncated: true, ..noted(&note) }
            }
        }
    }
}

fn path(resource: &ResourceMeta) -> &str {
    if resource.source_path.is_empty() { &resource.source } else { &resource.source_path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{Resource, ResourceStatus};

    struct Texts(Option<&'static [u8]>, Option<&'static [u8]>);

    impl Bodies for Texts {
        fn from(&self, _: &ResourceMeta) -> Option<&[u8]> {
            self.0
        }

        fn to(&self, _: &ResourceMeta) -> Option<&[u8]> {
            self.1
        }
    }

    fn told(from: &ResourceMeta, to: &ResourceMeta, bodies: Option<&Texts>) -> ChangedResource {
        ChangedResource::new(from, to, bodies, &mut Unifier::new())
    }

    #[test]
    fn a_reader_who_may_not_see_bodies_sees_that_and_what_changed() {
        let meta = |body: &str| Resource::ok(ResourceKind::Skill, "tdd", "tdd/SKILL.md", body.as_bytes().to_vec()).meta;
        let (from, to) = (meta("one\n"), meta("two\n"));
        let shown = told(&from, &to, Some(&Texts(Some(b"one\n"), Some(b"two\n"))));
        assert_eq!(shown.unified.as_deref(), Some("--- a/tdd/SKILL.md\n+++ b/tdd/SKILL.md\n@@ -1 +1 @@\n-one\n+two\n"));
        let hidden = told(&from, &to, None);
        assert_eq!(hidden.unified, None);
        assert_eq!(hidden.note, "bodies are only for those who may get chats/context");
        assert_eq!((hidden.from, hidden.to), (shown.from, shown.to));
    }

    #[test]
    fn what_has_no_bodies_to_compare_says_why() {
        let ok = |kind| Resource::ok(kind, "s", "", b"one".to_vec()).meta;
        let other = |kind| Resource::ok(kind, "s", "", b"two".to_vec()).meta;
        let invalid = ResourceMeta { status: ResourceStatus::Invalid, ..ok(ResourceKind::Skill) };
        let lost = ResourceMeta { status: ResourceStatus::Oversize, content_hash: None, ..ok(ResourceKind::Skill) };
        let (one, two) = (Some(&b"one"[..]), Some(&b"two"[..]));
        for (from, to, bodies, note) in [
            (ok(ResourceKind::McpConfig), other(ResourceKind::McpConfig), Texts(one, two), "never kept"),
            (ok(ResourceKind::Skill), invalid, Texts(one, one), "it was Ok, and is Invalid"),
            (ok(ResourceKind::Skill), lost.clone(), Texts(one, None), "of what it is: Oversize"),
            (lost.clone(), ok(ResourceKind::Skill), Texts(None, one), "of what it was: Oversize"),
            (lost.clone(), lost, Texts(None, None), "it was Oversize, and is Oversize"),
        ] {
            let told = told(&from, &to, Some(&bodies));
            assert!(told.note.contains(note) && told.unified.is_none() && !told.binary, "{told:?}");
        }
    }
}
