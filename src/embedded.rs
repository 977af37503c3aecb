//! A private PostgreSQL, for people who just want to run Moorline.
//!
//! It finds a server that is installed (`find`), makes a cluster below a directory of ours and runs it for as long as this
//! process lives (`server`), as a user who may run it (`account`). One process owns a directory (`owner`). The server
//! listens on a Unix socket in a directory that only its user may enter, and on nothing else.
//!
//! What it does not: install or download a server, upgrade a cluster from one major version to the next, tune it, back it up,
//! or migrate our schema. Whoever has more than one replica, or cares how it is backed up, brings a PostgreSQL of their own.
//!
//! A data directory:
//!
//! ```text
//! lock            who owns it; by this file a directory is known to be ours
//! data/           the cluster (data.new/ while it is being made)
//! run/            the socket, unless that path is too long for one
//! postgres.log    what the server says; postgres.log.1 is the one before, when it had grown large
//! ```

mod account;
mod error;
mod find;
mod owner;
mod server;

pub use error::EmbeddedError;

use account::Account;
use error::At as _;
use server::{Guard, Launch, Log};
use sha2::{Digest as _, Sha256};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use std::{
    fmt::Write as _,
    fs::{self, File},
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{Instant, sleep, timeout};

/// The port, which is only a part of the socket's name.
const PORT: u16 = 5432;
/// What the path of a socket may have, in bytes.
const SOCKET_LIMIT: usize = if cfg!(target_os = "macos") { 103 } else { 107 };
/// How long a server may take until it answers. After a crash it recovers first.
const READY: Duration = Duration::from_secs(30);
/// How long a server may take to stop: it writes everything to disk first.
const STOP: Duration = Duration::from_mins(1);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory that has everything: absent, empty, or one that this made. Only one process may use it at a time.
    pub data_dir: PathBuf,
    /// The directory of the server's programs; none looks for them.
    pub pg_bin: Option<PathBuf>,
    /// Whether the data directory is removed when the server stops, for whatever reason.
    pub ephemeral: bool,
    /// Settings of the server (`name`, `value`) over our own. Where it listens, and prepared transactions, are not up to them.
    pub settings: Vec<(String, String)>,
}

/// A running server. Dropping it stops the server without waiting for that; so does the end of this process, whatever ends it.
#[derive(Debug)]
pub struct Embedded {
    guard: Guard,
    bin: PathBuf,
    home: PathBuf,
    sockets: PathBuf,
    ephemeral: bool,
    log: Log,
    // Held until everything else is let go of.
    _lock: File,
}

/// Where the data of `for_dir` are kept when nobody says otherwise: each workspace directory has a world of its own.
pub fn default_data_dir(for_dir: &Path) -> PathBuf {
    let state = if account::is_root() {
        PathBuf::from("/var/lib")
    } else {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::home_dir().map(|home| home.join(".local/state"));
        absolute("XDG_STATE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir)
    };
    state.join("moorline").join(directory_name(for_dir))
}

/// `<basename>-<8 hex digits of the sha256 of the path>`; what would be awkward in a path is a dash.
fn directory_name(for_dir: &Path) -> String {
    let path = for_dir.canonicalize().or_else(|_| std::path::absolute(for_dir)).unwrap_or_else(|_| for_dir.to_owned());
    let name = path.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy());
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
    let name: String = name.chars().take(40).map(plain).collect();
    format!("{name}-{}", short_hash(&path, 4))
}

/// The first `bytes` bytes of the sha256 of a path, in hex.
fn short_hash(path: &Path, bytes: usize) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..bytes])
}

/// Starts the server of a data directory, making the directory and the cluster when they are not there, and returns when it
/// takes connections.
pub async fn start(options: Options) -> Result<Embedded, EmbeddedError> {
    // Files and processes, a second or two of them when there is no cluster yet. Dropping what comes out stops the server, so
    // this may be cancelled at any time.
    let mut embedded = tokio::task::spawn_blocking(move || launch(&options)).await??;
    embedded.ready().await?;
    Ok(embedded)
}

