//! What a server is told: one documented struct, environment first, secrets wrapped.

use crate::wake::ListenNotify;
use clap::{Args, ValueEnum};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where the database is.
#[derive(Clone, Debug, Args)]
pub struct Database {
    /// The database, as `postgres://user:password@host:port/name` (or `?host=/socket/directory`).
    #[arg(long, env = "MOORLINE_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: SecretString,
}

impl Database {
    /// What to connect with. The error does not repeat the URL: it may hold a password.
    pub fn options(&self) -> anyhow::Result<PgConnectOptions> {
        let parsed = self.database_url.expose_secret().parse::<PgConnectOptions>();
        parsed.map_err(|error| anyhow::anyhow!("--database-url is no PostgreSQL URL: {error}"))
    }
}

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
