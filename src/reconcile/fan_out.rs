//! Telling an agent's chats its news, a page of its lap at a time.

use super::{Batch, BatchFailure, Reconciler, decide::Decider, poison, sort_out};
use crate::{
    plan::conditions::{AgentAfter, Health, of_agent},
    store::{
        Retry, StoreError, Write, chats,
        converge::{self, Concerned, Lane, Row},
        fanout::{self, DueAgent, LapEnd},
        log::TxLog,
        transact,
    },
};
use sqlx::PgConnection;
use uuid::Uuid;

/// A page of an agent's lap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whose.
    pub agent: Uuid,
    /// What it did.
    pub batch: Batch,
    /// It made chats due, which nobody else knows.
    pub made_due: bool,
}

/// What came of looking for an agent that is due.
enum Turn {
    /// A page of its lap is done.
    Told(Told),
    /// The same, but for chats that the database refuses to have written at all, and why: the agent has to come back to them.
    Refused(Told, Vec<(Uuid, StoreError)>),
    /// It has to wait: another agent's lap has chats of its workspace in hand.
    Busy(Uuid),
    /// No further agent is due.
    Nobody,
}

impl Reconciler {
    /// Tells up to a batch of chats the news of one agent of the namespace that is due: the first after the agent `after`,
    /// or else the first, so that agents take turns. None when no agent is due that nobody else has in hand.
    pub async fn fan_out(&self, namespace: &str, after: Uuid) -> Result<Option<Told>, NotTold> {
        let mut from = Next { after, around: !after.is_nil() };
        loop {
            match self.fan_out_from(namespace, from).await? {
                Turn::Told(told) | Turn::Refused(told, _) => return Ok(Some(told)),
                Turn::Busy(agent) => from = Next { after: agent, around: from.around && agent > from.after },
                Turn::Nobody => return Ok(None),
            }
        }
    }

    async fn fan_out_from(&self, namespace: &str, from: Next) -> Result<Turn, NotTold> {
        let first = FanOut { reconciler: self, namespace, from, how: HowToTell::Write };
        match transact(&self.pool, &self.clock, &first).await {
            Ok(done) => Ok(done),
            Err(failure) if matches!(failure.error.retry(), Retry::Poison | Retry::Transaction) => {
                // One of the chats is the trouble, or they change faster than a page of them can be written. Make them due,
                // which touches no version: the chat lane takes them, one by one if need be.
                let second = FanOut { reconciler: self, namespace, from, how: HowToTell::MakeDue };
                match transact(&self.pool, &self.clock, &second).await {
                    Ok(Turn::Refused(mut told, refused)) => {
                        for (id, error) in &refused {
                            tracing::error!(namespace, %id, %error, "an agent's news cannot be told to this chat; its agent comes back to it");
                        }
                        if let Some((_, error)) = refused.first() {
                            self.set_agent_aside(namespace, told.agent, error).await?;
                        }
                        told.batch.poisoned += refused.len();
                        Ok(Turn::Told(told))
                    }
                    Ok(done) => Ok(done),
                    Err(failure) if failure.error.retry() == Retry::Poison => {
                        let Some(agent) = failure.ids.first().copied() else { return Err(failure.into()) };
                        self.set_agent_aside(namespace, agent, &failure.error).await?;
                        let batch = Batch { seen: 1, poisoned: 1, ..Batch::default() };
                        Ok(Turn::Told(Told { agent, batch, made_due: false }))
                    }
                    Err(failure) => Err(failure.into()),
                }
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn set_agent_aside(&self, namespace: &str, agent: Uuid, error: &StoreError) -> Result<(), NotTold> {
        let aside = poison::agent(&self.pool, &self.clock, namespace, agent, error).await;
        aside.map_err(|error| NotTold { agent: Some(agent), error })
    }
}

/// A page of an agent's lap that failed, and is tried again.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotTold {
    /// Whose, if one was claimed: the others' turns come first.
    pub agent: Option<Uuid>,
    /// Why.
    #[source]
    pub error: StoreError,
}

impl From<BatchFailure> for NotTold {
    fn from(failure: BatchFailure) -> Self {
        Self { agent: failure.ids.first().copied(), error: failure.error }
    }
}

/// What the chats of a lap name.
struct Names<'a> {
    agent: &'a str,
    workspaces: &'a [&'a str],
}

