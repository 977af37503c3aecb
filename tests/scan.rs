//! What the scanner promises, on real files.

use moorline::{
    model::{
        hash::ContentHash,
        resource::{Resource, ResourceKind, ResourceStatus},
    },
    workspace::scan::{MAX_BODIES, MAX_FILE, MAX_LISTED, MAX_RESOURCES, Scan, ScanError, scan},
};
use std::{
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use tempfile::TempDir;

const SKILL: &str = "---\nname: tdd\ndescription: Test first.\n---\nWrite the test.\n";
const SECRET: &str = "hunter2-hunter2";

/// A workspace, and a place beside it that is none of the scanner's business.
struct Workspace {
    dir: TempDir,
}

impl Workspace {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        Self { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn outside(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("outside").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("---\nname: {SECRET}\ndescription: {SECRET}\n---\n")).unwrap();
        path
    }

    fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn link(self, path: &str, target: impl AsRef<Path>) -> Self {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    #[track_caller]
    fn scan(&self) -> Scan {
        let scan = scan(&self.root()).unwrap();
        assert!(!format!("{scan:?}").contains(SECRET), "nothing from outside, and no token, is shown");
        for Resource { meta, body } in &scan.resources {
            assert_eq!(meta.status == ResourceStatus::Ok, meta.error.is_empty(), "{meta:?}");
            assert!(meta.error.len() <= 4096, "{meta:?}");
            if let Some(body) = body {
                assert_eq!(meta.content_hash, Some(ContentHash::of(body)));
                assert_eq!(meta.size_bytes, body.len() as u64);
            }
        }
        let keys: Vec<_> = scan.resources.iter().map(|r| r.meta.key()).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "in order and without duplicates: {keys:?}");
        scan
    }

    /// The one resource there is.
    #[track_caller]
    fn only(&self) -> Resource {
        let mut resources = self.scan().resources;
        assert_eq!(resources.len(), 1, "{resources:?}");
        resources.remove(0)
    }

    #[track_caller]
    fn assert_only(&self, source: &str, status: ResourceStatus, error: &str) {
        let Resource { meta, .. } = self.only();
        assert_eq!((meta.source.as_str(), meta.status, meta.error.as_str()), (source, status, error));
    }
}

fn sources(scan: &Scan) -> Vec<(&str, &str)> {
    scan.resources.iter().map(|r| (r.meta.kind.as_str(), r.meta.source.as_str())).collect()
}

#[test]
fn every_fixed_place_is_found_and_no_other() {
    let workspace = Workspace::new()
        .file("AGENTS.md", "a")
        .file("CLAUDE.md", "c")
        .file(".cursorrules", "r")
        .file(".mcp.json", "{}")
        .file("skills/tdd/SKILL.md", SKILL)
        .file(".agents/skills/tdd/SKILL.md", SKILL)
        .file(".claude/skills/tdd/SKILL.md", SKILL)
        .file(".codex/skills/tdd/SKILL.md", SKILL)
        // none of these
        .file("agents.md", "no")
        .file("docs/AGENTS.md", "no")
        .file("SKILL.md", "no")
        .file("skills/SKILL.md", "no")
        .file("skills/README.md", "no")
        .file("skills/deep/er/SKILL.md", "no")
        .file("skills/empty/notes.md", "no")
        .file("node_modules/x/skills/y/SKILL.md", "no");
    let scan = workspace.scan();
    assert_eq!(
        sources(&scan),
        [
            ("InstructionFile", ".cursorrules"),
            ("InstructionFile", "AGENTS.md"),
            ("InstructionFile", "CLAUDE.md"),
            ("McpConfig", ".mcp.json"),
            ("Skill", ".agents/skills/tdd"),
            ("Skill", ".claude/skills/tdd"),
            ("Skill", ".codex/skills/tdd"),
            ("Skill", "skills/tdd"),
        ]
    );
    assert_eq!(scan.resources[7].meta.source_path, "skills/tdd/SKILL.md");
    assert_eq!(scan.resources[1].body.as_deref(), Some(&b"a"[..]));
    assert!(scan.resources.iter().all(|r| r.meta.status == ResourceStatus::Ok), "{scan:?}");
    assert_eq!(scan.error, "");
}

#[test]
fn scanning_again_gives_the_same() {
    let workspace = Workspace::new().file("AGENTS.md", "a").file("skills/a/SKILL.md", SKILL).file("skills/b/SKILL.md", "broken");
    assert_eq!(workspace.scan(), workspace.scan());
}

#[test]
fn an_empty_workspace_is_an_empty_context() {
    assert_eq!(Workspace::new().scan().resources, []);
}

#[test]
fn a_missing_root_is_an_error_and_not_an_empty_context() {
    let workspace = Workspace::new().file("AGENTS.md", "a");
    for missing in ["no/such", "root/AGENTS.md"] {
        let error = scan(&workspace.dir.path().join(missing)).unwrap_err();
        assert!(matches!(error, ScanError::Root { .. }), "{error}");
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[test]
fn the_body_of_an_mcp_config_is_never_kept() {
    let text = format!("{{\"token\": \"{SECRET}\"}}");
    let resource = Workspace::new().file(".mcp.json", &text).only();
    assert_eq!((resource.meta.kind, resource.body), (ResourceKind::McpConfig, None));
    assert_eq!(resource.meta.content_hash, Some(ContentHash::of(text.as_bytes())));
    assert_eq!(resource.meta.size_bytes, text.len() as u64);

    let broken = Workspace::new().file(".mcp.json", format!("{{\"token\": \"{SECRET}\",,}}"));
    broken.assert_only(".mcp.json", ResourceStatus::Invalid, "line 1: is not valid JSON (column 29)");
    assert_eq!(broken.only().body, None);
}

#[test]
fn instruction_files_are_bytes_and_need_not_be_utf8() {
    let bytes = b"caf\xe9\0\xff";
    assert_eq!(Workspace::new().file("AGENTS.md", bytes).only().body.as_deref(), Some(&bytes[..]));
    assert_eq!(Workspace::new().file("AGENTS.md", "").only().body.as_deref(), Some(&b""[..]));
}

#[test]
fn a_skill_with_broken_front_matter_is_invalid_and_still_seen_to_change() {
    let workspace = Workspace::new().file("skills/tdd/SKILL.md", "---\nname: tdd\n---\n");
    workspace.assert_only("skills/tdd", ResourceStatus::Invalid, "line 2: the front matter has no description");
    let before = workspace.only().meta.content_hash.expect("it was read");
    let after = workspace.file("skills/tdd/SKILL.md", "---\nname: tdt\n---\n").only().meta.content_hash;
    assert_ne!(Some(before), after);
}

#[test]
fn what_is_too_large_is_not_read_but_measured() {
    let limit = usize::try_from(MAX_FILE).unwrap();
    assert_eq!(Workspace::new().file("AGENTS.md", vec![b'x'; limit]).only().meta.status, ResourceStatus::Ok);
    let workspace = Workspace::new().file("AGENTS.md", vec![b'x'; limit + 1]);
    workspace.assert_only("AGENTS.md", ResourceStatus::Oversize, "must be at most 65536 bytes to be carried, got 65537");
    let Resource { meta, body } = workspace.only();
    assert_eq!((meta.size_bytes, meta.content_hash, body), (MAX_FILE + 1, None, None));
}

#[test]
fn a_huge_file_costs_nothing() {
    let workspace = Workspace::new();
    // Sparse: reading it whole would take longer than any test may.
    fs::File::create(workspace.root().join("AGENTS.md")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(workspace.only().meta.size_bytes, 1 << 40);
}

#[test]
fn bodies_past_2_mib_are_excluded_in_order() {
    let each = usize::try_from(MAX_FILE).unwrap();
    let fit = usize::try_from(MAX_BODIES / MAX_FILE).unwrap();
    let mut workspace = Workspace::new();
    for i in 0..fit + 2 {
        let mut skill = SKILL.as_bytes().to_vec();
        skill.resize(each, b'x');
        workspace = workspace.file(&format!("skills/{i:03}/SKILL.md"), skill);
    }
    let scan = workspace.scan();
    let (ok, rest) = scan.resources.split_at(fit);
    assert!(ok.iter().all(|r| r.meta.status == ResourceStatus::Ok));
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(|r| r.meta.status == ResourceStatus::Excluded && r.body.is_none()), "{:?}", rest[0].meta);
    assert!(rest[0].meta.error.contains("2097152"), "{}", rest[0].meta.error);
}

#[test]
fn resources_past_500_are_excluded_and_past_1000_only_counted() {
    let mut workspace = Workspace::new().file("AGENTS.md", "a");
    for i in 0..MAX_LISTED + 4 {
        workspace = workspace.file(&format!("skills/{i:04}/SKILL.md"), SKILL);
    }
    let scan = workspace.scan();
    assert_eq!(scan.resources.len(), MAX_LISTED);
    let (ok, rest) = scan.resources.split_at(MAX_RESOURCES);
    assert!(ok.iter().all(|r| r.meta.status == ResourceStatus::Ok));
    assert!(rest.iter().all(|r| r.meta.status == ResourceStatus::Excluded && r.meta.content_hash.is_none()));
    assert_eq!(scan.error, "1005 resources were found and only the first 1000 are listed");
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let workspace =
        Workspace::new().file("docs/rules.md", "rules").link("AGENTS.md", "docs/rules.md").link("CLAUDE.md", "AGENTS.md");
    let scan = workspace.scan();
    assert_eq!(sources(&scan), [("InstructionFile", "AGENTS.md"), ("InstructionFile", "CLAUDE.md")]);
    assert!(scan.resources.iter().all(|r| r.body.as_deref() == Some(&b"rules"[..])));
    let docs = workspace.root().canonicalize().unwrap().join("docs");
    assert!(scan.folders.contains(&docs), "a change of the target is seen: {:?}", scan.folders);

    let absolute = Workspace::new().file("docs/rules.md", "rules");
    let target = absolute.root().join("docs/rules.md");
    assert_eq!(absolute.link("AGENTS.md", target).only().meta.status, ResourceStatus::Ok);
}

#[test]
fn linked_folders_of_skills_are_followed_inside() {
    let workspace = Workspace::new()
        .file("skills/tdd/SKILL.md", SKILL)
        .link("skills/alias", "tdd")
        .link("skills/README.md", "tdd/SKILL.md")
        .link(".claude/skills", "../skills");
    let expected = [".claude/skills/alias", ".claude/skills/tdd", "skills/alias", "skills/tdd"];
    assert_eq!(sources(&workspace.scan()), expected.map(|source| ("Skill", source)));
}

const OUT: &str = "is, or lies behind, a symbolic link that leaves the workspace";

#[test]
fn a_link_that_leaves_is_invalid_and_shows_nothing() {
    for source in ["AGENTS.md", ".mcp.json"] {
        let workspace = Workspace::new();
        let target = workspace.outside("secret.md");
        workspace.link(source, target).assert_only(source, ResourceStatus::Invalid, OUT);
    }
    let relative = Workspace::new();
    relative.outside("secret.md");
    relative.link("AGENTS.md", "../outside/secret.md").assert_only("AGENTS.md", ResourceStatus::Invalid, OUT);
    // A sibling whose name begins like the root's is outside too.
    let sibling = Workspace::new();
    fs::create_dir(sibling.dir.path().join("root2")).unwrap();
    fs::write(sibling.dir.path().join("root2/AGENTS.md"), SECRET).unwrap();
    sibling.link("AGENTS.md", "../root2/AGENTS.md").assert_only("AGENTS.md", ResourceStatus::Invalid, OUT);
}

#[test]
fn a_link_that_leaves_is_invalid_at_every_step_of_the_way_to_a_skill() {
    let skill = |link: &str, target: &str| {
        let workspace = Workspace::new();
        workspace.outside("skills/tdd/SKILL.md");
        let target = workspace.dir.path().join("outside").join(target);
        workspace.link(link, target)
    };
    skill("skills/tdd/SKILL.md", "skills/tdd/SKILL.md").assert_only("skills/tdd", ResourceStatus::Invalid, OUT);
    skill("skills/tdd", "skills/tdd").assert_only("skills/tdd", ResourceStatus::Invalid, OUT);
    skill("skills", "skills").assert_only("skills", ResourceStatus::Invalid, OUT);
    skill(".claude", ".").assert_only(".claude/skills", ResourceStatus::Invalid, OUT);
    assert_eq!(skill("skills/README.md", "skills/tdd/SKILL.md").scan().resources, [], "a file beside the skills is no skill");
}

#[test]
fn links_to_nothing_and_in_circles_are_told_apart() {
    let dangling = "is, or lies behind, a symbolic link to something that does not exist";
    let circle = "is, or lies behind, a symbolic link that leads back to itself";
    Workspace::new().link("AGENTS.md", "gone").assert_only("AGENTS.md", ResourceStatus::Unreadable, dangling);
    Workspace::new().link("skills/tdd", "gone").assert_only("skills/tdd", ResourceStatus::Unreadable, dangling);
    Workspace::new().link("skills", "gone").assert_only("skills", ResourceStatus::Unreadable, dangling);
    Workspace::new().link("AGENTS.md", "AGENTS.md").assert_only("AGENTS.md", ResourceStatus::Invalid, circle);
    Workspace::new().link("skills/a", "a").assert_only("skills/a", ResourceStatus::Invalid, circle);
    let two = Workspace::new().link("AGENTS.md", "CLAUDE.md").link("CLAUDE.md", "AGENTS.md").scan();
    assert!(two.resources.iter().all(|r| r.meta.status == ResourceStatus::Invalid && r.meta.error == circle));
    assert_eq!(Workspace::new().link("skills/up", "..").scan().resources, [], "the root is no skill, and nothing recurses");
}

#[test]
fn what_is_not_a_file_is_invalid_and_never_blocks() {
    let folder = Workspace::new().file("AGENTS.md/x", "");
    folder.assert_only("AGENTS.md", ResourceStatus::Invalid, "is a folder, not a file");
    let folder = Workspace::new().file("skills/tdd/SKILL.md/x", "");
    folder.assert_only("skills/tdd", ResourceStatus::Invalid, "is a folder, not a file");

    let fifo = Workspace::new();
    assert!(Command::new("mkfifo").arg(fifo.root().join("AGENTS.md")).status().unwrap().success());
    fifo.assert_only("AGENTS.md", ResourceStatus::Invalid, "is a FIFO, not a file");

    let socket = Workspace::new();
    let _listener = UnixListener::bind(socket.root().join("AGENTS.md")).unwrap();
    socket.assert_only("AGENTS.md", ResourceStatus::Invalid, "is a socket, not a file");

    let root = Workspace::new().link("AGENTS.md", ".");
    root.assert_only("AGENTS.md", ResourceStatus::Invalid, "is the workspace itself, not a file");
    assert_eq!(Workspace::new().file("skills", "a file").scan().resources, [], "a file called skills claims nothing");
}

#[test]
fn a_root_that_is_a_link_is_followed() {
    let workspace = Workspace::new().file("AGENTS.md", "a");
    let link = workspace.dir.path().join("link");
    symlink(workspace.root(), &link).unwrap();
    assert_eq!(scan(&link).unwrap(), workspace.scan());
}

#[test]
fn a_folder_whose_name_is_no_text_is_named_all_the_same() {
    let workspace = Workspace::new();
    for name in [&b"caf\xe9"[..], b"caf\xe8"] {
        let folder = workspace.root().join("skills").join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("SKILL.md"), SKILL).unwrap();
    }
    let scan = workspace.scan();
    assert_eq!(scan.resources.len(), 2, "two names stay two resources");
    assert!(scan.resources.iter().all(|r| r.meta.status == ResourceStatus::Invalid), "{scan:?}");
}

/// Runs `test` as a user whom permissions stop: itself, or `nobody` in a process of its own when that is root.
fn as_ordinary_user(name: &str, test: impl FnOnce()) {
    const INNER: &str = "MOORLINE_TEST_INNER";
    if !rustix::process::geteuid().is_root() {
        return test();
    }
    assert!(std::env::var_os(INNER).is_none(), "the inner process must not be root");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INNER, "1")
        .current_dir("/")
        .gid(65534)
        .uid(65534)
        .output()
        .expect("the test binary can be run by nobody");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_may_not_be_read_is_unreadable() {
    as_ordinary_user("scan::what_may_not_be_read_is_unreadable", || {
        let deny = |path: &str, workspace: &Workspace| {
            fs::set_permissions(workspace.root().join(path), fs::Permissions::from_mode(0o000)).unwrap();
        };
        let denied = "cannot be read: Permission denied (os error 13)";
        let file = Workspace::new().file("AGENTS.md", "a");
        deny("AGENTS.md", &file);
        file.assert_only("AGENTS.md", ResourceStatus::Unreadable, denied);

        let skill = Workspace::new().file("skills/tdd/SKILL.md", SKILL);
        deny("skills/tdd", &skill);
        skill.assert_only("skills/tdd", ResourceStatus::Unreadable, denied);
        fs::set_permissions(skill.root().join("skills/tdd"), fs::Permissions::from_mode(0o700)).unwrap();

        let skills = Workspace::new().file("skills/tdd/SKILL.md", SKILL);
        deny("skills", &skills);
        skills.assert_only("skills", ResourceStatus::Unreadable, denied);
        fs::set_permissions(skills.root().join("skills"), fs::Permissions::from_mode(0o700)).unwrap();

        let root = Workspace::new().file("AGENTS.md", "a");
        deny("", &root);
        let error = scan(&root.root()).unwrap_err();
        fs::set_permissions(root.root(), fs::Permissions::from_mode(0o700)).unwrap();
        assert!(matches!(error, ScanError::Root { .. }), "{error}");
    });
}

/// Exchanges things under the scanner's feet for as long as `scans` takes.
fn while_changing<T>(change: impl Fn(bool) + Send + 'static, scans: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let stopping = stop.clone();
    let changing = thread::spawn(move || {
        let mut flip = false;
        while !stopping.load(Ordering::Relaxed) {
            flip = !flip;
            change(flip);
        }
    });
    let result = scans();
    stop.store(true, Ordering::Relaxed);
    changing.join().unwrap();
    result
}

#[test]
fn a_file_that_vanishes_is_left_out_and_nothing_else_is_said_of_it() {
    let workspace = Workspace::new().file("CLAUDE.md", "c");
    let path = workspace.root().join("AGENTS.md");
    let change = move |flip| if flip { fs::write(&path, "whole").unwrap() } else { fs::remove_file(&path).unwrap() };
    let mut seen = [0; 2];
    while_changing(change, || {
        while seen.iter().any(|n| *n < 20) {
            let scan = workspace.scan();
            let found = scan.resources.iter().find(|r| r.meta.source == "AGENTS.md");
            seen[usize::from(found.is_some())] += 1;
            if let Some(Resource { meta, body }) = found {
                // fs::write truncates first: an empty file is a state it really had.
                let read = matches!(body.as_deref(), Some(b"whole" | b""));
                assert!(read || meta.error == "kept changing while it was read", "{meta:?}");
            }
            assert!(scan.resources.iter().any(|r| r.meta.source == "CLAUDE.md"), "the others are found all the same");
        }
    });
}

#[test]
fn a_file_that_is_swapped_for_a_way_out_never_shows_what_is_there() {
    let workspace = Workspace::new().file("skills/tdd/SKILL.md", SKILL);
    let outside = workspace.outside("tdd/SKILL.md").parent().unwrap().to_owned();
    let (here, aside) = (workspace.root().join("skills/tdd"), workspace.root().join("aside"));
    let change = move |flip| {
        if flip {
            fs::rename(&here, &aside).unwrap();
            symlink(&outside, &here).unwrap();
        } else {
            fs::remove_file(&here).unwrap();
            fs::rename(&aside, &here).unwrap();
        }
    };
    let (mut inside, mut out) = (0, 0);
    while_changing(change, || {
        while inside < 50 || out < 50 {
            for Resource { meta, body } in workspace.scan().resources {
                inside += usize::from(body.as_deref() == Some(SKILL.as_bytes()));
                out += usize::from(meta.error == OUT);
            }
        }
    });
}

#[test]
fn a_workspace_of_the_shape_of_the_trace_is_found_as_the_trace_says() {
    let mut workspace = Workspace::new().link("AGENTS.md", "CLAUDE.md");
    let names = ["brainstorming", "executing-plans", "test-driven-development", "using-git-worktrees", "writing-skills"];
    for name in names {
        let skill = format!("---\nname: {name}\ndescription: Use when {name} is asked for - always\n---\n# {name}\n");
        workspace =
            workspace.file(&format!("skills/{name}/SKILL.md"), skill).file(&format!("skills/{name}/reference.md"), "more");
    }
    workspace = workspace.file("CLAUDE.md", "# Contributor Guidelines\n");
    let scan = workspace.scan();
    let mut expected = vec![("InstructionFile", "AGENTS.md".to_owned()), ("InstructionFile", "CLAUDE.md".to_owned())];
    expected.extend(names.map(|name| ("Skill", format!("skills/{name}"))));
    assert_eq!(scan.resources.iter().map(|r| (r.meta.kind.as_str(), r.meta.source.clone())).collect::<Vec<_>>(), expected);
    assert!(scan.resources.iter().all(|r| r.meta.status == ResourceStatus::Ok), "{scan:?}");
}

#[test]
fn the_example_workspace_is_whole() {
    let scan = scan(&Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/workspace")).unwrap();
    let expected = [
        ("InstructionFile", "AGENTS.md"),
        ("McpConfig", ".mcp.json"),
        ("Skill", "skills/debugging"),
        ("Skill", "skills/small-commits"),
        ("Skill", "skills/tdd"),
    ];
    assert_eq!(sources(&scan), expected);
    assert!(scan.resources.iter().all(|r| r.meta.status == ResourceStatus::Ok), "{scan:?}");
}

#[test]
fn a_file_that_is_being_appended_to_is_carried_once_it_rests() {
    let workspace = Workspace::new().file("AGENTS.md", "");
    let mut file = fs::OpenOptions::new().append(true).open(workspace.root().join("AGENTS.md")).unwrap();
    for _ in 0..100 {
        file.write_all(b"line\n").unwrap();
    }
    assert_eq!(workspace.only().body.unwrap().len(), 500);
}
