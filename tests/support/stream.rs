//! Open watches, and when what was written can be read by them.

use super::{api::Caller, postgres::TestDb, until::until};
use reqwest::Method;
use serde_json::Value;
use std::time::Duration;

/// An open watch.
pub struct Watch {
    response: reqwest::Response,
    rest: Vec<u8>,
}

impl Watch {
    pub async fn open(api: &Caller, path: &str, query: &str) -> Self {
        Self::accepting(api, path, query, &[]).await
    }

    pub async fn accepting(api: &Caller, path: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = api.request(Method::GET, &format!("{path}?watch=1&{query}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("a watch");
        assert_eq!(response.status(), 200);
        Self { response, rest: Vec::new() }
    }

    /// The next text up to `end`; none when the stream is over.
    pub async fn up_to(&mut self, end: &[u8]) -> Option<String> {
        let read = async {
            loop {
                if let Some(at) = self.rest.windows(end.len()).position(|window| window == end) {
                    let text: Vec<u8> = self.rest.drain(..at + end.len()).collect();
                    return Some(String::from_utf8(text).expect("text"));
                }
                match self.response.chunk().await.expect("the stream") {
                    Some(chunk) => self.rest.extend_from_slice(&chunk),
                    None => return None,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("the next event of a watch, within 20 s")
    }

    pub async fn next(&mut self) -> Option<Value> {
        Some(serde_json::from_str(&self.up_to(b"\n").await?).expect("JSON"))
    }

    /// The next event as `TYPE name`.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.expect("an event");
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or("-"))
    }

    /// Waits for the event that says this of an object; what comes before it is passed over.
    pub async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await.expect("an event");
            if wanted(&event) {
                return event;
            }
        }
    }
}

/// Waits until everything that is in the log can be read: no earlier writer of any test is still open, and lists are as new as the log.
pub async fn all_readable(db: &TestDb) {
    until("the horizon is beyond the log", || async {
        let hidden: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM events e, log_state s
                            WHERE e.rv >= s.epoch << 44 | pg_snapshot_xmin(pg_current_snapshot())::text::bigint)",
        )
        .fetch_one(&db.pool)
        .await
        .expect("looking at the log");
        (!hidden).then_some(())
    })
    .await;
}
