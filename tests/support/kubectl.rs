//! A real kubectl as somebody with a home and a kubeconfig of their own runs it, and nothing of this machine's.

use serde_json::{Value, json};
use std::{
    ffi::OsString,
    path::Path,
    process::{Output, Stdio},
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

/// A kubectl, pointed at a server and a namespace. What it learns about the server it keeps, as people's does.
pub struct Kubectl {
    program: OsString,
    home: TempDir,
}

/// What it said.
#[derive(Debug)]
pub struct Said {
    /// Whether it was content.
    pub ok: bool,
    /// Its output.
    pub out: String,
    /// Its complaints and warnings.
    pub err: String,
}

impl Said {
    /// Its output, when it must have been content.
    #[track_caller]
    pub fn out(self) -> String {
        assert!(self.ok, "{}{}", self.out, self.err);
        self.out
    }

    /// Its complaint, when it must have had one.
    #[track_caller]
    pub fn err(self) -> String {
        assert!(!self.ok, "it was content: {}", self.out);
        self.err
    }
}

impl Kubectl {
    /// The kubectl of this machine or the one that `MOORLINE_TEST_KUBECTL` names, at a server without users.
    pub fn at(url: &str, namespace: &str) -> Self {
        let program = std::env::var_os("MOORLINE_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
        Self::new(program, &kubeconfig(&json!({"server": url}), &json!({}), namespace), &std::env::temp_dir())
    }

    /// This program with this kubeconfig and a home somewhere below a folder.
    pub fn new(program: impl Into<OsString>, kubeconfig: &str, below: &Path) -> Self {
        let home = tempfile::tempdir_in(below).unwrap();
        std::fs::write(home.path().join("config"), kubeconfig).unwrap();
        Self { program: program.into(), home }
    }

    /// Runs it to its end.
    pub async fn run(&self, args: &[&str]) -> Said {
        self.fed(args, "").await
    }

    /// Runs it to its end with something to read.
    pub async fn fed(&self, args: &[&str], input: &str) -> Said {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.home.path()).env("KUBECONFIG", self.home.path().join("config")).env("NO_PROXY", "*");
        command.args(["--request-timeout", "30s"]).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let spawned = command.spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{}: {error}; set MOORLINE_TEST_KUBECTL", self.program.display()));
        // One that complains about its arguments does not read.
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.ok();
        let Output { status, stdout, stderr } = child.wait_with_output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { ok: status.success(), out: text(stdout), err: text(stderr) }
    }

    /// What a command that must succeed shows with `-o json`.
    pub async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(&[args, &["-o", "json"]].concat()).await.out()).unwrap()
    }
}

/// A kubeconfig (JSON is YAML) of one cluster, one user and one namespace.
pub fn kubeconfig(cluster: &Value, user: &Value, namespace: &str) -> String {
    let context = json!({"cluster": "it", "user": "us", "namespace": namespace});
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [{"name": "us", "user": user}],
        "contexts": [{"name": "here", "context": context}],
    })
    .to_string()
}
