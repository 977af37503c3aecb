//! Opening files of a workspace without ever leaving it.
//!
//! A path is resolved in two steps. [`Root::resolve`] follows every symbolic link and says where it ends; only a place
//! below the root goes on. [`Root::open_file`] then walks to that place from the root's own descriptor, one component at a
//! time, and follows no link at all. So the check and the use cannot be parted: whatever is swapped in between makes the
//! walk fail (`Found::Moved`), and never lets it out. Resolving is for the reader's understanding; the walk is the safety.
//!
//! What is not a regular file is not opened; if it becomes one in between, `O_NONBLOCK` keeps the opening from waiting.

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Component, Path, PathBuf},
};

/// Folders on the way need only be passable, where the system can say so.
#[cfg(target_os = "linux")]
const PASS: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const PASS: OFlags = OFlags::RDONLY;

/// The root of a workspace, held open.
#[derive(Debug)]
pub struct Root {
    asked: PathBuf,
    path: PathBuf,
    folder: OwnedFd,
}

/// Where a path ends when every symbolic link on it is followed.
#[derive(Debug)]
pub enum Link {
    /// There is nothing of that name.
    Absent,
    /// Below the root: the path from the root, free of links when it was resolved.
    Inside(PathBuf),
    /// Somewhere else.
    Outside,
    /// Nowhere: links that lead to each other.
    Loop,
    /// A link to nothing.
    Dangling,
    /// The system would not say.
    Failed(io::Error),
}

/// What is at a place.
#[derive(Debug)]
pub enum Found {
    /// A regular file, open for reading.
    File(OpenFile),
    /// Something else, in words.
    NotAFile(&'static str),
    /// Not what was resolved any more: resolve again.
    Moved,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// The whole content.
    All(Vec<u8>),
    /// More than the limit; the size in bytes. Nothing of it is kept.
    TooLarge(u64),
    /// Written to while it was read: read again.
    Changed,
}

impl Root {
    /// Opens the folder `asked`, which may itself be a link.
    pub fn open(asked: &Path) -> io::Result<Self> {
        let path = fs::canonicalize(asked)?;
        let folder = rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { asked: asked.to_owned(), path, folder })
    }

    /// The root's real path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still names the folder that was opened.
    pub fn is_still_there(&self) -> bool {
        let same = || {
            let (held, named) = (rustix::fs::fstat(&self.folder)?, rustix::fs::stat(&self.asked)?);
            Ok::<_, Errno>((held.st_dev, held.st_ino) == (named.st_dev, named.st_ino))
        };
        same().unwrap_or(false)
    }

    /// Follows `path`, relative to the root, to its end.
    pub fn resolve(&self, path: &Path) -> Link {
        // Without a slash or a dot at the end, for the sake of which a link would be followed before it is looked at.
        let path: &Path = &path.components().collect::<PathBuf>();
        let full = self.path.join(path);
        // What is removed and made again between the two looks below is looked at again, a few times.
        for _ in 0..3 {
            let is_link = match fs::symlink_metadata(&full) {
                Ok(meta) => meta.is_symlink(),
                Err(error) if is_absence(&error) => return Link::Absent,
                Err(error) if is_loop(&error) => return Link::Loop,
                Err(error) => return Link::Failed(error),
            };
            if !is_link && self.has_no_link_before(path) {
                return Link::Inside(path.to_owned());
            }
            match fs::canonicalize(&full) {
                Ok(real) => return real.strip_prefix(&self.path).map_or(Link::Outside, |inside| Link::Inside(inside.to_owned())),
                Err(error) if is_absence(&error) && is_link => return Link::Dangling,
                Err(error) if is_absence(&error) => {}
                Err(error) if is_loop(&error) => return Link::Loop,
                Err(error) => return Link::Failed(error),
            }
        }
        Link::Absent
    }

    /// Whether the way to `path` is folders only, none of them behind a link: as most are, and a look at each is quicker than to
    /// follow the whole way from `/`.
    fn has_no_link_before(&self, path: &Path) -> bool {
        path.components().all(|component| matches!(component, Component::Normal(_)))
            && path.ancestors().skip(1).all(|folder| self.is_folder(folder))
    }

