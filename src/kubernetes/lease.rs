//! Who of the replicas writes to the cluster: whoever holds a `coordination.k8s.io/v1` Lease, as client-go does it.
//!
//! What is correctness here: every write names the version that was read, so two can never both win; a holder considers itself
//! one until `until`, the *start* of its last renewal and the renew deadline, and the others wait for the lease duration from the
//! moment that they *saw* that renewal (`record`), which is later and longer. So it stops before another begins. A call that hangs
//! is given up in time for another on a new connection; a write that was given up and arrives later is one of an older version,
//! or makes the others wait longer.
//!
//! What it does not: stop anything. Losing the lease changes [`Lease::holding`], and that is all. A write that is on its way when
//! the lease is lost may arrive after another's: whoever writes makes sure that an older state cannot replace a newer one. Nor does
//! it see time in which the whole machine is suspended: a monotonic clock does not count it.

pub mod options;
pub mod record;

pub use options::LeaseOptions;

use crate::{clock::Clock, metrics::METRICS};
use k8s_openapi::api::coordination::v1::Lease as Object;
use kube::{Api, Client, api::PostParams};
use record::{Seen, Whose};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A pause of one who waits is longer than the retry period by up to so much of it, so that not all look at once.
const JITTER: f64 = 1.2;
/// How long letting go may take.
const RELEASE: Duration = Duration::from_secs(3);

/// Whether this replica holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// It does not.
    Standby,
    /// It does, and may write.
    Holder {
        /// `leaseTransitions`: no two holders have the same while the Lease is not deleted.
        term: u64,
        /// It may write until then, and is to have renewed before.
        until: Instant,
    },
}

impl Holding {
    /// Whether the holder may write at this moment.
    pub fn may_write(&self) -> bool {
        match self {
            Self::Standby => false,
            Self::Holder { until, .. } => Instant::now() < *until,
        }
    }

    fn term(self) -> Option<u64> {
        match self {
            Self::Standby => None,
            Self::Holder { term, .. } => Some(term),
        }
    }
}

/// The lease of this replica, held or not. Clones are of the same.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    api: Api<Object>,
    options: LeaseOptions,
    identity: String,
    clock: Clock,
    holding: watch::Sender<Holding>,
    /// The Lease as it was seen last: its uid and version.
    known: Mutex<Option<(String, u64)>>,
    /// How often the cluster turned out to be another one than before.
    histories: watch::Sender<u64>,
}

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    #[error("no answer within {0:?}")]
    Silence(Duration),
}

/// What a look came to.
enum Look {
    Ours {
        seen: Seen,
        until: Instant,
    },
    Theirs {
        seen: Seen,
        holder: String,
    },
    /// Somebody wrote it at the same time.
    Raced,
}

impl Lease {
    /// One that is not held. Nothing is asked of the cluster yet. `namespace` counts when the options name none.
    pub fn new(client: Client, options: LeaseOptions, namespace: &str, clock: &Clock) -> Self {
        let api = Api::namespaced(client, options.lease_namespace.as_deref().unwrap_or(namespace));
        let uname = rustix::system::uname();
        // Not the host alone: one that is restarted must not take itself for the holder that it was.
        let identity = format!("{}_{}", uname.nodename().to_string_lossy(), clock.new_id());
        Self(Arc::new(Inner {
            api,
            options,
            identity,
            clock: clock.clone(),
            holding: watch::Sender::new(Holding::Standby),
            known: Mutex::new(None),
            histories: watch::Sender::new(0),
        }))
    }

    /// Whether this replica may write to the cluster at this moment.
    pub fn may_write(&self) -> bool {
        self.0.holding.borrow().may_write()
    }

    /// Tells of a change: gained or lost, or another term; not of renewals, though the value that it borrows has them.
    pub fn holding(&self) -> watch::Receiver<Holding> {
        self.0.holding.subscribe()
    }

    /// Tells when the cluster is another one than it was: its data were lost, or restored from an earlier day. A watch does not say
    /// so: it waits for versions that are long in coming. The Lease does, which every replica looks at all the time: it is another
    /// object, or its version, which only grows, went back.
    pub fn histories(&self) -> watch::Receiver<u64> {
        self.0.histories.subscribe()
    }

