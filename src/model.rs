//! Domain types and rules: agents, chats, snapshots, resources, hashes, drift.
//!
//! What it does: gives every word of DESIGN.md §1 a type, and every rule about one of them a function.
//! What it does not: no I/O of any kind; it knows no sqlx, no kube and no axum.

pub mod access;
pub mod agent;
pub mod chat;
pub mod condition;
pub mod diff;
pub mod drift;
pub mod event;
pub mod fault;
pub mod hash;
pub mod manifest;
pub mod name;
pub mod object;
pub mod prompt;
pub mod push;
pub mod resource;
pub mod selector;
pub mod snapshot;
pub mod target;
pub mod unified;
pub mod word;
