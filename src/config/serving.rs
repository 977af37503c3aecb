//! What a replica does, and where it listens besides `--listen`.

use clap::{Args, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// What a replica does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Everything.
    #[default]
    All,
    /// The API: what is written waits for a replica that converges.
    Api,
    /// The loop, retention and the cluster in front. No API: `--listen` answers probes and metrics.
    Controller,
}

impl Role {
    /// Whether this replica serves the API.
    pub const fn serves(self) -> bool {
        match self {
            Self::All | Self::Api => true,
            Self::Controller => false,
        }
    }

    /// Whether this replica runs the loop, retention and the front.
    pub const fn converges(self) -> bool {
        match self {
            Self::All | Self::Controller => true,
            Self::Api => false,
        }
    }
}

/// What a replica does, and where it listens besides `--listen`.
#[derive(Clone, Debug, Default, Args)]
pub struct Serving {
    /// What this replica does. Of those that are apart, at least one of each kind has to run.
    #[arg(long, env = "MOORLINE_ROLE", value_enum, default_value = "all")]
    pub role: Role,
    /// A second address, for probes and metrics only (/livez, /readyz, /healthz, /metrics): in clear, and without a token, on
    /// any address. A controller that has one does not listen on `--listen`.
    #[arg(long, env = "MOORLINE_HEALTH_LISTEN", value_name = "ADDRESS:PORT")]
    pub health_listen: Option<SocketAddr>,
    /// The certificate with which `--listen` speaks TLS, and nothing else: PEM, the server's own first, then those above it.
    /// Read again when it changes, with its key.
    #[arg(long, env = "MOORLINE_TLS_CERT_FILE", value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The key of that certificate: PEM, without a password.
    #[arg(long, env = "MOORLINE_TLS_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    pub tls_key_file: Option<PathBuf>,
    /// How long to go on serving when told to stop, not ready any more, so that load balancers send nobody here, 0s to 5m.
    #[arg(long, env = "MOORLINE_SHUTDOWN_DELAY", default_value = "0s", value_parser = shutdown_delay, value_name = "TIME")]
    pub shutdown_delay: Duration,
}

fn shutdown_delay(text: &str) -> Result<Duration, String> {
    super::duration(text, Duration::ZERO, Duration::from_mins(5))
}
