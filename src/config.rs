//! What a server is told: one documented struct, environment first, secrets wrapped.

pub mod database;
mod serving;

use crate::wake::ListenNotify;
use clap::{Args, ValueEnum};
pub use database::{Database, DatabaseAccess};
pub use serving::{Role, Serving};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How callers of the API are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Not at all: everybody may do everything. Only on a loopback address.
    None,
    /// By the tokens of `--token-auth-file`.
    Token,
    /// By the tokens of a cluster, which is asked who sends them (TokenReview) and what they may do (SubjectAccessReview).
    Kubernetes,
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
    /// What access is decided by, counted in and written down to.
    #[command(flatten)]
    pub access: Access,
}

/// How access is decided, limited and written down.
#[derive(Clone, Debug, Args)]
pub struct Access {
    /// With `--auth kubernetes`: the audience that a token must be made for.
    #[arg(long, env = "MOORLINE_AUTH_AUDIENCE", default_value = AUDIENCE, value_name = "AUDIENCE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub auth_audience: String,
    /// With `--auth kubernetes`: how long it is remembered who sends a token, 1s to 1h; never longer than the token lasts.
    #[arg(long, env = "MOORLINE_AUTH_TOKEN_TTL", default_value = "60s", value_parser = remembered, value_name = "TIME")]
    pub auth_token_ttl: Duration,
    /// With `--auth kubernetes`: how long it is remembered that somebody may do something, 1s to 1h. A right that is taken away
    /// ends, and so do watches, after this time at the latest.
    #[arg(long, env = "MOORLINE_AUTH_ALLOW_TTL", default_value = "5m", value_parser = remembered, value_name = "TIME")]
    pub auth_allow_ttl: Duration,
    /// With `--auth kubernetes`: how long it is remembered that somebody may not do something, 1s to 1h.
    #[arg(long, env = "MOORLINE_AUTH_DENY_TTL", default_value = "30s", value_parser = remembered, value_name = "TIME")]
    pub auth_deny_ttl: Duration,
    /// How many requests a second each caller may send on average, 1 to 100,000; more are answered with 429 and a Retry-After.
    /// Without it there is no limit, but with `--auth kubernetes` 100.
    #[arg(long, env = "MOORLINE_RATE_LIMIT", value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
    pub rate_limit: Option<u32>,
    /// How many requests each caller may send at once after a pause, 1 to 1,000,000. Without it, twice the rate.
    #[arg(long, env = "MOORLINE_RATE_BURST", value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    pub rate_burst: Option<u32>,
    /// A file to which every write is added as one line of JSON: who did what to which object, and how it was answered. Without
    /// it these lines are log lines, of the target `moorline::audit`.
    #[arg(long, env = "MOORLINE_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            auth_audience: AUDIENCE.into(),
            auth_token_ttl: Duration::from_mins(1),
            auth_allow_ttl: Duration::from_mins(5),
            auth_deny_ttl: Duration::from_secs(30),
            rate_limit: None,
            rate_burst: None,
            audit_log: None,
        }
    }
}

/// The default of `--auth-audience`.
const AUDIENCE: &str = "moorline";
/// The rate limit with `--auth kubernetes`, when nothing else is said.
const KUBERNETES_RATE: u32 = 100;

impl Server {
    /// How many requests a second, and how many at once, each caller may send; none when there is no limit.
    pub fn rate(&self) -> Option<(u32, u32)> {
        let default = match self.auth {
            Auth::None | Auth::Token => None,
            Auth::Kubernetes => Some(KUBERNETES_RATE),
        };
        let rate = self.access.rate_limit.or(default)?;
        Some((rate, self.access.rate_burst.unwrap_or(rate.saturating_mul(2))))
    }
}

fn remembered(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1), Duration::from_hours(1))
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
