//! Traces: to which trace a piece of work belongs, and, in a binary with the feature `otlp`, telling a collector of it.
//!
//! Two kinds of trace. A **request** belongs to the trace that its client names by `traceparent` (W3C Trace Context), or to one of
//! its own. A **story** is what one snapshot of an agent set off: the push that brought it, the chats that the loop converged
//! because of it, the objects of the cluster that the mirror wrote. These happen in different processes at different times, so
//! the id of a story's trace, and that of its first span, are computed from what all of them know: the agent's uid and the
//! context hash. Nothing is stored or handed on for it. The push's span links to the request's.
//!
//! What it does not: anything that the work depends on. Without a collector and without a client's trace there is no trace, and
//! none of this costs more than a look.

#[cfg(feature = "otlp")]
mod otlp;
mod parent;

use crate::model::hash::ContextHash;
pub use parent::Context;
use sha2::{Digest as _, Sha256};
use std::{fmt, future::Future, time::Instant};
use uuid::Uuid;

/// The id of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

tokio::task_local! {
    static CURRENT: Context;
}

/// The trace that this task's work is recorded in, if it is.
pub fn current() -> Option<TraceId> {
    CURRENT.try_with(|context| context.sampled.then_some(context.trace)).ok().flatten()
}

/// Does something as part of a trace.
pub async fn within<F: Future>(context: Option<Context>, work: F) -> F::Output {
    match context {
        Some(context) => CURRENT.scope(context, work).await,
        None => work.await,
    }
}

/// What one snapshot of an agent sets off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Story {
    /// Whose snapshot.
    pub agent: Uuid,
    /// Which.
    pub hash: ContextHash,
}

impl Story {
    /// What the event of a chat or of an agent is part of: the payload says which context it came to.
    pub fn of_event(agent: Option<Uuid>, payload: &serde_json::Value) -> Option<Self> {
        let hash = payload.get("to").or_else(|| payload.get("hash"))?.as_str()?;
        Some(Self { agent: agent?, hash: hash.parse().ok()? })
    }

    /// The first half of a digest of what it is about names the trace, the next quarter its first span.
    fn digest(&self) -> [u8; 32] {
        let Self { agent, hash } = self;
        let digest = Sha256::new().chain_update(b"moorline/trace/v1").chain_update(agent.as_bytes());
        digest.chain_update(hash.as_bytes()).finalize().into()
    }

    /// The id of its trace.
    pub fn trace(&self) -> TraceId {
        TraceId(*self.digest().first_chunk().expect("a digest has 32 bytes"))
    }

    #[cfg(feature = "otlp")]
    fn first_span(&self) -> [u8; 8] {
        let digest = self.digest();
        *digest[16..].first_chunk().expect("a digest has 32 bytes")
    }
}

/// What is done in a story.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    /// A push brought the snapshot: the first span.
    Push {
        /// The agent's namespace.
        namespace: &'a str,
        /// The agent's name.
        agent: &'a str,
        /// The snapshot's name.
        snapshot: &'a str,
    },
    /// The loop changed chats because of it.
    Converge {
        /// Which lane.
        lane: &'static str,
        /// Where.
        namespace: &'a str,
        /// How many.
        chats: usize,
    },
    /// The mirror looked at an object of the cluster because of it, and wrote it if it differed.
    Mirror {
        /// The resource.
        resource: &'static str,
        /// Where.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
        /// What came of it.
        result: &'static str,
    },
}

/// Whether a collector is told of anything.
pub fn is_told() -> bool {
    #[cfg(feature = "otlp")]
    let told = otlp::is_told();
    #[cfg(not(feature = "otlp"))]
    let told = false;
    told
}

/// Tells of a step that began then and ends now.
#[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "nobody is told"))]
pub fn tell(story: &Story, step: &Step<'_>, began: Instant) {
    #[cfg(feature = "otlp")]
    otlp::tell(story, step, began);
}

