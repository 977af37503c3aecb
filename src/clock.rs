//! Time, ids and randomness, as parameters: the one place that asks the machine for them.
//!
//! Everything else takes a [`Clock`], so that a test owns the time and two runs of it agree. `clippy.toml` forbids the rest.

use jiff::Timestamp;
use std::sync::Arc;
use uuid::Uuid;

/// A source of time, of new ids and of randomness: the machine's own, but for what it says otherwise.
#[expect(clippy::disallowed_methods, reason = "this is the place that the others are sent to")]
pub trait Source: std::fmt::Debug + Send + Sync + 'static {
    /// The time now, in microseconds, which is as fine as the database has it: what is told of a record is what the record says.
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// A new time-ordered id (UUID version 7).
    fn new_id(&self) -> Uuid {
        Uuid::now_v7()
    }

    /// A number in `0.0..1.0`, for jitter.
    fn random(&self) -> f64 {
        rand::random()
    }
}

/// A shared [`Source`].
pub type Clock = Arc<dyn Source>;

/// The machine's own clock and randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The machine's own clock and randomness, shared.
pub fn system() -> Clock {
    Arc::new(SystemClock)
}

impl Source for SystemClock {}
