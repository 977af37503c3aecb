//! Moorline keeps every AI chat moored to a known, immutable snapshot of its agent's context, and says so the moment the
//! agent drifts away from it.
//!
//! Four words carry the design (DESIGN.md has them all):
//!
//! * **desired**: what somebody asked for. A chat names an agent, or a workspace; a token asks for a refresh. The API
//!   writes these columns, and nothing else does.
//! * **observed**: what is so. Which snapshot a chat is pinned to, and since when it has been dirty. The reconcile loop
//!   writes these columns, and nothing else does.
//! * **due**: a record whose `revision` (every change of its inputs counts it up) is ahead of its `converged_revision`. The
//!   records are the queue: there is no job table that could get out of step with them.
//! * **converge**: read a record, its agent and the agent's latest snapshot as they are *now*, decide with the pure
//!   function [`plan::plan`], write the outcome and its event in one transaction. Converge takes no reason and no event
//!   data, so a lost wake-up costs latency and never correctness.
//!
//! Which module may use which: ARCHITECTURE.md.

pub mod census;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod embedded;
pub mod horizon;
pub mod http;
pub mod kubernetes;
pub mod liveness;
pub mod metrics;
pub mod model;
pub mod plan;
#[cfg(feature = "profile")]
pub mod profile;
pub mod reconcile;
pub mod retention;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod trace;
pub mod v1alpha1;
pub mod wake;
pub mod watched;
pub mod worker;
pub mod workspace;
pub mod writes;
