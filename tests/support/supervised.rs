//! Processes that end with the test that started them, however it ends: also when it is killed.
//!
//! Between the test and the process stands a shell that holds the read end of a pipe. The test holds the write end; when the
//! pipe ends, the shell kills the process and removes its folder. A line in the pipe has it killed alone: what it has
//! written stays, for one that is started again.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

/// `sh -c GUARD name <folder to remove> <program> <arguments>`. A shell cannot wait for a child and for input at once, so the
/// reader is a process of its own; a file tells the one from the other why the child ended. Processes may share a folder:
/// each removes it after its own end, so the last of them leaves nothing.
const GUARD: &str = r#"
folder=$1; keep=$1/.keep-$$; shift
: >"$keep"
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
trap '' HUP INT QUIT TERM
( read -r _ || rm -f -- "$keep"; kill -KILL "$child" 2>/dev/null ) <&3 3<&- &
reader=$!
exec 0</dev/null 3<&-
wait "$child"; status=$?
kill -KILL "$reader" 2>/dev/null
if [ -e "$keep" ]; then rm -f -- "$keep"; else rm -rf -- "$folder"; fi
exit "$status"
"#;

/// A process that does not outlive this.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
}

impl Supervised {
    /// Starts `program` with `args`. What it says is added to `log`; `folder` goes with it.
    pub fn start(program: &Path, args: &[String], folder: &Path, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "supervised"]).arg(folder).arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        // Ctrl-C in a terminal is for the tests; their end is what ends this.
        Self { shell: command.process_group(0).spawn().unwrap() }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.shell.try_wait()
    }

    /// Kills it as `kill -9` does, and leaves its folder. Comes back when it has ended.
    pub fn kill(mut self) {
        // It may have ended by itself, and nobody reads.
        self.shell.stdin.take().unwrap().write_all(b"kill\n").ok();
        self.shell.wait().unwrap();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
    }
}

/// A sleeping process whose folder is `its` of `home`, and its id.
async fn sleeping(home: &Path) -> (Supervised, rustix::process::Pid) {
    let (folder, pid) = (home.join("its"), home.join("pid"));
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!("echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000", pid = pid.display());
    let mut held = Supervised::start(Path::new("/bin/sh"), &["-c".to_owned(), script], &folder, &home.join("log"));
    super::until::until("it runs", || async { pid.exists().then_some(()) }).await;
    assert!(held.ended().unwrap().is_none() && folder.exists());
    let process = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::test_kill_process(process).unwrap();
    (held, process)
}

#[tokio::test]
async fn a_process_and_its_folder_end_with_what_holds_them() {
    let home = tempfile::tempdir().unwrap();
    let (held, process) = sleeping(home.path()).await;
    drop(held);
    rustix::process::test_kill_process(process).unwrap_err();
    assert!(!home.path().join("its").exists());
}

#[tokio::test]
async fn a_killed_process_leaves_its_folder() {
    let home = tempfile::tempdir().unwrap();
    let (held, process) = sleeping(home.path()).await;
    held.kill();
    rustix::process::test_kill_process(process).unwrap_err();
    assert_eq!(std::fs::read_dir(home.path().join("its")).unwrap().count(), 0, "and nothing of ours in it");
}
