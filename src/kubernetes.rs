//! The optional front: manifests of a cluster in, status out. PostgreSQL stays the truth; everything here is a level that is
//! compared, never an edge that can be missed.
//!
//! * [`connect`]: whether there is a cluster, and how it is spoken to.
//! * [`schema`]: whether the cluster's definitions of our kinds fit this binary, and which verbs we lack.
//! * [`lease`]: who of the replicas writes to the cluster.
//! * [`ingest`]: what manifests say becomes desired columns, by every replica.
//! * [`mirror`]: what PostgreSQL holds becomes status and objects, by the holder.
//! * [`watching`]: what the cluster tells is handed on; [`again`]: what could not be taken over is read once more.
//! * [`follow`]: what the log of PostgreSQL tells of is looked at; everything is, when it has to be.
//! * [`events`]: what happened is told as Events, by the holder.
//! * [`strip`]: what was put on objects is taken off again, when Moorline leaves.
//!
//! What it does not: decide (the loop does, from PostgreSQL), or hold up the API and the loop: a cluster that is away for
//! as long as it likes costs them nothing.

pub mod again;
pub mod apply;
pub mod bucket;
pub mod connect;
pub mod events;
pub mod follow;
pub mod ingest;
pub mod kind;
pub mod lease;
pub mod mirror;
pub mod owned;
pub mod queue;
pub mod schema;
pub mod seen;
pub mod shown;
pub mod strip;
pub mod turns;
pub mod wanted;
pub mod watching;

use crate::liveness::Liveness;
use crate::{clock::Clock, http::tail::Tail, metrics::METRICS, trace::Story, wake::Wake};
use bucket::Bucket;
use clap::{Args, ValueEnum};
use connect::Cluster;
use kind::Id;
use kube::Client;
use lease::Lease;
use queue::Queue;
use seen::Seen;
use sqlx::PgPool;
use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use turns::Turns;

/// How long what is being written may take at shutdown, before the Lease is let go.
const GRACE: Duration = Duration::from_secs(2);

/// What the cluster is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mirror {
    /// Nothing: manifests are taken over, and their status stays empty.
    Off,
    /// The status of manifests, and the snapshots of agents that were made from manifests.
    Manifests,
    /// Records that were made through the API too, and all snapshots, as objects of the cluster.
    All,
}

/// How the front behaves.
#[derive(Clone, Debug, Args)]
pub struct FrontOptions {
    /// Where the cluster is.
    #[command(flatten)]
    pub connect: connect::ConnectOptions,
    /// Who of the replicas writes to it.
    #[command(flatten)]
    pub lease: lease::LeaseOptions,
    /// The namespaces whose manifests count, separated by commas; none means every one.
    #[arg(long, env = "MOORLINE_WATCH_NAMESPACES", value_delimiter = ',', value_name = "NAMESPACE,…")]
    pub watch_namespaces: Vec<String>,
    /// What the cluster is to show: nothing, the status of manifests, or all records.
    #[arg(long, env = "MOORLINE_MIRROR", value_enum, default_value = "manifests")]
    pub mirror: Mirror,
    /// Requests a second that write to the cluster, on average, 1 to 10,000.
    #[arg(long, env = "MOORLINE_MIRROR_QPS", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub mirror_qps: u32,
    /// Requests that write to the cluster at once after a pause, 1 to 10,000.
    #[arg(long, env = "MOORLINE_MIRROR_BURST", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    pub mirror_burst: u32,
    /// How long the deletion of a manifest waits for a database that is away; then the object goes and the record stays. 1s to 7d.
    #[arg(long, env = "MOORLINE_FINALIZER_TIMEOUT", default_value = "10m", value_parser = finalizer_timeout, value_name = "TIME")]
    pub finalizer_timeout: Duration,
}

fn finalizer_timeout(text: &str) -> Result<Duration, String> {
    crate::config::duration(text, Duration::from_secs(1), Duration::from_hours(7 * 24))
}

/// What the tasks of the front share.
#[derive(Clone)]
pub struct Shared(Arc<Inner>);

/// See [`Shared`].
pub struct Inner {
    options: FrontOptions,
    client: Client,
    pool: PgPool,
    clock: Clock,
    wake: Wake,
    tail: Tail,
    lease: Lease,
    seen: Seen,
    /// Objects that the mirror has to look at.
    queue: Queue,
    /// Manifests that have to be read again.
    again: Queue,
    /// Who looks at an object takes it over, or lets its record go, one at a time.
    turns: Turns,
    bucket: Bucket,
    waited: Mutex<HashSet<Id>>,
    /// Namespaces that the cluster does not have, and when they are asked for again.
    absent: Mutex<HashMap<String, Instant>>,
    /// Because of what objects in the queue are looked at, while a collector is told of it.
    stories: Mutex<HashMap<Id, Story>>,
    happened: mpsc::Sender<events::Happened>,
    /// Which lists of the cluster's present history have ended.
    listed: watch::Sender<Listed>,
    liveness: Liveness,
}

