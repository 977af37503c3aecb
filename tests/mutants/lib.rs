//! `model` and `plan` alone: what decides needs no database, so a mutant of it is built and tried in seconds.

pub mod model;
pub mod plan;
