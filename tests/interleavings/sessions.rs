//! Sessions of PostgreSQL, at the grain of statements under READ COMMITTED: what a transaction holds, and what beginning to hold,
//! committing and rolling back do.
//!
//! What is mirrored. A statement sees what was committed when it began, and nothing of others' open transactions; the rows that a
//! statement decides from are read by a statement of its own *after* the locks (`load`, `get`), so a wait in a locking statement can
//! be modelled as the statement not having begun. A row lock (`FOR NO KEY UPDATE`) excludes another; `SKIP LOCKED` takes what is
//! free; a foreign key takes a share of the row referred to. A transaction's xid comes with the first row that it locks, or with
//! `log_rv()`, whichever is first, and is its version. The horizon is the oldest xid still open (`pg_snapshot_xmin`), or the next
//! one. A commit makes all rows and events visible at once. A crash of the process ends its transaction without effect.

use super::{
    decide::Outcome,
    rows::{Agent, Chat, Event, Row, Snap, Tables, Written},
};

/// Where a session stands: the statement that comes next, and what the ones before it have answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    /// No transaction.
    Idle,
    /// In a client's write.
    Client(Client),
    /// In the chats' lane (`reconcile::DueChats`).
    Chats(Chats),
    /// In the agents' lane (`reconcile::fan_out::FanOut`).
    Lap(Lap, Page),
    /// COMMIT.
    Commit,
    /// Committed; hints to the lanes.
    Tell(Hint),
}

/// What the lanes are told after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Hint {
    /// `Wake::work`: all of them look.
    Work,
    /// `Wake::news`, of a push that shows something: it makes no chat due.
    Agents,
}

/// The statements of a client's write: `writes::*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Repeated(Held),
    Lock(Held),
    Get,
    Version(Held),
    Write(Held),
    /// Retention: the snapshots that nobody seems to need are read; locked; then read again, and deleted.
    Superfluous,
    LockSnapshots(Vec<Snap>),
    DeleteSnapshots(Vec<Snap>),
}

/// The row that a client has read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Held {
    Nothing,
    Chat(Chat),
    Agent(Agent),
}

/// The statements of the chats' lane after the claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Chats {
    Load(Vec<u8>),
    Version(Vec<(u8, Outcome)>),
    Record(Vec<(u8, Outcome)>),
}

/// The statements of a page of a lap after the claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lap {
    /// No transaction: it has read, unlocked, that nobody has to be told of this revision, and converges the agent in one statement.
    EndQuiet(u8),
    LoadAgent,
    AloneIn,
    LoadConcerned,
    LockAll {
        wanted: Vec<u8>,
        locked: Vec<u8>,
        unlocked_decision: Vec<(u8, Outcome)>,
    },
    Load(Vec<u8>),
    Version(Vec<(u8, Outcome)>),
    Record(Vec<(u8, Outcome)>),
    Close,
}

/// Which page of whose lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Page {
    pub(crate) agent: u8,
    /// Where the next page begins; none after the last.
    pub(crate) next: Option<u8>,
}

/// A connection: of a client of the API, of a lane of the loop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) at: At,
    /// Of a client: what it asks for next.
    pub(crate) next: u8,
    pub(crate) xid: Option<u8>,
    locks: u32,
    shares: u32,
    pub(crate) written: Vec<Written>,
    /// Of a lane without a poll: it has been told to look.
    pub(crate) hinted: bool,
}

impl Session {
    pub(crate) fn new() -> Self {
        Self { at: At::Idle, next: 0, xid: None, locks: 0, shares: 0, written: Vec::new(), hinted: false }
    }

    fn end(&mut self) {
        (self.at, self.xid, self.locks, self.shares) = (At::Idle, None, 0, 0);
        self.written.clear();
    }
}

/// What a reader of the log has in hand (`store::events::read_after`, `http::tail`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    Nothing,
    /// The horizon has been fetched.
    Horizon(u8),
    /// The rows have been read, and the cursor is behind them; the objects come next.
    Rows {
        horizon: u8,
        events: Vec<Event>,
    },
}

