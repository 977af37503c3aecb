//! A token bucket: at most so many requests a second on average, and so many at once after a pause.

use std::{sync::Mutex, time::Duration};
use tokio::time::{Instant, sleep_until};

#[derive(Debug)]
struct Inner {
    /// Requests that may go at once.
    tokens: f64,
    /// When they were counted.
    at: Instant,
}

/// The bucket.
#[derive(Debug)]
pub struct Bucket {
    inner: Mutex<Inner>,
    rate: f64,
    burst: f64,
}

impl Bucket {
    /// Of so many requests a second, and so many at once. Both at least 1.
    pub fn new(rate: u32, burst: u32) -> Self {
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        Self { inner: Mutex::new(Inner { tokens: burst, at: Instant::now() }), rate, burst }
    }

    /// Waits for a turn.
    pub async fn take(&self) {
        let turn = {
            let mut inner = self.inner.lock().expect("no holder of this lock panics");
            let now = Instant::now();
            if now > inner.at {
                inner.tokens = (inner.tokens + (now - inner.at).as_secs_f64() * self.rate).min(self.burst);
                inner.at = now;
            }
            inner.tokens -= 1.0;
            // A debt is paid by waiting: whoever comes later waits longer.
            inner.at + Duration::from_secs_f64((-inner.tokens).max(0.0) / self.rate)
        };
        sleep_until(turn).await;
    }

    /// Nobody's turn comes before so long.
    pub fn pause(&self, pause: Duration) {
        let mut inner = self.inner.lock().expect("no holder of this lock panics");
        let until = Instant::now() + pause;
        if until > inner.at {
            inner.at = until;
            inner.tokens = inner.tokens.min(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let (bucket, began) = (Bucket::new(10, 5), Instant::now());
        for _ in 0..5 {
            bucket.take().await;
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..20 {
            bucket.take().await;
        }
        assert_eq!(began.elapsed().as_millis(), 2_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_everybody_up() {
        let (bucket, began) = (Bucket::new(10, 5), Instant::now());
        bucket.pause(Duration::from_secs(3));
        bucket.take().await;
        assert!(began.elapsed() >= Duration::from_secs(3));
    }
}
