//! `workspace::scan` over hostile trees: links that loop or leave, FIFOs, sockets and devices, names that are not UTF-8, deep
//! folders, large files, and files that change while they are read. It ends within its bounds, never leaves the root, waits
//! for nobody, and finds nothing that a server would refuse.

use moorline::{
    model::{push::Push, resource::ResourceKind},
    v1alpha1::push::PushRequest,
    workspace::{
        Report,
        scan::{self, MAX_BODIES, MAX_FILE, MAX_FOLDERS, MAX_LISTED, MAX_RESOURCES, SKILL_FOLDERS, Scan},
    },
};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use std::{
    ffi::OsString,
    fs,
    os::unix::{ffi::OsStringExt as _, fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use uuid::Uuid;

use super::tape::Tape;

/// What stands in files outside the root, and must never be seen.
const SECRET: &str = "hunter2-hunter2";
const SKILL: &str = "---\nname: tdd\ndescription: Test first.\n---\nWrite the test.\n";
/// How long a scan of such a tree may take at most, on a machine with other things to do.
const PATIENCE: Duration = Duration::from_secs(10);

/// The bytes are the making of a tree. With the first bit set the last part is made while the scan goes on; of the others every fourth
/// is scanned twice.
pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let how = tape.byte();
    let (moving, twice) = (how & 1 == 1, how & 6 == 0);
    let place = Place::new();
    if !moving {
        while !tape.is_empty() {
            place.make(&mut tape);
        }
        let first = place.scan();
        if twice {
            assert_eq!(first, place.scan(), "the same files, the same scan");
        }
        return;
    }
    let still = tape.0.len() / 2;
    let (before, during) = tape.0.split_at(still);
    let mut before = Tape(before);
    while !before.is_empty() {
        place.make(&mut before);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut during = Tape(during);
            while !during.is_empty() {
                place.make(&mut during);
            }
        });
        place.scan();
    });
}

/// A root, and a place beside it that is none of the scanner's business.
struct Place {
    dir: TempDir,
}

