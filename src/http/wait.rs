//! Answering when the loop has caught up: whoever creates a chat sees it pinned.
//!
//! It looks at the record itself, each time that the loop says it did something, and now and then in case nobody said so.

use super::{
    AppState,
    negotiate::{Prefer, prefer},
    status::ApiError,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use std::{future::Future, time::Duration};
use tokio::time::Instant;

/// How long creating and refreshing a chat wait without being asked.
pub const UNASKED: Duration = Duration::from_secs(5);
/// How often to look when nobody says anything.
const LOOK: Duration = Duration::from_millis(250);

/// How long a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// At most so long; the client is told whether it was enough when it asked.
    Some {
        /// So long.
        limit: Duration,
        /// The client asked.
        asked: bool,
    },
}

impl Patience {
    /// As the client prefers; `unasked` when it does not say.
    pub fn of(headers: &HeaderMap, unasked: Option<Duration>) -> Self {
        match (prefer(headers), unasked) {
            (Prefer::Async, _) | (Prefer::Unsaid, None) => Self::None,
            (Prefer::Wait(limit), _) => Self::Some { limit, asked: true },
            (Prefer::Unsaid, Some(limit)) => Self::Some { limit, asked: false },
        }
    }
}

/// A record as it is, and whether the loop has caught up with it.
#[derive(Debug)]
pub struct Seen<T> {
    /// The record.
    pub record: T,
    /// Whether the loop has caught up.
    pub converged: bool,
}

/// Waits until the record has converged, or patience runs out. Answers with the record as it was last seen (none: as it was
/// handed in), and the header that says whether the wait was long enough.
pub async fn wait<T, F>(
    state: &AppState,
    patience: Patience,
    first: T,
    mut look: impl FnMut() -> F,
) -> Result<(T, Option<(HeaderName, HeaderValue)>), ApiError>
where
    F: Future<Output = Result<Option<Seen<T>>, ApiError>>,
{
    let Patience::Some { limit, asked } = patience else { return Ok((first, None)) };
    let mut hints = state.wake().on_events();
    let deadline = Instant::now() + limit;
    let mut last = first;
    loop {
        hints.mark_unchanged(); // registered before it looks
        match look().await {
            Ok(Some(Seen { record, converged: true })) => {
                let applied = HeaderValue::from_str(&format!("wait={}", limit.as_secs()))
                    .ok()
                    .map(|value| (HeaderName::from_static("preference-applied"), value));
                return Ok((record, applied.filter(|_| asked)));
            }
            Ok(Some(Seen { record, converged: false })) => last = record,
            // What was asked for has been done and is on record; that the database went away since, or somebody deleted it, is
            // no reason to say otherwise.
            Ok(None) | Err(_) => return Ok((last, None)),
        }
        let now = Instant::now();
        if now >= deadline {
            return Ok((last, None));
        }
        let until = deadline.min(now + LOOK);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            // The loop has been told to stop too: nothing is to be waited for.
            () = state.stopping().cancelled() => return Ok((last, None)),
            _ = hints.changed() => {}
        }
    }
}
