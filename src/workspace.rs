//! The agent side: what runs beside a workspace and reports the context that it finds there.
//!
//! Three rooms. `scan` finds the context, once, and remembers nothing. `watch` scans again whenever something may have
//! changed, and keeps one newest [`Report`]. `push` takes the newest report to the server, one at a time, until it has
//! been taken. Between the last two stands a channel that holds one value: a report that was not sent when the next one
//! came is forgotten, because a report is a level and not a change.
//!
//! What it does not: talk to anything but the API, decide what drifts, or keep state on disk. An agent that starts again
//! registers a new run, which fences off the old one.
//!
//! A root that cannot be scanned is never reported as an empty context. It is pushed with phase `Pending` and the reason
//! as the error: the server then shows what is wrong, and keeps the latest snapshot and every chat as they are (I9). At
//! the very start it is an error of [`run`] instead, because then it is most likely a mistyped path.

pub mod push;
pub mod scan;
pub mod watch;

use self::{
    push::{ApiClient, ClientError, Delivery, DeliveryError},
    scan::{Scan, ScanError},
};
use crate::{
    clock::Clock,
    model::{
        push::{Limits, Phase, content_digest},
        resource::Resource,
    },
    telemetry::reasons,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::watch::channel, task::JoinError};
use tokio_util::sync::CancellationToken;

/// What an agent is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The root of the workspace.
    pub root: PathBuf,
    /// Where the API is and who this agent is there.
    pub client: ApiClient,
    /// Create the Agent with this when there is none; without it, a missing Agent is an error.
    pub create: Option<AgentSpec>,
    /// Scan and push once, and give up after this long. None: watch until told to stop, and never give up.
    pub once: Option<Duration>,
    /// How to watch.
    pub watch: watch::Settings,
}

/// The spec of an Agent that an agent creates for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSpec {
    /// `spec.workspace`.
    pub workspace: Option<String>,
    /// `spec.build`.
    pub build: Option<u32>,
}

/// How a run ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Told to stop.
    Stopped,
    /// Pushed once, as asked.
    Pushed(Delivery),
}

/// How a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The first scan failed.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The client could not be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Pushing ended for good.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
    /// Scanning or watching panicked.
    #[error("scanning the workspace ended unexpectedly")]
    Scanner(#[from] JoinError),
}

/// What a scan found, ready to be pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// `Complete`, or `Pending` when the scan failed.
    pub phase: Phase,
    /// What was wrong with the scan as a whole.
    pub error: String,
    /// The resources, in (kind, source) order.
    pub resources: Vec<Resource>,
}

impl Report {
    /// The report of a scan.
    pub fn complete(scan: Scan) -> Self {
        let Scan { resources, error, folders: _ } = scan;
        Self { phase: Phase::Complete, error, resources }
    }

    /// The report that there could be no scan.
    pub fn failed(error: &ScanError) -> Self {
        let mut error = reasons(error).replace('\0', "\u{fffd}");
        error.truncate(error.floor_char_boundary(Limits::ERROR));
        Self { phase: Phase::Pending, error, resources: Vec::new() }
    }

    /// What tells two reports apart.
    pub fn digest(&self) -> [u8; 32] {
        content_digest(self.phase, &self.error, &self.resources)
    }
}

/// Runs an agent until it is told to stop, is superseded, or has pushed once if that was all it was asked for.
/// rustls' crypto provider must be installed.
pub async fn run(options: Options, clock: Clock, shutdown: CancellationToken) -> Result<Outcome, RunError> {
    let Options { root, client, create, once, watch } = options;
    let folder = root.clone();
    let first = tokio::task::spawn_blocking(move || scan::scan(&folder)).await??;
    let (sender, reports) = channel(Arc::new(Report::complete(first)));
    let delivery = push::Courier::new(client, create, clock.clone(), reports);
    if let Some(patience) = once {
        return Ok(delivery.deliver_once(patience, shutdown).await?.map_or(Outcome::Stopped, Outcome::Pushed));
    }
    // Watching ends after delivering: a watch that ends before it has failed.
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch::watch(root, watch, clock, stop.clone(), sender));
    let ending = stop.drop_guard();
    let delivered = delivery.deliver(shutdown).await;
    drop(ending);
    watching.await??;
    delivered?;
    Ok(Outcome::Stopped)
}
