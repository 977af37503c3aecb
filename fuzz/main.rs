//! One libFuzzer program for all targets: `MOORLINE_FUZZ_TARGET` names the one that it runs. scripts/fuzz builds it, with the
//! coverage that libFuzzer goes by in our crate and in the parsers that it uses, and in nothing else.

#![no_main]

#[path = "targets/all.rs"]
mod targets;

use std::sync::LazyLock;

static RUN: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("MOORLINE_FUZZ_TARGET").unwrap_or_default();
    let known: Vec<&str> = targets::ALL.iter().map(|(known, _)| *known).collect();
    let found = targets::ALL.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("MOORLINE_FUZZ_TARGET is one of {}, got {name:?}", known.join(", "))).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| RUN(data));
