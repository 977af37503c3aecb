//! The image without a container engine: the program that it would hold, with the libraries that it links and nothing else, in a
//! root that cannot be written, under a user that is nobody. And the rules that `deploy/Dockerfile` keeps.

mod dockerfile;
mod sealed;

use crate::support::{ports, postgres::database, serve::Client, until::until};
use sealed::{Root, bridge};

#[test]
fn the_program_needs_no_library_that_its_base_lacks() {
    // What the `cc` variant of Distroless has: glibc (its older versions in several files), and the compiler's own library.
    let base = ["libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libgcc_s.so.1"];
    for library in sealed::libraries() {
        let name = library.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(base.contains(&name.as_str()) || name.starts_with("ld-linux"), "{name} is not in the image");
    }
}

#[tokio::test]
async fn in_an_empty_root_it_says_who_it_is_what_it_takes_and_what_it_defines() {
    let root = Root::with_the_program();
    assert_eq!(root.run(&["version", "--client"]).await.out(), format!("moorline {}\n", env!("CARGO_PKG_VERSION")));
    assert!(root.run(&["serve", "--help"]).await.out().contains("--database-url"));
    let definitions = root.run(&["crd"]).await.out();
    for kind in ["Agent", "AgentSnapshot", "Chat"] {
        assert!(definitions.contains(&format!("\n    kind: {kind}\n")), "{kind}");
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn its_allocator_gives_memory_back_within_a_second() {
    let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_moorline"));
    let told = asked.args(["version", "--client"]).env("_RJEM_MALLOC_CONF", "stats_print:true").output().unwrap();
    let told = String::from_utf8(told.stderr).unwrap();
    for option in ["narenas: 2\n", "background_thread: true (", "dirty_decay_ms: 1000 (", "muzzy_decay_ms: 0 ("] {
        assert!(told.contains(&format!("  opt.{option}")), "{option:?} is not in {told}");
    }
}

#[tokio::test]
async fn its_root_cannot_be_written() {
    let root = Root::with_the_program();
    for folder in ["/", "/tmp/definitions", "/etc"] {
        let complaint = root.run(&["crd", "--dir", folder]).await.err(1);
        assert!(complaint.contains("Read-only file system") || complaint.contains("Permission denied"), "{complaint}");
    }
}

#[tokio::test]
async fn in_an_empty_root_it_migrates_serves_and_ends_and_leaves_nothing_behind() {
    let (root, db) = (Root::with_the_program(), database().await);
    // By a name, so that the resolver of the C library is known to find what it needs there.
    let at = bridge(&db).await;
    let database = format!("postgres://postgres@localhost:{at}/{}?sslmode=disable", db.name);
    let before = root.files();
    let migrated = root.run(&["migrate", "--database-url", &database]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);

    let port = ports::free();
    let listen = format!("127.0.0.1:{port}");
    let mut serving = root.command(&["serve", "--listen", &listen, "--database-url", &database]).spawn().unwrap();
    let client = Client::new();
    for path in ["livez", "readyz", "version"] {
        until(&format!("/{path} answers"), || async {
            let answer = client.http.get(format!("http://{listen}/{path}")).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }
    let (code, chats) = client.get(&format!("http://{listen}"), "chats").await;
    assert_eq!((code, &chats["kind"]), (200, &serde_json::json!("ChatList")));

    // Its user is nobody, and may become nobody else.
    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.id().unwrap())).unwrap();
    let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().split_whitespace().next().unwrap();
    assert_ne!(line("Uid:"), "0", "{status}");
    assert_eq!(line("CapEff:"), "0000000000000000", "{status}");

    let pid = i32::try_from(serving.id().unwrap()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(serving.wait().await.unwrap().code(), Some(0));
    assert_eq!(root.files(), before);
}
