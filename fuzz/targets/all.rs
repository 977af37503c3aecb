//! What is fuzzed: one function for each place where bytes of strangers come in. Each takes any bytes and panics when a promise
//! does not hold, so it is as good in libFuzzer (fuzz/main.rs) as in an ordinary test (tests/fuzzing.rs).
//!
//! Each calls the library's own functions and holds what they answer against a promise that is written down here a second
//! time, and shorter. What this does not: look for bytes that break one. Whoever calls it does.

mod content;
mod cursors;
mod manifests;
mod merge;
mod operations;
mod patch;
mod prompt;
mod push;
mod scanner;
mod selectors;
mod tape;

/// What is done with an input.
type Run = fn(&[u8]);

/// Every target, by name: its corpus is fuzz/corpus/NAME.
pub const ALL: [(&str, Run); 8] = [
    ("content", content::run),
    ("cursors", cursors::run),
    ("manifests", manifests::run),
    ("patch", patch::run),
    ("prompt", prompt::run),
    ("push", push::run),
    ("scanner", scanner::run),
    ("selectors", selectors::run),
];
