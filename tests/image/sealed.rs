//! A root with the program in it, and a user who may only read it: what a container is, made of util-linux.
//!
//! Where user namespaces are allowed the root is mounted read-only. Where they are not (in some containers), root does it by
//! `chroot` and `setpriv`; then it is the permissions that keep it as it is.

use crate::support::{
    moorline::{Said, ended},
    postgres::TestDb,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::LazyLock,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, UnixStream},
    process::Command,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_moorline");
/// Where the image has it.
const INSIDE: &str = "/usr/local/bin/moorline";
/// The image's user.
const USER: &str = "65532";

/// Mounts the first argument read-only over itself, and runs the others in it: as the image's user, of a namespace in which it
/// has no rights.
const ENTER: &str = r#"set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
root=$1
shift
exec unshare --user --map-user=65532 --map-group=65532 --root="$root" --wd=/ -- "$@"
"#;

/// Whether this machine lets its users have namespaces of their own.
static NAMESPACES: LazyLock<bool> = LazyLock::new(|| {
    let tried = std::process::Command::new("unshare").args(["--user", "--map-root-user", "--mount", "true"]).output();
    tried.is_ok_and(|tried| tried.status.success())
});

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The files that the program is linked with, the loader among them.
pub fn libraries() -> Vec<PathBuf> {
    let told = std::process::Command::new("ldd").arg(PROGRAM).output().unwrap();
    assert!(told.status.success(), "ldd: {}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    // `libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)`; the loader has no arrow, and what the kernel brings no path.
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A folder that is somebody's whole world.
pub struct Root {
    folder: TempDir,
}

impl Root {
    /// One with the program, its libraries, and what a container engine and the base put into `/etc`.
    pub fn with_the_program() -> Self {
        let folder = tempfile::Builder::new().prefix("moorline-image-").tempdir().unwrap();
        let root = Self { folder };
        root.copy(Path::new(PROGRAM), Path::new(INSIDE));
        for library in libraries() {
            root.copy(&library, &library);
        }
        root.write("/etc/hosts", "127.0.0.1 localhost\n");
        root.write("/etc/nsswitch.conf", "hosts: files dns\n");
        fs::create_dir_all(root.outside(Path::new("/tmp"))).unwrap();
        each(root.folder.path(), &mut |path| {
            // 0555 of everything: whoever is not root cannot write it, wherever it is mounted.
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        });
        root
    }

    fn outside(&self, inside: &Path) -> PathBuf {
        self.folder.path().join(inside.strip_prefix("/").unwrap())
    }

    fn copy(&self, from: &Path, inside: &Path) {
        let to = self.outside(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }

    fn write(&self, inside: &str, text: &str) {
        let to = self.outside(Path::new(inside));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, text).unwrap();
    }

    /// Everything in it, with its length.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        each(self.folder.path(), &mut |path| found.push((path.to_owned(), fs::metadata(path).unwrap().len())));
        found.sort();
        found
    }

    /// The program in it, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let folder = self.folder.path().to_str().unwrap();
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        let mut words: Vec<&str> = Vec::new();
        match (is_root(), *NAMESPACES) {
            (true, true) => words.extend(["setpriv", &user, &group, "--clear-groups", "--no-new-privs"]),
            (false, true) => {}
            (true, false) => words.extend(["chroot", "--userspec=65532:65532", "--groups=", folder, INSIDE]),
            (false, false) => {
                panic!("an empty root wants user namespaces (`unshare --user --map-root-user --mount true`), or root")
            }
        }
        if *NAMESPACES {
            words.extend(["unshare", "--user", "--map-root-user", "--mount", "--", "sh", "-c", ENTER, "sh", folder, INSIDE]);
        }
        words.extend(args);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the program in it to its end.
    pub async fn run(&self, args: &[&str]) -> Said {
        ended(self.command(args).spawn().unwrap()).await
    }
}

/// Calls `of` with everything below a folder, and at last with the folder.
fn each(path: &Path, of: &mut dyn FnMut(&Path)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each(&entry.unwrap().path(), of);
        }
    }
    of(path);
}

impl Drop for Root {
    /// Gives the folders back to their owner, who could not remove anything from them otherwise.
    fn drop(&mut self) {
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).ok();
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(entries.map(|entry| entry.path()).filter(|path| path.is_dir()));
        }
    }
}

/// The tests' PostgreSQL, which is on a socket only, at a port of this machine for as long as the test runs.
pub async fn bridge(db: &TestDb) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = db.options.get_socket().expect("it is on a socket").join(".s.PGSQL.5432");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let socket = socket.clone();
            tokio::spawn(async move {
                let mut server = UnixStream::connect(socket).await.unwrap();
                // Either side may go first: that is not ours to judge.
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    port
}
