//! No interleaving of statements, and no crash between two of them, breaks an invariant of DESIGN §2: a model of the store that is
//! explored exhaustively (`stateright`).
//!
//! What it does. Clients, two loops, a reader of the log and retention run the product's statements one at a time, in every order, on
//! rows, locks and versions that behave as PostgreSQL's do under READ COMMITTED (`sessions`). What is decided is decided by the product's
//! own functions (`decide`); the order of the statements mirrors the product's (`clients`, `lanes`, `reader`: each names what it
//! mirrors). Every invariant is asked of every state, and of every state whether without further input everything converges
//! (`invariants`). A model proves nothing that it would not also notice to be wrong: `caught` breaks one rule after another on
//! purpose, and each must be found by the property that is named for it.
//!
//! What it does not: it is no PostgreSQL. That rows, locks and snapshots behave as modelled is asked of a real one in `races` and
//! `log_order`. Each world is small: at most two chats, two agents, a few inputs.
//!
//! `make test` explores the worlds of `worlds`; `make model` larger ones. All of them print what they have counted.

mod canonical;
mod caught;
mod clients;
mod config;
mod decide;
mod invariants;
mod lanes;
mod model;
mod order;
mod reader;
mod rows;
mod sessions;
mod worlds;
