//! The lanes: who calls `reconcile`, how often, and what happens when the database is away.
//!
//! Two lanes, each a task of its own with its own connection and its own back-off: **chats** that are due, because a person is
//! waiting, never stand behind **agents** that are due, whose laps may be long. Within a lane namespaces take turns, those first of which
//! a push in this process has said that they have news, a batch
//! each, and so do the agents of one namespace; a namespace that fails backs off by itself. Agents that nobody follows are gathered, and
//! wait for no turn. Any number of processes run both
//! lanes at once; what one has claimed the others skip. Shutdown: no new claim, the transaction in hand is finished.

use crate::{
    clock::Clock,
    metrics::{Controller, InHand, METRICS},
    model::push::Audience,
    reconcile::{Batch, Quieted, Reconciler},
    store::{Retry, StoreError, across, error::full_jitter, log},
    trace::{self, Step, Story},
    wake::Wake,
};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The first pause of a lane after a failure, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause of a lane after a failure.
const PAUSE_CAP: Duration = Duration::from_secs(10);
/// The pause after a look that found records which others held at that moment, about; it doubles up to the poll while that goes on. Most are
/// held for milliseconds, and not everybody who lets one go says so: whoever was refused, or changed nothing, tells nobody.
const HELD: Duration = Duration::from_millis(20);
/// An agent's news of which nobody is to be told waits about so long for those of others, and for its next: they are converged together.
const GATHERED: Duration = Duration::from_millis(20);
/// How often the log's partitions are looked after.
const UPKEEP: Duration = Duration::from_secs(15);

/// Runs the lanes on one database.
#[derive(Clone)]
pub struct Worker {
    /// The loop's transactions.
    pub reconciler: Reconciler,
    /// The database.
    pub pool: PgPool,
    /// Time and jitter.
    pub clock: Clock,
    /// Hints.
    pub wake: Wake,
    /// How long to wait for a hint before looking anyway; jittered by half of itself.
    pub poll: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Chats,
    Agents,
}

impl Lane {
    const fn label(self) -> &'static str {
        match self {
            Self::Chats => "chats",
            Self::Agents => "agents",
        }
    }

    const fn controller(self) -> Controller {
        match self {
            Self::Chats => Controller::Chats,
            Self::Agents => Controller::Agents,
        }
    }
}

/// Where a lane stands.
#[derive(Default)]
struct Place {
    /// The last namespace of the last peek; none when that reached the end.
    after: String,
    /// What is known of namespaces that had work.
    namespaces: HashMap<String, Standing>,
}

/// What a look over the namespaces came to.
struct Swept {
    /// How many records were claimed, but for agents with nobody to tell.
    claimed: usize,
    /// Whether records were due when it looked, which is after the batches for news.
    found: bool,
}

/// What a lane knows of a namespace.
#[derive(Default)]
struct Standing {
    /// The agent whose turn was last.
    agent: Uuid,
    failures: u32,
    /// It failed, and waits until then.
    not_before: Option<Instant>,
}

/// Waits for an agent with nobody to tell, and then for more of them.
async fn gathered(quiet: Option<&mut watch::Receiver<()>>) {
    let Some(quiet) = quiet else { return std::future::pending().await };
    if quiet.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(GATHERED).await;
}

/// A task of the loop panicked: a defect, and the process should end rather than go on without it.
#[derive(Debug, thiserror::Error)]
#[error("a lane of the loop ended with a defect: {0}")]
pub struct LaneFailed(tokio::task::JoinError);

