//! One connection of a watch, line by line.

use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may be silent. A server that was stopped without being ended looks like this.
pub const SILENCE: Duration = Duration::from_secs(15);

/// An open watch.
pub struct Lines {
    response: reqwest::Response,
    rest: Vec<u8>,
    /// Where the next line begins.
    at: usize,
}

impl Lines {
    /// Opens one; none when there is nobody to answer.
    pub async fn open(http: &reqwest::Client, url: &str) -> Option<Self> {
        let response = timeout(SILENCE, http.get(url).send()).await.ok()?.ok()?;
        response.status().is_success().then_some(Self { response, rest: Vec::new(), at: 0 })
    }

    /// The next whole line; none when the connection is over, or half a line is all that comes.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(length) = self.rest[self.at..].iter().position(|byte| *byte == b'\n') {
                let line = &self.rest[self.at..self.at + length];
                let value = serde_json::from_slice(line).expect("a line of a watch is JSON");
                self.at += length + 1;
                return Some(value);
            }
            self.rest.drain(..self.at);
            self.at = 0;
            let chunk = timeout(SILENCE, self.response.chunk()).await.ok()?.ok()??;
            self.rest.extend_from_slice(&chunk);
        }
    }
}
