//! Every promise has a module; all of them are one binary, so that they share one PostgreSQL.

#![expect(clippy::unwrap_used, reason = "a helper of tests may fail as a test does")]

mod agent;
mod api_objects;
mod api_push;
mod auth;
mod bad_input;
mod caches;
mod clients;
mod context_hash;
mod context_read;
mod database_away;
mod dev;
mod diff;
mod embedded;
mod front;
mod horizon;
mod idle;
mod kstatus;
mod kubectl;
mod laps;
mod lifecycle;
mod log_order;
mod moored;
mod openapi;
mod patches;
mod plan;
mod plan_all;
mod plan_walk;
mod poison;
mod prompt;
mod races;
mod replay;
mod replicas;
mod retention;
mod retention_events;
mod scan;
mod schema;
mod selectors;
mod store_smoke;
mod support;
mod tables;
mod watch;
mod watch_garbled;
mod watch_large;
mod watch_reach;
