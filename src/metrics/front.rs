//! Of the cluster in front. Its gauges appear with the front: without one there is nothing to be ready or to hold.

use super::{Metrics, OfResult, put};
use crate::liveness::Liveness;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lease {
    name: String,
}

#[derive(Debug)]
pub(super) struct Front {
    looks: Counter,
    patches: Family<OfResult, Counter>,
    errors: Family<OfResult, Counter>,
    watch_errors: Family<Kind, Counter>,
    events_dropped: Counter,
    leader: Family<Lease, Gauge>,
    transitions: Counter,
    cluster: Arc<Cluster>,
}

/// What is known of the cluster once there is one: read at each scrape.
#[derive(Debug, Default)]
struct Cluster {
    liveness: OnceLock<Liveness>,
    ready: AtomicBool,
}

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(liveness) = self.liveness.get() else { return Ok(()) };
        let (name, help) = ("moorline_kubernetes_ready", "1 while the cluster's definitions of our kinds fit this binary");
        let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        ConstGauge::new(i64::from(self.ready.load(Ordering::Relaxed))).encode(metric)?;
        let (name, help) = (
            "moorline_kubernetes_watch_silent",
            "Time since the quietest of the tasks that follow the cluster showed a sign of life; 0 before there are any",
        );
        let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(liveness.longest_silence().as_secs_f64()).encode(metric)
    }
}

impl Front {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let cluster = Arc::<Cluster>::default();
        registry.register_collector(Box::new(Arc::clone(&cluster)));
        Self {
            looks: put(
                registry,
                "moorline_mirror_looks",
                "Objects of the cluster that were looked at because something had changed",
                Counter::default(),
            ),
            patches: put(
                registry,
                "moorline_mirror_patches",
                "What looking at an object of the cluster came to: sent (a request that wrote it), skipped (it was as it should be), failed",
                Family::default(),
            ),
            errors: put(
                registry,
                "moorline_mirror_errors",
                "Requests that were to write an object of the cluster and did not, by why",
                Family::default(),
            ),
            watch_errors: put(
                registry,
                "moorline_kubernetes_watch_errors",
                "Failures of the cluster's watches, by kind of object",
                Family::default(),
            ),
            events_dropped: put(
                registry,
                "moorline_kubernetes_events_dropped",
                "Events of the cluster that were not told",
                Counter::default(),
            ),
            leader: put(
                registry,
                "leader_election_master_status",
                "1 while this process holds the Lease and writes to the cluster, else 0; by the Lease's name",
                Family::default(),
            ),
            transitions: put(
                registry,
                "moorline_lease_transitions",
                "Times that this process has gained or lost the Lease",
                Counter::default(),
            ),
            cluster,
        }
    }
}

impl Metrics {
    /// There is a cluster in front, and this knows whether its tasks are alive.
    pub fn front_begins(&self, liveness: &Liveness) {
        self.front.cluster.liveness.set(liveness.clone()).ok(); // there is one front in a process
    }

    /// So many objects of the cluster were looked at.
    pub fn mirror_looked(&self, objects: usize) {
        self.front.looks.inc_by(objects as u64);
    }

    /// An object of the cluster was written.
    pub fn mirrored(&self) {
        self.front.patches.get_or_create(&OfResult { result: "sent" }).inc();
    }

    /// An object of the cluster was as it should be.
    pub fn mirror_skipped(&self) {
        self.front.patches.get_or_create(&OfResult { result: "skipped" }).inc();
    }

    /// An object of the cluster was not written.
    pub fn mirror_failed(&self, why: &'static str) {
        self.front.patches.get_or_create(&OfResult { result: "failed" }).inc();
        self.front.errors.get_or_create(&OfResult { result: why }).inc();
    }

    /// A watch of the cluster failed.
    pub fn watch_failed(&self, kind: &'static str) {
        self.front.watch_errors.get_or_create(&Kind { kind }).inc();
    }

    /// An Event of the cluster was not told.
    pub fn event_dropped(&self) {
        self.front.events_dropped.inc();
    }

    /// Whether this process holds the Lease of this name, and whether that is new.
    pub fn lease_held(&self, name: &str, held: bool, changed: bool) {
        self.front.leader.get_or_create(&Lease { name: name.to_owned() }).set(held.into());
        self.front.transitions.inc_by(changed.into());
    }

    /// Whether the cluster's definitions fit.
    pub fn front_ready(&self, ready: bool) {
        self.front.cluster.ready.store(ready, Ordering::Relaxed);
    }
}
