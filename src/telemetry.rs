//! Log lines: to standard error, readable or as JSON, filtered by `RUST_LOG` (default `info`). Fields: docs/logs.md.

mod json;

use crate::config::LogFormat;
use std::{
    error::Error,
    io::{self, IsTerminal as _},
};
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

/// An error with its reasons, in one line, for whoever reads a log or a terminal: many libraries' errors say only which layer of theirs
/// saw it. Others say their reasons themselves: what has been said is not said again.
pub fn reasons(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut below = error.source();
    while let Some(reason) = below {
        let text = reason.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        below = reason.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn a_reason_that_an_error_does_not_say_is_said_and_one_that_it_says_is_not_said_again() {
        let refused = || Some(Box::new(Layer("connection refused", None)));
        assert_eq!(reasons(&Layer("asking the cluster", refused())), "asking the cluster: connection refused");
        assert_eq!(reasons(&Layer("asking: connection refused", refused())), "asking: connection refused");
        let deep = Layer("asking the cluster", Some(Box::new(Layer("client error", refused()))));
        assert_eq!(reasons(&deep), "asking the cluster: client error: connection refused");
    }
}
