//! Waiting for a state of the world: look, and look again until it is so; never for a time to pass.

use std::{future::Future, sync::LazyLock, time::Duration};

/// A minute, or what `MOORLINE_TEST_PATIENCE` says, in seconds: with a mutant, most of what is waited for does not come.
static PATIENCE: LazyLock<Duration> = LazyLock::new(|| {
    let asked = std::env::var("MOORLINE_TEST_PATIENCE").ok();
    asked.map_or(Duration::from_mins(1), |seconds| Duration::from_secs(seconds.parse().expect("MOORLINE_TEST_PATIENCE")))
});

/// Looks every 5 ms until `look` gives something. Panics with `what` after a minute: then it will not come.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl FnMut() -> F) -> T {
    until_within(*PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn until_within<T, F: Future<Output = Option<T>>>(patience: Duration, what: &str, mut look: impl FnMut() -> F) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(patience, looking).await.unwrap_or_else(|_| panic!("waited {patience:?} in vain until {what}"))
}
