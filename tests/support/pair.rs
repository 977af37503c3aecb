//! A PostgreSQL with a standby, where either can be killed, and the disk below both can be filled: servers of ours reach
//! whichever is in charge through one path, as they would through an address that is moved.

use super::{disk::Disk, postgres::TestDb, until::until_within};
use moorline::{
    clock,
    embedded::{self, Embedded, Options},
    store,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The database that [`Pair::database`] makes.
const DATABASE: &str = "moorline";
const PATIENCE: Duration = Duration::from_mins(1);

/// The two.
pub struct Pair {
    home: PathBuf,
    /// Below `home`, if it could be had.
    disk: Option<Disk>,
    /// The folder of the socket of the one in charge: a link.
    socket: PathBuf,
    primary: Option<Server>,
    standby: Option<Server>,
    synchronous: bool,
}

/// One of them, and where it is.
struct Server {
    dir: PathBuf,
    running: Embedded,
}

impl Server {
    async fn start(dir: &Path) -> Self {
        Self::try_start(dir).await.unwrap()
    }

    async fn try_start(dir: &Path) -> Result<Self, embedded::EmbeddedError> {
        // No fsync of anything is spared: a crash must lose what was not durable, and nothing else.
        let settings = [
            ("max_connections", "120"),
            ("wal_receiver_status_interval", "1s"),
            ("wal_retrieve_retry_interval", "100ms"),
            ("max_wal_size", "64MB"),
            ("min_wal_size", "32MB"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        let options = Options { data_dir: dir.to_owned(), pg_bin: None, ephemeral: false, settings };
        Ok(Self { dir: dir.to_owned(), running: embedded::start(options).await? })
    }

    async fn connect(&self) -> PgConnection {
        self.running.connect_options("postgres").connect().await.unwrap()
    }

    async fn answers(&self) -> bool {
        self.running.connect_options("postgres").connect().await.is_ok()
    }

    /// Ends it by a signal to the postmaster; answers with the folder.
    async fn signal(self, signal: Signal) -> PathBuf {
        let pid = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        let pid = Pid::from_raw(pid.lines().next().unwrap().trim().parse().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.end().await
    }

    /// Until it has ended; how does not matter.
    async fn end(self) -> PathBuf {
        self.running.stop().await.ok();
        self.dir
    }
}

impl Pair {
    /// Starts both. What is committed may be on one of them alone.
    pub async fn start() -> Self {
        Self::begin(false, None).await
    }

    /// Starts both, on a disk of so many bytes if the machine lets us have one. What is committed is on both.
    pub async fn synchronous(bytes: u64) -> Self {
        Self::begin(true, Some(bytes)).await
    }

    async fn begin(synchronous: bool, bytes: Option<u64>) -> Self {
        let id = clock::system().new_id().simple().to_string();
        let home = std::env::temp_dir().join(format!("ml-pair-{}", &id[20..]));
        fs::create_dir(&home).unwrap();
        let disk = bytes.and_then(|bytes| Disk::mount(&home, bytes));
        let primary = Server::start(&home.join("a")).await;
        let socket = home.join("in-charge");
        point(&socket, &primary);
        // What makes a folder one that `embedded` takes is a cluster of its own; a copy of the primary takes its place.
        Server::start(&home.join("b")).await.running.stop().await.unwrap();
        let mut pair = Self { home, disk, socket, primary: Some(primary), standby: None, synchronous };
        pair.rebuild(pair.home.join("b")).await;
        pair
    }

    fn in_charge(&self) -> &Server {
        self.primary.as_ref().expect("one of them is in charge")
    }

    /// How to connect to whichever is in charge.
    pub fn options(&self, database: &str) -> PgConnectOptions {
        self.in_charge().running.connect_options(database).socket(&self.socket)
    }

    /// Our schema in a database.
    pub async fn database(&self) -> TestDb {
        self.database_named(DATABASE).await
    }

    /// The same in one of this name.
    pub async fn database_named(&self, name: &str) -> TestDb {
        self.in_charge().running.ensure_database(name).await.unwrap();
        let options = self.options(name);
        let mut connection = options.connect().await.unwrap();
        store::MIGRATOR.run(&mut connection).await.unwrap();
        store::log::make_partitions(&mut connection, store::across::PARTITIONS_AHEAD).await.unwrap();
        store::log::bump(&mut connection, false).await.unwrap();
        connection.close().await.unwrap();
        let url = options.to_url_lossy().to_string();
        TestDb { pool: store::pool(options.clone(), 10), url, options, name: name.to_owned() }
    }

    /// Removes one, on both, whoever still has a session in it.
    pub async fn drop_database(&self, name: &str) {
        let mut connection = self.in_charge().connect().await;
        connection.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
        connection.close().await.unwrap();
    }

    /// `kill -9` of the one in charge, which then starts again.
    pub async fn crash_and_restart(&mut self) {
        self.end_and_restart(Signal::KILL).await;
    }

    /// An immediate shutdown of the one in charge, which then starts again.
    pub async fn shut_down_and_restart(&mut self) {
        self.end_and_restart(Signal::QUIT).await;
    }

    async fn end_and_restart(&mut self, signal: Signal) {
        let dir = self.primary.take().unwrap().signal(signal).await;
        self.primary = Some(Server::start(&dir).await);
    }

    /// `kill -9` of the one in charge; the standby is connected to before it is promoted, so that sessions live through it.
    /// Answers with the folder of the one that was killed.
    pub async fn fail_over(&mut self) -> PathBuf {
        let killed = self.primary.take().unwrap().signal(Signal::KILL).await;
        let standby = self.standby.take().expect("a standby");
        point(&self.socket, &standby);
        let mut connection = standby.connect().await;
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote(true, 60)").fetch_one(&mut connection).await.unwrap();
        assert!(promoted, "the standby is promoted");
        connection.close().await.unwrap();
        self.primary = Some(standby);
        killed
    }

    /// Makes a standby of the one in charge, in the folder of the one that was.
    pub async fn rebuild(&mut self, dir: PathBuf) {
        let primary = self.in_charge();
        let data = dir.join("data");
        fs::remove_dir_all(&data).unwrap();
        let owner = fs::metadata(primary.dir.join("data")).unwrap();
        let socket = primary.running.connect_options("postgres").get_socket().unwrap().clone();
        let mut backup = Command::new(primary.running.bin_dir().join("pg_basebackup"));
        backup.args(["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--username=postgres", "--pgdata"]);
        backup.arg(&data).arg("--host").arg(socket).current_dir("/");
        if owner.uid() != rustix::process::getuid().as_raw() {
            backup.uid(owner.uid()).gid(owner.gid());
        }
        let output = tokio::task::spawn_blocking(move || backup.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let standby = Server::start(&dir).await;
        let mut connection = standby.connect().await;
        let recovering: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut connection).await.unwrap();
        assert!(recovering, "it is a standby");
        connection.close().await.unwrap();
        let mut connection = primary.connect().await;
        for_one(&mut connection, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").await;
        if self.synchronous {
            // Not in the copy, which would wait for a standby of its own when it is promoted.
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
            connection.execute("SELECT pg_reload_conf()").await.unwrap();
            for_one(&mut connection, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'").await;
            // The checkpointer is who tells the sessions; it reads what is new before it does this.
            connection.execute("CHECKPOINT").await.unwrap();
            // This waits until all that was committed before is there too.
            connection.execute("CREATE TABLE waits (); DROP TABLE waits").await.unwrap();
        }
        connection.close().await.unwrap();
        self.standby = Some(standby);
    }

    /// Fills the disk. False when there is none of our own.
    pub fn fill(&mut self) -> bool {
        self.disk.as_mut().map(Disk::fill).is_some()
    }

    /// Makes room again, and starts whichever has ended meanwhile: a server that could not write its log ends.
    pub async fn make_room(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        disk.make_room();
        for server in [&mut self.primary, &mut self.standby] {
            let Some(there) = server.take() else { continue };
            let again = async {
                let mut ticks = tokio::time::interval(Duration::from_millis(100));
                for _ in 0..50 {
                    ticks.tick().await;
                    if there.answers().await {
                        return true;
                    }
                }
                false
            };
            *server = Some(if again.await { there } else { Server::start(&there.end().await).await });
        }
    }

    /// Stops what still runs, and leaves nothing behind.
    pub async fn remove(mut self) {
        // First the one that sends: a shutdown waits until what it has written was sent.
        if let Some(primary) = self.primary.take() {
            primary.running.stop().await.unwrap();
        }
        if let Some(standby) = self.standby.take() {
            standby.running.stop().await.unwrap();
        }
        drop(self.disk.take());
        fs::remove_dir_all(&self.home).unwrap();
    }
}

/// Makes the link lead to the socket of `server`, at once.
fn point(link: &Path, server: &Server) {
    let sockets = server.running.connect_options("postgres").get_socket().unwrap().clone();
    let beside = link.with_extension("new");
    std::os::unix::fs::symlink(sockets, &beside).unwrap();
    fs::rename(&beside, link).unwrap();
}

async fn for_one(connection: &mut PgConnection, count: &'static str) {
    let connection = tokio::sync::Mutex::new(connection);
    until_within(PATIENCE, "the standby follows", || async {
        let n: i64 = sqlx::query_scalar(count).fetch_one(&mut **connection.lock().await).await.unwrap();
        (n == 1).then_some(())
    })
    .await;
}
