//! The optional front: manifests of a cluster in, status out. PostgreSQL stays the truth; everything here is a level that is
//! compared, never an edge that can be missed.
//!
//! * [`connect`]: whether there is a cluster, and how it is spoken to.
//! * [`schema`]: whether the cluster's definitions of our kinds fit this binary, and which verbs we lack.
//! * [`lease`]: who of the replicas writes to the cluster.
//!
//! What it does not: decide (the loop does, from PostgreSQL), or hold up the API and the loop: a cluster that is away for
//! as long as it likes costs them nothing.

pub mod connect;
pub mod lease;
pub mod schema;
