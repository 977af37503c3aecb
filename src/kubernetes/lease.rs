//! Who of the replicas writes to the cluster: one Lease, as client-go's `leaderelection` has it.
//!
//! A holder's time is measured from when this process last saw the Lease *change*, by its own monotonic clock: clocks of other
//! machines are never compared. A holder believes that it holds the Lease for `renew-deadline` from the moment that it *sent* its last
//! successful renewal, which is over before another may take it (`lease-duration` from when that one saw it).
//!
//! What it does not: fence. A holder that is stopped for a minute may write once more when it goes on; that no older state then
//! replaces a newer one is the business of `mirror`, whose writes name the version that they are based on. Losing the Lease stops
//! the writing and nothing else.

use crate::{clock::Clock, store::error::full_jitter};
use clap::Args;
use k8s_openapi::{
    api::coordination::v1::{Lease as Object, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::PostParams,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// How the Lease is held.
#[derive(Clone, Debug, Args)]
pub struct LeaseOptions {
    /// The Lease that the writing replica holds.
    #[arg(long, env = "MOORLINE_LEASE_NAME", default_value = "moorline-controller", value_name = "NAME")]
    pub lease_name: String,
    /// Its namespace. Default: that of this process.
    #[arg(long, env = "MOORLINE_LEASE_NAMESPACE", value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// How long the others wait for a holder that is silent, 2 to 3,600 seconds.
    #[arg(long, env = "MOORLINE_LEASE_DURATION", default_value_t = 15, value_parser = clap::value_parser!(u16).range(2..=3_600), value_name = "SECONDS")]
    pub lease_duration: u16,
    /// How long a holder goes on writing without a renewal, 1 to 3,599 seconds; less than the duration.
    #[arg(long, env = "MOORLINE_LEASE_RENEW_DEADLINE", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3_599), value_name = "SECONDS")]
    pub lease_renew_deadline: u16,
    /// How often the Lease is renewed, or looked at, 1 to 3,598 seconds; less than the deadline.
    #[arg(long, env = "MOORLINE_LEASE_RETRY_PERIOD", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=3_598), value_name = "SECONDS")]
    pub lease_retry_period: u16,
}

impl LeaseOptions {
    /// What is wrong with the three times, if anything.
    pub fn fault(&self) -> Option<String> {
        let Self { lease_duration, lease_renew_deadline, lease_retry_period, .. } = self;
        if lease_renew_deadline >= lease_duration {
            return Some(format!(
                "--lease-renew-deadline must be less than --lease-duration ({lease_duration} s), got {lease_renew_deadline} s"
            ));
        }
        (lease_retry_period >= lease_renew_deadline).then(|| {
            format!("--lease-retry-period must be less than --lease-renew-deadline ({lease_renew_deadline} s), got {lease_retry_period} s")
        })
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(self.lease_duration.into())
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(self.lease_renew_deadline.into())
    }

    fn period(&self) -> Duration {
        Duration::from_secs(self.lease_retry_period.into())
    }
}

/// Why the Lease could not be renewed or taken.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("{0}")]
    Cluster(#[from] Box<kube::Error>),
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
}

/// The Lease as it was last seen to change, and when.
#[derive(Clone, Debug)]
struct Observed {
    spec: LeaseSpec,
    at: Instant,
}

/// This replica's part in it.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    api: Api<Object>,
    options: LeaseOptions,
    namespace: String,
    identity: String,
    clock: Clock,
    /// Until when this replica holds it; none when it does not.
    until: Mutex<Option<Instant>>,
    holding: watch::Sender<bool>,
}

impl Lease {
    /// Of a process whose own namespace is this one. Its identity is the machine's name and a number that nobody else has.
    pub fn new(client: Client, options: LeaseOptions, namespace: &str, clock: &Clock) -> Self {
        let namespace = options.lease_namespace.clone().unwrap_or_else(|| namespace.to_owned());
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let identity = format!("{machine}_{}", clock.new_id());
        Self(Arc::new(Inner {
            api: Api::namespaced(client, &namespace),
            options,
            namespace,
            identity,
            clock: clock.clone(),
            until: Mutex::new(None),
            holding: watch::Sender::new(false),
        }))
    }

    /// What this replica is called in the Lease.
    pub fn identity(&self) -> &str {
        &self.0.identity
    }

    /// Whether this replica holds the Lease now.
    pub fn may_write(&self) -> bool {
        self.0.until.lock().expect("no holder of this lock panics").is_some_and(|until| Instant::now() < until)
    }

    /// To wait until that changes. What is read here may be out of date; [`Lease::may_write`] is not.
    pub fn holding(&self) -> watch::Receiver<bool> {
        self.0.holding.subscribe()
    }

    /// Tries to hold the Lease until `stop`, then lets it go, so that another may take it at once.
    pub async fn run(self, stop: CancellationToken) {
        let mut observed: Option<Observed> = None;
        let mut failures = 0;
        loop {
            let sent = Instant::now();
            // A renewal that takes longer than the period leaves time for another within the deadline.
            let attempt = self.attempt(&mut observed);
            let result = tokio::select! {
                () = stop.cancelled() => break,
                result = timeout(self.0.options.deadline() / 2, attempt) => {
                    result.unwrap_or(Err(LeaseError::Slow(self.0.options.deadline() / 2)))
                }
            };
            match result {
                Ok(held) => {
                    failures = 0;
                    self.note(held.then(|| sent + self.0.options.deadline()), observed.as_ref());
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, lease = self.0.options.lease_name, "the Lease could not be looked at; it is tried again");
                    }
                    failures += 1;
                    if !self.may_write() {
                        self.note(None, observed.as_ref());
                    }
                }
            }
            // Jittered, so that replicas do not all look at one moment.
            let pause = self.0.options.period().mul_f64(0.8) + full_jitter(self.0.options.period().mul_f64(0.4), Duration::MAX, 0, self.0.clock.random());
            tokio::select! { () = stop.cancelled() => break, () = sleep(pause) => {} }
        }
        let held = self.may_write();
        self.note(None, observed.as_ref());
        if held && timeout(RELEASE, self.release()).await.is_err() {
            tracing::warn!("the Lease could not be let go in time; another replica takes it when its time is over");
        }
    }

    /// Notes whether it is held, and says so when that changed.
    fn note(&self, until: Option<Instant>, observed: Option<&Observed>) {
        *self.0.until.lock().expect("no holder of this lock panics") = until;
        let holds = until.is_some();
        crate::metrics::METRICS.lease_held(holds);
        self.0.holding.send_if_modified(|held| {
            if *held == holds {
                return false;
            }
            *held = holds;
            let holder = observed.and_then(|observed| observed.spec.holder_identity.clone()).unwrap_or_default();
            let (lease, namespace) = (&self.0.options.lease_name, &self.0.namespace);
            if holds {
                tracing::info!(lease, namespace, identity = self.0.identity, "holds the Lease: writes to the cluster");
            } else {
                tracing::info!(lease, namespace, holder, "does not hold the Lease any more: writes nothing to the cluster");
            }
            true
        });
    }

    /// Renews the Lease, or takes it when nobody holds it. Answers whether this replica holds it now.
    async fn attempt(&self, observed: &mut Option<Observed>) -> Result<bool, LeaseError> {
        let name = &self.0.options.lease_name;
        let Some(mut there) = self.0.api.get_opt(name).await.map_err(Box::new)? else {
            let spec = self.spec(None);
            let meta = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
            return self.written(observed, self.0.api.create(&PostParams::default(), &Object { metadata: meta, spec: Some(spec) }).await);
        };
        let spec = there.spec.clone().unwrap_or_default();
        if observed.as_ref().is_none_or(|observed| observed.spec != spec) {
            *observed = Some(Observed { spec: spec.clone(), at: Instant::now() });
        }
        let ours = spec.holder_identity.as_deref() == Some(self.identity());
        let free = spec.holder_identity.as_deref().is_none_or(str::is_empty);
        let told = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let patience = told.unwrap_or_else(|| self.0.options.duration());
        let expired = observed.as_ref().is_some_and(|observed| observed.at.elapsed() > patience);
        if !ours && !free && !expired {
            return Ok(false);
        }
        there.spec = Some(self.spec(Some(&spec)));
        // It carries the version that was read: of two who try, one succeeds.
        self.written(observed, self.0.api.replace(name, &PostParams::default(), &there).await)
    }

    fn written(&self, observed: &mut Option<Observed>, result: kube::Result<Object>) -> Result<bool, LeaseError> {
        match result {
            Ok(object) => {
                *observed = Some(Observed { spec: object.spec.unwrap_or_default(), at: Instant::now() });
                Ok(true)
            }
            // Another one came first.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(Box::new(error).into()),
        }
    }

    /// The Lease with this replica as its holder.
    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(self.0.clock.now());
        let renewed = old.filter(|old| old.holder_identity.as_deref() == Some(self.identity()));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity().to_owned()),
            lease_duration_seconds: Some(self.0.options.lease_duration.into()),
            acquire_time: renewed.and_then(|old| old.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if renewed.is_some() || old.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..old.cloned().unwrap_or_default()
        }
    }

    /// Lets the Lease go, if it is still ours.
    async fn release(&self) {
        let name = &self.0.options.lease_name;
        let Ok(Some(mut there)) = self.0.api.get_opt(name).await else { return };
        let Some(spec) = there.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(self.identity())) else { return };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(self.0.clock.now()));
        if let Err(error) = self.0.api.replace(name, &PostParams::default(), &there).await {
            tracing::debug!(%error, "the Lease could not be let go");
        }
    }
}

/// How long letting the Lease go may take at shutdown.
const RELEASE: Duration = Duration::from_secs(3);
