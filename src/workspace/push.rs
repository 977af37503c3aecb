//! Takes the newest report to the server, and keeps at it until the server has taken it.
//!
//! What makes it correct:
//! * One request at a time. A report that was overtaken while waiting is never sent.
//! * A sequence number belongs to one content. The retry of a lost reply repeats both, and the server gives the same
//!   answer again; other content gets a new number, so that a request still under way can only arrive too late (`ledger`).
//! * What the server holds is known only after an answer, so nothing is left out because of a guess (`ledger`).
//! * A new run always pushes: registering set the agent's phase to `Pending`.
//!
//! What it does not: decide what a refusal means (`verdict` does, and knows no clock and no network), look at the
//! workspace, or remember anything across processes.

pub mod client;
pub mod ledger;
pub mod verdict;

pub use self::client::{ApiClient, CallError, ClientError};
use self::{
    client::Refusal,
    ledger::Ledger,
    verdict::{Step, Verdict, pause, verdict},
};
use super::{AgentSpec, Report};
use crate::{
    clock::Clock,
    telemetry::reasons,
    v1alpha1::push::{PushRequest, PushResponse, ResourceReport, RunResponse, SnapshotRef},
};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::watch::Receiver,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// A report that was taken. Shown as a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How many resources it held.
    pub resources: usize,
    /// Whether the agent's latest snapshot is another one now.
    pub changed: bool,
    /// The agent's latest snapshot, if it has one.
    pub snapshot: Option<SnapshotRef>,
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resources, changed, snapshot } = self;
        let plural = if *resources == 1 { "" } else { "s" };
        write!(f, "pushed {resources} resource{plural}")?;
        match snapshot {
            Some(SnapshotRef { name, hash: _, revision }) => {
                write!(f, " as {name} (revision {revision}, {})", if *changed { "changed" } else { "unchanged" })
            }
            None => write!(f, " (no snapshot yet)"),
        }
    }
}

/// Why delivering ended for good.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// A newer process reports for this agent.
    #[error("another process has taken over agent {agent}: {message} Stop one of the two, or give them different names.")]
    Superseded {
        /// The agent, with its namespace.
        agent: String,
        /// What the server said.
        message: String,
    },
    /// The server will not take it, and asking again will not change that.
    #[error("{0}")]
    Refused(String),
    /// Out of patience.
    #[error("gave up after {} s: {last}", patience.as_secs())]
    GaveUp {
        /// How long it was tried.
        patience: Duration,
        /// What went wrong last.
        last: String,
    },
    /// Nobody scans any more.
    #[error("no more reports will come")]
    NoMoreReports,
}

/// A step that did not succeed.
#[derive(Debug)]
struct Failure {
    step: Step,
    error: CallError,
}

/// Carries the newest of `reports` to the server.
pub struct Courier {
    client: ApiClient,
    create: Option<AgentSpec>,
    clock: Clock,
    reports: Receiver<Arc<Report>>,
    run: Option<RunResponse>,
    ledger: Ledger,
    failures: u32,
    /// The last complaint, so that each is made once.
    said: Option<String>,
}

impl Courier {
    /// A courier of `reports`; it registers a run at its first delivery.
    pub fn new(client: ApiClient, create: Option<AgentSpec>, clock: Clock, reports: Receiver<Arc<Report>>) -> Self {
        Self { client, create, clock, reports, run: None, ledger: Ledger::default(), failures: 0, said: None }
    }

