//! `moorline dev`, the real program: what a newcomer sees.

use crate::support::{ports, serve::Client, until::until};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

struct Dev {
    child: Child,
    url: String,
    said: Arc<Mutex<Vec<String>>>,
}

impl Dev {
    fn start(workspace: &Path, data: &Path) -> Self {
        let port = ports::free();
        let mut child = Command::new(env!("CARGO_BIN_EXE_moorline"))
            .arg("dev")
            .arg(workspace)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moorline dev");
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let (out, err) = (child.stdout.take().expect("its output"), child.stderr.take().expect("its errors"));
        let streams: [Box<dyn std::io::Read + Send>; 2] = [Box::new(out), Box::new(err)];
        for stream in streams {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().expect("the lines").push(line);
                }
            });
        }
        Self { child, url: format!("http://127.0.0.1:{port}"), said }
    }

    async fn says(&self, what: &str) -> String {
        until(&format!("it says {what:?}"), || async {
            self.said.lock().expect("the lines").iter().find(|line| line.contains(what)).cloned()
        })
        .await
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    async fn ends(&mut self) -> Option<i32> {
        until("it ends", || {
            let ended = self.child.try_wait().expect("looking at it");
            async move { ended }
        })
        .await
        .code()
    }

    async fn demo(&self, client: &Client) -> Value {
        client.get(&self.url, "chats/demo").await.1["status"].clone()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the example").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("a file");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_sees_a_chat_hydrated_drifted_and_refreshed_and_finds_it_again() {
    let place = tempfile::Builder::new().prefix("moorline-dev-").tempdir().expect("a place");
    fs::set_permissions(place.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a place to pass through");
    let (workspace, data) = (place.path().join("my-workspace"), place.path().join("data"));
    copy(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/workspace")), &workspace);
    let client = Client::new();

    let mut dev = Dev::start(&workspace, &data);
    let ready = dev.says("ready: ").await;
    assert!(ready.contains(&dev.url) && ready.matches("kubectl --server").count() == 2, "{ready}");
    dev.says("demo was hydrated: pinned to my-workspace-").await;
    let old = dev.demo(&client).await["pinned"].clone();

    let mut file = fs::OpenOptions::new().append(true).open(workspace.join("AGENTS.md")).expect("AGENTS.md");
    writeln!(file, "- Be brief.").expect("an edit");
    drop(file);
    dev.says("demo drifted: AGENTS.md changed, +1 −0").await;
    let status = dev.demo(&client).await;
    assert_eq!((&status["dirty"], &status["pinned"]), (&json!(true), &old), "it keeps what it had");

    // A second one on the same data says who holds them.
    let mut second = Dev::start(&workspace, &data);
    assert_eq!(second.ends().await, Some(1));
    second.says(&dev.child.id().to_string()).await;

    let (code, refreshed) = client.send(&dev.url, "PUT", "chats/demo/context", Some(json!({}))).await;
    assert_eq!((code, &refreshed["status"]["pinned"]["cause"]), (200, &json!("Refreshed")));
    dev.says("demo was refreshed to my-workspace-").await;
    let pinned = dev.demo(&client).await["pinned"].clone();

    dev.signal(rustix::process::Signal::INT);
    assert_eq!(dev.ends().await, Some(0));
    dev.says("start it again to go on where it was").await;

    let mut again = Dev::start(&workspace, &data);
    again.says("ready: ").await;
    assert_eq!(again.demo(&client).await["pinned"], pinned);
    again.signal(rustix::process::Signal::KILL);
    again.ends().await;

    let mut after = Dev::start(&workspace, &data);
    after.says("ready: ").await;
    assert_eq!(after.demo(&client).await["pinned"], pinned, "nothing is lost by a kill");
    after.signal(rustix::process::Signal::INT);
    assert_eq!(after.ends().await, Some(0));
}
