//! The tests of the decision that need nothing but the decision.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

mod context_hash;
mod model;
mod plan;
mod plan_all;
mod plan_walk;
mod support {
    pub mod plan_words;
}
