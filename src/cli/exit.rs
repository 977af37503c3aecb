//! What a command's exit code says. docs/cli.md tells people; a test holds the two together.

use crate::{client::CallError, telemetry::reasons};
use std::{io, process::ExitCode};

/// Some of it, or all of it, failed; standard error says what.
pub const FAILED: u8 = 1;
/// The command line cannot be read: clap's own.
pub const USAGE: u8 = 2;
/// `agent`: another process reports for this agent now.
pub const SUPERSEDED: u8 = 3;
/// The one object that was asked for is not there, or has no context yet.
pub const NOT_FOUND: u8 = 4;
/// Stopped by SIGINT or SIGTERM.
pub const INTERRUPTED: u8 = 130;

/// All of them, as `--help` shows them.
pub const HELP: &str = "\
Exit codes:
  0    done
  1    failed, or failed in part: standard error says what
  2    the command line cannot be read
  3    agent: another process reports for this agent now
  4    the object that was asked for is not there, or has no context yet
  130  stopped by a signal
diff --exit-code: 0 no difference, 1 a difference, 2 and more failed";

/// Tells an error on standard error, and says how to exit.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    if error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)) {
        // Whoever read has enough: `moorline get chats | head`.
        return ExitCode::SUCCESS;
    }
    eprintln!("moorline: {}", reasons(&**error));
    ExitCode::from(code(error))
}

/// The exit code of an error.
pub fn code(error: &anyhow::Error) -> u8 {
    let refusal = error.downcast_ref::<CallError>().and_then(CallError::refusal);
    if refusal.is_some_and(crate::client::Refusal::is_not_found) { NOT_FOUND } else { FAILED }
}