impl Names<'_> {
    fn has(&self, reference: Option<&str>) -> bool {
        match reference.and_then(|reference| reference.split_once(' ')) {
            Some(("agent", name)) => name == self.agent,
            Some(("workspace", name)) => self.workspaces.contains(&name),
            Some(_) | None => false,
        }
    }
}

/// How the chats of a page are told.
#[derive(Clone, Copy)]
enum HowToTell {
    /// By converging them in the same transaction.
    Write,
    /// By making them due, since one of them cannot be written.
    MakeDue,
}

/// Whose turn it is.
#[derive(Clone, Copy)]
struct Next {
    /// Those after this one come first.
    after: Uuid,
    /// Then all others.
    around: bool,
}

struct FanOut<'a> {
    reconciler: &'a Reconciler,
    namespace: &'a str,
    from: Next,
    how: HowToTell,
}

impl Write for FanOut<'_> {
    type Output = Turn;
    type Error = BatchFailure;

    async fn run(&self, tx: &mut PgConnection) -> Result<Turn, BatchFailure> {
        let Self { reconciler, namespace, from, how } = self;
        let now = reconciler.clock.now();
        let mut claimed = fanout::claim(tx, namespace, from.after).await?; // locks the agent
        if claimed.is_none() && from.around {
            claimed = fanout::claim(tx, namespace, Uuid::nil()).await?; // locks the agent
        }
        let Some(id) = claimed else { return Ok(Turn::Nobody) };
        let fail = || BatchFailure::of(&[id]);
        let agent = fanout::load(tx, namespace, id).await.map_err(fail())?; // reads, after the lock
        let workspaces: Vec<&str> = agent.workspace.iter().chain(&agent.former_workspaces).map(String::as_str).collect();
        if !workspaces.is_empty() && !fanout::alone_in(tx, namespace, &workspaces).await.map_err(fail())? {
            return Ok(Turn::Busy(id)); // another agent's lap has these chats in hand
        }
        let page = Concerned {
            agent: &agent.name,
            workspace: agent.workspace.as_deref(),
            former: &agent.former_workspaces,
            after: agent.cursor,
            limit: reconciler.batch,
        };
        let rows = converge::load_concerned(tx, namespace, &page).await.map_err(fail())?; // reads, unlocked
        let last = rows.iter().map(Row::id).max();
        let seen = rows.len();
        let (chats, mut ids) = sort_out(rows);
        let mut decider = Decider::new(&reconciler.drifts, Lane::Fanout, agent.refresh_pending().map(|token| (id, token)));
        decider.learn_drifts(tx, namespace, &chats).await.map_err(fail())?; // reads
        // A chat that is due may be in another session's hands, read before this news: it is locked and read again too, however
        // it looks from here.
        let mut wanted: Vec<Uuid> = decider.decide(&chats, now).chats.into_iter().map(|(id, _)| id).collect(); // pure
        wanted.extend(chats.iter().filter(|chat| chat.due).map(|chat| chat.id));
        wanted.sort_unstable();
        wanted.dedup();
        let (mut log, mut refused) = (Log::Unopened, Vec::new());
        let mut batch = Batch { seen: seen + 1, ..Batch::default() };
        let mut due: Vec<Uuid> = ids.drain(..).map(|(id, _)| id).collect();
        match how {
            HowToTell::Write if !wanted.is_empty() => {
                let locked = chats::lock_all(tx, namespace, &wanted).await.map_err(fail())?; // locks
                let rows = converge::load_locked(tx, namespace, &locked).await.map_err(fail())?; // reads again, after the locks
                let (mut chats, bad) = sort_out(rows);
                due.extend(bad.into_iter().map(|(id, _)| id));
                // One that names somebody else by now is not this lap's to decide; whoever changed that made it due.
                let own = Names { agent: &agent.name, workspaces: &workspaces };
                chats.retain(|chat| own.has(chat.reference.as_deref()));
                decider.learn_drifts(tx, namespace, &chats).await.map_err(fail())?; // reads
                let outcomes = decider.decide(&chats, now); // pure
                if !outcomes.chats.is_empty() {
                    let log = log.open(tx).await.map_err(fail())?; // takes the version
                    // writes, and the events
                    converge::record(tx, namespace, &outcomes, &chats, Lane::Fanout, now, log).await.map_err(fail())?;
                    batch = Batch { seen: batch.seen, ..Batch::of(&outcomes, &chats, now) };
                }
            }
            HowToTell::Write => {}
            HowToTell::MakeDue => due.extend(wanted),
        }
        let made_due = !due.is_empty();
        if made_due {
            due.sort_unstable();
            due.dedup();
            let locked = chats::lock_all(tx, namespace, &due).await.map_err(fail())?; // locks
            let due: Vec<Uuid> = locked.into_iter().map(|chat| chat.id).collect();
            let token = agent.refresh_pending().map(|token| (id, token));
            match how {
                HowToTell::Write => converge::make_due(tx, namespace, &due, token).await.map_err(fail())?, // writes
                HowToTell::MakeDue => {
                    refused = converge::make_due_each(tx, namespace, &due, token).await.map_err(fail())?; // writes what goes
                }
            }
        }
        match last {
            // Whoever could not be told is told by a lap to come, which this page keeps from being the last.
            Some(last) if !refused.is_empty() => {
                let whole = seen as u64 >= reconciler.batch.unsigned_abs();
                fanout::pass_over(tx, namespace, id, &agent.lap, whole.then_some(last)).await.map_err(fail())?; // writes
            }
            Some(last) if seen as u64 >= reconciler.batch.unsigned_abs() => {
                fanout::advance(tx, namespace, id, &agent.lap, last).await.map_err(fail())?; // writes
            }
            Some(_) | None => {
                end_lap(tx, namespace, &agent, now, &mut log).await.map_err(fail())?; // writes, and the event
            }
        }
        let told = Told { agent: id, batch, made_due };
        Ok(if refused.is_empty() { Turn::Told(told) } else { Turn::Refused(told, refused) })
    }

    fn store_error(failure: &BatchFailure) -> Option<&StoreError> {
        Some(&failure.error)
    }
}

