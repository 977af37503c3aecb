//! Manifests from files: documents, each with where it stands, and what is wrong with those that cannot be read.

use crate::{
    cli::kind::Kind,
    v1alpha1::{API_VERSION, GROUP},
};
use serde_json::Value;
use std::{
    fmt, fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Most bytes of one file: more than any manifest, and little enough to hold.
const FILE_MAX: u64 = 64 * 1024 * 1024;

/// One document.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Of which kind it is.
    pub kind: Kind,
    /// `metadata.name`; never empty.
    pub name: String,
    /// `metadata.namespace`, unless it is empty.
    pub namespace: Option<String>,
    /// All of it.
    pub object: Value,
    place: Place,
}

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    file: String,
    /// Its number in the file, from 1.
    document: usize,
    /// The line it begins at, from 1.
    line: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    place: Result<Place, String>,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, message } = self;
        match place {
            Ok(Place { file, document, line }) => write!(f, "{file}, document {document}, line {line}: {message}"),
            Err(file) => write!(f, "{file}: {message}"),
        }
    }
}

impl Manifest {
    /// Something is wrong with it.
    pub fn fault(&self, message: String) -> Fault {
        Fault { place: Ok(self.place.clone()), message }
    }
}

/// Reads all documents of files, of directories and, for `-`, of standard input.
pub fn read(names: &[String], recursive: bool) -> (Vec<Manifest>, Vec<Fault>) {
    let (mut manifests, mut faults) = (Vec::new(), Vec::new());
    let mut fail = |file: &str, message: String| faults.push(Fault { place: Err(file.to_owned()), message });
    let mut texts: Vec<(String, String)> = Vec::new();
    for name in names {
        if name == "-" {
            match text_of(&mut io::stdin().lock()) {
                Ok(text) => texts.push(("standard input".into(), text)),
                Err(error) => fail("standard input", error.to_string()),
            }
            continue;
        }
        match files(Path::new(name), recursive) {
            Err(error) => fail(name, error.to_string()),
            Ok(paths) => {
                for path in paths {
                    let shown = path.display().to_string();
                    match fs::File::open(&path).and_then(|mut file| text_of(&mut file)) {
                        Ok(text) => texts.push((shown, text)),
                        Err(error) => fail(&shown, error.to_string()),
                    }
                }
            }
        }
    }
    for (file, text) in texts {
        for document in parse(&file, &text) {
            match document {
                Ok(manifest) => manifests.push(manifest),
                Err(fault) => faults.push(fault),
            }
        }
    }
    (manifests, faults)
}

fn text_of(reader: &mut dyn io::Read) -> io::Result<String> {
    let mut text = String::new();
    reader.take(FILE_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_MAX {
        return Err(io::Error::other(format!("is larger than {FILE_MAX} bytes")));
    }
    Ok(text)
}

/// A file itself; of a directory, its manifests by name, and if asked for, those of the directories in it. Links to directories
/// are not followed, so that there is an end.
fn files(path: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.path();
        let known = path.extension().is_some_and(|suffix| suffix == "yaml" || suffix == "yml" || suffix == "json");
        if known && path.is_file() {
            found.push(path);
        } else if recursive && entry.file_type()?.is_dir() {
            found.extend(files(&path, true)?);
        }
    }
    Ok(found)
}

/// The documents of a text: YAML, of which JSON is a part. Those with nothing in them do not count.
pub fn parse(file: &str, text: &str) -> Vec<Result<Manifest, Fault>> {
    // YAML takes CR LF and a lone CR for the end of a line, too (YAML 1.2.2, section 5.4); lines are counted as it counts them.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut documents: Vec<(usize, String)> = vec![(1, String::new())];
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") {
            documents.push((at + 1, String::new()));
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
        }
    }
    let mut found = Vec::new();
    for (line, document) in documents {
        let empty = document.lines().all(|line| {
            let line = line.trim();
            line.is_empty() || line == "---" || line.starts_with('#')
        });
        if !empty {
            let place = Place { file: file.to_owned(), document: found.len() + 1, line };
            found.push(place.read(&document));
        }
    }
    found.into_iter().flatten().collect()
}

