//! Of the loop's lanes and the mirror, as controller-runtime tells of its controllers.
//!
//! A lane converges a batch of records in one transaction: `controller_runtime_reconcile_total` counts the records,
//! `controller_runtime_reconcile_time_seconds` the transactions. Agents that no chat follows are
//! converged many at once, and their time is counted once. The mirror takes one object at a time. A look that finds nothing to do is no
//! reconcile.

use super::{Exemplar, Metrics, exemplar, put, put_seconds, seconds, seconds_with_traces};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType, counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::ConstGauge, gauge::Gauge,
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// Who reconciles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Controller {
    /// The loop's lane of chats that are due.
    Chats,
    /// The loop's lane of agents that are due, which tells their chats.
    Agents,
    /// The front's mirror: objects of the cluster.
    Mirror,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Chats, Self::Agents, Self::Mirror];

    /// Its label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Agents => "agents",
            Self::Mirror => "mirror",
        }
    }

    fn queue(self) -> Queue {
        Queue { name: self.label(), controller: self.label() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    controller: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfResult {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    controller: &'static str,
    kind: &'static str,
}

/// Labels of a queue, as controller-runtime has them: there the two are one, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Queue {
    name: &'static str,
    controller: &'static str,
}

type Times = Family<Of, HistogramWithExemplars<Exemplar>, fn() -> HistogramWithExemplars<Exemplar>>;
type QueueTimes = Family<Queue, Histogram, fn() -> Histogram>;

#[derive(Debug)]
pub(super) struct Controllers {
    reconciles: Family<OfResult, Counter>,
    errors: Family<Of, Counter>,
    panics: Family<Of, Counter>,
    seconds: Times,
    active: Family<Of, Gauge>,
    at_most: Family<Of, Gauge>,
    depth: Family<Queue, Gauge>,
    adds: Family<Queue, Counter>,
    retries: Family<Queue, Counter>,
    waited: QueueTimes,
    worked: QueueTimes,
    failures: Family<OfKind, Counter>,
    changed: Family<Of, Counter>,
    aside: Family<Of, Gauge>,
    oldest: Family<Of, Gauge<f64, AtomicU64>>,
    in_hand: Arc<Work>,
}

impl Controllers {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let in_hand = Arc::<Work>::default();
        registry.register_collector(Box::new(Arc::clone(&in_hand)));
        let it = Self {
            reconciles: put(
                registry,
                "controller_runtime_reconcile",
                "Records and objects that were reconciled, by controller and result: success, error, requeue_after",
                Family::default(),
            ),
            errors: put(
                registry,
                "controller_runtime_reconcile_errors",
                "Reconciles that failed, by controller: transactions, records that were set aside, objects",
                Family::default(),
            ),
            panics: put(
                registry,
                "controller_runtime_reconcile_panics",
                "Reconciles that ended with a defect, by controller",
                Family::default(),
            ),
            seconds: put_seconds(
                registry,
                "controller_runtime_reconcile_time",
                "Time of a reconcile, by controller: a transaction of the loop, an object of the mirror",
                Times::new_with_constructor(seconds_with_traces),
            ),
            active: put(registry, "controller_runtime_active_workers", "Workers that are busy, by controller", Family::default()),
            at_most: put(
                registry,
                "controller_runtime_max_concurrent_reconciles",
                "Workers that there are, by controller",
                Family::default(),
            ),
            depth: put(
                registry,
                "workqueue_depth",
                "Chats and agents of the database that are due, those that wait for their retry included; objects of this process's mirror that can be taken now",
                Family::default(),
            ),
            adds: put(registry, "workqueue_adds", "Objects that were added to the mirror's queue", Family::default()),
            retries: put(
                registry,
                "workqueue_retries",
                "What failed and is tried again: batches of a lane, objects of the mirror",
                Family::default(),
            ),
            waited: put_seconds(
                registry,
                "workqueue_queue_duration",
                "How long objects of the mirror were in the queue before they were taken",
                QueueTimes::new_with_constructor(seconds),
            ),
            worked: put_seconds(
                registry,
                "workqueue_work_duration",
                "How long what was taken from the queue was in hand",
                QueueTimes::new_with_constructor(seconds),
            ),
            failures: put(
                registry,
                "moorline_reconcile_failures",
                "Transactions of the loop that failed, by controller and kind: conflict, unavailable, poison",
                Family::default(),
            ),
            changed: put(
                registry,
                "moorline_reconcile_changed",
                "Chats that the loop changed in what they show, by controller",
                Family::default(),
            ),
            aside: put(
                registry,
                "moorline_records_set_aside",
                "Records of the database that are due and on which the loop has failed, by controller",
                Family::default(),
            ),
            oldest: put_seconds(
                registry,
                "moorline_queue_oldest",
                "How long the record that has been due for the longest has been seen due, by controller; those that are set aside do not count",
                Family::default(),
            ),
            in_hand,
        };
        for controller in Controller::ALL {
            let of = Of { controller: controller.label() };
            // There from the start: an alert on a counter that appears with its first failure would miss that one.
            drop((it.errors.get_or_create(&of), it.panics.get_or_create(&of), it.active.get_or_create(&of)));
            drop(it.retries.get_or_create(&controller.queue()));
        }
        drop(it.adds.get_or_create(&Controller::Mirror.queue()));
        it
    }
}

