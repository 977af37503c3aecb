//! What the promises are tested with.

pub mod api;
pub mod batch;
pub mod caches;
pub mod certificates;
pub mod cluster;
#[cfg(feature = "otlp")]
pub mod collector;
pub mod counted;
pub mod disk;
pub mod envtest;
pub mod gateway;
pub mod helm;
pub mod hostile;
pub mod kubectl;
pub mod link;
pub mod moorline;
pub mod pair;
pub mod plan_words;
pub mod ports;
pub mod postgres;
pub mod prometheus;
pub mod proxy;
pub mod secure;
pub mod serve;
pub mod stream;
pub mod supervised;
pub mod trace;
pub mod until;
#[cfg(any(feature = "otlp", feature = "profile"))]
pub mod wire;
pub mod world;
