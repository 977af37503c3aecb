//! One item of an agent's context, and the two classes of them: the *pinned* class is part of snapshots and of the
//! hash and drifts; the *live* class follows the bound agent by reference and never makes a chat dirty (DESIGN.md §1).

use super::{hash::ContentHash, word::word_enum};
use serde::{Deserialize, Serialize};
use std::fmt;

word_enum! {
    /// What a resource is.
    ResourceKind {
        /// Instructions for the model: AGENTS.md, CLAUDE.md, .cursorrules.
        InstructionFile,
        /// A skill: one SKILL.md.
        Skill,
        /// A file that configures MCP servers. Its body is never carried: it holds tokens.
        McpConfig,
        /// The tools that a live MCP server offers. The only kind of the live class.
        McpServer,
        /// Reserved.
        Plugin,
        /// Reserved.
        Hook,
        /// Reserved.
        Subagent,
        /// Reserved.
        Command,
    }
}

impl ResourceKind {
    /// Whether resources of this kind belong to snapshots, to the hash, and to drift.
    pub const fn is_pinned_class(self) -> bool {
        match self {
            Self::InstructionFile
            | Self::Skill
            | Self::McpConfig
            | Self::Plugin
            | Self::Hook
            | Self::Subagent
            | Self::Command => true,
            Self::McpServer => false,
        }
    }
}

word_enum! {
    /// How the agent fared with a resource.
    ResourceStatus {
        /// Read whole; its content counts.
        Ok,
        /// Larger than the agent carries.
        Oversize,
        /// Could not be read.
        Unreadable,
        /// Read, but not what it should be: broken front matter, a symbolic link that leaves the workspace, not a file.
        Invalid,
        /// Left out, because the agent's totals were used up or somebody asked for it.
        Excluded,
    }
}

/// A resource without its body: what a snapshot's manifest lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceMeta {
    /// What it is.
    pub kind: ResourceKind,
    /// Its identity within the kind: `AGENTS.md`, `skills/tdd`. 1 to 1,024 bytes.
    pub source: String,
    /// Where it was found, relative to the workspace; not part of the identity or of the hash.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_path: String,
    /// sha256 of the content; none when there is no content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_hash: Option<ContentHash>,
    /// Size of the content in bytes.
    pub size_bytes: u64,
    /// How the agent fared with it.
    pub status: ResourceStatus,
    /// Why, when the status is not `Ok`. At most 4,096 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl ResourceMeta {
    /// What identifies a resource within an agent, and the order in which the hash takes them.
    pub fn key(&self) -> (&'static str, &str) {
        (self.kind.as_str(), &self.source)
    }
}

/// A resource with the body that came with it, if one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Everything but the body.
    pub meta: ResourceMeta,
    /// The content. Any bytes: NUL and invalid UTF-8 occur in real files.
    pub body: Option<Vec<u8>>,
}

impl Resource {
    /// A resource read whole; its hash and size are those of `body`.
    pub fn ok(kind: ResourceKind, source: impl Into<String>, source_path: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            meta: ResourceMeta {
                kind,
                source: source.into(),
                source_path: source_path.into(),
                content_hash: Some(ContentHash::of(&body)),
                size_bytes: body.len() as u64,
                status: ResourceStatus::Ok,
                error: String::new(),
            },
            body: Some(body),
        }
    }
}

/// How many resources of a snapshot are not `Ok`.
pub fn count_degraded<'a>(resources: impl IntoIterator<Item = &'a ResourceMeta>) -> usize {
    resources.into_iter().filter(|r| r.status != ResourceStatus::Ok).count()
}

/// `kind/source`, for messages to people.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a>(pub &'a ResourceMeta);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0.kind, self.0.source)
    }
}