/// A request that is being answered.
pub struct Request {
    context: Option<Context>,
    #[cfg(feature = "otlp")]
    span: Option<otlp::Span>,
}

impl Request {
    /// Begins; `parent` is the client's trace, if it named one.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "nobody is told"))]
    pub fn begin(method: &'static str, route: &str, parent: Option<Context>) -> Self {
        #[cfg(feature = "otlp")]
        {
            let span = otlp::request(method, route, parent);
            Self { context: span.as_ref().map_or(parent, |span| Some(otlp::context(span))), span }
        }
        #[cfg(not(feature = "otlp"))]
        Self { context: parent }
    }

    /// What its work is part of.
    pub fn context(&self) -> Option<Context> {
        self.context
    }

    /// It has been answered.
    #[cfg_attr(not(feature = "otlp"), expect(unused_variables, reason = "nobody is told"))]
    pub fn end(self, code: u16) {
        #[cfg(feature = "otlp")]
        if let Some(span) = self.span {
            otlp::answered(span, code);
        }
    }
}

/// Traces cannot be told of.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// What the environment says of the collector cannot be used.
    #[error("OTEL_EXPORTER_OTLP_…: {0}")]
    Exporter(String),
}

/// Tells a collector from now on, if the environment names one (`OTEL_EXPORTER_OTLP_ENDPOINT`, and what else OpenTelemetry knows).
/// Whoever holds the guard ends it with [`Telling::end`].
pub fn start() -> Result<Telling, TraceError> {
    let named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    let named = named.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let is = |name, value| std::env::var(name).is_ok_and(|said: String| said.eq_ignore_ascii_case(value));
    if !named || is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(Telling { told: false });
    }
    #[cfg(feature = "otlp")]
    otlp::start()?;
    #[cfg(not(feature = "otlp"))]
    tracing::warn!(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, and this binary was built without the feature otlp: it tells of no traces"
    );
    Ok(Telling { told: is_told() })
}

/// A collector is told, or not.
#[derive(Debug)]
#[must_use]
pub struct Telling {
    told: bool,
}

impl Telling {
    /// Tells what has not been told yet, for five seconds at most.
    #[cfg_attr(not(feature = "otlp"), expect(clippy::unused_async, reason = "there is nothing to wait for without a collector"))]
    pub async fn end(self) {
        if self.told {
            #[cfg(feature = "otlp")]
            otlp::end().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HASH: &str = "sha256:0001020304050607080910111213141516171819202122232425262728293031";

    #[test]
    fn all_who_know_agent_and_hash_come_to_one_trace() {
        let agent = Uuid::from_u128(7);
        let story = Story { agent, hash: HASH.parse().expect("a hash") };
        // So that replicas of two versions agree: the digest of these bytes, computed with sha256sum.
        assert_eq!(story.trace().to_string(), "cf8e0a303bd39763ecf5029c7edfd47c");
        let other = Story { agent: Uuid::from_u128(8), ..story };
        assert_ne!(other.trace(), story.trace());
        let drifted = json!({"from": null, "to": HASH});
        assert_eq!(Story::of_event(Some(agent), &drifted), Some(story));
        assert_eq!(Story::of_event(Some(agent), &json!({"agent": "ws", "hash": HASH})), Some(story), "of SnapshotAccepted");
        assert_eq!(Story::of_event(None, &drifted), None);
        assert_eq!(Story::of_event(Some(agent), &json!({"from": HASH, "to": null})), None);
    }

    #[tokio::test]
    async fn work_is_part_of_the_trace_that_it_is_done_within() {
        let context = |sampled| Some(Context { trace: TraceId([1; 16]), span: [2; 8], sampled });
        assert_eq!(current(), None);
        assert_eq!(within(context(true), async { current() }).await, Some(TraceId([1; 16])));
        assert_eq!(within(context(false), async { current() }).await, None, "nobody records it");
        assert_eq!(within(None, async { current() }).await, None);
    }
}