/// The version of a transaction, taken when the first write needs it.
enum Log {
    Unopened,
    Open(TxLog),
}

impl Log {
    async fn open(&mut self, tx: &mut PgConnection) -> Result<&mut TxLog, StoreError> {
        if let Self::Unopened = self {
            *self = Self::Open(TxLog::open(tx).await?);
        }
        match self {
            Self::Open(log) => Ok(log),
            Self::Unopened => unreachable!("it was opened in the statement before"),
        }
    }
}

/// Ends a lap: what has been seen and handled is what it began with. When nothing changed since, the agent is removed if
/// that was asked for.
async fn end_lap(
    tx: &mut PgConnection,
    namespace: &str,
    agent: &DueAgent,
    now: jiff::Timestamp,
    log: &mut Log,
) -> Result<(), StoreError> {
    let whole = agent.lap.revision == agent.revision;
    if whole && agent.deleting {
        let log = log.open(tx).await?; // takes the version
        return fanout::remove(tx, namespace, agent.id, log).await; // writes, the event first
    }
    let after = AgentAfter {
        deleting: agent.deleting,
        suspended: agent.suspended,
        phase: agent.phase,
        latest: agent.latest.as_ref().map(|(degraded, resources, error)| Health {
            degraded: *degraded,
            resources: *resources,
            error,
        }),
    };
    let mut verdicts = of_agent(&after);
    if !whole {
        // Another lap follows at once, because of news or because this one could not tell every chat. Only the lap that tells all of
        // them knows that what failed is mended.
        poison::still_fails(&agent.conditions, &mut verdicts);
    }
    let conditions = agent.conditions.patch(&verdicts, now);
    let shown = !conditions.is_empty() || agent.echoes();
    let log = if shown { Some(log.open(tx).await?) } else { None }; // takes the version
    fanout::end_lap(tx, namespace, agent, &LapEnd { whole, conditions: &conditions }, log).await // writes, and the event
}
