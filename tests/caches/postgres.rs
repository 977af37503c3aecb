//! A PostgreSQL with a standby, where either can be killed: the server of ours reaches whichever is in charge through one
//! path, as it would through an address that is moved.

use crate::support::{postgres::TestDb, until::until_within};
use moorline::{
    clock,
    embedded::{self, Embedded, Options},
    store,
};
use sqlx::{ConnectOptions as _, Connection as _, postgres::PgConnectOptions};
use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const DATABASE: &str = "moorline";
const PATIENCE: Duration = Duration::from_mins(1);

/// The two.
pub struct Cluster {
    home: PathBuf,
    /// The folder of the socket of the one in charge: a link.
    socket: PathBuf,
    primary: Option<Embedded>,
    standby: Embedded,
}

async fn start(dir: &Path) -> Embedded {
    // No fsync of anything is spared: a crash must lose what was not durable, and nothing else.
    let settings = [("max_connections", "80"), ("wal_receiver_status_interval", "1s"), ("wal_retrieve_retry_interval", "100ms")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    embedded::start(Options { data_dir: dir.to_owned(), pg_bin: None, ephemeral: false, settings }).await.unwrap()
}

impl Cluster {
    /// Starts both.
    pub async fn start() -> Self {
        let id = clock::system().new_id().simple().to_string();
        let home = std::env::temp_dir().join(format!("ml-caches-{}", &id[20..]));
        let primary = start(&home.join("primary")).await;
        let standby = standby_of(&primary, &home).await;
        let socket = home.join("in-charge");
        point(&socket, &primary);
        Self { home, socket, primary: Some(primary), standby }
    }

    /// How to connect to whichever is in charge.
    fn options(&self) -> PgConnectOptions {
        self.primary.as_ref().unwrap().connect_options(DATABASE).socket(&self.socket)
    }

    /// Our schema in a database.
    pub async fn database(&self) -> TestDb {
        self.primary.as_ref().unwrap().ensure_database(DATABASE).await.unwrap();
        let options = self.options();
        let mut connection = options.connect().await.unwrap();
        store::MIGRATOR.run(&mut connection).await.unwrap();
        store::log::make_partitions(&mut connection, store::across::PARTITIONS_AHEAD).await.unwrap();
        store::log::bump(&mut connection, false).await.unwrap();
        connection.close().await.unwrap();
        let url = options.to_url_lossy().to_string();
        TestDb { pool: store::pool(options.clone(), 10), url, options, name: DATABASE.to_owned() }
    }

    /// kill -9 of the one in charge, which then starts again.
    pub async fn crash_and_restart(&mut self) {
        self.kill().await;
        self.primary = Some(start(&self.home.join("primary")).await);
    }

    /// kill -9 of the one in charge; the standby is connected to before it is promoted, so that sessions live through it.
    pub async fn fail_over(&mut self) {
        self.kill().await;
        point(&self.socket, &self.standby);
        let mut connection = self.standby.connect_options("postgres").connect().await.unwrap();
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&mut connection).await.unwrap();
        assert!(promoted, "the standby is promoted");
        connection.close().await.unwrap();
    }

    async fn kill(&mut self) {
        let pid = fs::read_to_string(self.home.join("primary/data/postmaster.pid")).unwrap();
        let pid = rustix::process::Pid::from_raw(pid.lines().next().unwrap().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        // It says that the server was killed, which is so.
        self.primary.take().unwrap().stop().await.unwrap_err();
    }

    /// Stops what still runs, and leaves nothing behind.
    pub async fn remove(self) {
        if let Some(primary) = self.primary {
            primary.stop().await.unwrap();
        }
        self.standby.stop().await.unwrap();
        fs::remove_dir_all(&self.home).unwrap();
    }
}

/// Makes the link lead to the socket of `server`, at once.
fn point(link: &Path, server: &Embedded) {
    let sockets = server.connect_options("postgres").get_socket().unwrap().clone();
    let beside = link.with_extension("new");
    std::os::unix::fs::symlink(sockets, &beside).unwrap();
    fs::rename(&beside, link).unwrap();
}

async fn standby_of(primary: &Embedded, home: &Path) -> Embedded {
    let dir = home.join("standby");
    // What makes a folder one that `embedded` takes is a cluster of its own; a copy of the primary takes its place.
    start(&dir).await.stop().await.unwrap();
    let data = dir.join("data");
    fs::remove_dir_all(&data).unwrap();
    let owner = fs::metadata(home.join("primary/data")).unwrap();
    let socket = primary.connect_options("postgres").get_socket().unwrap().clone();
    let mut backup = Command::new(primary.bin_dir().join("pg_basebackup"));
    backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--username=postgres", "--pgdata"]);
    backup.arg(&data).arg("--host").arg(socket).current_dir("/");
    if owner.uid() != rustix::process::getuid().as_raw() {
        backup.uid(owner.uid()).gid(owner.gid());
    }
    let output = backup.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let standby = start(&dir).await;
    let mut connection = standby.connect_options("postgres").connect().await.unwrap();
    let recovering: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await.unwrap();
    assert!(recovering, "it is a standby");
    connection.close().await.unwrap();
    let mut connection = primary.connect_options("postgres").connect().await.unwrap();
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    for_one(&mut connection, streams).await;
    connection.close().await.unwrap();
    standby
}

async fn for_one(connection: &mut sqlx::PgConnection, count: &'static str) {
    let connection = tokio::sync::Mutex::new(connection);
    until_within(PATIENCE, "the standby follows", || async {
        let n: i64 = sqlx::query_scalar(count).fetch_one(&mut **connection.lock().await).await.unwrap();
        (n == 1).then_some(())
    })
    .await;
}
