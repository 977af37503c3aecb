//! Faults, of the processes, of PostgreSQL, of the network between them, of its disk, and of clocks: nothing that was
//! acknowledged is lost, what DESIGN.md §2 promises holds, and everything is converged again by itself.
//!
//! What this does not do: make the load, and judge what came of it (`histories`). docs/testing.md says what is covered.

mod chaos;
mod clocks;
mod fleet;
mod forgotten;
mod space;
mod statements;
mod steps;
