//! A body in a few pieces whose length is known, none of them copied.

use axum::body::{Bytes, HttpBody};
use http_body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

/// The pieces that are still to be sent.
#[derive(Debug)]
pub struct Pieces {
    next: std::array::IntoIter<Bytes, 3>,
}

impl Pieces {
    /// These, one after the other.
    pub fn new(pieces: [Bytes; 3]) -> Self {
        Self { next: pieces.into_iter() }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.next.as_slice().iter().map(|piece| piece.len() as u64).sum())
    }
}
