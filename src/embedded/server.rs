//! Making a cluster, and running its server under a guard.
//!
//! The guard is a small shell program in a process group of its own (Ctrl-C in a terminal does not reach it) that holds the
//! read end of a pipe. Its parent holds the write end and never writes: when the pipe ends, because the parent let go of it or
//! is gone in whatever way, the guard stops the server. So a server cannot outlive its parent, unless the guard is killed too.

use super::{
    account::Account,
    error::{At as _, EmbeddedError},
    find::Programs,
    owner::no_follow,
};
use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::{FileExt as _, OpenOptionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

/// A server's log above this size is put aside when the next one starts.
const LOG_LIMIT: u64 = 16 << 20;
/// How much of the end of a log an error shows.
const TAIL_BYTES: u64 = 4096;
const TAIL_LINES: usize = 20;

/// `sh -c GUARD name <directory to remove> <socket directory to remove> <server> <arguments>`; empty: nothing to remove.
///
/// Standard input is the pipe; standard output is the owner's lock, held as long as the guard lives and not passed on;
/// standard error is the log. The server is started before the signals are ignored, so that it does not inherit that. The
/// reader is a process of its own because a shell cannot wait for a child and for input at once.
const GUARD: &str = r#"
home=$1; sockets=$2; shift 2
exec 3<&0
"$@" </dev/null >&2 3<&- &
server=$!
trap '' HUP INT QUIT TERM
( while read -r _; do :; done; while kill -INT "$server" 2>/dev/null; do sleep 1; done ) <&3 >&2 3<&- &
reader=$!
exec 0</dev/null 3<&-
wait "$server"; status=$?
kill -KILL "$reader" 2>/dev/null
[ -z "$sockets" ] || rm -rf -- "$sockets"
[ -z "$home" ] || rm -rf -- "$home" 2>/dev/null
exit "$status"
"#;

/// The version of PostgreSQL that wrote the cluster `data`; none when there is no cluster.
pub(super) fn written_by(data: &Path) -> Result<Option<String>, EmbeddedError> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(source).at("reading", &path),
    }
}

/// Makes the cluster `data`: beside it first, then renamed, so that one that is there is whole. `lock` is held by `initdb`
/// too, should this process be killed meanwhile.
pub(super) fn initialise(account: &Account, programs: &Programs, data: &Path, lock: &File) -> Result<(), EmbeddedError> {
    let unfinished = data.with_extension("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.at("removing", &unfinished)?,
    }
    account.private_directory(&unfinished)?;
    let program = programs.bin.join("initdb");
    let output = account
        .command(&program)
        .arg("--pgdata")
        .arg(&unfinished)
        .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"])
        .stdin(lock.try_clone().at("sharing the lock of", data)?)
        .output()
        .map_err(|source| EmbeddedError::Run { program, source })?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let output_text = last_lines(&String::from_utf8_lossy(&said));
        return Err(EmbeddedError::Initdb { data: data.to_owned(), status: output.status, output: output_text });
    }
    // An empty directory may be in the way; one with anything in it is not ours to replace.
    fs::rename(&unfinished, data).at("renaming the new cluster to", data)?;
    let parent = data.parent().unwrap_or(data);
    File::open(parent).and_then(|directory| directory.sync_all()).at("syncing", parent)
}

/// The server's log: opened before the server starts, and still readable when the directory is removed.
#[derive(Debug)]
pub(super) struct Log {
    /// Where it is.
    pub(super) path: PathBuf,
    file: File,
    begins: u64,
}

