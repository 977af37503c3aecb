//! Turns at reading the database. Many watchers may begin at once, and others need connections too.

use crate::http::AppState;
use tokio::{sync::SemaphorePermit, time::Instant};

/// Waits for a turn; none when the server stops, or the watch's time is over, before it comes. Ask for one before each piece that
/// is read: then a watch that has much to read ends in between.
pub async fn turn(state: &AppState, deadline: Instant) -> Option<SemaphorePermit<'_>> {
    tokio::select! {
        biased;
        () = state.stopping().cancelled() => None,
        () = tokio::time::sleep_until(deadline) => None,
        turn = state.watch_reads().acquire() => turn.ok(),
    }
}
