//! A push: one report of an agent, already checked. What the wire form may get wrong is found by the conversion in
//! `v1alpha1::push`; whoever holds a [`Push`] holds one within [`Limits`], without duplicates, in order.
//!
//! What it does not: decide whether a push is accepted. Epoch, seq and replay are compared with the agent's record where
//! that is locked.

use super::{
    hash::ContextHash,
    resource::{Resource, ResourceMeta},
    word::word_enum,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Whom an agent's news concern, as far as whoever brings them knows: of a chat that is not committed yet he knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// No chat follows it.
    Nobody,
    /// Its chats, or those of its workspace.
    Chats,
}

word_enum! {
    /// Whether a report is all that the run knows of.
    Phase {
        /// The run has not yet seen everything: nothing of the pinned class is taken over.
        Pending,
        /// Everything there is. What is not listed is not there.
        Complete,
    }
}

/// What the server takes, whatever an agent claims (DESIGN.md §7). All sizes are in bytes, of the decoded value.
#[derive(Clone, Copy, Debug)]
pub struct Limits;

impl Limits {
    /// Resources in one push.
    pub const RESOURCES: usize = 1_000;
    /// One body: 256 KiB.
    pub const BODY: usize = 256 << 10;
    /// All bodies of a push together: 4 MiB.
    pub const BODIES: usize = 4 << 20;
    /// A `source`: 1 KiB.
    pub const SOURCE: usize = 1 << 10;
    /// A `sourcePath`: 4 KiB, the longest path that Linux takes (`PATH_MAX`).
    pub const SOURCE_PATH: usize = 4 << 10;
    /// An `error`, of a resource or of the whole push: 4 KiB.
    pub const ERROR: usize = 4 << 10;
    /// The first number that a JSON reader may round: 2^53. `epoch`, `seq` and `sizeBytes` are below it.
    pub const NUMBER: i64 = 1 << 53;
}

/// One report of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The run that reports.
    pub run_id: Uuid,
    /// The fencing number of that run.
    pub epoch: i64,
    /// The number of the report within its run, from 1.
    pub seq: i64,
    /// Whether this is everything.
    pub phase: Phase,
    /// What was wrong with the agent's scan as a whole; empty when nothing was.
    pub error: String,
    /// The resources of the pinned class, in (kind, source) order.
    pub pinned: Vec<Resource>,
    /// The resources of the live class, in (kind, source) order.
    pub live: Vec<Resource>,
}

impl Push {
    /// Parts `resources` by class and puts each class in order.
    pub fn new(run_id: Uuid, (epoch, seq): (i64, i64), phase: Phase, error: String, resources: Vec<Resource>) -> Self {
        let (mut pinned, mut live): (Vec<_>, Vec<_>) = resources.into_iter().partition(|r| r.meta.kind.is_pinned_class());
        for class in [&mut pinned, &mut live] {
            class.sort_by(|a, b| a.meta.key().cmp(&b.meta.key()));
        }
        Self { run_id, epoch, seq, phase, error, pinned, live }
    }

    /// The hash of the context that this push reports.
    pub fn context_hash(&self) -> ContextHash {
        let metas: Vec<ResourceMeta> = self.pinned.iter().map(|resource| resource.meta.clone()).collect();
        ContextHash::of(&metas)
    }

    /// What tells two pushes of one (epoch, seq) apart: everything but run, epoch and seq.
    pub fn digest(&self) -> [u8; 32] {
        content_digest(self.phase, &self.error, self.pinned.iter().chain(&self.live))
    }
}

