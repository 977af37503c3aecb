//! The command line itself, as a person at a shell types it: with an empty home, and nothing of ours in the environment.

use super::{
    api::{Caller, NAMESPACE, file, settled},
    postgres::{TestDb, database},
    serve::Replica,
    until::until,
};
use serde_json::{Value, json};
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::Read as _,
    path::Path,
    process::Stdio,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// What it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Its output, when it must have been content, and silent otherwise.
    #[track_caller]
    pub fn out(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// Its complaint, when it must have ended so, with nothing to say otherwise.
    #[track_caller]
    pub fn err(self, code: i32) -> String {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        self.err
    }

    #[track_caller]
    pub fn json(self) -> Value {
        let out = self.out();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}

/// A person's shell.
pub struct Shell {
    pub home: TempDir,
    pub server: Option<String>,
}

impl Shell {
    /// One that names a server and our namespace.
    pub fn at(server: &str) -> Self {
        Self { server: Some(server.to_owned()), ..Self::bare() }
    }

    /// One that names nothing.
    pub fn bare() -> Self {
        Self { home: tempfile::tempdir().unwrap(), server: None }
    }

    /// A command that is not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_moorline"));
        if let Some(server) = &self.server {
            command.env("MOORLINE_SERVER", server).env("MOORLINE_NAMESPACE", NAMESPACE);
        }
        command.args(args);
        command
    }

    /// Any program, with this shell's home and nothing else.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.home.path()).env("TERM", "xterm").current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Said {
        self.fed(args, "").await
    }

    pub async fn fed(&self, args: &[&str], input: &str) -> Said {
        let mut command = self.command(args);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap_or_default();
        ended(child).await
    }

    /// On a terminal: everything that it saw, with the exit code.
    pub async fn on_terminal(&self, args: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
        let (near, far) = terminal();
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        command.stdout(far.try_clone().unwrap()).stderr(far);
        let reading = tokio::task::spawn_blocking(move || {
            let (mut near, mut seen, mut some) = (near, Vec::new(), [0; 4096]);
            // A terminal that nobody has open any more ends in an error.
            while let Ok(count @ 1..) = near.read(&mut some) {
                seen.extend_from_slice(&some[..count]);
            }
            String::from_utf8(seen).unwrap()
        });
        let mut child = command.spawn().unwrap();
        drop(command);
        let code = child.wait().await.unwrap().code();
        (code, reading.await.unwrap())
    }

    /// Writes a file into the home, and says where.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A command that goes on until it is told to stop.
    pub fn begin(&self, args: &[&str]) -> Following {
        let mut child = self.command(args).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Following { child, lines }
    }
}

/// Waits for the end of a program.
pub async fn ended(child: Child) -> Said {
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let far = OpenOptions::new().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    (File::from(near), far)
}

/// A command that goes on.
pub struct Following {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Following {
    /// The next line.
    pub async fn line(&mut self) -> String {
        let within = std::time::Duration::from_secs(30);
        let line = tokio::time::timeout(within, self.lines.next_line()).await;
        line.expect("a line within 30 s").unwrap().expect("it goes on")
    }

    /// The next object, as `-o json` shows it.
    pub async fn json(&mut self) -> Value {
        let mut text = String::new();
        loop {
            let line = self.line().await;
            text.push_str(&line);
            if line == "}" {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Tells it to stop, as Ctrl-C does; answers with the exit code.
    pub async fn stop(mut self) -> Option<i32> {
        let pid = i32::try_from(self.child.id().unwrap()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().await.unwrap().code()
    }
}

/// A real `moorline serve` with an agent `ws`, a chat `fix` that is moored to its first context, and a shell.
pub struct Harbour {
    pub db: TestDb,
    pub replica: Replica,
    pub api: Caller,
    pub shell: Shell,
    run: super::api::Run,
}

impl Harbour {
    pub async fn new() -> Self {
        let db = database().await;
        let replica = Replica::start(&db, &[]).await;
        let api = Caller::new(&replica.url);
        let run = api.running_agent("ws").await;
        api.pushed(&run, 1, json!([file("AGENTS.md", "one\n")])).await;
        settled(&db).await; // or else a lap may moor the chat before its own lane does, and its story is one event longer
        api.create_chat("fix", json!({"owner": "alice", "title": "Mend it", "agentRef": {"name": "ws"}})).await;
        let shell = Shell::at(&replica.url);
        let harbour = Self { db, replica, api, shell, run };
        harbour.chat_says("fix", "it is moored", |chat| chat["status"]["pinned"]["snapshot"].is_string()).await;
        harbour
    }

    /// The agent's context moves on, and the chat has noticed.
    pub async fn drifts(&self, seq: i64, body: &str) {
        self.api.pushed(&self.run, seq, json!([file("AGENTS.md", body)])).await;
        self.chat_says("fix", "it has drifted", |chat| chat["status"]["dirty"] == true).await;
    }

    pub async fn chat_says(&self, name: &str, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{name}: {what}"), || async { Some(self.api.chat(name).await).filter(|chat| so(chat)) }).await
    }
}
