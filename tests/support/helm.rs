//! A real helm and what it makes of the charts of `deploy/`, and other programs that look at that.
//!
//! They are in the folder that `MOORLINE_TEST_HELM` names; `scripts/ensure-helm` builds them and says where. Nothing of this
//! machine's is read or changed: helm has a home of its own.

use super::{envtest::ControlPlane, kubectl::Said};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// The chart that runs Moorline.
pub const MOORLINE: &str = "deploy/charts/moorline";
/// The chart with its definitions.
pub const DEFINITIONS: &str = "deploy/charts/moorline-crds";

/// A helm, pointed at a cluster or at none.
pub struct Helm {
    home: TempDir,
}

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with the programs, and with the definitions of others (`definitions`).
pub fn tools() -> PathBuf {
    let named = std::env::var_os("MOORLINE_TEST_HELM").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| repository().join("tests/deploy/bin"));
    assert!(folder.join("definitions").exists(), "{} is not made: run scripts/ensure-helm, which does", folder.display());
    folder
}

impl Helm {
    /// One that knows no cluster.
    pub fn alone() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    /// One of `system:masters` of this cluster.
    pub fn of(control_plane: &ControlPlane) -> Self {
        let it = Self::alone();
        fs::write(it.home.path().join("kubeconfig"), control_plane.kubeconfig("default")).unwrap();
        it
    }

    /// Runs it to its end, in the repository.
    pub async fn run(&self, args: &[&str]) -> Said {
        self.fed(args, "").await
    }

    /// Runs it to its end with something to read.
    pub async fn fed(&self, args: &[&str], input: &str) -> Said {
        let home = self.home.path();
        let mut command = Command::new(tools().join("helm"));
        command.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").env("KUBECONFIG", home.join("kubeconfig"));
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
            command.env(name, home.join(folder));
        }
        feed(command.args(args), input).await
    }

    /// What the chart `moorline` makes of values, as a release of its name in this namespace.
    pub async fn objects(&self, namespace: &str, values: &Value) -> Vec<Value> {
        objects(&self.rendered(namespace, values).await.out())
    }

    /// The same, as helm says it.
    pub async fn rendered(&self, namespace: &str, values: &Value) -> Said {
        let args = ["template", "moorline", MOORLINE, "--namespace", namespace, "--values", "-"];
        // JSON is YAML.
        self.fed(&args, &values.to_string()).await
    }
}

/// The documents of a text, empty ones left out.
pub fn objects(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// Runs kubeconform on objects.
pub async fn kubeconform(args: &[&str], input: &str) -> Said {
    feed(Command::new(tools().join("kubeconform")).args(args), input).await
}

/// The objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The one object of a kind.
#[track_caller]
pub fn the<'a>(objects: &'a [Value], kind: &'a str) -> &'a Value {
    let all: Vec<&Value> = of_kind(objects, kind).collect();
    assert_eq!(all.len(), 1, "{kind}: {all:#?}");
    all[0]
}

/// What a Deployment's server is told.
pub fn args(deployment: &Value) -> Vec<String> {
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
}

async fn feed(command: &mut Command, input: &str) -> Said {
    command.current_dir(repository()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that complains about its arguments does not read.
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.ok();
    let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { ok: status.success(), out: text(stdout), err: text(stderr) }
}
