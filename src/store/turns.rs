//! Connecting on a runtime that has much to do.
//!
//! With a password (SCRAM, RFC 5802) a client proves who it is by 4,096 rounds of a hash. sqlx gives the processor away after each
//! five of them, 819 times in all, and comes back when every other task that is ready has had its turn: with turns of a few
//! milliseconds that is seconds, longer than anybody waits for a connection.

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

/// How often the future is asked in one turn. 160 rounds of the hash are some 100 µs, and asking a socket in vain is nothing.
const ASKED: usize = 32;

/// Waits for a future that gives its turn away more often than is good for it: whenever it has its turn, it is asked up to 32 times.
/// It is on the heap: the future of a connection that is made is large.
pub fn in_few_turns<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let mut future = Box::pin(future);
    poll_fn(move |cx| (0..ASKED).map(|_| future.as_mut().poll(cx)).find(Poll::is_ready).unwrap_or(Poll::Pending))
}