impl Place {
    /// A folder, and no link to one.
    const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::PATH).union(OFlags::CLOEXEC);

    fn new() -> Self {
        // In memory where there is such a place: a tree is made for every run.
        static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
            let base = Some(PathBuf::from("/dev/shm")).filter(|place| place.is_dir()).unwrap_or_else(std::env::temp_dir);
            fs::canonicalize(base).expect("a place for folders")
        });
        let dir = tempfile::Builder::new().prefix("moorline-fuzz-").tempdir_in(&*BASE).expect("a folder");
        fs::create_dir(dir.path().join("root")).expect("the root");
        fs::create_dir(dir.path().join("outside")).expect("the outside");
        let skill = format!("---\nname: {SECRET}\ndescription: {SECRET}\n---\n");
        fs::write(dir.path().join("outside/SKILL.md"), skill).expect("a file outside");
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Does one thing to the tree. What the file system refuses is not done.
    fn make(&self, tape: &mut Tape<'_>) {
        let what = tape.byte();
        let Some(path) = self.way(&path(tape)) else { return };
        let other = fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file());
        let _ = match what % 12 {
            0 | 1 | 2 | 10 if other => Ok(()), // nothing is ever written through a link, or into a FIFO that nobody reads
            0 => fs::write(&path, SKILL),
            1 => fs::write(&path, tape.bytes(255)),
            2 => {
                let size = *tape.pick(&[0, 1, MAX_FILE - 1, MAX_FILE, MAX_FILE + 1, MAX_BODIES, 1 << 40]);
                fs::File::create(&path).and_then(|file| file.set_len(size))
            }
            3 => fs::create_dir(&path),
            4 => symlink(self.target(tape), &path),
            5 => mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).map_err(Into::into),
            6 => UnixListener::bind(&path).map(drop),
            7 => mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, rustix::fs::makedev(1, 5)).map_err(Into::into),
            8 => fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)),
            9 => self.way(&self::path(tape)).map_or(Ok(()), |to| fs::rename(&path, to)),
            // A file that grows.
            10 => fs::OpenOptions::new()
                .append(true)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, &vec![b'x'; usize::from(tape.byte()) * 300])),
            _ => self.many(tape),
        };
    }

    /// The way to a place below the root, made as far as it is not there; none when it leads through a link. What a target does to
    /// its tree it must not do to the rest of the machine.
    fn way(&self, path: &Path) -> Option<PathBuf> {
        let mut way = self.root();
        // By handles: by name the kernel would walk the whole way for each step of it.
        let mut here = rustix::fs::open(&way, Self::FOLDER, Mode::empty()).ok()?;
        for component in path.parent()?.components() {
            let next = || openat(&here, component.as_os_str(), Self::FOLDER, Mode::empty());
            here = next().or_else(|_| mkdirat(&here, component.as_os_str(), Mode::RWXU).and_then(|()| next())).ok()?;
            way.push(component);
        }
        Some(way.join(path.file_name()?))
    }

    /// So many skills that they are more than are read, or than are listed.
    fn many(&self, tape: &mut Tape<'_>) -> std::io::Result<()> {
        if (tape.byte(), tape.byte()) != (7, 77) {
            return Ok(()); // it takes long, so hardly ever; tests/scan.rs does it each time
        }
        let Some(folder) = self.way(&Path::new(tape.pick(&SKILL_FOLDERS)).join("s")).and_then(|s| s.parent().map(Path::to_owned))
        else {
            return Ok(());
        };
        for n in 0..MAX_LISTED + 3 {
            fs::create_dir(folder.join(format!("s{n}")))?;
            fs::write(folder.join(format!("s{n}/SKILL.md")), SKILL)?;
        }
        Ok(())
    }

    fn target(&self, tape: &mut Tape<'_>) -> PathBuf {
        match tape.byte() % 12 {
            0 => self.dir.path().join("outside"),
            1 => self.dir.path().join("outside/SKILL.md"),
            2 => "../outside/SKILL.md".into(),
            3 => "..".into(),
            4 => ".".into(),
            5 => "/dev/zero".into(),
            6 => "/proc/self/fd/0".into(),
            7 => "nothing".into(),
            8 => self.root(),
            9 => "../../outside".into(),
            10 => PathBuf::from(OsString::from_vec(tape.bytes(40).iter().copied().filter(|byte| *byte != 0).collect())),
            _ => self.root().join(path(tape)),
        }
    }

    fn scan(&self) -> Option<Scan> {
        let began = Instant::now();
        let scan = scan::scan(&self.root());
        assert!(began.elapsed() < PATIENCE, "it took {:?}", began.elapsed());
        match scan {
            Ok(scan) => {
                self.keeps_its_promises(&scan);
                Some(scan)
            }
            Err(error) => {
                assert!(!error.to_string().contains(SECRET));
                None
            }
        }
    }

    fn keeps_its_promises(&self, scan: &Scan) {
        let Scan { resources, error, folders } = scan;
        assert!(resources.len() <= MAX_LISTED && resources.len() <= 1000, "{} resources", resources.len());
        assert!(resources.iter().filter(|resource| resource.body.is_some()).count() <= MAX_RESOURCES, "bodies of too many");
        let bodies: u64 = resources.iter().filter_map(|resource| resource.body.as_ref()).map(|body| body.len() as u64).sum();
        assert!(bodies <= MAX_BODIES, "{bodies} bytes of bodies");
        let key = |n: usize| resources[n].meta.key();
        assert!((1..resources.len()).all(|n| key(n - 1) < key(n)), "in order, no two of one name");
        for resource in resources {
            let meta = &resource.meta;
            assert!(resource.body.as_ref().is_none_or(|body| body.len() as u64 <= MAX_FILE), "{meta:?}");
            assert!(meta.kind != ResourceKind::McpConfig || resource.body.is_none(), "it holds tokens: {meta:?}");
            let body = resource.body.as_deref().unwrap_or_default();
            let shown = body.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!shown && !serde_json::to_string(meta).expect("JSON").contains(SECRET), "from outside: {meta:?}");
        }
        let root = self.root();
        assert!(folders.len() <= MAX_FOLDERS && folders.iter().all(|folder| folder.starts_with(&root)), "{folders:?}");
        assert!(!error.contains(SECRET), "{error}");
        // A server takes it.
        let report = Report::complete(scan.clone());
        let request = PushRequest {
            run_id: Uuid::nil().to_string(),
            epoch: 1,
            seq: 1,
            phase: report.phase.to_string(),
            error: report.error,
            resources: Some(report.resources.iter().map(Into::into).collect()),
            ..PushRequest::default()
        };
        let taken = Push::try_from(request);
        assert!(taken.is_ok(), "a server would refuse it: {:?}", taken.err());
    }
}

/// A path below the root: mostly one that is looked at.
fn path(tape: &mut Tape<'_>) -> PathBuf {
    match tape.byte() % 8 {
        0 => PathBuf::from(tape.pick(&["AGENTS.md", "CLAUDE.md", ".cursorrules", ".mcp.json"])),
        1 | 2 => Path::new(tape.pick(&SKILL_FOLDERS)).join(name(tape)).join("SKILL.md"),
        3 | 4 => Path::new(tape.pick(&SKILL_FOLDERS)).join(name(tape)),
        5 => PathBuf::from(tape.pick(&["skills", ".agents", ".agents/skills", ".claude", ".claude/skills", ".codex/skills"])),
        6 => {
            // The kernel walks the whole way for each step of it, so it is long in few of them.
            let depth = tape.byte();
            (0..if depth < 250 { depth % 10 } else { depth }).map(|_| "d").collect()
        }
        _ => name(tape),
    }
}

/// A name of one component, of any bytes that a name may have.
fn name(tape: &mut Tape<'_>) -> PathBuf {
    let bytes: Vec<u8> = match tape.byte() % 4 {
        0 => tape.pick(&["a", "b", "c"]).as_bytes().to_vec(),
        1 => vec![*tape.pick(b"ax\xff"); 255],
        _ => tape.bytes(20).iter().copied().filter(|byte| !matches!(byte, b'/' | 0)).collect(),
    };
    let escapes = bytes.is_empty() || bytes == b"." || bytes == b"..";
    PathBuf::from(OsString::from_vec(if escapes { b"a".to_vec() } else { bytes }))
}
