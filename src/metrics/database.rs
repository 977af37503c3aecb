//! Of PostgreSQL: statements, connections, and what keeps the log or vacuum back.

use super::{Metrics, put, put_seconds, records::State, seconds};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use sqlx::PgPool;
use std::{sync::atomic::AtomicU64, time::Duration};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Query {
    query: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Table {
    table: &'static str,
}

/// What stands in the database, as one look found it.
#[derive(Clone, Debug, PartialEq)]
pub struct Census {
    /// Chats without a pin.
    pub unpinned: i64,
    /// Chats whose pin is their agent's latest, or may stay as it is.
    pub pinned: i64,
    /// Chats that have drifted.
    pub drifted: i64,
    /// Of each table, how much of it is dead rows, from 0 to 1.
    pub dead: [(&'static str, f64); 5],
    /// How old the oldest snapshot is that keeps dead rows of this database from being removed.
    pub oldest_xmin: Duration,
}

#[derive(Debug)]
pub(super) struct Database {
    seconds: Family<Query, Histogram, fn() -> Histogram>,
    errors: Family<Query, Counter>,
    connections: Family<State, Gauge>,
    up: Gauge,
    default_rows: Gauge,
    horizon_transactions: Gauge,
    horizon_seconds: Gauge<f64, AtomicU64>,
    dead: Family<Table, Gauge<f64, AtomicU64>>,
    oldest_xmin: Gauge<f64, AtomicU64>,
}

impl Database {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            seconds: put_seconds(
                registry,
                "moorline_db_query_duration",
                "Time of a statement, by its static name",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            errors: put(registry, "moorline_db_query_errors", "Statements that failed, by their static name", Family::default()),
            connections: put(
                registry,
                "moorline_db_connections",
                "Connections of this process's pool, by state: idle, busy",
                Family::default(),
            ),
            up: put(registry, "moorline_database_up", "1 while the database answers this process", Gauge::default()),
            default_rows: put(
                registry,
                "moorline_events_default_rows",
                "Events in the default partition: should be 0",
                Gauge::default(),
            ),
            horizon_transactions: put(
                registry,
                "moorline_horizon_lag_transactions",
                "Transaction ids given out since that of the oldest transaction open in the database cluster",
                Gauge::default(),
            ),
            horizon_seconds: put_seconds(
                registry,
                "moorline_horizon_lag",
                "Age of the oldest event that is committed and that no reader gets yet, because an older transaction is open; 0 when none waits",
                Gauge::default(),
            ),
            dead: put(
                registry,
                "moorline_pg_dead_tuple_ratio",
                "Dead rows of a table, of all its rows, or of 1000 if it has fewer; by table",
                Family::default(),
            ),
            oldest_xmin: put_seconds(
                registry,
                "moorline_pg_oldest_xmin",
                "Age of the oldest transaction that keeps dead rows of the database from being removed; 0 when there is none",
                Gauge::default(),
            ),
        }
    }
}

impl Metrics {
    /// A statement ended.
    pub fn query(&self, query: &'static str, took: Duration, ok: bool) {
        self.database.seconds.get_or_create(&Query { query }).observe(took.as_secs_f64());
        if !ok {
            self.database.errors.get_or_create(&Query { query }).inc();
        }
    }

    /// What the pool's connections do.
    pub fn connections(&self, pool: &PgPool) {
        let (all, idle) = (i64::from(pool.size()), i64::try_from(pool.num_idle()).unwrap_or(i64::MAX));
        self.database.connections.get_or_create(&State { state: "idle" }).set(idle);
        self.database.connections.get_or_create(&State { state: "busy" }).set((all - idle).max(0));
    }

    /// Whether the database answers.
    pub fn database_up(&self, up: bool) {
        self.database.up.set(up.into());
    }

    /// Events in the default partition.
    pub fn default_rows(&self, rows: i64) {
        self.database.default_rows.set(rows);
    }

    /// How far readers of the event log are behind.
    pub fn horizon(&self, transactions: i64, time: Duration) {
        self.database.horizon_transactions.set(transactions);
        self.database.horizon_seconds.set(time.as_secs_f64());
    }

    /// What stands in the database.
    pub fn census(&self, census: &Census) {
        let Census { unpinned, pinned, drifted, dead, oldest_xmin } = census;
        for (state, chats) in [("unpinned", unpinned), ("pinned", pinned), ("drifted", drifted)] {
            self.records.chats.get_or_create(&State { state }).set(*chats);
        }
        for (table, ratio) in dead {
            self.database.dead.get_or_create(&Table { table }).set(*ratio);
        }
        self.database.oldest_xmin.set(oldest_xmin.as_secs_f64());
    }
}
