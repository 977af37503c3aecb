//! The loop's transactions: converge a batch of chats that are due, or tell a batch of chats an agent's news, or converge agents whose news
//! nobody is to be told.
//!
//! Guarantees. What a chat is pinned to, whether it is dirty and what its conditions say agree, once it is converged, with its
//! desired columns and its agent as they were read *after* the chat was locked. Exactly one event goes with each change, in
//! the same transaction. Converging what is converged writes nothing but the revision it has seen, and that only if it is
//! behind. A crash at any point leaves the record due.
//!
//! Assumptions. READ COMMITTED; the forms and the lock order of `store`: agent, chats by id, snapshots by id, then the
//! version, then the writes, then the events.
//!
//! Converge takes no reason and no event data: [`Reconciler::converge_due`], [`Reconciler::fan_out`] and [`Reconciler::converge_quiet`] are
//! given a namespace (and whose turn it is), and nothing of what has happened. Sharing one outcome among many chats (`decide`) is speed, and so is keeping how contexts differ (`drifts`);
//! all else here is correctness.

mod decide;
mod drifts;
mod fan_out;
mod poison;
mod quiet;

use crate::{
    clock::Clock,
    model::condition::Conditions,
    store::{
        Retry, StoreError, Write,
        converge::{self, BATCH_MAX, Lane, Outcomes, Row},
        log::TxLog,
        transact,
    },
    trace::{self, Story},
};
use decide::Decider;
use drifts::Drifts;
pub use fan_out::{NotTold, Told};
pub use quiet::Quieted;
use sqlx::{PgConnection, PgPool};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// What a batch did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Records that were claimed or told.
    pub seen: usize,
    /// Of them, chats that changed in what they show; each has an event.
    pub changed: usize,
    /// Records that were set aside, because the loop fails on them.
    pub poisoned: usize,
    /// How long each chat that got its first pin had waited for it.
    pub hydrated: Vec<Duration>,
    /// How long each chat that drifts no more had drifted.
    pub drifts_ended: Vec<Duration>,
    /// Because of which contexts chats changed, and how many of them; nothing while no collector is told of traces.
    pub stories: HashMap<Story, usize>,
}

impl Batch {
    /// What these outcomes do to these chats.
    fn of(outcomes: &Outcomes, chats: &[converge::Loaded], now: jiff::Timestamp) -> Self {
        Self {
            seen: 0,
            changed: outcomes.shown(),
            poisoned: 0,
            hydrated: outcomes.hydrated(chats, now),
            drifts_ended: outcomes.drifts_ended(chats, now),
            stories: if trace::is_told() { outcomes.stories() } else { HashMap::new() },
        }
    }
}

/// Runs the loop's transactions on one database.
#[derive(Clone)]
pub struct Reconciler {
    pool: PgPool,
    clock: Clock,
    drifts: Drifts,
    batch: i64,
}

impl Reconciler {
    /// A reconciler of the database behind `pool`.
    pub fn new(pool: PgPool, clock: Clock) -> Self {
        Self { pool, clock, drifts: Drifts::default(), batch: BATCH_MAX }
    }

    /// The same with at most `batch` chats a transaction, 1 to 1,000.
    #[must_use]
    pub fn with_batch(mut self, batch: i64) -> Self {
        self.batch = batch.clamp(1, BATCH_MAX);
        self
    }

    /// Converges up to a batch of chats of one namespace that are due. A chat that the database refuses to have written is set
    /// aside until its `retry_at`, and the rest of its batch goes on.
    pub async fn converge_due(&self, namespace: &str) -> Result<Batch, StoreError> {
        let whole = DueChats { reconciler: self, namespace, claim: Claim::Next(self.batch) };
        let error = match transact(&self.pool, &self.clock, &whole).await {
            Ok(done) => return self.set_aside_bad(namespace, done).await,
            Err(failure) => failure,
        };
        match error.error.retry() {
            // One of them is the trouble, or they change faster than all of them can be written at once.
            Retry::Poison | Retry::Transaction if !error.ids.is_empty() => self.one_by_one(namespace, &error).await,
            Retry::Poison | Retry::Transaction | Retry::Later | Retry::AfterBump => Err(error.error),
        }
    }

