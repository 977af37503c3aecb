//! pprof's `profile.proto`, as far as it is needed, in Protocol Buffers' wire format.

use pprof::Report;
use std::{collections::HashMap, time::Duration};

/// A profile of what was sampled for so long, so many times a second.
pub(super) fn encode(report: &Report, time: Duration, frequency: i32) -> Vec<u8> {
    let mut profile = Profile::default();
    let period = 1_000_000_000 / u64::from(frequency.unsigned_abs());
    for (name, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
        let kind = profile.value_type(name, unit);
        message(&mut profile.out, 1, &kind);
    }
    for (frames, count) in &report.data {
        let mut places = Vec::new();
        // An address has a symbol for each function that was inlined into another; the first is the innermost.
        for symbol in frames.frames.iter().flatten() {
            let place = profile.place(&symbol.name(), &symbol.filename(), u64::from(symbol.lineno()));
            varint(&mut places, place);
        }
        let thread = profile.place(&format!("thread {}", frames.thread_name), "", 0);
        varint(&mut places, thread);
        let (mut sample, mut values) = (Vec::new(), Vec::new());
        let count = u64::try_from(*count).unwrap_or_default();
        varint(&mut values, count);
        varint(&mut values, count * period);
        message(&mut sample, 1, &places);
        message(&mut sample, 2, &values);
        message(&mut profile.out, 2, &sample);
    }
    let kind = profile.value_type("cpu", "nanoseconds");
    number(&mut profile.out, 10, u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    message(&mut profile.out, 11, &kind);
    number(&mut profile.out, 12, period);
    profile.finish()
}

#[derive(Default)]
struct Profile {
    out: Vec<u8>,
    texts: Vec<String>,
    known: HashMap<String, u64>,
    /// By function and line: a place in the code.
    places: HashMap<(u64, u64), u64>,
    functions: HashMap<(u64, u64), u64>,
}

impl Profile {
    /// The number of a text in the table, of which the first is empty.
    fn text(&mut self, text: &str) -> u64 {
        if self.texts.is_empty() {
            self.texts.push(String::new());
            self.known.insert(String::new(), 0);
        }
        if let Some(known) = self.known.get(text) {
            return *known;
        }
        let number = self.texts.len() as u64;
        self.texts.push(text.to_owned());
        self.known.insert(text.to_owned(), number);
        number
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> Vec<u8> {
        let (kind, unit) = (self.text(kind), self.text(unit));
        let mut out = Vec::new();
        number(&mut out, 1, kind);
        number(&mut out, 2, unit);
        out
    }

    fn place(&mut self, function: &str, file: &str, line: u64) -> u64 {
        let key = (self.text(function), self.text(file));
        let next = self.functions.len() as u64 + 1;
        let function = *self.functions.entry(key).or_insert(next);
        if function == next {
            let mut out = Vec::new();
            for (field, value) in [(1, function), (2, key.0), (3, key.0), (4, key.1)] {
                number(&mut out, field, value);
            }
            message(&mut self.out, 5, &out);
        }
        let next = self.places.len() as u64 + 1;
        let place = *self.places.entry((function, line)).or_insert(next);
        if place == next {
            let (mut out, mut at) = (Vec::new(), Vec::new());
            number(&mut at, 1, function);
            number(&mut at, 2, line);
            number(&mut out, 1, place);
            message(&mut out, 4, &at);
            message(&mut self.out, 4, &out);
        }
        place
    }

    fn finish(mut self) -> Vec<u8> {
        for text in &self.texts {
            message(&mut self.out, 6, text.as_bytes());
        }
        self.out
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn message(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
