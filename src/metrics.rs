//! Metrics, in the OpenMetrics text format. Labels are bounded: lanes, results, statement names, routes; never a name or an id.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{LazyLock, atomic::AtomicU64},
    time::Duration,
};

/// The metrics of this process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lane {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneResult {
    lane: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatResult {
    what: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Query {
    query: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: String,
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: String,
    route: String,
}

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<LaneResult, Counter>,
    reconcile_seconds: Family<Lane, Histogram, fn() -> Histogram>,
    changed: Family<Lane, Counter>,
    errors: Family<LaneResult, Counter>,
    depth: Family<Lane, Gauge>,
    pushes: Family<OfResult, Counter>,
    hydrate_seconds: Histogram,
    query_seconds: Family<Query, Histogram, fn() -> Histogram>,
    query_errors: Family<Query, Counter>,
    requests: Family<Request, Counter>,
    request_seconds: Family<Route, Histogram, fn() -> Histogram>,
    default_rows: Gauge,
    watchers: Gauge,
    database_up: Gauge<f64, AtomicU64>,
    removed: Family<What, Counter>,
    retentions: Family<OfResult, Counter>,
    oldest_event: Gauge<f64, AtomicU64>,
    horizon_transactions: Gauge,
    horizon_seconds: Gauge<f64, AtomicU64>,
    mirror_looks: Counter,
    mirror_writes: Counter,
    mirror_errors: Family<OfResult, Counter>,
    watch_errors: Family<What, Counter>,
    events_dropped: Counter,
    lease_holder: Gauge,
    lease_transitions: Counter,
    front_ready: Gauge,
    reloads: Family<WhatResult, Counter>,
}

fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