    async fn one_by_one(&self, namespace: &str, failure: &BatchFailure) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        let mut failed = None;
        for id in &failure.ids {
            let one = DueChats { reconciler: self, namespace, claim: Claim::One(*id) };
            let done = match transact(&self.pool, &self.clock, &one).await {
                Ok(done) => self.set_aside_bad(namespace, done).await?,
                Err(BatchFailure { error, .. }) if error.retry() == Retry::Poison => {
                    // One that cannot even be set aside does not keep the others waiting.
                    match poison::chat(&self.pool, &self.clock, namespace, *id, &error).await {
                        Ok(()) => Batch { seen: 1, poisoned: 1, ..Batch::default() },
                        Err(error) => {
                            failed = Some(error);
                            continue;
                        }
                    }
                }
                Err(BatchFailure { error, .. }) if error.retry() == Retry::Transaction => {
                    failed = Some(error);
                    continue;
                }
                Err(BatchFailure { error, .. }) => return Err(error),
            };
            batch.seen += done.seen;
            batch.changed += done.changed;
            batch.poisoned += done.poisoned;
            batch.hydrated.extend(done.hydrated);
            batch.drifts_ended.extend(done.drifts_ended);
            for (story, chats) in done.stories {
                *batch.stories.entry(story).or_default() += chats;
            }
        }
        match failed {
            Some(error) if batch.seen == 0 => Err(error),
            Some(_) | None => Ok(batch),
        }
    }

    async fn set_aside_bad(&self, namespace: &str, done: Done) -> Result<Batch, StoreError> {
        let Done { mut batch, bad } = done;
        for (id, error) in bad {
            poison::chat(&self.pool, &self.clock, namespace, id, &error).await?;
            batch.poisoned += 1;
        }
        Ok(batch)
    }
}

/// A batch that failed, with the records it had claimed.
#[derive(Debug)]
struct BatchFailure {
    error: StoreError,
    ids: Vec<Uuid>,
}

impl From<StoreError> for BatchFailure {
    fn from(error: StoreError) -> Self {
        Self { error, ids: Vec::new() }
    }
}

impl BatchFailure {
    fn of(ids: &[Uuid]) -> impl FnOnce(StoreError) -> Self + use<> {
        let ids = ids.to_vec();
        move |error| Self { error, ids }
    }
}

/// What converging a batch did, and the rows that could not be read.
#[derive(Debug, Default)]
struct Done {
    batch: Batch,
    bad: Vec<(Uuid, StoreError)>,
}

enum Claim {
    Next(i64),
    One(Uuid),
}

struct DueChats<'a> {
    reconciler: &'a Reconciler,
    namespace: &'a str,
    claim: Claim,
}

impl Write for DueChats<'_> {
    type Output = Done;
    type Error = BatchFailure;

    async fn run(&self, tx: &mut PgConnection) -> Result<Done, BatchFailure> {
        let Self { reconciler, namespace, claim } = self;
        let now = reconciler.clock.now();
        let claimed = match claim {
            Claim::Next(limit) => converge::claim(tx, namespace, *limit).await?, // locks
            Claim::One(id) => converge::claim_one(tx, namespace, *id).await?,    // locks
        };
        if claimed.is_empty() {
            return Ok(Done::default());
        }
        let ids: Vec<Uuid> = claimed.iter().map(|chat| chat.id).collect();
        let fail = || BatchFailure::of(&ids);
        let rows = converge::load_locked(tx, namespace, &claimed).await.map_err(fail())?; // reads, after the locks
        let (chats, bad) = sort_out(rows);
        let mut decider = Decider::new(&reconciler.drifts, Lane::Due, None);
        decider.learn_drifts(tx, namespace, &chats).await.map_err(fail())?; // reads
        let outcomes = decider.decide(&chats, now); // pure
        let mut log = TxLog::open(tx).await.map_err(fail())?; // takes the version
        // writes, and the events
        converge::record(tx, namespace, &outcomes, &chats, Lane::Due, now, &mut log).await.map_err(fail())?;
        let batch = Batch { seen: ids.len(), ..Batch::of(&outcomes, &chats, now) };
        Ok(Done { batch, bad })
    }

    fn store_error(failure: &BatchFailure) -> Option<&StoreError> {
        Some(&failure.error)
    }
}

/// The chats that could be read, and those that could not.
fn sort_out(rows: Vec<Row>) -> (Vec<converge::Loaded>, Vec<(Uuid, StoreError)>) {
    let (mut chats, mut bad) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match row {
            Row::Chat(chat) => chats.push(*chat),
            Row::Bad { id, error } => bad.push((id, error)),
        }
    }
    (chats, bad)
}

impl Row {
    fn id(&self) -> Uuid {
        match self {
            Self::Chat(chat) => chat.id,
            Self::Bad { id, .. } => *id,
        }
    }
}

/// How a record says that the loop fails on it.
fn stalled(conditions: &Conditions, error: &StoreError, now: jiff::Timestamp) -> crate::model::condition::ConditionPatch {
    use crate::model::condition::{ConditionType, Truth, Verdict, reason};
    let message = match error.sqlstate() {
        Some(code) => format!("the loop fails on this record and retries: SQLSTATE {code}; the log of moorline has more"),
        None => format!("the loop fails on this record and retries: {error}"),
    };
    let mut verdicts = conditions.verdicts();
    verdicts.insert(ConditionType::Stalled, Verdict::new(Truth::True, reason::RECONCILE_FAILED, message));
    conditions.patch(&verdicts, now)
}
