//! What a server is told: one documented struct, environment first, secrets wrapped.

pub mod database;
mod serving;

use crate::wake::ListenNotify;
use clap::{Args, ValueEnum};
pub use database::{Access, Database};
pub use serving::{Role, Serving};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How callers of the API are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Not at all: everybody may do everything. Only on a loopback address.
    None,
    /// By the tokens of `--token-auth-file`.
    Token,
}

/// What the API server and the loop are told.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// The address of the API.
    #[arg(long, env = "MOORLINE_LISTEN", default_value = "127.0.0.1:8460", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// How callers are known. `none` is refused on an address that is not loopback.
    #[arg(long, env = "MOORLINE_AUTH", value_enum, default_value = "none")]
    pub auth: Auth,
    /// With `--auth token`: a file of `token,user,uid[,"group,…"]` lines, as kube-apiserver's. Read again when it changes.
    #[arg(long, env = "MOORLINE_TOKEN_AUTH_FILE", value_name = "FILE", required_if_eq("auth", "token"))]
    pub token_auth_file: Option<PathBuf>,
    /// Whether replicas wake each other by LISTEN and NOTIFY. Off: each polls; use it behind a pooler in transaction mode.
    #[arg(long, env = "MOORLINE_LISTEN_NOTIFY", value_enum, default_value = "on")]
    pub listen_notify: ListenNotify,
    /// How long the loop waits for a hint before it looks anyway, in milliseconds, 10 to 60,000; jittered by half.
    #[arg(long, env = "MOORLINE_POLL_MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=60_000), value_name = "MILLISECONDS")]
    pub poll_ms: u64,
    /// Connections to the database, at most, 4 to 1,000; two more are used for wake-ups.
    #[arg(long, env = "MOORLINE_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(4..=1_000), value_name = "N")]
    pub database_connections: u32,
    /// How often superfluous snapshots and old events are looked for, 1s to 1d, as `90s`, `10m`, `6h`, `1d`; jittered by half.
    #[arg(long, env = "MOORLINE_RETENTION_INTERVAL", default_value = "10m", value_parser = retention_interval, value_name = "TIME")]
    pub retention_interval: Duration,
    /// How long events are kept, 1h to 3650d; whole days (UTC) are dropped. Whoever reads the log from before begins anew.
    #[arg(long, env = "MOORLINE_EVENT_RETENTION", default_value = "7d", value_parser = event_retention, value_name = "TIME")]
    pub event_retention: Duration,
    /// What this replica does, and where it listens besides `--listen`.
    #[command(flatten)]
    pub serving: Serving,
}

/// The default of `--retention-interval`.
pub const RETENTION_INTERVAL: Duration = Duration::from_mins(10);
/// The default of `--event-retention`.
pub const EVENT_RETENTION: Duration = DAY.saturating_mul(7);
const DAY: Duration = Duration::from_hours(24);

fn retention_interval(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), DAY)
}

fn event_retention(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_hours(1), DAY.saturating_mul(3_650))
}

/// Reads a whole number with one of the units s, m, h, d.
pub(crate) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let form = || format!("must be a whole number with one of the units s, m, h, d, got {text:?}");
    let unit = text.chars().next_back().ok_or_else(form)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(form()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let number = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())).ok_or_else(form)?;
    let number: u64 = number.parse().map_err(|_| form())?;
    let duration = number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(form)?;
    if duration < least || duration > most {
        return Err(format!("must be {} to {} seconds, got {text:?}", least.as_secs(), most.as_secs()));
    }
    Ok(duration)
}

impl Server {
    /// How long the loop waits for a hint.
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_with_a_unit_and_within_its_range() {
        assert_eq!(retention_interval("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(retention_interval("10m"), Ok(RETENTION_INTERVAL));
        assert_eq!(event_retention("7d"), Ok(EVENT_RETENTION));
        for bad in ["", "7", "d", "-1d", "+1d", "1.5h", "1w", "10 m", "99999999999999999999s", "18446744073709551615d", "7ä"] {
            let error = event_retention(bad).expect_err(bad);
            assert!(error.contains("units") && error.contains(bad), "{error}");
        }
        let error = retention_interval("2d").expect_err("too long");
        assert!(error.contains("1 to 86400 seconds") && error.contains("2d"), "{error}");
        assert!(event_retention("59m").is_err() && event_retention("3651d").is_err());
    }
}
