//! A disk without room below PostgreSQL's tables: whoever writes is told so, nothing acknowledged is lost, and the loop goes on
//! by itself when there is room again. (A disk without room for PostgreSQL's own log ends the server; that is in `chaos`.)

use crate::support::{
    api::{Api, file, settings, settled},
    disk::Disk,
    postgres::TestDb,
};
use moorline::{clock, config, embedded, store};
use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};
use std::{fs, os::unix::fs::MetadataExt as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_loses_none_and_keeps_the_loop_from_nothing_once_there_is_room() {
    let home = std::env::temp_dir().join(format!("ml-space-{}", &clock::system().new_id().simple().to_string()[20..]));
    fs::create_dir(&home).unwrap();
    let small = home.join("small");
    fs::create_dir(&small).unwrap();
    let Some(mut disk) = Disk::mount(&small, 48 << 20) else {
        fs::remove_dir_all(&home).unwrap();
        return;
    };
    let options = embedded::Options { data_dir: home.join("server"), pg_bin: None, ephemeral: true, settings: Vec::new() };
    let server = embedded::start(options).await.unwrap();
    let tables = small.join("tables");
    fs::create_dir(&tables).unwrap();
    let owner = fs::metadata(home.join("server/data")).unwrap();
    std::os::unix::fs::chown(&tables, Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut postgres = server.connect_options("postgres").connect().await.unwrap();
    postgres.execute(AssertSqlSafe(format!("CREATE TABLESPACE small LOCATION '{}'", tables.display()))).await.unwrap();
    postgres.execute("CREATE DATABASE moorline TABLESPACE small").await.unwrap();
    postgres.close().await.unwrap();
    let options = server.connect_options("moorline");
    let mut connection = options.connect().await.unwrap();
    store::MIGRATOR.run(&mut connection).await.unwrap();
    store::log::make_partitions(&mut connection, store::across::PARTITIONS_AHEAD).await.unwrap();
    store::log::bump(&mut connection, false).await.unwrap();
    connection.close().await.unwrap();
    let db = TestDb { pool: store::pool(options.clone(), 4), url: server.url("moorline"), options, name: "moorline".to_owned() };
    let api = Api::run(config::Server { poll_ms: 200, ..settings() }, db.options.clone(), None).await;
    crate::support::until::until("the server is ready", || async { (api.get("/readyz").await.status == 200).then_some(()) })
        .await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;

    disk.fill();
    // Pages that are there have some room; there is an end to that.
    let hasty = api.with("prefer", "respond-async");
    let (mut made, mut refused) = (Vec::new(), 0);
    for n in 0..3_000 {
        let chat =
            json!({"metadata": {"name": format!("chat-{n}")}, "spec": {"agentRef": {"name": "ws"}, "title": "t".repeat(200)}});
        let answer = hasty.post("chats", &chat).await;
        if answer.status == 201 {
            made.push(n);
        } else {
            answer.refused(503, "ServiceUnavailable");
            refused += 1;
            if refused == 20 {
                break;
            }
        }
    }
    assert_eq!(refused, 20, "{} chats were made, and there was always room", made.len());
    let long = json!([file("AGENTS.md", &"two ".repeat(60_000))]);
    api.push("ws", &run.report(2, long.clone())).await.refused(503, "ServiceUnavailable");
    assert_eq!(api.agent("ws").await["status"]["latestSnapshot"]["revision"], 1, "reading goes on");
    assert_eq!(api.get("/livez").await.status, 200);

    disk.make_room();
    api.push("ws", &run.report(2, long)).await.expect(200);
    settled(&db).await;
    for n in &made {
        let chat = api.chat(&format!("chat-{n}")).await;
        assert!(chat["status"]["pinned"]["hash"].is_string(), "{chat}");
    }
    let there: i64 = sqlx::query_scalar("SELECT count(*) FROM chats").fetch_one(&db.pool).await.unwrap();
    assert_eq!(there, i64::try_from(made.len()).unwrap(), "and nothing of what was refused");
    let aside: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE attempts > 0 OR conditions ? 'Stalled'")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(aside, 0, "no chat is taken for the trouble");
    println!("space: {} chats fitted into what room there was, {refused} were refused", made.len());
    drop(api);
    db.pool.close().await;
    server.stop().await.unwrap();
    drop(disk);
    fs::remove_dir_all(&home).unwrap();
}
