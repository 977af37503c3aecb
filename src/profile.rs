//! Where this process spends its processor time: samples of its threads' stacks, a hundred a second, in pprof's format.
//!
//! Only in a binary with the feature `profile`. What it costs, while it runs, is a signal for each sample; nothing at other times.

mod format;

use pprof::ProfilerGuardBuilder;
use std::time::Duration;
use tokio::sync::Mutex;

/// Samples a second. Not a round number, so as not to walk in step with what happens every so many milliseconds.
const FREQUENCY: i32 = 99;

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// One at a time.
    #[error("a profile is being taken: there is one timer in a process")]
    Busy,
    /// The machine does not let us.
    #[error("taking samples: {0}")]
    Sample(#[from] pprof::Error),
    /// The task that reads the symbols ended with a defect.
    #[error("reading the symbols: {0}")]
    Symbols(#[from] tokio::task::JoinError),
}

static TURN: Mutex<()> = Mutex::const_new(());

/// Takes samples for so long, and answers a profile as `go tool pprof` and speedscope read it.
pub async fn take(time: Duration) -> Result<Vec<u8>, ProfileError> {
    let Ok(_turn) = TURN.try_lock() else { return Err(ProfileError::Busy) };
    // A thread that is inside of these may hold a lock that walking its stack needs.
    let guard = ProfilerGuardBuilder::default().frequency(FREQUENCY).blocklist(&["libc", "libgcc", "pthread", "vdso"]).build()?;
    tokio::time::sleep(time).await;
    let profile =
        tokio::task::spawn_blocking(move || guard.report().build().map(|report| format::encode(&report, time, FREQUENCY)));
    Ok(profile.await??)
}
