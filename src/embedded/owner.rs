//! One owner per data directory, and stopping what a dead owner left behind.
//!
//! The owner holds a lock on a file, which says who it is. The guard of its server and `initdb` hold the same lock, so that it
//! is free only when both the owner and what it started are gone; a server itself does not hold it, so one whose guard was
//! killed has to be looked for.

use super::error::{At as _, EmbeddedError};
use crate::clock;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::os::unix::ffi::OsStrExt as _;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The lock file's name, by which a data directory of ours is known.
pub(super) const LOCK: &str = "lock";
/// How long what a dead owner left behind may take to stop: a fast shutdown writes everything to disk.
const LEFTOVERS: Duration = Duration::from_mins(1);
/// After how long its server is stopped from here, should its guard be unable to.
const GUARDED: Duration = Duration::from_secs(5);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Takes the lock of `directory`, whose cluster is `data`, and writes down who has it. None when the directory was removed meanwhile: make it again.
pub(super) fn own(directory: &Path, data: &Path) -> Result<Option<File>, EmbeddedError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(no_follow());
    let mut file = match options.open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.at("opening", &path)?,
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => Err(source).at("locking", &path)?,
        }
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).at("reading", &path)?;
        let pid = text.split_whitespace().nth(1).and_then(|pid| pid.parse().ok());
        let waited = begun.elapsed();
        // An owner that has not written itself down yet is about to.
        let holder = match pid {
            Some(pid) if runs(pid) => Some(describe(&text)),
            Some(_) if waited > LEFTOVERS => Some(format!("the server of {}, which has ended itself", describe(&text))),
            None if waited > Duration::from_secs(1) => Some("another process".to_owned()),
            Some(_) | None => None,
        };
        if let Some(holder) = holder {
            return Err(EmbeddedError::Held { dir: directory.to_owned(), holder });
        }
        if waited > GUARDED {
            stop_orphan(data)?;
        }
        thread::sleep(LOOK);
    }
    // A guard removes an ephemeral directory before it lets go of the lock: then this is the lock of nothing.
    let ours = file.metadata().at("looking at", &path)?;
    if !fs::symlink_metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
        return Ok(None);
    }
    let text = format!("pid {}\nstarted {}\n", std::process::id(), clock::system().now());
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes())).at("writing", &path)?;
    Ok(Some(file))
}

/// The flag with which a link is not opened: the directory belongs to the server's user, and this process may be root.
pub(super) fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}

fn describe(text: &str) -> String {
    let mut lines = text.lines();
    let pid = lines.next().unwrap_or("another process");
    lines.next().map_or_else(|| pid.to_owned(), |started| format!("{pid} ({started})"))
}

/// Whether a process runs: one that has ended and waits to be collected does not.
fn runs(pid: i32) -> bool {
    // "pid (name) state …", and a name may have anything in it.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    !ended && exists(pid)
}

/// Whether the number is taken, as a server sees it when it finds it in a file.
fn exists(pid: i32) -> bool {
    let there = Pid::from_raw(pid).filter(|_| pid > 0).map(test_kill_process);
    matches!(there, Some(Ok(()) | Err(rustix::io::Errno::PERM)))
}

/// Stops the server of the cluster `data` that a dead owner left behind, if there is one. Its owner is known to be dead: the
/// caller has the lock, or has waited for it long enough.
pub(super) fn stop_orphan(data: &Path) -> Result<(), EmbeddedError> {
    let pid_file = data.join("postmaster.pid");
    let text = match fs::read_to_string(&pid_file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        read => read.at("reading", &pid_file)?,
    };
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0) else {
        return Ok(());
    };
    if !servers_of(data, pid).is_empty() {
        tracing::warn!(pid, data = %data.display(), "stopping a PostgreSQL that an earlier run left behind");
    } else if exists(pid) {
        // The number is by now another process's, or a dead one's that nobody collected: the server would believe it.
        fs::remove_file(&pid_file).at("removing", &pid_file)?;
    }
    let begun = Instant::now();
    let mut told = false;
    loop {
        let running = servers_of(data, pid);
        if running.is_empty() {
            return Ok(());
        }
        if !told
            && running.contains(&pid)
            && let Some(pid) = Pid::from_raw(pid)
        {
            // It may end by itself between the look and this.
            let _ = kill_process(pid, Signal::INT);
            told = true;
        }
        if begun.elapsed() > LEFTOVERS {
            return Err(EmbeddedError::Orphan { pid, data: data.to_owned(), waited: LEFTOVERS });
        }
        thread::sleep(LOOK);
    }
}

/// Whether a process was started with `-D data`.
fn started_with(process: &Path, data: &Path) -> bool {
    let Ok(line) = fs::read(process.join("cmdline")) else { return false };
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.windows(2).any(|pair| pair[0] == b"-D" && pair[1] == data.as_os_str().as_bytes())
}

/// The processes that are PostgreSQL and serve `data`. A server works in its data directory, and so do its children, which
/// outlive it for a moment when it is killed. Without /proc: only `pid`, if it is a PostgreSQL at all.
fn servers_of(data: &Path, pid: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc").and_then(|entries| fs::metadata("/proc/self/cwd").map(|_| entries)) else {
        let output = Command::new("ps").args(["-p", &pid.to_string(), "-o", "comm="]).stdin(Stdio::null()).output();
        let is_server = output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim().ends_with("postgres"));
        return if is_server { vec![pid] } else { Vec::new() };
    };
    processes
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let is_server = fs::read_to_string(entry.path().join("comm")).ok()?.starts_with("postgres");
            // Where a process works may be hidden from root too (without CAP_SYS_PTRACE, as in most containers); what it was
            // started with is not.
            let works_there = fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == data);
            (is_server && (works_there || started_with(&entry.path(), data))).then_some(pid)
        })
        .collect()
}
