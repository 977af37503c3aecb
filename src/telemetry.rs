//! Log lines: to standard error, readable or as JSON, filtered by `RUST_LOG` (default `info`). Fields: docs/logs.md.

mod json;

use crate::config::LogFormat;
use std::io::{self, IsTerminal as _};
use tracing_subscriber::{EnvFilter, fmt::format::JsonFields};

/// Starts logging. `RUST_LOG` decides what is logged; unset, `default` does.
pub fn start(format: LogFormat, default: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let logger = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => logger.with_target(false).init(),
        LogFormat::Json => logger.fmt_fields(JsonFields::new()).event_format(json::Json).init(),
    }
}
