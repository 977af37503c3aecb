//! What the replicas are told about the lease, and which times go together.

use clap::Args;
use std::time::Duration;

/// How the replicas settle who writes to the cluster.
#[derive(Clone, Debug, Args)]
pub struct LeaseOptions {
    /// Name of the Lease.
    #[arg(long, env = "MOORLINE_LEASE_NAME", default_value = "moorline", value_name = "NAME")]
    pub lease_name: String,
    /// Namespace of the Lease. Without it: the namespace that this runs in.
    #[arg(long, env = "MOORLINE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How long the others wait for a holder that is silent, 1s to 1h; longer than the renew deadline.
    #[arg(long, env = "MOORLINE_LEASE_DURATION", default_value = "15s", value_parser = time, value_name = "TIME")]
    pub lease_duration: Duration,
    /// How long a holder writes without having renewed, 1s to 1h; more than twice the retry period.
    #[arg(long, env = "MOORLINE_LEASE_RENEW_DEADLINE", default_value = "10s", value_parser = time, value_name = "TIME")]
    pub lease_renew_deadline: Duration,
    /// How often the Lease is renewed and looked at, 1s to 1h.
    #[arg(long, env = "MOORLINE_LEASE_RETRY_PERIOD", default_value = "2s", value_parser = time, value_name = "TIME")]
    pub lease_retry_period: Duration,
}

fn time(text: &str) -> Result<Duration, String> {
    crate::config::duration(text, Duration::from_secs(1), Duration::from_hours(1))
}

/// Times that do not go together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The others would take over before the holder stops.
    #[error("--lease-duration must be longer than --lease-renew-deadline ({deadline:?}), got {duration:?}")]
    Duration {
        /// What it has to exceed.
        deadline: Duration,
        /// What was got.
        duration: Duration,
    },
    /// One renewal that fails would lose the lease.
    #[error("--lease-renew-deadline must be more than twice --lease-retry-period ({period:?}), got {deadline:?}")]
    RenewDeadline {
        /// What it has to exceed twice.
        period: Duration,
        /// What was got.
        deadline: Duration,
    },
}

impl LeaseOptions {
    /// Whether the times go together: a holder stops before another begins, and has two chances to renew.
    pub fn check(&self) -> Result<(), OptionsError> {
        let (duration, deadline) = (self.lease_duration, self.lease_renew_deadline);
        let period = self.lease_retry_period;
        if duration <= deadline {
            return Err(OptionsError::Duration { deadline, duration });
        }
        if deadline <= period * 2 {
            return Err(OptionsError::RenewDeadline { period, deadline });
        }
        Ok(())
    }

    /// How long one call may take: when it hangs, there is time for another.
    pub(super) fn call(&self) -> Duration {
        self.lease_renew_deadline / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: LeaseOptions,
    }

    fn options(args: &[&str]) -> LeaseOptions {
        Line::try_parse_from([&["moorline"], args].concat()).unwrap().options
    }

    #[test]
    fn the_defaults_go_together_and_what_does_not_is_named() {
        assert_eq!(options(&[]).check(), Ok(()));
        let error = options(&["--lease-duration", "10s"]).check().unwrap_err().to_string();
        assert!(error.contains("--lease-duration must be longer than --lease-renew-deadline (10s), got 10s"), "{error}");
        let error = options(&["--lease-retry-period", "5s"]).check().unwrap_err().to_string();
        assert!(error.contains("--lease-renew-deadline must be more than twice --lease-retry-period (5s), got 10s"), "{error}");
    }
}
