//! How many requests each caller may send: a token bucket for each, within bounds.
//!
//! A bucket that is full again is as good as none, so those are thrown away first, and nobody notices. What this does not: limit
//! who is not known; that is the cluster's patience (`auth::cluster`), and a proxy's task.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How many callers are counted at once.
const CALLERS_MAX: usize = 16_384;

/// The buckets.
#[derive(Debug)]
pub struct Limits {
    rate: u32,
    burst: u32,
    callers_max: usize,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that may go at once.
    tokens: f64,
    /// When they were counted.
    at: Instant,
}

impl Limits {
    /// So many requests a second on average, and so many at once after a pause.
    pub fn new(rate: u32, burst: u32) -> Self {
        Self { rate: rate.max(1), burst: burst.max(1), callers_max: CALLERS_MAX, buckets: Mutex::default() }
    }

    /// The rate.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// Counts a request; or says how long to wait until there is room for one.
    pub fn take(&self, user: &str) -> Result<(), Duration> {
        let (now, rate, burst) = (Instant::now(), f64::from(self.rate), f64::from(self.burst));
        let filled = |bucket: &Bucket| (bucket.tokens + now.duration_since(bucket.at).as_secs_f64() * rate).min(burst);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = buckets.get(user).map_or(burst, filled);
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / rate));
        }
        let bucket = Bucket { tokens: tokens - 1.0, at: now };
        if let Some(known) = buckets.get_mut(user) {
            *known = bucket;
            return Ok(());
        }
        if buckets.len() >= self.callers_max {
            buckets.retain(|_, bucket| filled(bucket) < burst);
            // An eighth of it at once, so that it is not gone through for every newcomer; these begin anew.
            let superfluous = (buckets.len() + self.callers_max.div_ceil(8)).saturating_sub(self.callers_max);
            let some: Vec<String> = buckets.keys().take(superfluous).cloned().collect();
            for user in &some {
                buckets.remove(user);
            }
        }
        buckets.insert(user.to_owned(), bucket);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_caller_has_a_burst_and_then_the_rate() {
        let limits = Limits::new(10, 5);
        for _ in 0..5 {
            assert_eq!(limits.take("alice"), Ok(()));
        }
        let wait = limits.take("alice").expect_err("her burst is used up");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(limits.take("bob"), Ok(()), "he has sent nothing");
        tokio::time::advance(wait).await;
        assert_eq!(limits.take("alice"), Ok(()));
        assert!(limits.take("alice").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_buckets_than_there_may_be() {
        let limits = Limits { callers_max: 16, ..Limits::new(10, 5) };
        for n in 0..1_000 {
            assert_eq!(limits.take(&format!("caller-{n}")), Ok(()));
            assert!(limits.buckets.lock().expect("nobody panics").len() <= 16);
        }
    }
}
