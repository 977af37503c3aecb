//! The context hash is what `docs/context-hash.md` says it is: for a program in another language that knows only the page,
//! and for this one.

use moorline::model::{
    hash::{ContentHash, ContextHash},
    resource::{ResourceKind, ResourceMeta, ResourceStatus},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Vector {
    name: String,
    same: Option<String>,
    resources: Vec<Reported>,
    encoding: String,
    hash: ContextHash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Reported {
    kind: ResourceKind,
    source: String,
    #[serde(default)]
    source_path: String,
    #[serde(default)]
    size_bytes: u64,
    status: ResourceStatus,
    #[serde(default)]
    error: String,
    body: Option<String>,
    body_hex: Option<String>,
    content_hash: Option<ContentHash>,
}

impl Reported {
    fn meta(self) -> ResourceMeta {
        let bytes = self.body.map(String::into_bytes).or_else(|| self.body_hex.map(|digits| hex::decode(digits).unwrap()));
        ResourceMeta {
            kind: self.kind,
            source: self.source,
            source_path: self.source_path,
            content_hash: bytes.map(|bytes| ContentHash::of(&bytes)).or(self.content_hash),
            size_bytes: self.size_bytes,
            status: self.status,
            error: self.error,
        }
    }
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn page() -> String {
    fs::read_to_string(docs("context-hash.md")).unwrap()
}

fn vectors() -> Vec<Vector> {
    let page = page();
    let (_, after) = page.split_once("```json\n").expect("a block of JSON");
    let (block, _) = after.split_once("\n```").expect("its end");
    serde_json::from_str(block).unwrap()
}

fn run_script(page: &Path) -> Output {
    Command::new("python3").arg("-B").arg(docs("context_hash.py")).arg(page).output().expect("python3 is installed")
}

#[test]
fn a_script_that_knows_only_the_page_computes_every_vector() {
    let output = run_script(&docs("context-hash.md"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn this_program_computes_every_vector() {
    let vectors = vectors();
    assert!(vectors.len() >= 6, "only {} vectors", vectors.len());
    let mut groups: BTreeMap<String, Vec<ContextHash>> = BTreeMap::new();
    for Vector { name, same, resources, encoding, hash } in vectors {
        let mut metas: Vec<ResourceMeta> = resources.into_iter().map(Reported::meta).collect();
        assert_eq!(ContextHash::of(&metas), hash, "{name}");
        let of_encoding: [u8; 32] = Sha256::digest(hex::decode(encoding).unwrap()).into();
        assert_eq!(&of_encoding, hash.as_bytes(), "{name}: the encoding on the page is what is hashed");
        metas.reverse();
        assert_eq!(ContextHash::of(&metas), hash, "{name}, in the other order");
        groups.entry(same.unwrap_or(name)).or_default().push(hash);
    }
    let mut distinct: Vec<ContextHash> = groups
        .iter()
        .map(|(name, hashes)| {
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{name}");
            hashes[0]
        })
        .collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), groups.len(), "what is not said to be the same is not");
}

#[test]
fn the_page_has_a_vector_for_every_rule_that_it_states() {
    let vectors = vectors();
    let has = |what: &str, found: &dyn Fn(&[Reported]) -> bool| {
        assert!(vectors.iter().any(|vector| found(&vector.resources)), "no vector for {what}");
    };
    has("the empty context", &|resources| resources.is_empty());
    has("one file", &|resources| resources.len() == 1);
    has("content that is not UTF-8", &|resources| resources.iter().any(|r| r.body_hex.is_some()));
    has("a source that is not ASCII", &|resources| resources.iter().any(|r| !r.source.is_ascii()));
    has("the live class", &|resources| resources.iter().any(|r| r.kind == ResourceKind::McpServer));
    has("a hash without a body", &|resources| {
        resources.iter().any(|r| r.kind == ResourceKind::McpConfig && r.content_hash.is_some() && r.body.is_none())
    });
    has("path, size and error", &|resources| {
        resources.iter().any(|r| !r.source_path.is_empty() && r.size_bytes > 0 && !r.error.is_empty())
    });
    has("not Ok, without content", &|resources| {
        resources.iter().any(|r| r.status != ResourceStatus::Ok && r.body.is_none() && r.content_hash.is_none())
    });
    has("another order", &|resources| {
        let keys: Vec<_> = resources.iter().map(|r| (r.kind.as_str(), &r.source)).collect();
        !keys.is_sorted()
    });
}

#[test]
fn one_wrong_digit_anywhere_on_the_page_fails_the_script() {
    let dir = tempfile::tempdir().unwrap();
    let page = page();
    let vectors = vectors();
    let (first, last) = (&vectors[0], vectors.last().unwrap());
    let by_hand = "00 00 00 20  58 91 b5 b5".to_owned();
    for text in [first.hash.to_string(), last.hash.to_string(), last.encoding.clone(), by_hand] {
        assert!(page.contains(&text), "{text}");
        let flipped = flip_last_digit(&text);
        let wrong = dir.path().join("context-hash.md");
        fs::write(&wrong, page.replacen(&text, &flipped, 1)).unwrap();
        let output = run_script(&wrong);
        assert_eq!(output.status.code(), Some(1), "{text} → {flipped}: {output:?}");
        assert!(!output.stderr.is_empty(), "it says what differs");
    }
}

fn flip_last_digit(text: &str) -> String {
    let (start, last) = text.split_at(text.len() - 1);
    format!("{start}{}", if last == "0" { "1" } else { "0" })
}

#[test]
fn a_page_that_the_script_cannot_read_fails_it() {
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.md");
    fs::write(&empty, "# Nothing\n").unwrap();
    for page in [empty, dir.path().join("absent.md")] {
        assert_eq!(run_script(&page).status.code(), Some(2), "{}", page.display());
    }
}