/// Everything up to a server process that may not answer yet.
fn launch(options: &Options) -> Result<Embedded, EmbeddedError> {
    let (account, home, lock) = loop {
        let home = resolve(&options.data_dir)?;
        let account = Account::choose(&home.join("data"))?;
        make_home(&account, &home)?;
        if let Some(lock) = owner::own(&home, &home.join("data"))? {
            break (account, home, lock);
        }
    };
    // What is to be thrown away must not be somebody's: a world that is there is never made ephemeral by opening it so.
    if options.ephemeral && server::written_by(&home.join("data"))?.is_some() {
        return Err(EmbeddedError::HoldsData { dir: home });
    }
    let launched = launch_owned(options, &account, &home, lock);
    if launched.is_err() && options.ephemeral {
        // The error that made it useless is the one to tell.
        let _ = fs::remove_dir_all(&home);
    }
    launched
}

fn launch_owned(options: &Options, account: &Account, home: &Path, lock: File) -> Result<Embedded, EmbeddedError> {
    let data = home.join("data");
    let written_by = server::written_by(&data)?;
    let programs = find::Places::of_this_system(options.pg_bin.as_deref()).find(&data, written_by.as_deref())?;
    account.must_reach(&programs.bin.join("postgres"), "Install it where everybody may run it, or name another one")?;
    if written_by.is_none() {
        server::initialise(account, &programs, &data, &lock)?;
    } else {
        owner::stop_orphan(&data)?;
    }
    let sockets = socket_directory(account, home)?;
    let log = Log::open(home.join("postgres.log"))?;
    let outside = !sockets.starts_with(home);
    let launch = Launch {
        account,
        programs: &programs,
        data: &data,
        sockets: &sockets,
        settings: &options.settings,
        remove: [options.ephemeral.then_some(home), outside.then_some(&*sockets)],
    };
    let guard = launch.start(&lock, &log)?;
    Ok(Embedded { guard, bin: programs.bin, home: home.to_owned(), sockets, ephemeral: options.ephemeral, log, _lock: lock })
}

/// `path` without links, as far as it exists.
fn resolve(path: &Path) -> Result<PathBuf, EmbeddedError> {
    let path = std::path::absolute(path).at("resolving", path)?;
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(&path);
    let rest = path.strip_prefix(existing).expect("an ancestor is a prefix");
    let resolved = existing.canonicalize().at("resolving", existing)?;
    // Joining nothing would add a slash.
    Ok(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) })
}

/// Makes the data directory private to the server's user, having looked whether it may.
fn make_home(account: &Account, home: &Path) -> Result<(), EmbeddedError> {
    account.must_reach(home, "Use another --data-dir, one that everybody may pass through to (such as below /var/lib)")?;
    if home.exists() {
        let mut entries = fs::read_dir(home).at("reading", home)?;
        if entries.next().is_some() && fs::symlink_metadata(home.join(owner::LOCK)).is_err() {
            return Err(EmbeddedError::NotOurs { dir: home.to_owned() });
        }
    }
    let mut missing: Vec<&Path> = home.ancestors().skip(1).take_while(|ancestor| !ancestor.exists()).collect();
    while let Some(ancestor) = missing.pop() {
        match fs::create_dir(ancestor) {
            // Somebody else's start, at the same moment.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            made => made.at("creating", ancestor)?,
        }
        if account::is_root() {
            fs::set_permissions(ancestor, fs::Permissions::from_mode(0o755)).at("changing the mode of", ancestor)?;
        }
    }
    account.private_directory(home)
}

