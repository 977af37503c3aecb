//! What became of an object after a row: what its later rows say was before them, and how it ended.

use super::{Before, Gone, Object};
use crate::store::events::{Cursor, Logged};

/// The later rows of an object.
#[derive(Debug, Default)]
pub struct Story {
    later: Vec<(Cursor, Before)>,
    /// There may be rows after those that are here.
    is_cut: bool,
    last: Option<Object>,
}

impl Story {
    /// How many rows are read of an object at most: beyond, it may have looked like anything.
    pub const ROWS: i64 = 64;

    /// The next of its rows, and what that says is gone.
    pub fn add(&mut self, event: &Logged, gone: Gone) {
        match gone {
            Gone::No => {
                self.later.push((event.cursor, Before::read(event)));
                self.is_cut = i64::try_from(self.later.len()).is_ok_and(|rows| rows >= Self::ROWS);
            }
            Gone::As(last) => self.last = Some(*last),
            Gone::Unread => {} // the row of its deletion is told to all who may have known it
        }
    }

    /// How it was when it was deleted.
    pub fn last(&self) -> Option<&Object> {
        self.last.as_ref()
    }

    /// What was before the rows between a place and how it stands at a version.
    pub fn between(&self, after: Cursor, through: i64) -> Vec<Before> {
        let rows = self.later.iter().filter(|(at, _)| *at > after && at.rv <= through);
        let mut befores: Vec<Before> = rows.map(|(_, before)| before.clone()).collect();
        if self.is_cut && self.later.last().is_some_and(|(at, _)| at.rv <= through) {
            befores.push(Before::unread());
        }
        befores
    }
}
