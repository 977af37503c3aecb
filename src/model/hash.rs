//! The two hashes: of one resource's content, and of a whole context.
//!
//! The encoding under the context hash is written down with test vectors in `docs/context-hash.md`; a program in another
//! language recomputes them in a test. Changing anything here is a new version of the tag, never an edit.

use super::resource::ResourceMeta;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// What the encoding begins with, and the version of it.
pub const CONTEXT_TAG: &str = "moorline/context/v1";

/// A text that is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be \"sha256:\" and 64 lower-case hexadecimal digits, got {0:?}")]
pub struct BadHash(String);

macro_rules! sha256_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name([u8; 32]);

        impl $name {
            /// From 32 raw bytes; none when there are not 32.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }

            /// The 32 bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first twelve hexadecimal digits: enough to tell two apart by eye, and the tail of a snapshot's name.
            pub fn short(&self) -> String {
                hex::encode(&self.0[..6])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "sha256:{}", hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadHash;
            fn from_str(text: &str) -> Result<Self, BadHash> {
                let bad = || BadHash(text.chars().take(80).collect());
                let digits = text.strip_prefix("sha256:").ok_or_else(bad)?;
                if digits.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(bad());
                }
                let mut bytes = [0; 32];
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
                Ok(Self(bytes))
            }
        }

        impl From<$name> for String {
            fn from(hash: $name) -> Self {
                hash.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = BadHash;
            fn try_from(text: String) -> Result<Self, BadHash> {
                text.parse()
            }
        }
    };
}

sha256_newtype! {
    /// sha256 of one resource's content.
    ContentHash
}
sha256_newtype! {
    /// sha256 over the canonical encoding of a context: what a chat is pinned to and compared by.
    ContextHash
}

impl ContentHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl ContextHash {
    /// The hash of the pinned-class resources among `resources`, in whatever order they come.
    ///
    /// Encoding: `lp(tag) ‖ u32(count) ‖ for each in (kind, source) byte order: lp(kind) ‖ lp(source) ‖ lp(status) ‖
    /// lp(content hash, 32 bytes or none)`, where `lp(x)` is the length of `x` in bytes as a big-endian `u32`, then `x`.
    pub fn of(resources: &[ResourceMeta]) -> Self {
        let mut pinned: Vec<&ResourceMeta> = resources.iter().filter(|r| r.kind.is_pinned_class()).collect();
        pinned.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        let mut sha = Sha256::new();
        part(&mut sha, CONTEXT_TAG.as_bytes());
        sha.update(length(pinned.len()));
        for resource in pinned {
            part(&mut sha, resource.kind.as_str().as_bytes());
            part(&mut sha, resource.source.as_bytes());
            part(&mut sha, resource.status.as_str().as_bytes());
            part(&mut sha, resource.content_hash.as_ref().map_or(&[][..], |hash| hash.as_bytes()));
        }
        Self(sha.finalize().into())
    }
}

fn part(sha: &mut Sha256, bytes: &[u8]) {
    sha.update(length(bytes.len()));
    sha.update(bytes);
}

fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).expect("a context holds fewer than 2^32 resources and bytes: the push limits are far below").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{Resource, ResourceKind, ResourceStatus};

    fn skill(source: &str, body: &str) -> ResourceMeta {
        Resource::ok(ResourceKind::Skill, source, "", body.as_bytes().to_vec()).meta
    }

    #[test]
    fn nothing_moves_from_the_end_of_one_part_to_the_beginning_of_the_next() {
        let of =
            |sources: [&str; 2]| ContextHash::of(&sources.map(|source| ResourceMeta { content_hash: None, ..skill(source, "") }));
        assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
        // Without the lengths, both are Skill a Ok Skill b Ok Skill c Ok.
        assert_ne!(of(["aOkSkillb", "c"]), of(["a", "bOkSkillc"]));
        let one = |kind, source: &str, status| ContextHash::of(&[ResourceMeta { kind, status, ..skill(source, "") }]);
        assert_ne!(one(ResourceKind::Skill, "x", ResourceStatus::Ok), one(ResourceKind::Hook, "x", ResourceStatus::Ok));
        assert_ne!(one(ResourceKind::Skill, "a", ResourceStatus::Ok), one(ResourceKind::Skill, "aOk", ResourceStatus::Ok));
        assert_ne!(one(ResourceKind::Skill, "a", ResourceStatus::Ok), one(ResourceKind::Skill, "a", ResourceStatus::Invalid));
    }

    #[test]
    fn the_order_of_arrival_does_not_matter_and_every_resource_does() {
        let all = [skill("b", "1"), skill("a", "2"), skill("c", "3")];
        let [b, a, c] = all.clone();
        assert_eq!(ContextHash::of(&all), ContextHash::of(&[c.clone(), b.clone(), a.clone()]));
        assert_ne!(ContextHash::of(&[a.clone(), b.clone()]), ContextHash::of(&[a, b, c]));
    }

    #[test]
    fn contents_that_change_places_are_another_context() {
        let of = |a, b| ContextHash::of(&[skill("a", a), skill("b", b)]);
        assert_ne!(of("1", "2"), of("2", "1"));
    }

    #[test]
    fn what_is_not_in_it_changes_nothing_and_what_is_does() {
        let base = skill("a", "1");
        let hash = |meta: &ResourceMeta| ContextHash::of(std::slice::from_ref(meta));
        let elsewhere = ResourceMeta { source_path: "b".into(), size_bytes: 9, error: "odd".into(), ..base.clone() };
        assert_eq!(hash(&base), hash(&elsewhere));
        let others = [
            ResourceMeta { kind: ResourceKind::Plugin, ..base.clone() },
            ResourceMeta { source: "A".into(), ..base.clone() },
            ResourceMeta { status: ResourceStatus::Excluded, ..base.clone() },
            ResourceMeta { content_hash: Some(ContentHash::of(b"2")), ..base.clone() },
            ResourceMeta { content_hash: Some(ContentHash::of(b"")), ..base.clone() },
            ResourceMeta { content_hash: None, ..base.clone() },
        ];
        let mut seen: Vec<ContextHash> = others.iter().chain([&base]).map(hash).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 7);
    }

    #[test]
    fn every_kind_but_the_live_one_counts() {
        let empty = ContextHash::of(&[]);
        for kind in ResourceKind::ALL {
            let hash = ContextHash::of(&[ResourceMeta { kind: *kind, ..skill("a", "1") }]);
            assert_eq!(hash == empty, *kind == ResourceKind::McpServer, "{kind}");
        }
    }

    #[test]
    fn a_hash_reads_what_it_writes_and_nothing_else() {
        let hash = ContentHash::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!((hash.to_string().as_str(), hash.short().as_str()), (text, "e3b0c44298fc"));
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(ContentHash::from_slice(hash.as_bytes()), Some(hash));
        assert_eq!(ContentHash::from_slice(&[0; 31]), None);
        let long = format!("{text}0");
        let upper = text.to_uppercase().replace("SHA256", "sha256");
        let bad =
            ["", "sha256:", &text[7..], &text[..70], &long, &upper, &text.replace('e', "g"), &text.replace("sha256", "sha1")];
        for text in bad {
            let error = text.parse::<ContentHash>().expect_err(text);
            assert!(error.to_string().contains("64 lower-case"), "{error}");
        }
        assert!("x".repeat(10_000).parse::<ContentHash>().expect_err("long").to_string().len() < 200, "an error is short");
    }
}
