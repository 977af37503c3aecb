//! Waiting for the database on a runtime that has much to do.
//!
//! With a password (SCRAM, RFC 5802) a client proves who it is by 4,096 rounds of a hash. sqlx gives the processor away after each
//! five of them, 819 times in all, and comes back when every other task that is ready has had its turn: with turns of a few
//! milliseconds that is seconds, longer than anybody waits for a connection.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::runtime::Handle;
use tracing::Instrument as _;

/// How often the future is asked in one turn. 160 rounds of the hash are some 100 µs, and asking a socket in vain is nothing.
const ASKED: usize = 32;

/// Waits for a future that gives its turn away more often than is good for it: whenever it has its turn, it is asked up to 32 times.
/// It is on the heap: the future of a connection that is made is large.
pub fn in_few_turns<F: Future>(future: F) -> impl Future<Output = F::Output> + Unpin {
    let mut future = Box::pin(future);
    poll_fn(move |cx| (0..ASKED).map(|_| future.as_mut().poll(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending))
}

/// Waits for a future that goes on to its end when nobody waits any more, as a task of its own, and is one only then: a task for each
/// costs turns of the scheduler.
pub fn to_its_end<F>(future: F) -> impl Future<Output = F::Output>
where
    F: Future<Output: Send> + Send + Unpin + 'static,
{
    ToItsEnd(Some(future))
}

struct ToItsEnd<F: Future<Output: Send> + Send + Unpin + 'static>(Option<F>);

impl<F: Future<Output: Send> + Send + Unpin + 'static> Future for ToItsEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        // It is back only when there is more of it: what has panicked does not go on.
        let mut future = self.0.take().expect("it is not asked after its end");
        let polled = Pin::new(&mut future).poll(cx);
        if polled.is_pending() {
            self.0 = Some(future);
        }
        polled
    }
}

impl<F: Future<Output: Send> + Send + Unpin + 'static> Drop for ToItsEnd<F> {
    fn drop(&mut self) {
        // Without a runtime there is nobody who could go on.
        if let (Some(future), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(future.in_current_span());
        }
    }
}
