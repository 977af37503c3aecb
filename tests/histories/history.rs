//! What was asked for and what came back: the one account that no part of the server has had a hand in.

use super::operation::Op;
use std::{fmt, time::Instant};
use uuid::Uuid;

/// Microseconds since the history began, by the monotonic clock of this process.
pub type Micros = u64;

/// The clock of a history.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Now is 0.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What it shows.
    pub fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// The object that an operation was about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Record {
    pub client: usize,
    /// Numbers the operations of a client.
    pub number: u64,
    pub op: Op,
    pub target: Target,
    /// Before its first byte went out.
    pub invoked: Micros,
    /// After the last byte of the answer came in.
    pub returned: Micros,
    pub outcome: Outcome,
}

impl Record {
    /// What the operation leaves behind, to be known again: a label, or a token.
    pub fn mark(&self) -> String {
        mark(self.client, self.number)
    }

    /// It had come back before the other went out.
    pub fn precedes(&self, other: &Self) -> bool {
        self.returned < other.invoked
    }
}

/// The mark of a client's operation.
pub fn mark(client: usize, number: u64) -> String {
    format!("c{client}-{number}")
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, target, invoked, returned, outcome, .. } = self;
        write!(f, "{} ({op:?} of {target}, {invoked}–{returned} µs: {outcome:?})", self.mark())
    }
}

/// What is known of an operation when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and acknowledged.
    Done(Done),
    /// It was refused, with this status and reason: it has changed nothing.
    Refused(u16, String),
    /// Nobody knows: the connection was lost, the answer did not come in time, or was a 5xx.
    Maybe(String),
}

/// What an acknowledgement says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub uid: Option<Uuid>,
    /// The version of the log that the object had in the answer: half its `resourceVersion`.
    pub rv: Option<i64>,
    /// Of a push: the context hash that the agent has now. Of a read: of the pin.
    pub hash: Option<String>,
    /// Of a push: whether it moved the agent to another snapshot.
    pub changed: bool,
    /// Of a read: what was wrong with it in itself.
    pub fault: Option<String>,
}

/// All of them, in the order of their invocations.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub records: Vec<Record>,
}

impl History {
    /// How many were acknowledged, refused, and nobody knows.
    pub fn outcomes(&self) -> (usize, usize, usize) {
        let count = |of: fn(&Outcome) -> bool| self.records.iter().filter(|record| of(&record.outcome)).count();
        (
            count(|outcome| matches!(outcome, Outcome::Done(_))),
            count(|outcome| matches!(outcome, Outcome::Refused(..))),
            count(|outcome| matches!(outcome, Outcome::Maybe(_))),
        )
    }
}