impl Place {
    /// One document, or the items of the list that it is.
    fn read(self, text: &str) -> Vec<Result<Manifest, Fault>> {
        let value: Value = match serde_saphyr::from_str(text) {
            Ok(value) => value,
            Err(error) => {
                let within = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
                let line = self.line + within.max(1) - 1;
                // It ends with the line within the document, which is another one than that of the file.
                let own = error.location().map(|location| format!(" at line {}, column {}", location.line(), location.column()));
                let message = error.without_snippet().to_string();
                let message = message.lines().next().unwrap_or_default();
                let message = own.and_then(|own| message.strip_suffix(&own)).unwrap_or(message).to_owned();
                return vec![Err(Fault { place: Ok(Self { line, ..self }), message })];
            }
        };
        let first = text.lines().position(|line| {
            let line = line.trim();
            !line.is_empty() && line != "---" && !line.starts_with('#')
        });
        let place = Self { line: self.line + first.unwrap_or(0), ..self };
        let listed = value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
        match value.get("items").and_then(Value::as_array).filter(|_| listed) {
            Some(items) => items.iter().map(|item| place.clone().manifest(item.clone())).collect(),
            None => vec![place.manifest(value)],
        }
    }

    fn manifest(self, object: Value) -> Result<Manifest, Fault> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let known = match kind {
            Some("Chat") => Ok(Kind::Chats),
            Some("Agent") => Ok(Kind::Agents),
            Some(other) => Err(format!("kind must be Chat or Agent, got {other:?}")),
            None => Err("kind is missing: Chat or Agent".into()),
        };
        let problem = match (version, known, text("/metadata/name")) {
            (Some(API_VERSION), Ok(kind), Some(name)) => {
                let (name, namespace) = (name.to_owned(), text("/metadata/namespace").map(str::to_owned));
                return Ok(Manifest { kind, name, namespace, object, place: self });
            }
            (Some(API_VERSION), Ok(_), None) => "metadata.name is missing".into(),
            (Some(API_VERSION), Err(problem), _) => problem,
            (Some(other), _, _) if other.starts_with(&format!("{GROUP}/")) => {
                format!("apiVersion must be {API_VERSION}, got {other:?}")
            }
            (Some(other), _, _) => format!("apiVersion must be {API_VERSION}, got {other:?}: use kubectl for others"),
            (None, _, _) => format!("apiVersion is missing: {API_VERSION}"),
        };
        Err(Fault { place: Ok(self), message: problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let tell = |document: Result<Manifest, Fault>| match document {
            Ok(manifest) => format!("{}/{} at {}:{}", manifest.kind, manifest.name, manifest.place.document, manifest.place.line),
            Err(fault) => fault.to_string(),
        };
        parse("f.yaml", text).into_iter().map(tell).collect()
    }

    const CHAT: &str = "apiVersion: moorline.dev/v1alpha1\nkind: Chat\nmetadata: {name: fix}\n";

    #[test]
    fn every_document_is_found_and_empty_ones_do_not_count() {
        assert_eq!(told(CHAT), ["chats/fix at 1:1"]);
        let two = format!("# first\n---\n{CHAT}---\n---\n# nothing\n--- # second\n{}", CHAT.replace("Chat", "Agent"));
        assert_eq!(told(&two), ["chats/fix at 1:3", "agents/fix at 2:9"]);
        assert_eq!(told("\n# only a comment\n---\n"), Vec::<String>::new());
        let json = r#"{"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "ws", "namespace": "n"}}"#;
        assert_eq!(told(json), ["agents/ws at 1:1"]);
        let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{json}, {json}]}}"#);
        assert_eq!(told(&list), ["agents/ws at 1:1", "agents/ws at 1:1"]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_the_others_are_still_read() {
        let text = format!("{CHAT}---\nkind: [\n---\napiVersion: apps/v1\nkind: Deployment\n---\n{}", CHAT.replace("fix", "''"));
        let told = told(&text);
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], "chats/fix at 1:1");
        assert!(told[1].starts_with("f.yaml, document 2, line "), "{}", told[1]);
        assert_eq!(
            told[2],
            "f.yaml, document 3, line 7: apiVersion must be moorline.dev/v1alpha1, got \"apps/v1\": use kubectl for others"
        );
        assert_eq!(told[3], "f.yaml, document 4, line 10: metadata.name is missing");
    }

    #[test]
    fn a_fault_has_one_line_and_it_is_that_of_the_file_however_lines_end() {
        let text = format!("{CHAT}---\nkind: \u{5}\n");
        for text in [text.clone(), text.replace('\n', "\r\n"), text.replace('\n', "\r")] {
            let told = told(&text);
            assert_eq!(told[0], "chats/fix at 1:1");
            assert!(told[1].starts_with("f.yaml, document 2, line 5: ") && !told[1].contains("column"), "{told:?}");
        }
    }
}
