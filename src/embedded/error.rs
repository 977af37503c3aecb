//! What can go wrong with a private server, each saying what to do about it.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

/// Why the private server did not start, answer or stop.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// An ephemeral server was asked for where a lasting one lives: it would be removed at the end.
    #[error("{} holds a database that is to last, so it is not opened as one to be removed at the end: use another data directory", dir.display())]
    HoldsData {
        /// Where.
        dir: PathBuf,
    },
    /// No server program anywhere.
    #[error(
        "no PostgreSQL server found (looked in {searched}). {install}; or give the directory of its programs, or the URL of a database"
    )]
    NotFound {
        /// Where it was looked for.
        searched: String,
        /// How to install one on this system.
        install: String,
    },
    /// Only servers that are too old.
    #[error("PostgreSQL {minimum} or newer is needed, found only {found}. {install}", minimum = super::find::OLDEST)]
    TooOld {
        /// What was found, and where.
        found: String,
        /// How to install one on this system.
        install: String,
    },
    /// The data was written by another major version.
    #[error("{data} was written by PostgreSQL {major}, found only {found}: install PostgreSQL {major}, or use another --data-dir", data = data.display())]
    OtherMajor {
        /// The data directory.
        data: PathBuf,
        /// The major version that wrote it.
        major: String,
        /// What was found, and where.
        found: String,
    },
    /// The directory has something else in it.
    #[error("{dir} is not empty and is not a data directory of Moorline's: use another --data-dir", dir = dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// Root may not run a server, and there is nobody else to run it.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither a user `postgres` nor a user `nobody` to run it as: add one"
    )]
    NoAccount,
    /// The user that runs the server cannot get to a path.
    #[error(
        "user {user}, who runs PostgreSQL, cannot reach {target}: {ancestor} has mode {mode:04o} and belongs to uid {owner}. \
         {remedy}, or `chmod o+x {ancestor}`",
        target = target.display(), ancestor = ancestor.display()
    )]
    Unreachable {
        /// Who.
        user: String,
        /// What is to be reached.
        target: PathBuf,
        /// The first directory on the way that is closed.
        ancestor: PathBuf,
        /// Its mode.
        mode: u32,
        /// The uid of its owner.
        owner: u32,
        /// What else to do about it.
        remedy: &'static str,
    },
    /// Another process has the data directory.
    #[error(
        "{dir} is in use by {holder}: stop that process, use the server that it runs, or use another --data-dir",
        dir = dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// Its owner, as it wrote itself down.
        holder: String,
    },
    /// A file could not be read, made, changed or removed.
    #[error("{step} {path}: {source}", path = path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A program could not be run.
    #[error("running {program}: {source}", program = program.display())]
    Run {
        /// Which.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb of {data} failed ({status}): {output}", data = data.display())]
    Initdb {
        /// The directory that it was to make.
        data: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        output: String,
    },
    /// Every place for the socket has too long a path.
    #[error("the path of the server's socket may have {limit} bytes, {path} has {length}: use a shorter --data-dir or TMPDIR", path = path.display())]
    SocketTooLong {
        /// The shortest that was tried.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// What a socket's path may have.
        limit: usize,
    },
    /// A directory that is to be private is somebody else's.
    #[error(
        "{path} is to be private to {user}, who runs PostgreSQL, and belongs to uid {owner} (mode {mode:04o}): \
         remove it, or use another --data-dir",
        path = path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// The uid of its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
        /// Whose it should be.
        user: String,
    },
    /// A server that an earlier run left behind does not stop.
    #[error("PostgreSQL (pid {pid}) was left running on {data} and did not stop within {waited:?} of SIGINT: stop it first", data = data.display())]
    Orphan {
        /// Its pid.
        pid: i32,
        /// Its data directory.
        data: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The server ended while starting.
    #[error("PostgreSQL ended while starting ({status}); the end of {log}:\n{tail}", log = log.display())]
    Startup {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// The server runs and does not take connections.
    #[error("PostgreSQL took no connection within {waited:?} ({source}); the end of {log}:\n{tail}", log = log.display())]
    NotReady {
        /// How long it was tried.
        waited: Duration,
        /// Why the last try failed.
        source: sqlx::Error,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// A database could not be made.
    #[error("making database {name}: {source}")]
    Database {
        /// Its name.
        name: String,
        /// Why not.
        source: sqlx::Error,
    },
    /// The server did not stop in time. It was told to, and may still do so.
    #[error("PostgreSQL did not stop within {waited:?}; see {log}", log = log.display())]
    StopTimeout {
        /// How long it was waited for.
        waited: Duration,
        /// Its log.
        log: PathBuf,
    },
    /// The server did not end cleanly.
    #[error("PostgreSQL did not stop cleanly ({status}); the end of {log}:\n{tail}", log = log.display())]
    Stop {
        /// How it ended.
        status: ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// The thread that was to do it is gone.
    #[error("the task that handles the server's files ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Names the step and the path that an I/O error belongs to.
pub(super) trait At<T> {
    /// `step` is a verb: "creating".
    fn at(self, step: &'static str, path: &std::path::Path) -> Result<T, EmbeddedError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: &'static str, path: &std::path::Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::File { step, path: path.to_owned(), source })
    }
}
