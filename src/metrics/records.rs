//! Of chats, agents and their snapshots.

use super::{Exemplar, Metrics, OfResult, What, exemplar, put, put_seconds, seconds_with_traces};
use crate::trace::TraceId;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{sync::atomic::AtomicU64, time::Duration};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct State {
    pub(super) state: &'static str,
}

#[derive(Debug)]
pub(super) struct Records {
    pushes: Family<OfResult, Counter>,
    push_seconds: HistogramWithExemplars<Exemplar>,
    hydrate_seconds: HistogramWithExemplars<Exemplar>,
    drift_seconds: Histogram,
    pub(super) chats: Family<State, Gauge>,
    removed: Family<What, Counter>,
    retentions: Family<OfResult, Counter>,
    oldest_event: Gauge<f64, AtomicU64>,
}

/// From a minute to a month: how long a chat may drift.
const DRIFT: [f64; 10] = [1.0, 10.0, 60.0, 600.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0, 604_800.0, 2_592_000.0];

/// What pushes are answered.
const PUSHES: [&str; 10] = [
    "changed",
    "unchanged",
    "replayed",
    "rehearsed",
    "stale_run",
    "out_of_order",
    "suspended",
    "refused",
    "slowed_down",
    "failed",
];

impl Records {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let it = Self {
            pushes: put(registry, "moorline_pushes", "Answers to pushes, by result", Family::default()),
            push_seconds: put_seconds(
                registry,
                "moorline_push_duration",
                "Time from the head of a push to its answer, a wait for the loop that it asks for included",
                seconds_with_traces(),
            ),
            hydrate_seconds: put_seconds(
                registry,
                "moorline_hydrate",
                "Time from the later of a chat's last change by a person and its agent's last push to the chat's first pin",
                seconds_with_traces(),
            ),
            drift_seconds: put_seconds(
                registry,
                "moorline_chat_drift",
                "How long chats had drifted when a refresh, or the agent itself, ended it",
                Histogram::new(DRIFT),
            ),
            chats: put(
                registry,
                "moorline_chats",
                "Chats in the database, archived ones included, by state: unpinned, pinned, drifted",
                Family::default(),
            ),
            removed: put(registry, "moorline_retention_removed", "What retention removed, by what it is", Family::default()),
            retentions: put(registry, "moorline_retention_passes", "Passes of retention, by result", Family::default()),
            oldest_event: put_seconds(
                registry,
                "moorline_events_oldest_timestamp",
                "When the oldest event that is kept was written, since 1970; 0 before the first pass of retention, or with no event",
                Gauge::default(),
            ),
        };
        // There from the start: what appears with its first case has not risen, and an alert would miss it.
        for result in PUSHES {
            drop(it.pushes.get_or_create(&OfResult { result }));
        }
        it
    }
}

impl Metrics {
    /// A push was answered.
    pub fn pushed(&self, result: &'static str, took: Duration) {
        self.records.pushes.get_or_create(&OfResult { result }).inc();
        self.records.push_seconds.observe(took.as_secs_f64(), exemplar(), None);
    }

    /// A chat got its first pin after waiting so long, as part of this trace.
    pub fn hydrated(&self, waited: Duration, trace: Option<TraceId>) {
        self.records.hydrate_seconds.observe(waited.as_secs_f64(), trace.map(Exemplar::of), None);
    }

    /// A chat that had drifted for so long does so no more.
    pub fn drift_ended(&self, lasted: Duration) {
        self.records.drift_seconds.observe(lasted.as_secs_f64());
    }

    /// Retention removed so many of something.
    pub fn removed(&self, what: &'static str, count: u64) {
        self.records.removed.get_or_create(&What { what }).inc_by(count);
    }

    /// A pass of retention ended.
    pub fn retained(&self, result: &'static str) {
        self.records.retentions.get_or_create(&OfResult { result }).inc();
    }

    /// When the oldest event that is kept was written.
    pub fn oldest_event(&self, at: Option<jiff::Timestamp>) {
        self.records.oldest_event.set(at.map_or(0.0, |at| at.as_duration().as_secs_f64()));
    }
}
