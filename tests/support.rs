//! What the promises are tested with.

pub mod api;
pub mod plan_words;
pub mod postgres;
pub mod serve;
pub mod trace;
pub mod until;
pub mod world;