    /// Whether `path` leads to a folder, wherever that is. Reads nothing of it.
    pub fn leads_to_folder(&self, path: &Path) -> bool {
        fs::metadata(self.path.join(path)).is_ok_and(|meta| meta.is_dir())
    }

    /// Whether `real`, a path free of links, is a folder.
    pub fn is_folder(&self, real: &Path) -> bool {
        fs::symlink_metadata(self.path.join(real)).is_ok_and(|meta| meta.is_dir())
    }

    /// The names in the folder `real`, sorted; none when it is no folder (any more).
    pub fn list(&self, real: &Path) -> io::Result<Option<Vec<OsString>>> {
        let Some(folder) = self.walk(real, OFlags::RDONLY)? else { return Ok(None) };
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(Some(names))
    }

    /// Opens the file `real`, a path free of links when it was resolved.
    pub fn open_file(&self, real: &Path) -> io::Result<Found> {
        let (Some(parent), Some(name)) = (real.parent(), real.file_name()) else {
            return Ok(Found::NotAFile("the workspace itself"));
        };
        let Some(folder) = self.walk(parent, PASS)? else { return Ok(Found::Moved) };
        match kind_of(rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(FileType::RegularFile) => {}
            Ok(FileType::Symlink) | Err(Errno::NOENT) => return Ok(Found::Moved),
            Ok(other) => return Ok(Found::NotAFile(in_words(other))),
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => return Ok(Found::Moved),
            Err(error) => return Err(error.into()),
        };
        let stat = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Found::File(OpenFile { file, stat })),
            other => Ok(Found::NotAFile(in_words(other))),
        }
    }

    /// Goes down to the folder `real` without following a link; none when there is no such folder any more.
    fn walk(&self, real: &Path, last: OFlags) -> io::Result<Option<OwnedFd>> {
        let names: Vec<&OsStr> = real
            .components()
            .filter_map(|component| match component {
                Component::Normal(name) => Some(name),
                Component::CurDir => None,
                Component::Prefix(_) | Component::RootDir | Component::ParentDir => Some(OsStr::new("")), // cannot be opened
            })
            .collect();
        let always = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder =
            rustix::fs::openat(&self.folder, ".", if names.is_empty() { last } else { PASS } | always, Mode::empty())?;
        for (depth, name) in names.iter().enumerate() {
            let access = if depth + 1 == names.len() { last } else { PASS };
            folder = match rustix::fs::openat(&folder, *name, access | always, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::NOENT | Errno::NOTDIR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(folder))
    }
}

/// A regular file inside the root, open for reading.
#[derive(Debug)]
pub struct OpenFile {
    file: File,
    stat: Stat,
}

impl OpenFile {
    /// Its size in bytes when it was opened.
    pub fn size(&self) -> u64 {
        u64::try_from(self.stat.st_size).unwrap_or(0)
    }