    fn note_history(&self, lease: &Object) {
        let version = lease.metadata.resource_version.as_deref().and_then(|version| version.parse().ok());
        let (Some(uid), Some(version)) = (lease.metadata.uid.clone(), version) else { return };
        let mut known = self.0.known.lock().expect("no holder of this lock panics");
        let is_another = known.as_ref().is_some_and(|(known_uid, known)| *known_uid != uid || version < *known);
        *known = Some((uid, version));
        drop(known);
        if is_another {
            tracing::warn!(
                "the cluster is not the one that it was: its data were lost or restored; everything is listed and compared again"
            );
            self.0.histories.send_modify(|histories| *histories += 1);
        }
    }

    /// How the Lease names this replica: its host and an id of this process.
    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    /// Looks for the lease and keeps it until `stop`; then lets it go. Whoever writes should have ended before `stop`: the next
    /// holder may begin at once. One run at a time.
    pub async fn run(self, stop: CancellationToken) {
        let mut seen = None;
        let mut told = Told::default();
        loop {
            let pause = tokio::select! {
                () = stop.cancelled() => break,
                pause = self.turn(&mut seen, &mut told) => pause,
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = sleep(pause) => {}
            }
        }
        self.become_now(Holding::Standby, "stopping");
        match timeout(RELEASE, self.release()).await {
            Ok(Ok(true)) => tracing::info!("let the lease go"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                let error = crate::telemetry::reasons(&error);
                tracing::warn!(error, "the lease could not be let go; the next holder waits until it expires");
            }
            Err(_) => tracing::warn!("letting the lease go took too long; the next holder waits until it expires"),
        }
    }

    /// One look, and what follows from it. Gives how long to wait for the next.
    async fn turn(&self, seen: &mut Option<Seen>, told: &mut Told) -> Duration {
        self.expire();
        let look = match self.held() {
            // Not longer than it is the holder: then it is none, whatever hangs.
            Some((_, until)) => match timeout_at(until, self.look(seen, true)).await {
                Ok(look) => look,
                Err(_) => Err(LookError::Silence(self.0.options.lease_renew_deadline)),
            },
            None => self.look(seen, false).await,
        };
        let period = self.0.options.lease_retry_period;
        match look {
            Ok(Look::Ours { seen: now, until }) => {
                let term = now.term();
                *seen = Some(now);
                told.well();
                self.become_now(Holding::Holder { term, until }, "renewed");
                return period;
            }
            Ok(Look::Theirs { seen: now, holder }) => {
                *seen = Some(now);
                told.well();
                self.become_now(Holding::Standby, "another replica has it");
                told.holder(holder);
            }
            Ok(Look::Raced) => {}
            Err(error) => told.failed(&error),
        }
        // Still the holder, for a while: what failed is tried again soon.
        self.expire();
        match self.held() {
            Some((_, until)) => period.min(until.saturating_duration_since(Instant::now())),
            None => period.mul_f64(1.0 + JITTER * self.0.clock.random()),
        }
    }

    /// Renews it, takes it, or sees whose it is.
    async fn look(&self, last: &mut Option<Seen>, held: bool) -> Result<Look, LookError> {
        let Inner { api, options, identity, .. } = &*self.0;
        // As the holder, without reading first. It fails when anybody has written since, and then it is read.
        if held
            && let Some(seen) = &*last
            && let Some(ours) = self.write(seen).await?
        {
            return Ok(ours);
        }
        let Some(found) = self.call(api.get_opt(&options.lease_name)).await? else {
            let terms = last.as_ref().map_or(0, |last| last.term() + 1);
            return Ok(self.create(terms).await?.unwrap_or(Look::Raced));
        };
        self.note_history(&found);
        let now = Instant::now();
        let seen = match last.take() {
            Some(last) => last.again(found, now),
            None => Seen::first(found, now),
        };
        // Kept also when what follows fails: the time since it has been like that counts.
        *last = Some(seen.clone());
        match seen.whose(identity, options.lease_duration, now) {
            Whose::Ours | Whose::Free => Ok(self.write(&seen).await?.unwrap_or(Look::Raced)),
            Whose::Theirs(holder) => Ok(Look::Theirs { seen, holder }),
        }
    }