impl Metrics {
    /// So many workers of a controller will run.
    pub fn workers(&self, controller: Controller, workers: u32) {
        self.controllers.at_most.get_or_create(&Of { controller: controller.label() }).set(workers.into());
    }

    /// A worker takes something from its queue. What comes of it is told to the guard.
    pub fn take_in_hand(&'static self, controller: Controller) -> InHand {
        self.controllers.active.get_or_create(&Of { controller: controller.label() }).inc();
        InHand { metrics: self, controller, since: Instant::now(), key: self.controllers.in_hand.begin(controller) }
    }

    /// A transaction of a lane failed.
    pub fn reconcile_failed(&self, controller: Controller, kind: &'static str) {
        self.controllers.failures.get_or_create(&OfKind { controller: controller.label(), kind }).inc();
        self.controllers.retries.get_or_create(&controller.queue()).inc();
        self.failed(controller, 1);
    }

    fn failed(&self, controller: Controller, count: u64) {
        let controller = controller.label();
        self.controllers.errors.get_or_create(&Of { controller }).inc_by(count);
        self.controllers.reconciles.get_or_create(&OfResult { controller, result: "error" }).inc_by(count);
    }

    /// How much is in a queue.
    pub fn depth(&self, controller: Controller, depth: i64) {
        self.controllers.depth.get_or_create(&controller.queue()).set(depth);
    }

    /// How many of the records that are due are set aside.
    pub fn set_aside(&self, controller: Controller, records: i64) {
        self.controllers.aside.get_or_create(&Of { controller: controller.label() }).set(records);
    }

    /// How long the record that has been due for the longest has been so.
    pub fn oldest_due(&self, controller: Controller, age: Duration) {
        self.controllers.oldest.get_or_create(&Of { controller: controller.label() }).set(age.as_secs_f64());
    }

    /// An object was added to the mirror's queue.
    pub fn queued(&self) {
        self.controllers.adds.get_or_create(&Controller::Mirror.queue()).inc();
    }

    /// An object was taken from the mirror's queue after waiting so long.
    pub fn dequeued(&self, waited: Duration) {
        self.controllers.waited.get_or_create(&Controller::Mirror.queue()).observe(waited.as_secs_f64());
    }

    /// An object of the mirror is tried again.
    pub fn requeued(&self) {
        self.controllers.retries.get_or_create(&Controller::Mirror.queue()).inc();
    }
}

/// What came of a reconcile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It is done.
    Success,
    /// It is to be looked at again after a while.
    After,
    /// It failed.
    Error,
}

