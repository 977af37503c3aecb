//! Who of the replicas writes to the cluster.

use crate::clock::Clock;
use clap::Args;
use kube::Client;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How the replicas settle who writes to the cluster.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Name of the Lease.
    #[arg(long, env = "MOORLINE_LEASE_NAME", default_value = "moorline", value_name = "NAME")]
    pub lease_name: String,
    /// Namespace of the Lease. Without it: the namespace that this runs in.
    #[arg(long, env = "MOORLINE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How long the others wait for a holder that is silent, 2s to 1h.
    #[arg(long, env = "MOORLINE_LEASE_DURATION", default_value = "15s", value_parser = time, value_name = "TIME")]
    pub lease_duration: Duration,
    /// How long a holder writes without having renewed; shorter than the lease duration.
    #[arg(long, env = "MOORLINE_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = time, value_name = "TIME")]
    pub lease_renew_deadline: Duration,
    /// How often the Lease is renewed and looked at; less than half the renew deadline.
    #[arg(long, env = "MOORLINE_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = time, value_name = "TIME")]
    pub lease_retry_period: Duration,
}

fn time(text: &str) -> Result<Duration, String> {
    crate::config::duration(text, Duration::from_secs(1), Duration::from_hours(1))
}

/// Whether this replica holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It does not.
    Standby,
    /// It does, and may write.
    Holder {
        /// Counts the holders: no two have the same.
        term: u64,
        /// It may write until then, and is to have renewed before.
        until: Instant,
    },
}

impl Holding {
    /// Whether the holder may write at this moment.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Standby => false,
            Self::Holder { until, .. } => Instant::now() < *until,
        }
    }
}

/// The lease of this replica, held or not. Clones are of the same.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    identity: String,
    holding: watch::Sender<Holding>,
}

impl Lease {
    /// One that is not held. Nothing is asked of the cluster yet. `namespace` counts when the options name none.
    pub fn new(_client: Client, _options: Options, _namespace: &str, _clock: &Clock) -> Self {
        Self(Arc::new(Inner { identity: String::new(), holding: watch::Sender::new(Holding::Standby) }))
    }

    /// Whether this replica may write to the cluster at this moment.
    pub fn may_write(&self) -> bool {
        self.0.holding.borrow().may_write()
    }

    /// Tells of a change: gained or lost, or another term; not of renewals.
    pub fn holding(&self) -> watch::Receiver<Holding> {
        self.0.holding.subscribe()
    }

    /// How the Lease names this replica: its host and an id of this process.
    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    /// Looks for the lease and keeps it until `stop`; then lets it go.
    pub async fn run(self, stop: CancellationToken) {
        stop.cancelled().await;
    }
}
