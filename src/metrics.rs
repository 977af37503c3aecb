//! Metrics: what `/metrics` answers, in the OpenMetrics or the Prometheus text format. What each means and what to do about it is
//! in docs/metrics.md, which a test holds to what a server exposes.
//!
//! Names. What controller-runtime measures has its names and labels (`controller_runtime_…`, `workqueue_…`,
//! `leader_election_…`), so that its dashboards work; the process has the names of every Prometheus client (`process_…`); all
//! else is `moorline_…`. Labels are bounded: controllers, results, statement names, routes; never the name or id of a record.
//!
//! Cost. A scrape reads memory only. What stands in the database is measured by each replica's own timers, and is of the whole
//! database: take the maximum over replicas.

mod build;
mod controllers;
mod database;
mod files;
mod front;
mod http;
mod process;
mod records;
mod text;

pub use controllers::{Came, Controller, InHand};
pub use database::Census;
pub use text::Format;

use crate::trace::{self, TraceId};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{exemplar::HistogramWithExemplars, histogram::Histogram},
    registry::{Metric, Registry, Unit},
};
use std::sync::LazyLock;

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    controllers: controllers::Controllers,
    records: records::Records,
    database: database::Database,
    http: http::Http,
    front: front::Front,
    files: files::Files,
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::default();
        build::register(&mut registry);
        process::register(&mut registry);
        Self {
            controllers: controllers::Controllers::new(&mut registry),
            records: records::Records::new(&mut registry),
            database: database::Database::new(&mut registry),
            http: http::Http::new(&mut registry),
            front: front::Front::new(&mut registry),
            files: files::Files::new(&mut registry),
            registry,
        }
    }

    /// What a scrape is answered.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => text::prometheus(&text),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

/// Of a trace that shows one of the cases that a histogram counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exemplar {
    trace_id: String,
}

impl Exemplar {
    fn of(trace: TraceId) -> Self {
        Self { trace_id: trace.to_string() }
    }
}

/// The trace that is recorded at this moment, if one is.
fn exemplar() -> Option<Exemplar> {
    trace::current().map(Exemplar::of)
}

const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

fn seconds_with_traces() -> HistogramWithExemplars<Exemplar> {
    HistogramWithExemplars::new(SECONDS.into_iter())
}

/// Registers a metric, and gives it back.
fn put<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// The same, of one that is measured in bytes; its name ends with them.
fn put_bytes<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Bytes, metric.clone());
    metric
}

/// The same, of one that is measured in seconds; its name ends with them.
fn put_seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
