//! What the tests share.

pub mod postgres;
pub mod until;
pub mod world;
