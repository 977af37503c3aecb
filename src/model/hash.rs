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
