//! Finds the context of a workspace: a fixed list of places, read safely, each with what came of it.
//!
//! What it does: looks at [`FILES`] in the root and at `SKILL.md` in every immediate child of [`SKILL_FOLDERS`]. Each is
//! `Ok`, or carries a status and a sentence that says why not; a sentence never holds content of a file. The result is in
//! (kind, source) order and depends on the files alone, not on the order in which a folder lists them.
//!
//! What it does not: walk the tree, look at any other name, read anything outside the root (see [`open`]), keep the body
//! of an McpConfig, or remember anything from one scan to the next.
//!
//! A root that is missing or cannot be listed is an error and not an empty context: an empty context is a real one, and
//! would make every chat of the agent drift because a disk was not mounted.

pub mod content;
pub mod open;

use self::open::{Found, Link, Root};
use crate::model::{
    hash::ContentHash,
    push::Limits,
    resource::{Resource, ResourceKind, ResourceMeta, ResourceStatus},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// The files that are looked for in the root itself.
pub const FILES: [(&str, ResourceKind); 4] = [
    ("AGENTS.md", ResourceKind::InstructionFile),
    ("CLAUDE.md", ResourceKind::InstructionFile),
    (".cursorrules", ResourceKind::InstructionFile),
    (".mcp.json", ResourceKind::McpConfig),
];

/// The folders whose immediate children are skills.
pub const SKILL_FOLDERS: [&str; 4] = ["skills", ".agents/skills", ".claude/skills", ".codex/skills"];

/// The file that makes a folder a skill.
pub const SKILL_FILE: &str = "SKILL.md";

/// The largest file that is carried, in bytes: 64 KiB. A larger one is `Oversize`.
pub const MAX_FILE: u64 = 64 << 10;
/// The most that all bodies together may be, in bytes: 2 MiB. What does not fit any more is `Excluded`.
pub const MAX_BODIES: u64 = 2 << 20;
/// The most resources that are read. Those after them, in order, are `Excluded`.
pub const MAX_RESOURCES: usize = 500;
/// The most resources that are listed at all, the excluded ones included: as many as a server takes.
pub const MAX_LISTED: usize = Limits::RESOURCES;
/// The most folders that [`Scan::folders`] names.
pub const MAX_FOLDERS: usize = 2_048;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The resources, in (kind, source) order, no two of one (kind, source).
    pub resources: Vec<Resource>,
    /// What is wrong with the scan as a whole; empty when nothing is.
    pub error: String,
    /// The real folders in which a change could change the next scan: what a watcher should watch, each by itself.
    pub folders: BTreeSet<PathBuf>,
}

/// Why a workspace could not be scanned at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The root is not there, is no folder, or may not be listed.
    #[error("the workspace {} cannot be read", path.display())]
    Root {
        /// The root as it was asked for.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another folder took the root's place during the scan; what was read belongs to neither.
    #[error("the workspace {} was moved or replaced while it was scanned", path.display())]
    Replaced {
        /// The root as it was asked for.
        path: PathBuf,
    },
}

/// Scans the workspace `root`. Blocks on the disk, and on nothing else: FIFOs and devices are not opened.
pub fn scan(root: &Path) -> Result<Scan, ScanError> {
    let failed = |source| ScanError::Root { path: root.to_owned(), source };
    let opened = Root::open(root).map_err(failed)?;
    let mut scanner = Scanner { root: &opened, folders: BTreeSet::from([opened.path().to_owned()]) };
    let mut candidates = scanner.candidates();
    let scan = scanner.read(&mut candidates);
    if opened.is_still_there() { Ok(scan) } else { Err(ScanError::Replaced { path: root.to_owned() }) }
}

/// A place that holds a resource, or would if it could be read.
struct Candidate {
    kind: ResourceKind,
    source: String,
    /// Relative to the root.
    path: PathBuf,
    /// Decided already, without reading.
    fault: Option<Fault>,
}

/// Why a resource is not `Ok`.
struct Fault {
    status: ResourceStatus,
    size: u64,
    error: String,
}