impl Worker {
    /// Runs until `shutdown`, then finishes the transactions in hand. Fails as soon as one of its tasks panics.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), LaneFailed> {
        let mut tasks = JoinSet::new();
        for lane in [Lane::Chats, Lane::Agents] {
            METRICS.workers(lane.controller(), 1);
            tasks.spawn(self.clone().lane(lane, shutdown.clone()));
        }
        tasks.spawn(self.upkeep(shutdown));
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(LaneFailed)?;
        }
        Ok(())
    }

    async fn lane(self, lane: Lane, shutdown: CancellationToken) {
        let mut hints = match lane {
            Lane::Chats => self.wake.on_chats(),
            Lane::Agents => self.wake.on_agents(),
        };
        let mut quiet = (lane == Lane::Agents).then(|| self.wake.on_quiet());
        let mut place = Place::default();
        let (mut failures, mut again) = (0, HELD);
        while !shutdown.is_cancelled() {
            hints.mark_unchanged(); // registered before it looks
            quiet.iter_mut().for_each(watch::Receiver::mark_unchanged);
            match self.sweep(lane, &mut place, &shutdown).await {
                Ok(Swept { claimed, found: true }) if claimed > 0 => (failures, again) = (0, HELD),
                // What was claimed was all there was, or others hold it.
                Ok(Swept { claimed: _, found }) => {
                    failures = 0;
                    let time = if found { again.min(self.poll) } else { self.poll };
                    let until = Instant::now() + time.mul_f64(0.5 + self.clock.random());
                    let hinted = loop {
                        let gathered = tokio::select! {
                            hinted = self.rest(until, Some(&mut hints), &shutdown) => Err(hinted),
                            () = gathered(quiet.as_mut()) => Ok(()),
                        };
                        match gathered {
                            Err(hinted) => break hinted,
                            // Who has somebody to tell may have more to do.
                            Ok(()) if self.take_news(&mut place, &shutdown).await.0 > 0 => break true,
                            Ok(()) => {}
                        }
                    };
                    again = if found && !hinted { time * 2 } else { HELD };
                }
                Err(error) => {
                    METRICS.reconcile_failed(lane.controller(), error.label());
                    let pause = full_jitter(PAUSE, PAUSE_CAP, failures, self.clock.random());
                    failures += 1;
                    tracing::warn!(lane = lane.label(), %error, pause_ms = pause.as_millis(), failures, "the loop failed; it tries again");
                    self.rest(Instant::now() + pause, None, &shutdown).await;
                }
            }
        }
    }

    /// Waits until then, or for a hint if there are any to be heeded. Returns whether there was one.
    async fn rest(&self, until: Instant, hints: Option<&mut watch::Receiver<()>>, shutdown: &CancellationToken) -> bool {
        let hint = async {
            let Some(hints) = hints else { return std::future::pending().await };
            if hints.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep_until(until.into()) => false,
            () = hint => true,
        }
    }

    /// A batch for each namespace where news are known to be, without a look. Returns how many records were claimed, and of which namespaces
    /// it was the turn, by whom their news concern.
    async fn take_news(&self, place: &mut Place, shutdown: &CancellationToken) -> (usize, HashMap<String, Audience>) {
        let (mut claimed, mut done) = (0, HashMap::new());
        for (namespace, audience) in self.wake.take_news() {
            if shutdown.is_cancelled() {
                break;
            }
            // When this fails the database may be away, and then the look says so, once. It finds what is not taken here.
            let Some(seen) = self.turn(Lane::Agents, namespace.clone(), audience, place).await else { break };
            claimed += seen;
            done.insert(namespace, audience);
        }
        (claimed, done)
    }

    /// One look over the namespaces, and a batch for each that has work; first for those where news are known to be, without a look.
    async fn sweep(&self, lane: Lane, place: &mut Place, shutdown: &CancellationToken) -> Result<Swept, StoreError> {
        let (mut claimed, done) = match lane {
            Lane::Chats => (0, HashMap::new()),
            Lane::Agents => self.take_news(place, shutdown).await,
        };
        if shutdown.is_cancelled() {
            return Ok(Swept { claimed, found: true });
        }
        let mut namespaces = self.peek(lane, &place.after).await?;
        if namespaces.is_empty() && !place.after.is_empty() {
            namespaces = self.peek(lane, "").await?;
        }
        let whole = i64::try_from(namespaces.len()).is_ok_and(|found| found < across::NAMESPACES_MAX);
        place.after = if whole { String::new() } else { namespaces.last().cloned().unwrap_or_default() };
        let found = !namespaces.is_empty();
        if !found {
            // Whose turn was last says nothing once nobody is waiting.
            place.namespaces.retain(|_, standing| standing.not_before.is_some());
        }
        for namespace in namespaces {
            if shutdown.is_cancelled() {
                break;
            }
            let audience = match done.get(&namespace) {
                Some(Audience::Chats) => continue,
                Some(Audience::Nobody) => Audience::Nobody, // more of their kind may have come meanwhile
                None => Audience::Chats,
            };
            claimed += self.turn(lane, namespace, audience, place).await.unwrap_or_default();
        }
        Ok(Swept { claimed, found })
    }

    /// A namespace's turn: a batch, unless it failed a moment ago. Returns how many records were claimed, but for agents with nobody to tell;
    /// none when it failed.
    async fn turn(&self, lane: Lane, namespace: String, audience: Audience, place: &mut Place) -> Option<usize> {
        let mut standing = place.namespaces.remove(&namespace).unwrap_or_default();
        if standing.not_before.is_some_and(|then| Instant::now() < then) {
            place.namespaces.insert(namespace, standing);
            return Some(0);
        }
        match self.batch(lane, &namespace, audience, &mut standing).await {
            Ok(None) => Some(0), // somebody else has it in hand, and nothing needs to be remembered
            Ok(Some(seen)) => {
                (standing.failures, standing.not_before) = (0, None);
                if lane == Lane::Agents {
                    place.namespaces.insert(namespace, standing);
                }
                Some(seen)
            }
            Err(error) => {
                METRICS.reconcile_failed(lane.controller(), error.label());
                let pause = full_jitter(PAUSE, PAUSE_CAP, standing.failures, self.clock.random());
                standing.failures += 1;
                standing.not_before = Some(Instant::now() + pause);
                tracing::warn!(
                    lane = lane.label(), namespace, %error, pause_ms = pause.as_millis(), failures = standing.failures,
                    "the loop failed in this namespace; it tries again, and the others go on"
                );
                place.namespaces.insert(namespace, standing);
                None
            }
        }
    }

    async fn peek(&self, lane: Lane, after: &str) -> Result<Vec<String>, StoreError> {
        let mut connection = self.connection().await?;
        match lane {
            Lane::Chats => across::namespaces_with_due_chats(&mut connection, after).await,
            Lane::Agents => across::namespaces_with_due_agents(&mut connection, after).await,
        }
    }

    /// One batch of one namespace. Returns how many records were claimed, or that there were none. Agents that are said to have nobody to tell
    /// are taken all at once, and not counted: the next of them wait to be gathered. When others are due, too, it is the next agent's turn.
    async fn batch(
        &self,
        lane: Lane,
        namespace: &str,
        audience: Audience,
        standing: &mut Standing,
    ) -> Result<Option<usize>, StoreError> {
        if (lane, audience) == (Lane::Agents, Audience::Nobody) {
            let in_hand = METRICS.take_in_hand(lane.controller());
            let Quieted { seen, others } = self.reconciler.converge_quiet(namespace).await?;
            if seen > 0 {
                self.tell(lane, namespace, &Batch { seen, ..Batch::default() }, in_hand);
            }
            if !others {
                return Ok((seen > 0).then_some(0));
            }
        }
        let in_hand = METRICS.take_in_hand(lane.controller());
        let (batch, made_due) = match lane {
            Lane::Chats => (self.bumped(self.reconciler.converge_due(namespace).await).await?, false),
            Lane::Agents => {
                let told = self.reconciler.fan_out(namespace, standing.agent).await.map_err(|failed| {
                    // The others' turns come before it is tried again.
                    standing.agent = failed.agent.unwrap_or(standing.agent);
                    failed.error
                });
                let Some(told) = self.bumped(told).await? else { return Ok(None) };
                standing.agent = told.agent;
                (told.batch, told.made_due)
            }
        };
        if batch.seen == 0 {
            return Ok(None);
        }
        self.tell(lane, namespace, &batch, in_hand);
        if made_due {
            self.wake.work();
        }
        Ok(Some(batch.seen))
    }

    /// When the log turns out to belong to another timeline, begins a new epoch and lets the lane try again.
    async fn bumped<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &done
            && error.retry() == Retry::AfterBump
        {
            log::bump(&mut *self.connection().await?, false).await?;
        }
        done
    }

    fn tell(&self, lane: Lane, namespace: &str, batch: &Batch, in_hand: InHand) {
        for (story, chats) in &batch.stories {
            trace::tell(story, &Step::Converge { lane: lane.label(), namespace, chats: *chats }, in_hand.since());
        }
        // Of one story, it is an example of what the histogram counts.
        let told = if batch.stories.len() == 1 { batch.stories.keys().next().map(Story::trace) } else { None };
        in_hand.batch(batch.seen, batch.changed, batch.poisoned);
        for waited in &batch.hydrated {
            METRICS.hydrated(*waited, told);
        }
        for lasted in &batch.drifts_ended {
            METRICS.drift_ended(*lasted);
        }
        // Whoever waits for a record to converge looks again, even when nothing that it shows has changed.
        self.wake.events();
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, StoreError> {
        crate::store::acquire_or_why(&self.pool).await
    }

    /// Measures the queue and looks after the log's partitions until `shutdown`: what is left to a replica without lanes.
    pub async fn upkeep(self, shutdown: CancellationToken) {
        loop {
            match self.look_after().await {
                Ok(()) => METRICS.database_up(true),
                Err(error) => {
                    METRICS.database_up(false);
                    tracing::warn!(%error, "looking after the log failed; it is tried again");
                }
            }
            let pause = UPKEEP.mul_f64(0.5 + self.clock.random());
            tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
        }
    }

    async fn look_after(&self) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        if log::partitions_missing(&mut connection, across::PARTITIONS_AHEAD).await? {
            if let Some(made) = log::make_partitions(&mut connection, across::PARTITIONS_AHEAD).await? {
                tracing::info!(made, "made partitions of the event log ahead");
            } else {
                tracing::info!("somebody holds the event log; its partitions are made at the next look");
            }
        }
        let rows = log::default_partition_rows(&mut connection).await?;
        METRICS.default_rows(rows);
        if rows > 0 {
            tracing::warn!(rows, "events stand in the default partition: their day had none of its own; see docs/event-log.md");
        }
        Ok(())
    }
}