impl Deref for Shared {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Inner {
    /// Whether this replica may write to the cluster.
    pub fn may_write(&self) -> bool {
        self.lease.may_write()
    }

    /// The namespaces that are watched: one watch for all, or one for each.
    fn scopes(&self) -> Vec<Option<String>> {
        match self.options.watch_namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().cloned().map(Some).collect(),
        }
    }

    /// Whether objects of this namespace are any of our business.
    fn watches(&self, namespace: &str) -> bool {
        self.options.watch_namespaces.is_empty() || self.options.watch_namespaces.iter().any(|one| one == namespace)
    }
}

/// Which watches have listed what there is, in one history of the cluster.
#[derive(Clone, Debug, Default)]
struct Listed {
    history: u64,
    watches: HashSet<String>,
    /// Those whose list the cluster has refused: nobody waits for them.
    refused: HashSet<String>,
    /// How many of those have listed all the same, later.
    late: u64,
}

impl Listed {
    /// Of this history. What belongs to an earlier one is forgotten; what comes from one, not heard.
    fn of(&mut self, history: u64) -> Option<&mut Self> {
        if self.history < history {
            *self = Self { history, late: self.late, ..Self::default() };
        }
        (self.history == history).then_some(self)
    }

    /// A watch has listed.
    fn has(&mut self, watch: &str) {
        self.late += u64::from(self.refused.remove(watch));
        self.watches.insert(watch.to_owned());
    }

    /// The cluster has refused a watch its list.
    fn has_refused(&mut self, watch: &str) {
        if !self.watches.contains(watch) {
            self.refused.insert(watch.to_owned());
        }
    }

    /// Whether nobody has to be waited for, of so many watches.
    fn is_whole(&self, all: usize) -> bool {
        !self.watches.is_empty() && self.watches.len() + self.refused.len() >= all
    }
}

/// The front, about to run.
pub struct Front {
    /// How it behaves.
    pub options: FrontOptions,
    /// The connections to the database.
    pub pool: PgPool,
    /// Time and randomness.
    pub clock: Clock,
    /// The wake-ups of this process.
    pub wake: Wake,
    /// The tail of the log of this process. Somebody else runs it.
    pub tail: Tail,
    /// How `/livez` knows.
    pub liveness: Liveness,
}

impl Front {
    /// Runs until `stop`: waits for definitions that fit, then watches, takes over and mirrors.
    pub async fn run(self, cluster: Cluster, stop: CancellationToken) {
        let Self { mut options, pool, clock, wake, tail, liveness } = self;
        // As they come from a variable that is set and empty, or from two places.
        options.watch_namespaces.retain(|namespace| !namespace.is_empty());
        options.watch_namespaces.sort_unstable();
        options.watch_namespaces.dedup();
        let client = cluster.client.clone();
        METRICS.front_begins(&liveness);
        if !schema::wait(&cluster, &options, &clock, &stop).await {
            return;
        }
        let lease = Lease::new(client.clone(), options.lease.clone(), &cluster.namespace, &clock);
        METRICS.lease_held(&options.lease.lease_name, false, false);
        let (happened, happenings) = mpsc::channel(events::ROOM);
        let shared = Shared(Arc::new(Inner {
            bucket: Bucket::new(options.mirror_qps, options.mirror_burst),
            options,
            client,
            pool,
            clock,
            wake,
            tail,
            lease: lease.clone(),
            seen: Seen::default(),
            queue: Queue::of_the_mirror(),
            again: Queue::default(),
            turns: Turns::default(),
            waited: Mutex::default(),
            absent: Mutex::default(),
            stories: Mutex::default(),
            happened,
            listed: watch::Sender::new(Listed::default()),
            liveness,
        }));
        let tasks = TaskTracker::new();
        // Let go only when nothing writes any more: another replica may begin at once.
        let written = CancellationToken::new();
        let holding = tokio::spawn(lease.run(written.clone()));
        for kind in kind::Kind::ALL {
            for namespace in shared.scopes() {
                tasks.spawn(shared.clone().watch(kind, namespace, cluster.clone(), stop.clone()));
            }
        }
        tasks.spawn(shared.clone().try_again(stop.clone()));
        tasks.spawn(shared.clone().mirror(stop.clone()));
        tasks.spawn(shared.clone().follow(stop.clone()));
        tasks.spawn(shared.clone().tell_events(happenings, stop.clone()));
        tasks.close();
        stop.cancelled().await;
        tokio::time::timeout(GRACE, tasks.wait()).await.ok();
        written.cancel();
        holding.await.ok();
    }
}
