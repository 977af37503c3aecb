//! A checkout of Moorline in which `make dev` runs, and a shell in it: the place that the pages speak of.

use super::page::ROOT;
use crate::support::{
    ports,
    until::{until, until_within},
};
use std::{
    env, fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// Where the pages say that the server is.
const WRITTEN: &str = "127.0.0.1:8460";
/// Between what two blocks print.
const NEXT: &str = "--- the next block ---";

/// The place.
pub struct World {
    folder: TempDir,
    /// Where the server is in truth: the written port may be somebody else's.
    address: String,
    dev: Child,
}

impl World {
    /// One with `make dev` running: agent `workspace`, and chat `demo` moored to it.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("moorline-docs-").tempdir().unwrap();
        // PostgreSQL's user must be able to pass through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (built, tools) = (folder.path().join("target/debug"), folder.path().join("tools"));
        for made in [&built, &tools, &folder.path().join("home")] {
            fs::create_dir_all(made).unwrap();
        }
        symlink(env!("CARGO_BIN_EXE_moorline"), built.join("moorline")).unwrap();
        symlink(kubectl(), tools.join("kubectl")).unwrap();
        symlink(Path::new(ROOT).join("crds"), folder.path().join("crds")).unwrap();
        copy(&Path::new(ROOT).join("examples/workspace"), &folder.path().join("target/dev/workspace"));

        let port = ports::free();
        let address = format!("127.0.0.1:{port}");
        let told = fs::File::create(folder.path().join("told")).unwrap();
        let dev = Command::new(env!("CARGO_BIN_EXE_moorline"))
            .args(["dev", "target/dev/workspace", "--listen", &address, "--data-dir"])
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .stdout(told.try_clone().unwrap())
            .stderr(told)
            .spawn()
            .unwrap();
        let world = Self { folder, address, dev };
        until_within(Duration::from_mins(1), "`make dev` says that the chat is moored", || async {
            world.told().contains("demo was hydrated").then_some(())
        })
        .await;
        world
    }

    /// What `make dev` has said so far, as the pages have it.
    pub fn told(&self) -> String {
        fs::read_to_string(self.folder.path().join("told")).unwrap().replace(&self.address, WRITTEN)
    }

    /// A kubeconfig with the server in it, for the pages that take one for granted.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = self.folder.path().join("kubeconfig");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: moorline, \
             clusters: [{{name: moorline, cluster: {{server: 'http://{}'}}}}], \
             contexts: [{{name: moorline, context: {{cluster: moorline, namespace: default}}}}]}}",
            self.address
        );
        fs::write(&path, text).unwrap();
        path
    }

    /// Types the blocks into one shell, which stops at the first command that fails; answers with what each printed.
    pub async fn types(&self, blocks: &[&str], environment: &[(&str, &Path)]) -> Vec<String> {
        let mut script = blocks.join(&format!("\necho '{NEXT}'\n")).replace(WRITTEN, &self.address);
        script.push('\n');
        // Where people have programs of their own, as most systems have it.
        let own = self.folder.path().join("home/.local/bin");
        let path = [self.folder.path().join("tools"), own, env::var_os("PATH").unwrap_or_default().into()];
        let mut shell = tokio::process::Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", &script]).current_dir(self.folder.path()).env_clear();
        shell.env("PATH", env::join_paths(path.iter().flat_map(|path| env::split_paths(path))).unwrap());
        shell.env("HOME", self.folder.path().join("home")).env("NO_PROXY", "*").envs(environment.iter().copied());
        shell.stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_mins(2), shell.output()).await;
        let output = ended.unwrap_or_else(|_| panic!("it has not ended in two minutes:\n{script}")).unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        let printed: Vec<String> = out.replace(&self.address, WRITTEN).split(&format!("{NEXT}\n")).map(str::to_owned).collect();
        let failed = blocks.get(printed.len() - 1).copied().unwrap_or_default();
        assert!(output.status.success(), "this failed:\n{failed}\nIt said:\n{}{err}", printed.last().unwrap());
        printed
    }

    /// Ctrl-C in the first terminal: how it exits, and all that it has said by then.
    pub async fn stops(mut self) -> (Option<i32>, String) {
        let pid = i32::try_from(self.dev.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = until("`make dev` ends", || {
            let ended = self.dev.try_wait().unwrap();
            async move { ended }
        })
        .await;
        (ended.code(), self.told())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.dev.kill().ok();
        self.dev.wait().ok();
    }
}

/// The kubectl of this machine, or the one that `MOORLINE_TEST_KUBECTL` names.
fn kubectl() -> PathBuf {
    let named = env::var_os("MOORLINE_TEST_KUBECTL").map_or_else(|| "kubectl".into(), PathBuf::from);
    let places = env::split_paths(&env::var_os("PATH").unwrap_or_default()).map(|folder| folder.join(&named)).collect::<Vec<_>>();
    places.into_iter().find(|place| place.is_file()).expect("a kubectl: set MOORLINE_TEST_KUBECTL")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).unwrap();
        }
    }
}
