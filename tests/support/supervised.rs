//! Processes that end with the test that started them, however it ends: also when it is killed.
//!
//! Between the test and the process stands a shell that holds the read end of a pipe. The test holds the write end and never
//! writes; when the pipe ends, the shell kills the process and removes its folder.

use std::{
    fs::File,
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

/// `sh -c GUARD name <folder to remove> <program> <arguments>`. A shell cannot wait for a child and for input at once, so the
/// reader is a process of its own.
const GUARD: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null 3<&- &
child=$!
trap '' HUP INT QUIT TERM
( while read -r _; do :; done; kill -KILL "$child" 2>/dev/null ) <&3 3<&- &
reader=$!
exec 0</dev/null 3<&-
wait "$child"; status=$?
kill -KILL "$reader" 2>/dev/null
rm -rf -- "$folder"
exit "$status"
"#;

/// A process that does not outlive this.
#[derive(Debug)]
pub struct Supervised {
    shell: Child,
}

impl Supervised {
    /// Starts `program` with `args`. What it says goes to `log`; `folder` is its own, and goes with it.
    pub fn start(program: &Path, args: &[String], folder: &Path, log: &Path) -> Self {
        let log = File::create(log).unwrap();
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
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        self.shell.wait().ok();
    }
}

#[tokio::test]
async fn a_process_and_its_folder_end_with_what_holds_them() {
    let home = tempfile::tempdir().unwrap();
    let (folder, pid) = (home.path().join("its"), home.path().join("pid"));
    std::fs::create_dir(&folder).unwrap();
    let script = format!("echo $$ >{pid}.new; mv {pid}.new {pid}; exec sleep 1000", pid = pid.display());
    let mut held = Supervised::start(Path::new("/bin/sh"), &["-c".to_owned(), script], &folder, &home.path().join("log"));
    super::until::until("it runs", || async { pid.exists().then_some(()) }).await;
    assert!(held.ended().unwrap().is_none() && folder.exists());
    let process = std::fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::test_kill_process(process).unwrap();
    drop(held);
    rustix::process::test_kill_process(process).unwrap_err();
    assert!(!folder.exists());
}
