//! What many watchers are sent alike, put together once: all who see every event, of a namespace or of all, and stand at one place take
//! the same ones, and a thousand of them would each copy the same lines, or read the same rows.

use super::ring::Place;
use crate::store::events::Cursor;
use axum::body::Bytes;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How many bytes of pieces are kept. Watchers who are told of the same stand at the same place, or some pieces behind; but when very many
/// come back to one place at once, the last begin when the first are done, and what is between them is all that the ring has.
const KEPT: usize = 12 << 20;

/// How events are written in a piece.
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

/// What those who share a piece have in common.
#[derive(Clone, Copy, Debug)]
pub struct Sharing<'a> {
    /// Every event of this namespace, or of all.
    pub namespace: Option<&'a str>,
    /// Written so.
    pub writing: Writing,
}

/// Where a piece begins, and how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many entries of the ring from a place on.
    Ring(Place, usize),
    /// What the log has after this, as far as one read of the database goes that does not come to its end: that is the same whenever it
    /// is read.
    Log(Cursor),
}

/// A piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// As it is sent; nothing, when there is nothing of the namespace in it.
    pub bytes: Bytes,
    /// What has been told with it.
    pub through: Cursor,
}

/// The pieces that were asked for last.
#[derive(Debug, Default)]
pub struct Pieces(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Those that were asked for last come first.
    pieces: VecDeque<KeptPiece>,
    bytes: usize,
}

#[derive(Debug)]
struct KeptPiece {
    part: Part,
    namespace: Option<String>,
    writing: Writing,
    piece: Piece,
    /// Somebody has asked for it since [`Pieces::forget`].
    fresh: bool,
}

impl KeptPiece {
    /// About how many bytes it takes.
    fn size(&self) -> usize {
        self.piece.bytes.len() + 256
    }
}

impl Kept {
    /// A piece, which is the last to go now: those that one slow reader after another asks for stay, however many others are made.
    fn find(&mut self, part: Part, sharing: Sharing<'_>) -> Option<Piece> {
        let Sharing { namespace, writing } = sharing;
        let is_it = |kept: &KeptPiece| kept.part == part && kept.writing == writing && kept.namespace.as_deref() == namespace;
        let at = self.pieces.iter().position(is_it)?;
        let found = self.pieces.remove(at)?;
        let piece = found.piece.clone();
        self.pieces.push_front(KeptPiece { fresh: true, ..found });
        Some(piece)
    }

    fn keep(&mut self, part: Part, sharing: Sharing<'_>, piece: Piece) {
        let Sharing { namespace, writing } = sharing;
        let kept = KeptPiece { part, namespace: namespace.map(str::to_owned), writing, piece, fresh: true };
        self.bytes += kept.size();
        self.pieces.push_front(kept);
        while self.bytes > KEPT {
            let Some(last) = self.pieces.pop_back() else { break };
            self.bytes -= last.size();
        }
    }
}

impl Pieces {
    /// A piece; made if nobody has asked for it lately. Whoever asks for any meanwhile waits.
    pub fn of(&self, part: Part, sharing: Sharing<'_>, make: impl FnOnce() -> Piece) -> Piece {
        let mut kept = self.kept();
        kept.find(part, sharing).unwrap_or_else(|| {
            let piece = make();
            kept.keep(part, sharing, piece.clone());
            piece
        })
    }

    /// A piece, if somebody has made it lately.
    pub fn find(&self, part: Part, sharing: Sharing<'_>) -> Option<Piece> {
        self.kept().find(part, sharing)
    }

    /// Forgets what nobody has asked for since this was called last.
    pub fn forget(&self) {
        let mut kept = self.kept();
        kept.pieces.retain_mut(|kept| std::mem::take(&mut kept.fresh));
        kept.bytes = kept.pieces.iter().map(KeptPiece::size).sum();
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
        let of_namespace = |entries, namespace, writing| {
            pieces.of(Part::Ring(place, entries), Sharing { namespace, writing }, || {
                made.set(made.get() + 1);
                Piece { bytes: Bytes::from(vec![b'x'; KEPT / 5]), through: Cursor::through(6) }
            })
        };
        let of = |entries, writing| of_namespace(entries, None, writing);
        for _ in 0..3 {
            of(2, Writing::ContextLines);
        }
        assert_eq!(made.get(), 1, "once for three");
        of(3, Writing::ContextLines);
        of(2, Writing::CoreEvents);
        of_namespace(2, Some("team-a"), Writing::ContextLines);
        assert_eq!(made.get(), 4, "another length, another writing, other events");
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 4, "it is there still");
        for entries in 4..8 {
            of(entries, Writing::ContextLines);
            of(2, Writing::ContextLines);
        }
        assert_eq!(made.get(), 8, "what is asked for stays, whatever is made");
        of(3, Writing::ContextLines);
        assert_eq!(made.get(), 9, "and what was not asked for had to go");
        pieces.forget();
        of(2, Writing::ContextLines);
        pieces.forget();
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 9, "somebody asks for it");
        of(3, Writing::ContextLines);
        assert_eq!(made.get(), 10, "nobody had asked for that one");
        pieces.clear();
        of(2, Writing::ContextLines);
        assert_eq!(made.get(), 11);
    }
}
