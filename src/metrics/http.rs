//! Of the API: requests, watchers, and what is kept for them.

use super::{Exemplar, Metrics, exemplar, put, put_bytes, put_seconds, seconds_with_traces};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, exemplar::HistogramWithExemplars, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: String,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCache {
    cache: &'static str,
}

type OfRoute = Family<Route, HistogramWithExemplars<Exemplar>, fn() -> HistogramWithExemplars<Exemplar>>;

#[derive(Debug)]
pub(super) struct Http {
    requests: Family<Request, Counter>,
    seconds: OfRoute,
    watchers: Gauge,
    caches: Family<OfCache, Gauge>,
}

impl Http {
    pub(super) fn new(registry: &mut Registry) -> Self {
        Self {
            requests: put(registry, "moorline_http_requests", "Requests, by method, route and status code", Family::default()),
            seconds: put_seconds(
                registry,
                "moorline_http_request_duration",
                "Time to answer a request, by method and route",
                OfRoute::new_with_constructor(seconds_with_traces),
            ),
            watchers: put(registry, "moorline_watchers", "Open watches of this process", Gauge::default()),
            caches: put_bytes(
                registry,
                "moorline_cache",
                "What is kept in memory so that it need not be read again",
                Family::default(),
            ),
        }
    }
}

impl Metrics {
    /// A request was answered.
    pub fn request(&self, method: &'static str, route: &str, code: u16, took: Duration) {
        let route = route.to_owned();
        self.http.requests.get_or_create(&Request { method, route: route.clone(), code }).inc();
        self.http.seconds.get_or_create(&Route { method, route }).observe(took.as_secs_f64(), exemplar(), None);
    }

    /// How much a cache has.
    pub fn cache(&self, cache: &'static str, bytes: usize) {
        self.http.caches.get_or_create(&OfCache { cache }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How many watch.
    pub fn watchers(&self, watchers: usize) {
        self.http.watchers.set(i64::try_from(watchers).unwrap_or(i64::MAX));
    }
}