/// sha256 over phase, error and every resource in the order given; each variable part is length-prefixed, so no two
/// contents share an encoding. Internal to one version of the program and its database: not for other languages.
pub fn content_digest<'a>(phase: Phase, error: &str, resources: impl IntoIterator<Item = &'a Resource>) -> [u8; 32] {
    let mut sha = Sha256::new();
    text(&mut sha, phase.as_str());
    text(&mut sha, error);
    for Resource { meta, body } in resources {
        let ResourceMeta { kind, source, source_path, content_hash, size_bytes, status, error } = meta;
        text(&mut sha, kind.as_str());
        text(&mut sha, source);
        text(&mut sha, source_path);
        text(&mut sha, status.as_str());
        text(&mut sha, error);
        sha.update(size_bytes.to_be_bytes());
        sha.update([u8::from(content_hash.is_some()), u8::from(body.is_some())]);
        if let Some(hash) = content_hash {
            sha.update(hash.as_bytes());
        }
    }
    sha.finalize().into()
}

fn text(sha: &mut Sha256, text: &str) {
    sha.update((text.len() as u64).to_be_bytes());
    sha.update(text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{ResourceKind, ResourceStatus};

    fn push(resources: Vec<Resource>) -> Push {
        Push::new(Uuid::nil(), (1, 1), Phase::Complete, String::new(), resources)
    }

    fn agents_md(body: &str) -> Resource {
        Resource::ok(ResourceKind::InstructionFile, "AGENTS.md", "AGENTS.md", body.into())
    }

    fn skill(name: &str) -> Resource {
        Resource::ok(ResourceKind::Skill, format!("skills/{name}"), format!("skills/{name}/SKILL.md"), name.into())
    }

    fn server(name: &str) -> Resource {
        Resource::ok(ResourceKind::McpServer, name, "", b"{}".to_vec())
    }

    #[test]
    fn classes_are_parted_and_each_is_in_order() {
        let push = push(vec![server("zeta"), skill("tdd"), server("alpha"), skill("plans"), agents_md("x")]);
        let sources = |class: &[Resource]| class.iter().map(|r| r.meta.source.clone()).collect::<Vec<_>>();
        assert_eq!(sources(&push.pinned), ["AGENTS.md", "skills/plans", "skills/tdd"]);
        assert_eq!(sources(&push.live), ["alpha", "zeta"]);
    }

    #[test]
    fn order_run_epoch_and_seq_are_not_content() {
        let a = push(vec![skill("tdd"), agents_md("x")]);
        let mut b = push(vec![agents_md("x"), skill("tdd")]);
        (b.run_id, b.epoch, b.seq) = (Uuid::max(), 7, 9);
        assert_eq!(a.digest(), b.digest());
    }

    #[test]
    fn everything_else_is_content() {
        let base = push(vec![agents_md("x"), server("github")]);
        let change = |f: &dyn Fn(&mut Push)| {
            let mut other = base.clone();
            f(&mut other);
            other.digest()
        };
        let digests = [
            base.digest(),
            change(&|p| p.phase = Phase::Pending),
            change(&|p| p.error = "half".into()),
            change(&|p| p.pinned.clear()),
            change(&|p| p.live.clear()),
            change(&|p| p.pinned[0] = agents_md("y")),
            change(&|p| p.live[0] = Resource::ok(ResourceKind::McpServer, "github", "", b"{\"tools\":[]}".to_vec())),
            change(&|p| p.pinned[0].meta.kind = ResourceKind::Skill),
            change(&|p| p.pinned[0].meta.source = "CLAUDE.md".into()),
            change(&|p| p.pinned[0].meta.source_path = "docs/AGENTS.md".into()),
            change(&|p| p.pinned[0].meta.status = ResourceStatus::Invalid),
            change(&|p| p.pinned[0].meta.error = "why".into()),
            change(&|p| p.pinned[0].meta.size_bytes = 99),
            change(&|p| p.pinned[0].meta.content_hash = None),
            change(&|p| p.pinned[0].body = None),
        ];
        for (i, a) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(a), "change {i} does not show in the digest");
        }
    }

    #[test]
    fn the_context_hash_is_of_the_pinned_class_only() {
        let a = push(vec![agents_md("x")]);
        assert_eq!(a.context_hash(), push(vec![server("github"), agents_md("x")]).context_hash());
        assert_ne!(a.context_hash(), push(vec![]).context_hash());
    }
}