/// An empty directory for the socket that only the server's user may enter: in `home`, or below the system's directory for
/// temporary files when that path is too long for a socket.
fn socket_directory(account: &Account, home: &Path) -> Result<PathBuf, EmbeddedError> {
    let name = format!("moorline-{}", short_hash(home, 8));
    let temp = std::env::temp_dir();
    let temp = temp.canonicalize().unwrap_or(temp);
    let candidates = [home.join("run"), temp.join(&name), Path::new("/tmp").join(&name)];
    let length = |directory: &Path| directory.join(format!(".s.PGSQL.{PORT}")).as_os_str().len();
    let Some(chosen) = candidates.iter().find(|candidate| length(candidate) <= SOCKET_LIMIT) else {
        let path = candidates.into_iter().min_by_key(|candidate| length(candidate)).unwrap_or_default();
        let length = length(&path);
        return Err(EmbeddedError::SocketTooLong { path, length, limit: SOCKET_LIMIT });
    };
    account.must_reach(chosen, "Use a shorter --data-dir")?;
    account.private_directory(chosen)?;
    // Sockets of a server that was killed name a process that may be another's by now.
    for entry in fs::read_dir(chosen).at("reading", chosen)? {
        let path = entry.at("reading", chosen)?.path();
        fs::remove_file(&path).at("removing", &path)?;
    }
    Ok(chosen.clone())
}

impl Embedded {
    /// How to connect to a database of this server.
    pub fn connect_options(&self, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .socket(&self.sockets)
            .port(PORT)
            .username("postgres")
            .ssl_mode(PgSslMode::Disable)
            .database(database)
    }

    /// The same as a URL, for this program and for `psql`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{}", encode(self.sockets.as_os_str().as_bytes()), encode(database.as_bytes()))
    }

    /// The directory of the server's programs, where its `psql` is if it is installed.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// Makes a database unless it is there.
    pub async fn ensure_database(&self, name: &str) -> Result<(), EmbeddedError> {
        self.make_database(name).await.map_err(|source| EmbeddedError::Database { name: name.to_owned(), source })
    }

    async fn make_database(&self, name: &str) -> Result<(), sqlx::Error> {
        let mut connection = self.connect_options("postgres").connect().await?;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(&mut connection)
            .await?;
        if !there {
            // A name cannot be a parameter here.
            let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            match sqlx::query(AssertSqlSafe(statement)).execute(&mut connection).await {
                // duplicate_database and unique_violation: somebody else made it meanwhile.
                Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42P04" | "23505")) => {}
                made => made.map(|_| ())?,
            }
        }
        connection.close().await
    }

    /// Stops the server and waits for it: connections end, everything is on disk. An ephemeral one leaves nothing behind.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let Self { guard, home, ephemeral, log, _lock: lock, .. } = self;
        let Ok(Ok(ended)) = timeout(STOP, guard.stop()).await else {
            return Err(EmbeddedError::StopTimeout { waited: STOP, log: log.path });
        };
        let status = ended.at("waiting for the server of", &home)?;
        if !status.success() {
            return Err(EmbeddedError::Stop { status, tail: log.tail(), log: log.path });
        }
        if ephemeral {
            // The guard removed what it may: not the directory itself when its parent belongs to root.
            match fs::remove_dir_all(&home) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.at("removing", &home)?,
            }
        }
        drop(lock);
        Ok(())
    }

    /// Waits until the server takes connections.
    async fn ready(&mut self) -> Result<(), EmbeddedError> {
        let options = self.connect_options("postgres");
        let begun = Instant::now();
        let mut pause = Duration::from_millis(10);
        loop {
            let tried = timeout(READY.saturating_sub(begun.elapsed()), options.connect()).await;
            let source = match tried {
                Ok(Ok(connection)) => {
                    // It answered; how it takes the goodbye does not matter.
                    let _ = connection.close().await;
                    return Ok(());
                }
                Ok(Err(source)) => source,
                Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
            };
            let log = || (self.log.path.clone(), self.log.tail());
            if let Some(status) = self.guard.ended().at("waiting for the server of", &self.home)? {
                let (log, tail) = log();
                return Err(EmbeddedError::Startup { status, log, tail });
            }
            if begun.elapsed() >= READY {
                let (log, tail) = log();
                return Err(EmbeddedError::NotReady { waited: READY, source, log, tail });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
fn encode(bytes: &[u8]) -> String {
    let mut encoded = String::new();
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
    encoded
}
