//! One of the two servers, as somebody with a shell and kubectl sees it.

use super::normal;
use crate::support::envtest::programs;
use std::{ffi::OsString, fs, path::PathBuf, process::Stdio, time::Duration};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// A home, a kubeconfig, and a folder with what is worked on.
pub struct Side {
    home: TempDir,
    path: OsString,
}

/// What a command said, made comparable; the last line is how it ended, unless it was content.
pub type Said = Vec<String>;

impl Side {
    /// Somebody whose kubectl is told about a server by this kubeconfig. It is the one of `programs`, not of this machine.
    pub fn new(kubeconfig: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("kubeconfig"), kubeconfig).unwrap();
        let mut path = OsString::from(programs());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        Self { home, path }
    }

    /// A file of the folder that commands run in.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs a line of shell to its end.
    pub async fn run(&self, line: &str) -> Said {
        let output = self.shell(line).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = timeout(Duration::from_mins(1), output).await.unwrap_or_else(|_| panic!("does not end: {line}")).unwrap();
        let text = |bytes: &[u8]| normal::lines(std::str::from_utf8(bytes).unwrap());
        let mut said = text(&output.stdout);
        said.extend(text(&output.stderr));
        if let Some(code) = output.status.code().filter(|code| *code != 0) {
            said.push(format!("(exit code {code})"));
        }
        said
    }

    /// Starts one that goes on until it is told to end; all it says goes into a file.
    pub fn begin(&self, line: &str, into: &str) -> Running<'_> {
        let file = fs::File::create(self.file(into)).unwrap();
        let child = self.shell(&format!("exec {line}")).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Running { side: self, file: into.to_owned(), child }
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).current_dir(self.home.path()).stdin(Stdio::null()).kill_on_drop(true);
        command.env("PATH", &self.path).env("HOME", self.home.path()).env("KUBECONFIG", self.file("kubeconfig"));
        command.envs([("LC_ALL", "C"), ("TZ", "UTC"), ("NO_PROXY", "*")]);
        command
    }
}

/// A command that runs.
pub struct Running<'a> {
    side: &'a Side,
    file: String,
    child: Child,
}

impl Running<'_> {
    /// What it has said up to now, in whole lines.
    pub fn said(&self) -> Said {
        let text = fs::read_to_string(self.side.file(&self.file)).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        normal::lines(whole)
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends it.
    pub async fn end(mut self) -> Said {
        self.child.start_kill().ok();
        self.child.wait().await.unwrap();
        self.said()
    }
}
