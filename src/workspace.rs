//! The agent side.

pub mod scan;
