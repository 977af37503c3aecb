//! An answer without end, line by line: a watch.

use super::{CallError, root};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;

/// Longest line that is taken: an object with everything that it may hold, and room to spare.
const LINE_MAX: usize = 64 * 1024 * 1024;

/// Lines of JSON that come as they happen.
pub struct Lines {
    body: Body,
    place: String,
    rest: Vec<u8>,
    /// Up to here `rest` was searched for the end of a line.
    searched: usize,
}

impl Lines {
    pub(super) fn new(body: Body, place: String) -> Self {
        Self { body, place, rest: Vec::new(), searched: 0 }
    }

    /// The next line; none when the server has ended the answer.
    pub async fn next(&mut self) -> Result<Option<Value>, CallError> {
        loop {
            if let Some(line) = self.take() {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return self.parse(&line).map(Some);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.rest.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(CallError::Lost { place: self.place.clone(), why: root(&error) }),
                None => {
                    let rest = std::mem::take(&mut self.rest);
                    self.searched = 0;
                    return if rest.iter().all(u8::is_ascii_whitespace) { Ok(None) } else { self.parse(&rest).map(Some) };
                }
            }
            if self.rest.len() > LINE_MAX {
                let why = format!("a line of the watch is longer than {LINE_MAX} bytes");
                return Err(CallError::Lost { place: self.place.clone(), why });
            }
        }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let end = self.rest.iter().skip(self.searched).position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.searched) else {
            self.searched = self.rest.len();
            return None;
        };
        self.searched = 0;
        let after = self.rest.split_off(end + 1);
        Some(std::mem::replace(&mut self.rest, after))
    }

    fn parse(&self, line: &[u8]) -> Result<Value, CallError> {
        serde_json::from_slice(line).map_err(|source| CallError::Answer { place: self.place.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &str) -> Vec<Value> {
        let mut lines = Lines::new(Body::from(text.as_bytes().to_vec()), "here".into());
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_come_whole_and_the_last_needs_no_end() {
        assert_eq!(lines("").await, Vec::<Value>::new());
        assert_eq!(lines("{\"a\":1}\n\n{\"a\":2}\n").await, [serde_json::json!({"a": 1}), serde_json::json!({"a": 2})]);
        assert_eq!(lines("1\n2").await, [serde_json::json!(1), serde_json::json!(2)]);
    }
}
