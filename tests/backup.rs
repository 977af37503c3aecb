//! A backup of a database in use, restored elsewhere: what it holds is whole, the event log begins a new epoch, and whoever
//! watched is told to list again.

use crate::support::{
    api::{Caller, file, settled},
    moorline::Shell,
    postgres::{TestDb, database, empty_database, programs},
    serve::Replica,
    stream::{Watch, all_readable},
    until::until,
};
use serde_json::{Value, json};
use std::process::Command;

fn run(program: &str, args: &[&str]) {
    let output = Command::new(programs().join(program)).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What a person would miss: each chat with its pin, and each agent.
async fn shown(api: &Caller) -> Vec<(String, Value, Value)> {
    let mut all = Vec::new();
    for kind in ["chats", "agents", "agentsnapshots"] {
        for item in api.get(kind).await.expect(200)["items"].as_array().unwrap() {
            all.push((
                format!("{kind}/{}", item["metadata"]["name"].as_str().unwrap()),
                item["spec"].clone(),
                item["status"].clone(),
            ));
        }
    }
    all
}

async fn head(db: &TestDb) -> i64 {
    sqlx::query_scalar("SELECT epoch FROM log_state").fetch_one(&db.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_is_whole_and_everybody_who_watched_lists_again() {
    let db = database().await;
    let replica = Replica::start(&db, &[]).await;
    let api = Caller::new(&replica.url);
    let ws = api.running_agent("ws").await;
    api.pushed(&ws, 1, json!([file("AGENTS.md", "one")])).await;
    for chat in ["fix", "look"] {
        api.create_chat(chat, json!({"agentRef": {"name": "ws"}, "title": chat})).await;
    }
    api.pushed(&ws, 2, json!([file("AGENTS.md", "two")])).await;
    settled(&db).await;
    all_readable(&db).await;
    let saved = shown(&api).await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("moorline.dump").display().to_string();
    run("pg_dump", &["--format=custom", "--no-owner", "--no-privileges", "--file", &dump, "--dbname", &db.url]);

    // What is done after a backup is lost with it.
    let late = api.running_agent("late").await;
    api.pushed(&late, 1, json!([file("AGENTS.md", "late")])).await;
    api.create_chat("lost", json!({"agentRef": {"name": "late"}})).await;
    all_readable(&db).await;
    let version = api.get("chats").await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    assert_eq!(replica.terminate().await, Some(0));

    let restored = empty_database().await;
    run("pg_restore", &["--exit-on-error", "--single-transaction", "--no-owner", "--dbname", &restored.url, &dump]);
    let migrated = Shell::bare().run(&["migrate", "--database-url", &restored.url]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);
    assert!(migrated.out.contains("nothing to do") && migrated.out.contains("has begun epoch"), "{}", migrated.out);
    assert_eq!(head(&restored).await, head(&db).await + 1);

    let replica = Replica::start(&restored, &[]).await;
    let api = Caller::new(&replica.url);
    let mut watch = Watch::open(&api, "chats", &format!("resourceVersion={version}")).await;
    let told = watch.next().await.unwrap();
    assert_eq!(
        (&told["type"], &told["object"]["code"], &told["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    api.get(&format!("chats?resourceVersion={version}&resourceVersionMatch=Exact")).await.refused(410, "Expired");
    assert_eq!(shown(&api).await, saved);
    let body = api.get("chats/fix/context").await.expect(200);
    assert_eq!(body["resources"][0]["body"], "one", "moored where it was");

    // It goes on: with runs that the backup knows, and not with others.
    api.push("late", &late.report(2, json!([file("AGENTS.md", "late")]))).await.refused(404, "NotFound");
    api.pushed(&ws, 3, json!([file("AGENTS.md", "three")])).await;
    until("the loop has spread it", || async {
        let diff = api.chat("fix").await;
        (diff["status"]["dirty"] == true).then_some(())
    })
    .await;
    all_readable(&restored).await;
    let list = api.get("chats").await.expect(200);
    let now: i64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    assert!(now > version.parse().unwrap(), "versions never go back");
    let mut watch = Watch::open(&api, "chats", &format!("resourceVersion={now}")).await;
    api.create_chat("after", json!({"agentRef": {"name": "ws"}})).await;
    assert_eq!(watch.told().await, "ADDED after");
    assert_eq!(replica.terminate().await, Some(0));
}