impl Log {
    /// Opens the log at `path`, putting one aside that has grown large.
    pub(super) fn open(path: PathBuf) -> Result<Self, EmbeddedError> {
        if fs::symlink_metadata(&path).is_ok_and(|there| there.len() > LOG_LIMIT) {
            fs::rename(&path, path.with_extension("log.1")).at("putting aside", &path)?;
        }
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).mode(0o600).custom_flags(no_follow()).open(&path);
        let file = file.at("opening", &path)?;
        let begins = file.metadata().at("looking at", &path)?.len();
        Ok(Self { path, file, begins })
    }

    /// The last lines of what was written since it was opened.
    pub(super) fn tail(&self) -> String {
        let end = self.file.metadata().map_or(0, |there| there.len());
        let from = self.begins.max(end.saturating_sub(TAIL_BYTES));
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(from)).unwrap_or(0)];
        match self.file.read_exact_at(&mut bytes, from) {
            Ok(()) => last_lines(&String::from_utf8_lossy(&bytes)),
            Err(error) => format!("(unreadable: {error})"),
        }
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// What a server is started with.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) account: &'a Account,
    pub(super) programs: &'a Programs,
    /// The cluster.
    pub(super) data: &'a Path,
    /// The directory for the socket.
    pub(super) sockets: &'a Path,
    /// The caller's settings, over our own.
    pub(super) settings: &'a [(String, String)],
    /// What the guard removes at the end: all of it, and the directory for the socket.
    pub(super) remove: [Option<&'a Path>; 2],
}

impl Launch<'_> {
    /// Starts the guard, and it the server. The guard shares `lock`.
    pub(super) fn start(&self, lock: &File, log: &Log) -> Result<Guard, EmbeddedError> {
        let shell = Path::new("/bin/sh");
        let mut command = self.account.command(shell);
        command.args(["-c", GUARD, "moorline-postgres"]);
        command.args(self.remove.map(|path| path.map_or(OsStr::new(""), Path::as_os_str)));
        command.arg(self.programs.bin.join("postgres")).arg("-D").arg(self.data);
        let asked = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in DEFAULTS.into_iter().chain(asked) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, value) in fixed(self.sockets) {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            command.arg("-c").arg(setting);
        }
        let child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(lock.try_clone().at("sharing the lock of", self.data)?)
            .stderr(log.file.try_clone().at("sharing", &log.path)?)
            .spawn()
            .map_err(|source| EmbeddedError::Run { program: shell.to_owned(), source })?;
        Ok(Guard(Some(child)))
    }
}

/// Settings that a caller may change: little memory, nothing lost.
const DEFAULTS: [(&str, &str); 7] = [
    ("fsync", "on"),
    ("max_connections", "60"),
    ("shared_buffers", "64MB"),
    ("max_wal_size", "512MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] "),
];

/// Settings that a caller may not change. Everybody who reaches the socket is trusted, so nobody else may; prepared
/// transactions would hold back every reader of the event log.
fn fixed(sockets: &Path) -> [(&'static str, OsString); 7] {
    // A list, whose elements may be quoted.
    let mut quoted = vec![b'"'];
    for byte in sockets.as_os_str().as_bytes() {
        quoted.extend(if *byte == b'"' { &[b'"', b'"'][..] } else { std::slice::from_ref(byte) });
    }
    quoted.push(b'"');
    [
        ("listen_addresses", OsString::new()),
        ("port", super::PORT.to_string().into()),
        ("unix_socket_directories", OsString::from_vec(quoted)),
        ("unix_socket_permissions", "0700".into()),
        ("logging_collector", "off".into()),
        ("log_destination", "stderr".into()),
        ("max_prepared_transactions", "0".into()),
    ]
}

/// The guard of a running server. Dropping it stops the server without waiting for that.
#[derive(Debug)]
pub(super) struct Guard(Option<Child>);

impl Guard {
    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.0.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Tells the guard to stop the server. Its end comes through the channel.
    pub(super) fn stop(mut self) -> tokio::sync::oneshot::Receiver<io::Result<std::process::ExitStatus>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        if let Some(mut child) = self.0.take() {
            // `wait` lets go of the pipe first. A thread, because a runtime that is shutting down would wait for a task.
            std::thread::spawn(move || sender.send(child.wait()));
        }
        receiver
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            // Somebody has to collect it.
            std::thread::spawn(move || child.wait());
        }
    }
}