    /// Writes that it is ours, on top of what was seen. None when somebody else has written since.
    async fn write(&self, seen: &Seen) -> Result<Option<Look>, LookError> {
        let Inner { api, options, identity, clock, .. } = &*self.0;
        let lease = record::renewed(&seen.lease, identity, options.lease_duration, clock.now());
        match self.won(api.replace(&options.lease_name, &PostParams::default(), &lease)).await {
            // Deleted by somebody else. Of one that cannot be made it says that its namespace is not there.
            Err(LookError::Cluster(kube::Error::Api(status))) if status.is_not_found() => Ok(None),
            written => written,
        }
    }

    /// Makes it, and it is ours. None when somebody else has made it.
    async fn create(&self, term: u64) -> Result<Option<Look>, LookError> {
        let Inner { api, options, identity, clock, .. } = &*self.0;
        let lease = record::created(&options.lease_name, term, identity, options.lease_duration, clock.now());
        self.won(api.create(&PostParams::default(), &lease)).await
    }

    /// What a write came to.
    async fn won(&self, write: impl Future<Output = kube::Result<Object>>) -> Result<Option<Look>, LookError> {
        let until = Instant::now() + self.0.options.lease_renew_deadline;
        match self.call(write).await {
            Ok(lease) => {
                self.note_history(&lease);
                Ok(Some(Look::Ours { seen: Seen::first(lease, Instant::now()), until }))
            }
            // Changed or made by somebody else.
            Err(LookError::Cluster(kube::Error::Api(status))) if status.is_conflict() || status.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, LookError> {
        let limit = self.0.options.call();
        Ok(timeout(limit, call).await.map_err(|_| LookError::Silence(limit))??)
    }

    /// Lets it go if it is ours, also by a renewal that was on its way. False when it is not.
    async fn release(&self) -> Result<bool, LookError> {
        let Inner { api, options, identity, clock, .. } = &*self.0;
        loop {
            let Some(found) = self.call(api.get_opt(&options.lease_name)).await? else { return Ok(false) };
            if found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) != Some(identity) {
                return Ok(false);
            }
            let released = record::released(found, clock.now());
            match self.call(api.replace(&options.lease_name, &PostParams::default(), &released)).await {
                Ok(_) => return Ok(true),
                Err(LookError::Cluster(kube::Error::Api(status))) if status.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// A holder that may not write any more is none.
    fn expire(&self) {
        if self.held().is_some_and(|(_, until)| until <= Instant::now()) {
            self.become_now(Holding::Standby, "it was not renewed in time");
        }
    }

    fn held(&self) -> Option<(u64, Instant)> {
        match *self.0.holding.borrow() {
            Holding::Standby => None,
            Holding::Holder { term, until } => Some((term, until)),
        }
    }

    /// Says so, and tells whoever waits for it when it is another than before.
    fn become_now(&self, next: Holding, why: &'static str) {
        let before = *self.0.holding.borrow();
        let changed = self.0.holding.send_if_modified(|holding| {
            let changed = holding.term() != next.term();
            *holding = next;
            changed
        });
        if !changed {
            return;
        }
        let holds = next.term().is_some();
        let (name, identity) = (&self.0.options.lease_name, &self.0.identity);
        METRICS.lease_held(name, holds, before.term().is_some() != holds);
        match next {
            Holding::Holder { term, .. } => tracing::info!(lease = name, identity, term, "this replica writes to the cluster"),
            Holding::Standby => {
                tracing::info!(lease = name, identity, why, "this replica does not write to the cluster any more");
            }
        }
    }
}

/// What was said already, so that it is said once.
#[derive(Default)]
struct Told {
    failing: bool,
    holder: Option<String>,
}

impl Told {
    fn well(&mut self) {
        if self.failing {
            tracing::info!("the lease can be looked at again");
        }
        self.failing = false;
    }

    fn failed(&mut self, error: &LookError) {
        if !self.failing {
            tracing::warn!(error = crate::telemetry::reasons(error), "the lease could not be looked at; it is tried again");
        }
        self.failing = true;
    }

    fn holder(&mut self, holder: String) {
        if self.holder.as_ref() != Some(&holder) {
            tracing::info!(holder, "another replica writes to the cluster");
            self.holder = Some(holder);
        }
    }
}