    /// Reads it, unless it is larger than `limit` bytes. Never reads more than one byte past that.
    pub fn read_at_most(&mut self, limit: u64) -> io::Result<Read> {
        if self.size() > limit {
            return Ok(Read::TooLarge(self.size()));
        }
        let bytes = read_up_to(&mut self.file, limit)?;
        let now = rustix::fs::fstat(&self.file)?;
        if bytes.len() as u64 > limit {
            return Ok(Read::TooLarge(u64::try_from(now.st_size).unwrap_or(0).max(bytes.len() as u64)));
        }
        let written = |stat: &Stat| (stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        Ok(if written(&now) == written(&self.stat) { Read::All(bytes) } else { Read::Changed })
    }
}

/// At most one byte more than `limit`.
fn read_up_to(reader: impl io::Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_loop(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::LOOP)
}

fn kind_of(stat: Result<Stat, Errno>) -> Result<FileType, Errno> {
    stat.map(|stat| FileType::from_raw_mode(stat.st_mode))
}

fn in_words(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "of an unknown type",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Failing(u8);
    impl io::Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 1 {
                return Err(io::Error::other("the disk is gone"));
            }
            buffer[0] = b'x';
            Ok(1)
        }
    }

    #[test]
    fn an_error_in_the_middle_is_an_error_and_not_half_a_file() {
        assert_eq!(read_up_to(Failing(0), 100).unwrap_err().to_string(), "the disk is gone");
    }

    #[test]
    fn no_more_than_one_byte_past_the_limit_is_read() {
        assert_eq!(read_up_to(io::repeat(b'x'), 100).unwrap().len(), 101);
    }

    #[test]
    fn a_file_that_grows_past_the_limit_after_it_was_opened_is_too_large() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "12345").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let Found::File(mut file) = root.open_file(Path::new("a")).unwrap() else { panic!("a file") };
        fs::write(dir.path().join("a"), "1234567890123").unwrap();
        assert_eq!(file.read_at_most(10).unwrap(), Read::TooLarge(13));
    }

    #[test]
    fn a_file_that_changes_after_it_was_opened_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "12345").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let Found::File(mut file) = root.open_file(Path::new("a")).unwrap() else { panic!("a file") };
        fs::write(dir.path().join("a"), "123456").unwrap();
        assert_eq!(file.read_at_most(10).unwrap(), Read::Changed);
    }

    /// The attack: what was resolved is exchanged for a way out before it is opened.
    #[test]
    fn what_is_swapped_between_resolving_and_opening_does_not_lead_out() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("SKILL.md"), "secret").unwrap();
        let skill = dir.path().join("skills/tdd");
        fs::create_dir_all(&skill).unwrap();
        fs::write(skill.join("SKILL.md"), "fine").unwrap();
        let root = Root::open(dir.path()).unwrap();
        let Link::Inside(real) = root.resolve(Path::new("skills/tdd/SKILL.md")) else { panic!("inside") };

        fs::remove_file(skill.join("SKILL.md")).unwrap();
        symlink(outside.path().join("SKILL.md"), skill.join("SKILL.md")).unwrap();
        assert!(matches!(root.open_file(&real).unwrap(), Found::Moved), "the file became a link");

        fs::remove_dir_all(&skill).unwrap();
        symlink(outside.path(), &skill).unwrap();
        assert!(matches!(root.open_file(&real).unwrap(), Found::Moved), "a folder on the way became a link");
        assert!(root.list(Path::new("skills/tdd")).unwrap().is_none(), "a folder that became a link is not listed");
        assert!(matches!(root.resolve(&real), Link::Outside));
        for way in ["skills/tdd", "skills/tdd/", "skills/tdd/."] {
            assert!(matches!(root.resolve(Path::new(way)), Link::Outside), "{way}");
        }
    }

    #[test]
    fn a_path_upwards_is_not_walked() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        fs::write(dir.path().join("out"), "secret").unwrap();
        let root = Root::open(&dir.path().join("in")).unwrap();
        assert!(matches!(root.open_file(Path::new("../out")).unwrap(), Found::Moved));
        assert!(matches!(root.open_file(Path::new("/etc/passwd")).unwrap(), Found::Moved));
        assert!(matches!(root.resolve(Path::new("../out")), Link::Outside));
    }

    #[test]
    fn a_folder_is_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..100 {
            fs::write(dir.path().join(format!("{:03}", i * 37 % 100)), "").unwrap();
        }
        let names = Root::open(dir.path()).unwrap().list(Path::new("")).unwrap().unwrap();
        assert!(names.len() == 100 && names.is_sorted(), "{names:?}");
    }

    #[test]
    fn a_root_that_was_replaced_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root");
        fs::create_dir(&path).unwrap();
        let root = Root::open(&path).unwrap();
        assert!(root.is_still_there());
        fs::rename(&path, dir.path().join("old")).unwrap();
        assert!(!root.is_still_there());
        fs::create_dir(&path).unwrap();
        assert!(!root.is_still_there());
    }
}
