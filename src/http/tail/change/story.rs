//! What became of an object after a row, as far as it decides in whose view it was: what its later rows say was before them, and how it
//! ended.

use super::{Before, Look, Object};
use crate::store::events::{Befores, Cursor, Logged};

/// The rows of an object that were read with a row of it, and what comes after those.
#[derive(Debug, Default)]
pub struct Story {
    rows: Vec<(Cursor, Before)>,
    beyond: Before,
    /// How it was when it was deleted.
    pub last: Option<Object>,
}

/// What an object looked like on both sides of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Around {
    /// Before it.
    pub was: Look,
    /// After it.
    pub became: Look,
    /// Otherwise only whose it was is known.
    pub is_certain: bool,
}

impl Story {
    /// The next of its rows that was read.
    pub fn add(&mut self, event: &Logged) {
        self.rows.push((event.cursor, Before::read(event)));
    }

    /// What the rows beyond say was before them, up to how the object stands.
    pub fn goes_on(&mut self, befores: &Befores, is_agent: bool) {
        self.beyond = Before::of(&befores.fields, is_agent);
        if befores.is_cut {
            self.beyond.is_not_all();
        }
    }

    /// What it looked like on both sides of a row, worked out backwards from how it stands.
    pub fn around(&self, at: Cursor, before: &Before, stands: Look) -> Around {
        let mut look = stands;
        let mut is_certain = before.is_certain() && self.beyond.is_certain();
        self.beyond.lay_over(&mut look);
        for (_, later) in self.rows.iter().rev().take_while(|(later, _)| *later > at) {
            later.lay_over(&mut look);
            is_certain &= later.is_certain();
        }
        let mut was = look.clone();
        before.lay_over(&mut was);
        Around { was, became: look, is_certain }
    }
}
