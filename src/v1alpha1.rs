//! The published types of `moorline.dev/v1alpha1`, one file per kind: manifest, CRD schema and wire at once, with the
//! conversions from and to `model`.
//!
//! What it does not: no I/O, no defaults that depend on who asks, no field validation (`fieldValidation` is `http`'s).

pub mod agent;
pub mod chat;
pub mod context;
pub mod definition;
pub mod diff;
pub mod event;
pub mod meta;
pub mod push;
pub mod snapshot;

pub use agent::Agent;
pub use chat::Chat;
pub use snapshot::AgentSnapshot;

/// The API group.
pub const GROUP: &str = "moorline.dev";
/// The version of the group.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object of the group.
pub const API_VERSION: &str = "moorline.dev/v1alpha1";
