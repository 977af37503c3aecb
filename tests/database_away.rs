//! A database that goes away in the middle: nothing half-done, everything said, and the loop goes on by itself.

use crate::support::{
    api::{Api, file, settings},
    moorline::Shell,
    until::until,
};
use moorline::{
    clock, config,
    embedded::{self, Embedded, Options},
    store,
};
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _};
use std::{path::Path, time::Duration};
use tokio::time::timeout;

const DATABASE: &str = "moorline";

async fn start(dir: &Path) -> Embedded {
    let settings = [("max_connections".to_owned(), "60".to_owned())].to_vec();
    embedded::start(Options { data_dir: dir.to_owned(), pg_bin: None, ephemeral: false, settings }).await.unwrap()
}

/// What is read at three in the morning: where, and why not, once.
#[tokio::test]
async fn who_cannot_reach_the_database_says_where_it_is_and_why_not_and_says_it_once() {
    let shell = Shell::bare();
    let nobody = "postgres://moorline:secret@127.0.0.1:1/moorline";
    let said = shell.run(&["migrate", "--database-url", nobody]).await.err(1);
    assert!(said.contains("127.0.0.1:1: ") && !said.contains("secret"), "{said}");
    assert_eq!(said.matches("Connection refused").count(), 1, "{said}");
    let said = shell.run(&["migrate", "--database-url-file", "/nowhere"]).await.err(1);
    assert!(said.contains("reading /nowhere") && said.matches("No such file").count() == 1, "{said}");

    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = shell.program(Path::new(env!("CARGO_BIN_EXE_moorline")));
    let mut serving = command
        .args(["serve", "--listen", "127.0.0.1:0", "--database-url", nobody])
        .stderr(log.reopen().unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    until("it says why it waits", || async {
        let said = std::fs::read_to_string(log.path()).unwrap();
        said.lines().any(|line| line.contains("waiting for it") && line.contains("127.0.0.1:1: Connection refused")).then_some(())
    })
    .await;
    serving.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_fail_with_a_503_and_the_loop_resumes_by_itself() {
    let dir = std::env::temp_dir().join(format!("moorline-away-{}", clock::system().new_id().simple()));
    let postgres = start(&dir).await;
    postgres.ensure_database(DATABASE).await.unwrap();
    let options = postgres.connect_options(DATABASE);
    let mut connection = options.connect().await.unwrap();
    store::MIGRATOR.run(&mut connection).await.unwrap();
    store::log::make_partitions(&mut connection, store::across::PARTITIONS_AHEAD).await.unwrap();
    connection.close().await.unwrap();

    let api = Api::run(config::Server { poll_ms: 200, ..settings() }, options.clone(), None).await;
    until("the server is ready", || async { (api.get("/readyz").await.status == 200).then_some(()) }).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let chat = api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    assert_eq!(chat["status"]["pinned"]["agent"]["name"], "ws");

    // A push that the loop has not spread yet is what it has to resume with.
    let two = run.report(2, json!([file("AGENTS.md", "two")]));
    let hasty = api.with("prefer", "respond-async");
    let creating = async {
        for n in 0.. {
            let body = json!({"metadata": {"name": format!("n{n}")}, "spec": {"agentRef": {"name": "ws"}}});
            match hasty.post("chats", &body).await {
                created if created.status == 201 => {}
                refused => return (n, refused),
            }
        }
        unreachable!("it goes on until it is refused")
    };
    let stopping = timeout(Duration::from_mins(1), postgres.stop());
    let (pushed, stopped, (created, refused)) = tokio::join!(api.push("ws", &two), stopping, creating);
    refused.refused(503, "ServiceUnavailable");
    let stopped = stopped.expect("it stops");
    stopped.unwrap();
    assert!(matches!(pushed.status, 200 | 503), "{}", pushed.text);

    for answer in [
        api.post("chats", &json!({"metadata": {"name": "lost"}})).await,
        api.push("ws", &run.report(3, json!([file("AGENTS.md", "three")]))).await,
        api.patch("chats/fix", &json!({"spec": {"title": "lost"}})).await,
        api.put("chats/fix/context", &json!({"token": "lost"})).await,
        api.post("agents/ws/runs", &json!({})).await,
        api.delete("chats/fix").await,
        api.get("chats").await,
        api.get("chats/fix/context").await,
    ] {
        assert_eq!(answer.header("retry-after"), Some("1"), "{} {}", answer.status, answer.text);
        let refused = answer.refused(503, "ServiceUnavailable");
        assert!(refused.message.contains("ask again"), "{}", refused.message);
    }
    assert_eq!(api.get("/readyz").await.status, 503);
    assert_eq!(api.get("/livez").await.status, 200, "restarting this process would not bring the database back");

    let postgres = start(&dir).await;
    until("the server is ready again", || async { (api.get("/readyz").await.status == 200).then_some(()) }).await;
    // Nothing of what was refused is there.
    api.get("chats/lost").await.refused(404, "NotFound");
    let chat = api.chat("fix").await;
    assert_eq!(chat["spec"].get("title"), None);
    assert_eq!(chat["status"].get("lastHandledRefresh"), None);
    let agent = api.agent("ws").await;
    assert_eq!(agent["status"]["run"]["epoch"], run.epoch, "a run that was refused is no run");
    // And all of what was done: to the end, by the loop.
    for n in 0..created {
        let pinned = || async { Some(api.chat(&format!("n{n}")).await).filter(|chat| chat["status"]["pinned"].is_object()) };
        until("every chat that was created is pinned", pinned).await;
    }
    // Whether the push that went down with it was taken or not, sending it again makes it so, once.
    let again = api.push("ws", &two).await.expect(200);
    assert_eq!((&again["changed"], &again["snapshot"]["revision"]), (&json!(true), &json!(2)));
    let dirty = || async { Some(api.chat("fix").await).filter(|chat| chat["status"]["dirty"] == true) };
    let chat = until("the loop has spread it", dirty).await;
    assert_eq!(chat["status"]["pinned"]["hash"], json!(first_hash(&api).await));
    drop(api);
    postgres.stop().await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}

/// The hash of the agent's first snapshot.
async fn first_hash(api: &Api) -> String {
    let list = api.get("agentsnapshots").await.expect(200);
    let first = list["items"].as_array().unwrap().iter().find(|snapshot| snapshot["spec"]["revision"] == 1);
    first.unwrap()["spec"]["hash"].as_str().unwrap().to_owned()
}
