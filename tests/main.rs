//! Every promise has a module; all of them are one binary, so that they share one PostgreSQL.

mod agent;
mod scan;
