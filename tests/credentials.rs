//! Credentials of the database in a file: replaced under load without a request being lost, refused when they are no good, and
//! never told.

use crate::support::{
    api::Caller,
    moorline::Shell,
    secure::{NAME, PASSWORD, Secure},
    serve::Replica,
    stream::Watch,
    until::{until, until_within},
};
use moorline::store;
use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);

/// A folder as the kubelet makes one of a Secret: a file behind a link that is swapped.
struct Mounted(TempDir);

impl Mounted {
    fn new(url: &str) -> Self {
        let mounted = Self(tempfile::tempdir().unwrap());
        mounted.swap("0", url);
        std::os::unix::fs::symlink("..data/uri", mounted.file()).unwrap();
        mounted
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("uri")
    }

    fn swap(&self, version: &str, url: &str) {
        let at = |name: &str| self.0.path().join(name);
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("uri"), format!("{url}\n")).unwrap();
        std::os::unix::fs::symlink(version, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    }
}

/// How many of these reloads the replica has counted.
async fn reloads(api: &Caller, result: &str) -> u64 {
    let text = api.get("/metrics").await.text;
    let line = format!("moorline_reloads_total{{what=\"database_url\",result=\"{result}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)?.parse().ok()).unwrap_or(0)
}

fn log_file(folder: &Path) -> (PathBuf, File) {
    let path = folder.join("log");
    (path.clone(), File::options().create(true).append(true).open(path).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_replaced_under_load_and_no_request_is_lost() {
    let postgres = Secure::start().await;
    let url = |password: &str| postgres.url(&format!("{NAME}:{password}"), "localhost", NAME, "sslmode=require");
    let mounted = Mounted::new(&url(PASSWORD));
    let file = mounted.file().display().to_string();
    let migrated = Shell::bare().run(&["migrate", "--database-url-file", &file]).await;
    assert_eq!(migrated.code, Some(0), "{}", migrated.err);

    let folder = tempfile::tempdir().unwrap();
    let (log, to) = log_file(folder.path());
    let replica = Replica::with(&["--database-url-file", &file], to.into()).await;
    let api = Caller::new(&replica.url);
    api.create_agent("ws", json!({})).await;
    let mut watch = Watch::open(&api, "chats", "").await;

    let done = Arc::new(AtomicBool::new(false));
    let loading = (0..3).map(|who| {
        let (api, done) = (api.with("prefer", "respond-async"), done.clone());
        tokio::spawn(async move {
            let mut made = 0;
            while !done.load(Ordering::Acquire) {
                let chat = json!({"metadata": {"name": format!("c-{who}-{made}")}, "spec": {"agentRef": {"name": "ws"}}});
                api.post("chats", &chat).await.expect(201);
                api.get(&format!("chats/c-{who}-{made}")).await.expect(200);
                made += 1;
            }
            made
        })
    });
    let loading: Vec<_> = loading.collect();

    // The file first: nobody can connect with it yet, so what worked goes on.
    mounted.swap("1", &url("second-s3cret"));
    until("the early file is noticed", || async { (reloads(&api, "refused").await > 0).then_some(()) }).await;
    assert_eq!(reloads(&api, "ok").await, 0);
    let before = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let before = postgres.count(before).await;
    postgres.execute(&format!("ALTER ROLE {NAME} PASSWORD 'second-s3cret'")).await;
    until_within(PATIENCE, "it is taken", || async { (reloads(&api, "ok").await == 1).then_some(()) }).await;
    // Sessions of before end one after the other: those of the pool, of the wake-ups, and the one that watchers share.
    let older = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{NAME}' AND extract(epoch FROM backend_start) * 1000000 < {before}"
    );
    until("no session of before is left", || async { (postgres.count(&older).await == 0).then_some(()) }).await;

    // What is no URL, and what leads to a database that is not ours.
    for (version, broken) in
        [("2", "p0stgres://third-s3cret"), ("3", &postgres.url(&format!("{NAME}:second-s3cret"), "localhost", "plain", ""))]
    {
        let refused = reloads(&api, "refused").await;
        mounted.swap(version, broken);
        until("the broken file is noticed", || async { (reloads(&api, "refused").await > refused).then_some(()) }).await;
    }
    fs::remove_file(mounted.0.path().join("..data")).unwrap();
    done.store(true, Ordering::Release);
    let mut made = 0;
    for one in loading {
        made += one.await.expect("no request failed");
    }
    assert_eq!(reloads(&api, "ok").await, 1);
    // The watch that was open all the time has told each of them.
    for _ in 0..made {
        let told = watch.until(|event| event["type"] == "ADDED").await;
        assert!(told["object"]["metadata"]["name"].as_str().unwrap().starts_with("c-"));
    }
    assert_eq!(api.get("/readyz").await.status, 200);
    assert_eq!(replica.terminate().await, Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("the credentials of the database were replaced"), "{log}");
    assert!(log.contains("password authentication failed"), "{log}");
    assert!(log.contains("no PostgreSQL URL") && log.contains("has no Moorline schema"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

/// How many turns another task has until `what` is done, when each of its turns takes a millisecond.
async fn turns_of_another_task(what: impl Future<Output = ()>) -> u32 {
    let mut turns = 0;
    let busy = async {
        loop {
            std::thread::sleep(Duration::from_millis(1));
            turns += 1;
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { biased; () = what => {} () = busy => {} }
    turns
}

/// One thread: both have their turns on it, one after the other.
#[tokio::test]
async fn a_connection_with_a_password_is_made_although_there_is_much_else_to_do() {
    let postgres = Secure::start().await;
    let url = postgres.url(&format!("{NAME}:{PASSWORD}"), "localhost", NAME, "sslmode=require");
    let options: PgConnectOptions = url.parse().unwrap();
    // What the library does by itself: a turn for each five of the 4,096 rounds of the hash.
    let alone = turns_of_another_task(async { options.connect().await.unwrap().close().await.unwrap() }).await;
    assert!(alone > 800, "{alone}: then store/turns.rs is not needed any more");
    for (what, begins) in [("a connection", false), ("a transaction", true)] {
        let pool = store::pool(options.clone(), 4);
        let turns = turns_of_another_task(async {
            if begins {
                store::one_moment(&pool).await.unwrap().rollback().await.unwrap();
            } else {
                drop(store::acquire(&pool).await.unwrap());
            }
        });
        let turns = turns.await;
        assert!(turns < alone / 2, "{what}: {turns} turns of another task, {alone} without ours");
    }
}

#[tokio::test]
async fn a_url_is_given_once_and_never_told() {
    let shell = Shell::bare();
    let file = shell.write("uri", "postgres://moorline:s3cret@127.0.0.1:1/moorline?sslmode=always");
    for (args, said) in [
        (vec!["migrate", "--database-url-file", &file, "--database-url", "postgres://db"], "cannot be used with"),
        (vec!["migrate"], "required"),
        (vec!["serve"], "required"),
        (vec!["migrate", "--database-url-file", "/nowhere/uri"], "--database-url-file: reading /nowhere/uri"),
        (vec!["migrate", "--database-url-file", &file], "verify-full"),
        (vec!["migrate", "--database-url", "postgres://moorline:s3cret@[::1/moorline"], "--database-url is no PostgreSQL URL"),
    ] {
        let refused = shell.run(&args).await;
        assert_ne!(refused.code, Some(0), "{args:?}");
        assert!(refused.err.contains(said) && !refused.err.contains("s3cret"), "{args:?}: {}", refused.err);
    }
    let mut command = shell.command(&["migrate"]);
    command.env("MOORLINE_DATABASE_URL_FILE", &file);
    let refused = crate::support::moorline::ended(command.spawn().unwrap()).await;
    assert!(refused.err.contains("verify-full"), "{}", refused.err);
}
