//! What many watchers are sent alike, put together once: all who see everything and stand at one place take the same entries, and a
//! thousand of them would each copy the same lines.

use super::ring::Place;
use axum::body::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many bytes of pieces are kept: watchers who are told of the same stand at the same place, or some pieces behind.
const KEPT: usize = 2 << 20;

/// How entries are written in a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writing {
    /// ContextEvents, a line each.
    ContextLines,
    /// core/v1 Events, a line each.
    CoreLines,
    /// ContextEvents, as Server-Sent Events.
    ContextEvents,
    /// core/v1 Events, as Server-Sent Events.
    CoreEvents,
}

/// Which piece: so many entries from a place on, written so.
pub type Which = (Place, usize, Writing);

/// The newest pieces.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    pieces: VecDeque<(Which, Bytes)>,
    bytes: usize,
}

impl Pieces {
    /// A piece; made if nobody has asked for it lately. Whoever asks for any meanwhile waits.
    pub fn of(&self, which: Which, make: impl FnOnce() -> Bytes) -> Bytes {
        let mut kept = self.kept();
        if let Some((_, piece)) = kept.pieces.iter().find(|(known, _)| *known == which) {
            return piece.clone();
        }
        let piece = make();
        kept.bytes += piece.len();
        kept.pieces.push_front((which, piece.clone()));
        while kept.bytes > KEPT {
            let Some((_, oldest)) = kept.pieces.pop_back() else { break };
            kept.bytes -= oldest.len();
        }
        piece
    }

    /// Keeps none.
    pub fn clear(&self) {
        *self.kept() = Kept::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // a piece that could not be made is not there
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{http::tail::ring::Ring, store::events::Cursor};
    use std::cell::Cell;

    #[test]
    fn a_piece_is_made_once_for_all_who_stand_at_a_place_and_not_kept_for_ever() {
        let ring = Ring::default();
        ring.begin(Cursor::through(5), false);
        let place = ring.join(Cursor::through(5)).unwrap();
        let (pieces, made) = (Pieces::default(), Cell::new(0));
        let of = |entries, writing| {
            pieces.of((place, entries, writing), || {
                made.set(made.get() + 1);
                Bytes::from(vec![b'x'; KEPT / 4])
            })
        };
        for _ in 0..3 {
            of(2, Writing::ContextLines);
        }
        assert_eq!(made.get(), 1, "once for three");
        of(3, Writing::ContextLines);
        of(2, Writing::CoreEvents);
        assert_eq!(made.get(), 3, "another length, another writing");
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 3, "it is there still");
        for entries in 4..6 {
            of(entries, Writing::ContextLines);
        }
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 6, "the oldest had to go");
        pieces.clear();
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 7);
    }
}
