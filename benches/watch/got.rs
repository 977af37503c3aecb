//! What one watcher has got, line by line, however the stream was cut into pieces; and where it goes on when it is cut off.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the last line of a stream begins with when it was ended for a reason.
const ERROR: &[u8] = br#"{"type":"ERROR""#;

/// What a watcher is to have.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Wanted {
    /// So many lines.
    Lines(u64),
    /// An object of this version, or of a later one: as a change, or in the list that it began with.
    Version(i64),
}

/// Where a watcher goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// After what it has, with this in its query.
    After(String),
    /// From the beginning: what it has is too old.
    Everything,
    /// As it began: nothing has come yet.
    AsBefore,
}

/// What one watcher has got.
#[derive(Debug, Default)]
pub struct Got {
    /// Whether its text is kept.
    pub keep: bool,
    /// What was kept.
    pub text: Vec<u8>,
    /// Whole lines, but for an error.
    pub lines: u64,
    /// How many lines there were at which time, in microseconds since 1970.
    pub arrivals: Vec<(u64, u64)>,
    /// How often it was cut off, and went on.
    pub resumed: u64,
    hash: u64,
    /// What does not fill a word yet.
    rest: Vec<u8>,
    /// The last whole line.
    last: Vec<u8>,
    /// What has come of the next.
    partial: Vec<u8>,
    /// Why it was cut off, as it was told.
    error: Option<Vec<u8>>,
}

impl Got {
    /// What came. Whole lines count; what has come of the next waits for the rest of it.
    pub fn take(&mut self, bytes: &[u8]) {
        let newline = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        self.partial.extend_from_slice(bytes);
        let Some(end) = newline(&self.partial) else { return };
        let mut whole = std::mem::take(&mut self.partial);
        self.partial = whole.split_off(end + 1);
        let last = |whole: &[u8]| newline(&whole[..whole.len().saturating_sub(1)]).map_or(0, |at| at + 1);
        let at = last(&whole);
        if whole[at..].starts_with(ERROR) {
            self.error = Some(whole.split_off(at));
        }
        self.count(&whole);
        if !whole.is_empty() {
            self.last = whole.split_off(last(&whole));
        }
    }

    /// The hash is of the stream, however it was cut.
    fn count(&mut self, mut bytes: &[u8]) {
        self.lines += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        if self.keep {
            self.text.extend_from_slice(bytes);
        }
        if !self.rest.is_empty() {
            let (first, rest) = bytes.split_at(bytes.len().min(8 - self.rest.len()));
            self.rest.extend_from_slice(first);
            bytes = rest;
            if self.rest.len() < 8 {
                return;
            }
            let word = std::mem::take(&mut self.rest);
            self.mix(&word);
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word);
        }
        self.rest.extend_from_slice(words.remainder());
    }

    fn mix(&mut self, word: &[u8]) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Whether it has what is wanted.
    pub fn has(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Lines(lines) => self.lines >= lines,
            Wanted::Version(wanted) => {
                let version = text(&object(&self.last)["metadata"]["resourceVersion"]).parse::<i64>();
                version.is_ok_and(|version| version >= wanted)
            }
        }
    }

    /// Whether it got the same as another.
    pub fn is_as(&self, other: &Self) -> bool {
        (self.lines, self.hash, &self.rest) == (other.lines, other.hash, &other.rest)
    }

    /// Where it goes on when its stream has ended: half a line is forgotten, for it comes again.
    pub fn next(&mut self) -> Next {
        self.partial.clear();
        self.resumed += 1;
        if self.error.take().is_some_and(|error| object(&error)["code"] == 410) {
            return Next::Everything;
        }
        let object = object(&self.last);
        let (name, of) =
            if object["kind"] == "ContextEvent" { ("cursor", "name") } else { ("resourceVersion", "resourceVersion") };
        match text(&object["metadata"][of]) {
            "" => Next::AsBefore,
            version => Next::After(format!("{name}={version}")),
        }
    }

    /// What it got last, for people.
    pub fn end(&self) -> String {
        let last = if self.last.is_empty() { &self.partial } else { &self.last };
        String::from_utf8_lossy(last).chars().take(600).collect()
    }
}

fn object(line: &[u8]) -> Value {
    serde_json::from_slice::<Value>(line).map(|mut line| line["object"].take()).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
