//! Every promise has a module; all of them are one binary, so that they share one PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

mod agent;
mod context_hash;
mod plan;
mod plan_all;
mod plan_walk;
#[path = "support/plan_words.rs"]
mod plan_words;
mod scan;
#[path = "support/trace.rs"]
mod trace;