impl Came {
    /// As a label.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::After => "requeue_after",
            Self::Error => "error",
        }
    }
}

/// Something that a worker has in hand. Dropped untold, it has been nothing, unless its worker panics.
#[derive(Debug)]
pub struct InHand {
    metrics: &'static Metrics,
    controller: Controller,
    since: Instant,
    key: u64,
}

impl InHand {
    /// When it was taken.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// A transaction of a lane ended well: of so many records it changed some, and set some aside.
    pub fn batch(self, seen: usize, changed: usize, poisoned: usize) {
        let Self { metrics, controller, .. } = &self;
        let of = OfResult { controller: controller.label(), result: "success" };
        metrics.controllers.reconciles.get_or_create(&of).inc_by(seen.saturating_sub(poisoned) as u64);
        metrics.controllers.changed.get_or_create(&Of { controller: controller.label() }).inc_by(changed as u64);
        if poisoned > 0 {
            metrics.failed(*controller, poisoned as u64);
        }
        self.ended();
    }

    /// One object was looked at.
    pub fn came_to(self, came: Came) {
        let Self { metrics, controller, .. } = &self;
        match came {
            Came::Success | Came::After => {
                let of = OfResult { controller: controller.label(), result: came.word() };
                metrics.controllers.reconciles.get_or_create(&of).inc();
            }
            Came::Error => metrics.failed(*controller, 1),
        }
        self.ended();
    }

    fn ended(&self) {
        let took = self.since.elapsed().as_secs_f64();
        let of = Of { controller: self.controller.label() };
        self.metrics.controllers.seconds.get_or_create(&of).observe(took, exemplar(), None);
        self.metrics.controllers.worked.get_or_create(&self.controller.queue()).observe(took);
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let of = Of { controller: self.controller.label() };
        self.metrics.controllers.in_hand.end(self.controller, self.key);
        self.metrics.controllers.active.get_or_create(&of).dec();
        if std::thread::panicking() {
            self.metrics.controllers.panics.get_or_create(&of).inc();
        }
    }
}

/// What is in hand, and since when: read at each scrape.
#[derive(Debug, Default)]
struct Work(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    next: u64,
    since: HashMap<(Controller, u64), Instant>,
}

impl Work {
    fn begin(&self, controller: Controller) -> u64 {
        let mut begun = self.0.lock().expect("no holder of this lock panics");
        begun.next += 1;
        let key = begun.next;
        begun.since.insert((controller, key), Instant::now());
        key
    }

    fn end(&self, controller: Controller, key: u64) {
        self.0.lock().expect("no holder of this lock panics").since.remove(&(controller, key));
    }

    /// Of each controller, how long what it has in hand has taken, in all and at most, in seconds.
    fn times(&self) -> HashMap<Controller, (f64, f64)> {
        let begun = self.0.lock().expect("no holder of this lock panics");
        let mut times: HashMap<Controller, (f64, f64)> = Controller::ALL.map(|one| (one, (0.0, 0.0))).into();
        for ((controller, _), since) in &begun.since {
            let (sum, longest) = times.entry(*controller).or_default();
            let took = since.elapsed().as_secs_f64();
            (*sum, *longest) = (*sum + took, longest.max(took));
        }
        times
    }
}

impl Collector for Work {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let times = self.times();
        let mut gauge = |name: &str, help: &str, of: fn((f64, f64)) -> f64| -> fmt::Result {
            let mut metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            for controller in Controller::ALL {
                let value = times.get(&controller).copied().map_or(0.0, of);
                ConstGauge::new(value).encode(metric.encode_family(&controller.queue())?)?;
            }
            Ok(())
        };
        gauge("workqueue_unfinished_work", "How long what is in hand has taken, in all", |(sum, _)| sum)?;
        gauge("workqueue_longest_running_processor", "How long what is in hand has taken, at most", |(_, longest)| longest)
    }
}