    /// Delivers every newest report until `shutdown`. Network errors and refusals that may pass are retried for ever.
    pub async fn deliver(mut self, shutdown: CancellationToken) -> Result<(), DeliveryError> {
        loop {
            let report = self.reports.borrow_and_update().clone();
            let digest = report.digest();
            if !self.ledger.wants(digest) {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    more = self.reports.changed() => more.map_err(|_| DeliveryError::NoMoreReports)?,
                }
                continue;
            }
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                attempt = self.attempt(&report) => attempt,
            };
            let Err(failure) = attempt.map(|delivery| self.delivered(&delivery)) else { continue };
            let verdict = self.judge(&failure);
            self.complain(&failure, verdict);
            match verdict {
                Verdict::Superseded => return Err(self.superseded(failure)),
                Verdict::Rejected => self.ledger.rejected(digest),
                Verdict::Again { .. } | Verdict::NewRun | Verdict::Later => {
                    let pause = pause(verdict, self.failures, self.clock.random());
                    self.failures = self.failures.saturating_add(1);
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Delivers one report; none when told to stop before. What only a person can change is an error at once.
    pub async fn deliver_once(
        mut self,
        patience: Duration,
        shutdown: CancellationToken,
    ) -> Result<Option<Delivery>, DeliveryError> {
        let deadline = Instant::now() + patience;
        let report = self.reports.borrow_and_update().clone();
        loop {
            let attempt = tokio::select! {
                () = shutdown.cancelled() => return Ok(None),
                attempt = timeout_at(deadline, self.attempt(&report)) => attempt,
            };
            let failure = match attempt {
                Ok(Ok(delivery)) => return Ok(Some(delivery)),
                Ok(Err(failure)) => failure,
                Err(_elapsed) => {
                    let last = self.said.unwrap_or_else(|| "the server did not answer".into());
                    return Err(DeliveryError::GaveUp { patience, last });
                }
            };
            let verdict = self.judge(&failure);
            self.complain(&failure, verdict);
            match verdict {
                Verdict::Superseded => return Err(self.superseded(failure)),
                Verdict::Rejected | Verdict::Later => return Err(DeliveryError::Refused(self.in_words(&failure))),
                Verdict::Again { .. } | Verdict::NewRun => {
                    let next = Instant::now() + pause(verdict, self.failures, self.clock.random());
                    self.failures = self.failures.saturating_add(1);
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(None),
                        () = sleep_until(next.min(deadline)) => {}
                    }
                }
            }
        }
    }

    /// One push, after registering a run if there is none.
    async fn attempt(&mut self, report: &Report) -> Result<Delivery, Failure> {
        let run = match self.run.take() {
            Some(run) => run,
            None => self.register().await?,
        };
        let digest = report.digest();
        let request = to_wire(&run, self.ledger.send(digest), report);
        self.run = Some(run);
        match self.client.push(&request).await {
            Ok(PushResponse { api_version: _, kind: _, accepted: _, changed, snapshot }) => {
                self.ledger.accepted(digest);
                Ok(Delivery { resources: report.resources.len(), changed, snapshot })
            }
            Err(error) => {
                if error.changed_nothing() {
                    self.ledger.changed_nothing();
                }
                Err(Failure { step: Step::Push, error })
            }
        }
    }

    async fn register(&mut self) -> Result<RunResponse, Failure> {
        self.forget_run();
        let run = match (self.client.register().await, &self.create) {
            (Err(error), Some(spec)) if error.code() == Some(404) => {
                match self.client.create_agent(spec).await {
                    Ok(()) => tracing::info!("created agent {}", self.client.agent()),
                    Err(error) if error.code() == Some(409) => {} // somebody else was quicker
                    Err(error) => return Err(Failure { step: Step::Create, error }),
                }
                self.client.register().await
            }
            (answer, _) => answer,
        };
        run.map_err(|error| Failure { step: Step::Register, error })
    }

    fn forget_run(&mut self) {
        self.run = None;
        self.ledger.new_run();
    }

    fn judge(&mut self, failure: &Failure) -> Verdict {
        let verdict = verdict(failure.step, &failure.error, self.create.is_some());
        if verdict == Verdict::NewRun {
            self.forget_run();
        }
        verdict
    }

    fn delivered(&mut self, delivery: &Delivery) {
        if self.said.take().is_some() {
            tracing::info!("pushing works again");
        }
        self.failures = 0;
        tracing::info!("{delivery}");
    }

    /// Says what is wrong, once.
    fn complain(&mut self, failure: &Failure, verdict: Verdict) {
        let message = self.in_words(failure);
        if self.said.as_ref() == Some(&message) {
            return;
        }
        match verdict {
            Verdict::Again { .. } | Verdict::NewRun => tracing::warn!("trying again: {message}"),
            Verdict::Later => tracing::error!("trying again every half minute: {message}"),
            Verdict::Rejected => tracing::error!("waiting for the workspace to change: {message}"),
            Verdict::Superseded => {} // the error that ends the run says it
        }
        self.said = Some(message);
    }

    fn in_words(&self, Failure { step, error }: &Failure) -> String {
        let agent = self.client.agent();
        let doing = match step {
            Step::Register => format!("registering a run of agent {agent}"),
            Step::Create => format!("creating agent {agent}"),
            Step::Push => format!("pushing the context of agent {agent}"),
        };
        let hint = match (step, error.code(), &self.create) {
            (Step::Register, Some(404), None) => " Create the Agent, or allow this one to with --create=true.",
            (_, Some(401), _) => " Give a valid token with --token-file.",
            (Step::Create, Some(403), _) => " Let an administrator create the Agent, or use a token that may.",
            (Step::Push | Step::Register, Some(403), _) if !error.has_cause("Suspended") => {
                " The token's user must be the agent's spec.serviceAccountName."
            }
            _ => "",
        };
        format!("{doing}: {}{hint}", reasons(error))
    }

    fn superseded(&self, failure: Failure) -> DeliveryError {
        let agent = self.client.agent();
        let message = match failure.error {
            CallError::Refused(refusal) => {
                let Refusal { message, .. } = *refusal;
                if message.ends_with('.') { message } else { format!("{message}.") }
            }
            CallError::Token { .. } | CallError::Lost(_) | CallError::Answer(_) => "the run is stale.".into(),
        };
        DeliveryError::Superseded { agent, message }
    }
}

fn to_wire(run: &RunResponse, seq: i64, Report { phase, error, resources }: &Report) -> PushRequest {
    PushRequest {
        api_version: None,
        kind: None,
        run_id: run.run_id.to_string(),
        epoch: run.epoch,
        seq,
        phase: phase.to_string(),
        error: error.clone(),
        resources: Some(resources.iter().map(ResourceReport::from).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, model::push::Phase};
    use tokio::sync::watch::channel;

    fn courier() -> Courier {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = ApiClient::new("http://127.0.0.1:1", "default", "ws", None).unwrap();
        let report = Report { phase: Phase::Complete, error: String::new(), resources: Vec::new() };
        Courier::new(client, None, clock::system(), channel(Arc::new(report)).1)
    }

    #[test]
    fn a_delivery_reads_as_a_sentence() {
        let snapshot = SnapshotRef { name: "ws-42-3f9c1b2a77d0".into(), hash: String::new(), revision: 3 };
        let delivery = Delivery { resources: 5, changed: true, snapshot: Some(snapshot) };
        assert_eq!(delivery.to_string(), "pushed 5 resources as ws-42-3f9c1b2a77d0 (revision 3, changed)");
        assert_eq!(Delivery { resources: 1, changed: false, snapshot: None }.to_string(), "pushed 1 resource (no snapshot yet)");
    }

    #[tokio::test]
    async fn once_gives_up_when_nobody_answers() {
        let begun = Instant::now();
        let error = courier().deliver_once(Duration::from_millis(300), CancellationToken::new()).await.unwrap_err();
        assert!((300..20_000).contains(&begun.elapsed().as_millis()), "all its patience, and no more: {:?}", begun.elapsed());
        assert!(matches!(error, DeliveryError::GaveUp { .. }), "{error}");
        assert!(error.to_string().contains("registering a run of agent default/ws"), "{error}");
    }

    #[tokio::test]
    async fn a_courier_that_waits_for_the_network_stops_when_told_to() {
        let shutdown = CancellationToken::new();
        let delivering = tokio::spawn(courier().deliver(shutdown.clone()));
        shutdown.cancel();
        delivering.await.unwrap().unwrap();
    }
}
