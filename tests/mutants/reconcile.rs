//! The tests of the loop's transactions that need nothing but a PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

mod batches;
mod idle;
mod laps;
mod lifecycle;
mod log_order;
mod moored;
mod plan_all;
mod plan_walk;
mod poison;
mod pushed_again;
mod races;
mod round_trips;
mod transitions;
mod support {
    pub mod api;
    pub mod counted;
    pub mod plan_words;
    pub mod postgres;
    pub mod until;
    pub mod world;
}