impl Fault {
    fn invalid(error: impl Into<String>) -> Self {
        Self { status: ResourceStatus::Invalid, size: 0, error: error.into() }
    }

    fn unreadable(error: impl Into<String>) -> Self {
        Self { status: ResourceStatus::Unreadable, size: 0, error: error.into() }
    }

    fn excluded(size: u64, error: impl Into<String>) -> Self {
        Self { status: ResourceStatus::Excluded, size, error: error.into() }
    }

    fn io(error: &io::Error) -> Self {
        Self::unreadable(format!("cannot be read: {error}"))
    }

    /// What is wrong with a link, if anything is.
    fn of_link(link: &Link) -> Option<Self> {
        match link {
            Link::Inside(_) | Link::Absent => None,
            Link::Outside => Some(Self::invalid("is, or lies behind, a symbolic link that leaves the workspace")),
            Link::Loop => Some(Self::invalid("is, or lies behind, a symbolic link that leads back to itself")),
            Link::Dangling => Some(Self::unreadable("is, or lies behind, a symbolic link to something that does not exist")),
            Link::Failed(error) => Some(Self::io(error)),
        }
    }
}

struct Scanner<'a> {
    root: &'a Root,
    folders: BTreeSet<PathBuf>,
}

impl Scanner<'_> {
    /// Every place that may hold a resource, in (kind, source) order, without duplicates.
    fn candidates(&mut self) -> Vec<Candidate> {
        let mut candidates: Vec<_> = FILES
            .into_iter()
            .map(|(name, kind)| Candidate { kind, source: name.into(), path: name.into(), fault: None })
            .collect();
        for folder in SKILL_FOLDERS {
            self.skills(Path::new(folder), &mut candidates);
        }
        candidates.sort_by(|a, b| key(a).cmp(&key(b)));
        candidates.dedup_by(|a, b| key(a) == key(b));
        candidates
    }

    fn skills(&mut self, folder: &Path, candidates: &mut Vec<Candidate>) {
        let mut skill = |path: PathBuf, source: String, fault: Option<Fault>| {
            candidates.push(Candidate { kind: ResourceKind::Skill, source, path, fault });
        };
        if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty())
            && let Link::Inside(real) = self.root.resolve(parent)
        {
            self.see(&real);
        }
        let link = self.root.resolve(folder);
        let real = match &link {
            Link::Absent => return,
            Link::Inside(real) => real,
            Link::Outside | Link::Loop | Link::Dangling | Link::Failed(_) => {
                return skill(folder.into(), folder.display().to_string(), Fault::of_link(&link));
            }
        };
        let names = match self.root.list(real) {
            Ok(Some(names)) => names,
            Ok(None) => return,
            Err(error) => return skill(folder.into(), folder.display().to_string(), Some(Fault::io(&error))),
        };
        self.see(real);
        for name in names {
            let child = folder.join(&name);
            let link = self.root.resolve(&child);
            let fault = match &link {
                Link::Inside(real) if self.root.is_folder(real) => {
                    self.see(real);
                    None
                }
                // A file beside the skills, or a link to one, is no skill.
                Link::Absent | Link::Inside(_) => continue,
                Link::Outside if !self.root.leads_to_folder(&child) => continue,
                Link::Outside | Link::Loop | Link::Dangling | Link::Failed(_) => Fault::of_link(&link),
            };
            let Some(text) = name.to_str() else {
                let hash = ContentHash::of(name.as_encoded_bytes()).short();
                let source = format!("{}/{}~{hash}", folder.display(), name.to_string_lossy());
                skill(child, source, Some(Fault::invalid("lies in a folder whose name is not UTF-8")));
                continue;
            };
            let source = format!("{}/{text}", folder.display());
            match fault {
                None => skill(child.join(SKILL_FILE), source, None),
                fault => skill(child, source, fault),
            }
        }
    }

    /// Notes a folder, relative to the root, as one to watch.
    fn see(&mut self, folder: &Path) {
        if self.folders.len() < MAX_FOLDERS {
            self.folders.insert(self.root.path().join(folder));
        }
    }

    fn read(mut self, candidates: &mut Vec<Candidate>) -> Scan {
        let mut resources = Vec::new();
        let mut left = MAX_BODIES;
        let mut unlisted = 0_usize;
        for candidate in candidates.drain(..) {
            let full = resources.len() >= MAX_RESOURCES;
            let Some(resource) = self.resource(candidate, full, left) else { continue };
            if resources.len() >= MAX_LISTED {
                unlisted += 1;
                continue;
            }
            left -= resource.body.as_ref().map_or(0, |body| body.len() as u64);
            resources.push(resource);
        }
        let error = match unlisted {
            0 => String::new(),
            n => format!("{} resources were found and only the first {MAX_LISTED} are listed", MAX_LISTED + n),
        };
        Scan { resources, error, folders: self.folders }
    }

    /// What came of one candidate; none when nothing is there.
    fn resource(&mut self, candidate: Candidate, full: bool, left: u64) -> Option<Resource> {
        let Candidate { kind, source, path, fault } = candidate;
        let meta = |content_hash, size_bytes, status, error| ResourceMeta {
            kind,
            source,
            source_path: path.display().to_string(),
            content_hash,
            size_bytes,
            status,
            error,
        };
        let read = match fault {
            Some(fault) => Err(fault),
            None => self.content(&path, kind, full, left).transpose()?,
        };
        Some(match read {
            Err(Fault { status, size, error }) => Resource { meta: meta(None, size, status, error), body: None },
            Ok(bytes) => {
                let complaint = content::check(kind, &bytes).err();
                let status = if complaint.is_some() { ResourceStatus::Invalid } else { ResourceStatus::Ok };
                let meta = meta(Some(ContentHash::of(&bytes)), bytes.len() as u64, status, complaint.unwrap_or_default());
                Resource { meta, body: (kind != ResourceKind::McpConfig).then_some(bytes) }
            }
        })
    }

    /// The content of the file at `path`, when there is one and it may be carried.
    fn content(&mut self, path: &Path, kind: ResourceKind, full: bool, left: u64) -> Result<Option<Vec<u8>>, Fault> {
        // A path that changes between being resolved and being opened is resolved again, a few times.
        for _ in 0..3 {
            let link = self.root.resolve(path);
            let real = match &link {
                Link::Absent => return Ok(None),
                Link::Inside(real) => real,
                Link::Outside | Link::Loop | Link::Dangling | Link::Failed(_) => {
                    return Err(Fault::of_link(&link).expect("a bad link"));
                }
            };
            if let Some(parent) = real.parent() {
                self.see(parent);
            }
            let mut file = match self.root.open_file(real) {
                Ok(Found::File(file)) => file,
                Ok(Found::NotAFile(what)) => return Err(Fault::invalid(format!("is {what}, not a file"))),
                Ok(Found::Moved) => continue,
                Err(error) => return Err(Fault::io(&error)),
            };
            let size = file.size();
            if full {
                let error = format!("left out: an agent reports the first {MAX_RESOURCES} resources in (kind, source) order");
                return Err(Fault::excluded(size, error));
            }
            let carried = kind != ResourceKind::McpConfig;
            match file.read_at_most(MAX_FILE).map_err(|error| Fault::io(&error))? {
                open::Read::Changed => {}
                open::Read::TooLarge(size) => {
                    let error = format!("must be at most {MAX_FILE} bytes to be carried, got {size}");
                    return Err(Fault { status: ResourceStatus::Oversize, size, error });
                }
                open::Read::All(bytes) if carried && bytes.len() as u64 > left => {
                    let error = format!(
                        "left out: all bodies together are at most {MAX_BODIES} bytes, {left} were left in (kind, source) order, got {}",
                        bytes.len()
                    );
                    return Err(Fault::excluded(bytes.len() as u64, error));
                }
                open::Read::All(bytes) => return Ok(Some(bytes)),
            }
        }
        Err(Fault::unreadable("kept changing while it was read"))
    }
}

fn key(candidate: &Candidate) -> (&'static str, &str) {
    (candidate.kind.as_str(), &candidate.source)
}
