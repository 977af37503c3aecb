//! What many watchers are sent alike, put together once: all who see every event, of a namespace or of all, and stand at one place take
//! the same ones, and a thousand of them would each copy the same lines, or read the same rows.

use super::ring::Place;
use crate::{http::kept::Kept, store::events::Cursor};
use axum::body::Bytes;

/// How many bytes of pieces are kept. Watchers who are told of the same stand at the same place, or some pieces behind; but when very many
/// come back to one place at once, the last begin when the first are done, and what is between them is all that the ring has.
const BYTES_MAX: usize = 12 << 20;
/// About how many bytes a piece takes besides its own.
const PIECE: usize = 256;

/// How events are written in a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
#[derive(Debug)]
pub struct Pieces(Kept<(Part, Option<String>, Writing), Piece>);

impl Default for Pieces {
    fn default() -> Self {
        Self(Kept::new("pieces", BYTES_MAX))
    }
}

impl Pieces {
    /// A piece, if somebody has made it lately.
    pub fn find(&self, part: Part, sharing: Sharing<'_>) -> Option<Piece> {
        self.0.get(&key(part, sharing))
    }

    /// Keeps a piece.
    pub fn keep(&self, part: Part, sharing: Sharing<'_>, piece: &Piece) {
        self.0.put(key(part, sharing), piece.clone(), PIECE + piece.bytes.len());
    }

    /// Forgets what nobody has asked for since this was called last.
    pub fn forget(&self) {
        self.0.forget();
    }

    /// Keeps none.
    pub fn clear(&self) {
        self.0.clear();
    }
}

fn key(part: Part, sharing: Sharing<'_>) -> (Part, Option<String>, Writing) {
    let Sharing { namespace, writing } = sharing;
    (part, namespace.map(str::to_owned), writing)
}