/// The state of everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) tables: Tables,
    pub(crate) sessions: Vec<Session>,
    pub(crate) reading: Reading,
    /// The reader's cursor, (rv, seq).
    pub(crate) cursor: (u8, u8),
    /// Of each chat, the number of the last event that the reader has had.
    pub(crate) had: [u8; super::rows::CHATS],
    /// Of each chat, whether a watcher knows it as it is committed.
    pub(crate) known: [bool; super::rows::CHATS],
    /// Of each chat that waits for a refresh, what its target has pointed at since that was asked for: for the judge.
    pub(crate) offered: [Vec<super::rows::Snap>; super::rows::CHATS],
    /// The xid that is given out next.
    pub(crate) next_xid: u8,
    /// How many crashes may still happen.
    pub(crate) crashes: u8,
    /// What a step has done wrong: see `invariants`.
    pub(crate) wrong: Option<super::invariants::Wrong>,
}

impl World {
    /// Whether another session holds what excludes `row`.
    pub(crate) fn held_by_others(&self, me: usize, row: Row) -> bool {
        self.sessions.iter().enumerate().any(|(n, other)| n != me && other.locks & row.bit() != 0)
    }

    /// Whether another session has rows that refer to `snap`, not yet committed.
    pub(crate) fn shared_by_others(&self, me: usize, snap: Snap) -> bool {
        let bit = Row::Snapshot(snap).bit();
        self.sessions.iter().enumerate().any(|(n, other)| n != me && other.shares & bit != 0)
    }

    /// Locks a row that nobody else holds. With the first comes the xid.
    pub(crate) fn lock(&mut self, me: usize, row: Row) {
        debug_assert!(!self.held_by_others(me, row), "{row:?} is held");
        self.sessions[me].locks |= row.bit();
        if row != Row::Laps {
            self.version(me);
        }
    }

    /// What a foreign key takes: nobody deletes the snapshot until this transaction has ended.
    pub(crate) fn share(&mut self, me: usize, snap: Snap) {
        self.sessions[me].shares |= Row::Snapshot(snap).bit();
    }

    /// `log_rv()`.
    pub(crate) fn version(&mut self, me: usize) -> u8 {
        *self.sessions[me].xid.get_or_insert_with(|| {
            self.next_xid += 1;
            self.next_xid - 1
        })
    }

    /// `pg_snapshot_xmin(pg_current_snapshot())`.
    pub(crate) fn horizon(&self) -> u8 {
        self.sessions.iter().filter_map(|session| session.xid).min().unwrap_or(self.next_xid)
    }

    /// Ends a transaction without effect, and begins again from nothing. A lane looks again at once.
    pub(crate) fn roll_back(&mut self, me: usize) {
        self.sessions[me].end();
        self.sessions[me].hinted = true;
    }

    /// Makes all of a transaction visible at once; its locks go.
    pub(crate) fn commit(&mut self, me: usize, then: At) {
        let written = std::mem::take(&mut self.sessions[me].written);
        let rv = self.sessions[me].xid.unwrap_or(0);
        self.publish(written, rv);
        self.sessions[me].end();
        self.sessions[me].hinted = true;
        self.sessions[me].at = then;
    }

    /// Makes rows visible to everybody, and judges what that does to what was visible before.
    pub(crate) fn publish(&mut self, written: Vec<Written>, rv: u8) {
        if self.wrong.is_none() {
            self.wrong = super::invariants::wrong_with(self, &written, rv);
        }
        let mut seq = 0;
        for row in written {
            match row {
                Written::Chat(chat, new) => {
                    let old = self.tables.chats[usize::from(chat)].replace(new);
                    if old.is_none_or(|old| old.rv != new.rv) {
                        self.known[usize::from(chat)] = false;
                    }
                }
                Written::Agent(name, new) => self.tables.agents[usize::from(name)] = new,
                Written::Snapshot(snap) => {
                    self.tables.snapshots.push(snap);
                    self.tables.snapshots.sort_unstable();
                    self.tables.snapshots.dedup();
                }
                Written::Accepted { .. } => {}
                Written::NoSnapshot(gone) => self.tables.snapshots.retain(|snap| *snap != gone),
                Written::Event { chat, chat_seq } => {
                    seq += 1;
                    self.tables.events.push(Event { rv, seq, chat, chat_seq });
                }
            }
        }
        self.tables.events.sort_unstable();
        super::invariants::remember_offers(self);
    }
}