impl Metrics {
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("moorline"),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            changed: Family::default(),
            errors: Family::default(),
            depth: Family::default(),
            pushes: Family::default(),
            hydrate_seconds: seconds(),
            query_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            query_errors: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            default_rows: Gauge::default(),
            watchers: Gauge::default(),
            database_up: Gauge::default(),
            removed: Family::default(),
            retentions: Family::default(),
            oldest_event: Gauge::default(),
            horizon_transactions: Gauge::default(),
            horizon_seconds: Gauge::default(),
            mirror_looks: Counter::default(),
            mirror_writes: Counter::default(),
            mirror_errors: Family::default(),
            watch_errors: Family::default(),
            events_dropped: Counter::default(),
            lease_holder: Gauge::default(),
            lease_transitions: Counter::default(),
            front_ready: Gauge::default(),
            reloads: Family::default(),
        };
        let Self {
            registry,
            reconciles,
            reconcile_seconds,
            changed,
            errors,
            depth,
            pushes,
            hydrate_seconds,
            query_seconds,
            query_errors,
            requests,
            request_seconds,
            default_rows,
            watchers,
            database_up,
            removed,
            retentions,
            oldest_event,
            horizon_transactions,
            horizon_seconds,
            mirror_looks,
            mirror_writes,
            mirror_errors,
            watch_errors,
            events_dropped,
            lease_holder,
            lease_transitions,
            front_ready,
            reloads,
        } = &mut metrics;
        registry.register("reconcile", "Records that the loop has seen, by lane and result", reconciles.clone());
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one transaction of the loop",
            Unit::Seconds,
            reconcile_seconds.clone(),
        );
        registry.register("reconcile_changed", "Chats that the loop changed, by lane", changed.clone());
        registry.register("reconcile_errors", "Transactions of the loop that failed, by lane and kind", errors.clone());
        registry.register("workqueue_depth", "Records that are due, those that wait for their retry included", depth.clone());
        registry.register("pushes", "Pushes, by result", pushes.clone());
        registry.register_with_unit(
            "hydrate",
            "Time from the later of a chat's last change by a person and its agent's last push to the chat's first pin",
            Unit::Seconds,
            hydrate_seconds.clone(),
        );
        registry.register_with_unit(
            "db_query_duration",
            "Time of a statement, by its static name",
            Unit::Seconds,
            query_seconds.clone(),
        );
        registry.register("db_query_errors", "Statements that failed, by their static name", query_errors.clone());
        registry.register("http_requests", "Requests, by method, route and status code", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time to answer a request, by method and route",
            Unit::Seconds,
            request_seconds.clone(),
        );
        registry.register("watchers", "Open watches of this process", watchers.clone());
        registry.register("events_default_rows", "Events in the default partition: should be 0", default_rows.clone());
        registry.register("database_up", "1 while the database answers", database_up.clone());
        registry.register("retention_removed", "What retention removed, by what it is", removed.clone());
        registry.register("retention_passes", "Passes of retention, by result", retentions.clone());
        registry.register_with_unit(
            "events_oldest_timestamp",
            "When the oldest event that is kept was written, since 1970; 0 before the first pass of retention, or with no event",
            Unit::Seconds,
            oldest_event.clone(),
        );
        registry.register(
            "horizon_lag_transactions",
            "Transaction ids given out since that of the oldest transaction open in the database cluster",
            horizon_transactions.clone(),
        );
        registry.register_with_unit(
            "horizon_lag",
            "Age of the oldest event that is committed and that no reader gets yet, because an older transaction is open; 0 when none waits",
            Unit::Seconds,
            horizon_seconds.clone(),
        );
        registry.register(
            "mirror_looks",
            "Objects of the cluster that were looked at because something had changed",
            mirror_looks.clone(),
        );
        registry.register("mirror_writes", "Requests that wrote an object of the cluster", mirror_writes.clone());
        registry.register(
            "mirror_errors",
            "Requests that were to write an object of the cluster and did not, by why",
            mirror_errors.clone(),
        );
        registry.register(
            "kubernetes_watch_errors",
            "Failures of the cluster's watches, by kind of object",
            watch_errors.clone(),
        );
        registry.register("kubernetes_events_dropped", "Events of the cluster that were not told", events_dropped.clone());
        registry.register("lease_holder", "1 while this process holds the Lease and writes to the cluster", lease_holder.clone());
        registry.register("lease_transitions", "Times that this process has gained or lost the Lease", lease_transitions.clone());
        registry.register(
            "kubernetes_ready",
            "1 while the cluster's definitions of our kinds fit this binary",
            front_ready.clone(),
        );
        registry.register("reloads", "Files that were read again because they changed, by what and result", reloads.clone());
        metrics
    }

    /// The text that a scrape is answered.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }

    /// A transaction of the loop that ended well.
    pub fn reconciled(&self, lane: &'static str, took: Duration, seen: usize, changed: usize, poisoned: usize) {
        let count = |result| self.reconciles.get_or_create(&LaneResult { lane, result }).clone();
        count("converged").inc_by((seen.saturating_sub(poisoned)) as u64);
        count("poisoned").inc_by(poisoned as u64);
        self.changed.get_or_create(&Lane { lane }).inc_by(changed as u64);
        self.reconcile_seconds.get_or_create(&Lane { lane }).observe(took.as_secs_f64());
    }

    /// A transaction of the loop that failed.
    pub fn reconcile_failed(&self, lane: &'static str, kind: &'static str) {
        self.errors.get_or_create(&LaneResult { lane, result: kind }).inc();
    }

    /// How many records are due.
    pub fn depth(&self, lane: &'static str, depth: i64) {
        self.depth.get_or_create(&Lane { lane }).set(depth);
    }

    /// How many watch.
    pub fn watchers(&self, watchers: usize) {
        self.watchers.set(i64::try_from(watchers).unwrap_or(i64::MAX));
    }

    /// A push was answered.
    pub fn pushed(&self, result: &'static str) {
        self.pushes.get_or_create(&OfResult { result }).inc();
    }

    /// A chat got its first pin after waiting so long.
    pub fn hydrated(&self, waited: Duration) {
        self.hydrate_seconds.observe(waited.as_secs_f64());
    }

    /// A statement ended.
    pub fn query(&self, query: &'static str, took: Duration, ok: bool) {
        self.query_seconds.get_or_create(&Query { query }).observe(took.as_secs_f64());
        if !ok {
            self.query_errors.get_or_create(&Query { query }).inc();
        }
    }

    /// A request was answered.
    pub fn request(&self, method: &str, route: &str, code: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.requests.get_or_create(&Request { method: method.clone(), route: route.clone(), code }).inc();
        self.request_seconds.get_or_create(&Route { method, route }).observe(took.as_secs_f64());
    }

    /// Events in the default partition.
    pub fn default_rows(&self, rows: i64) {
        self.default_rows.set(rows);
    }

    /// Whether the database answers.
    pub fn database_up(&self, up: bool) {
        self.database_up.set(f64::from(u8::from(up)));
    }

    /// Retention removed so many of something.
    pub fn removed(&self, what: &'static str, count: u64) {
        self.removed.get_or_create(&What { what }).inc_by(count);
    }

    /// A pass of retention ended.
    pub fn retained(&self, result: &'static str) {
        self.retentions.get_or_create(&OfResult { result }).inc();
    }

    /// When the oldest event that is kept was written.
    pub fn oldest_event(&self, at: Option<jiff::Timestamp>) {
        self.oldest_event.set(at.map_or(0.0, |at| at.as_duration().as_secs_f64()));
    }

    /// How far readers of the event log are behind.
    pub fn horizon(&self, transactions: i64, time: Duration) {
        self.horizon_transactions.set(transactions);
        self.horizon_seconds.set(time.as_secs_f64());
    }

    /// So many objects of the cluster were looked at.
    pub fn mirror_looked(&self, objects: usize) {
        self.mirror_looks.inc_by(objects as u64);
    }

    /// An object of the cluster was written.
    pub fn mirrored(&self) {
        self.mirror_writes.inc();
    }

    /// An object of the cluster was not written.
    pub fn mirror_failed(&self, why: &'static str) {
        self.mirror_errors.get_or_create(&OfResult { result: why }).inc();
    }

    /// A watch of the cluster failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&What { what: kind }).inc();
    }

    /// An Event of the cluster was not told.
    pub fn event_dropped(&self) {
        self.events_dropped.inc();
    }

    /// Whether this process holds the Lease, and whether that is new.
    pub fn lease_held(&self, held: bool, changed: bool) {
        self.lease_holder.set(held.into());
        self.lease_transitions.inc_by(changed.into());
    }

    /// A file that changed was taken (`ok`) or not (`refused`).
    pub fn reloaded(&self, what: &'static str, result: &'static str) {
        self.reloads.get_or_create(&WhatResult { what, result }).inc();
    }

    /// Whether the cluster's definitions fit.
    pub fn front_ready(&self, ready: bool) {
        self.front_ready.set(ready.into());
    }
}
