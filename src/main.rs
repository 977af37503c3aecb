//! Parse, start telemetry, dispatch.

fn main() {}
