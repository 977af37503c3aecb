//! Of files that are read again when they change.

use super::{Metrics, put};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatResult {
    what: &'static str,
    result: &'static str,
}

#[derive(Debug)]
pub(super) struct Files {
    reloads: Family<WhatResult, Counter>,
}

impl Files {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let help = "Files that were read again because they changed, by what they hold and whether it was taken";
        Self { reloads: put(registry, "moorline_reloads", help, Family::default()) }
    }
}

impl Metrics {
    /// A file that changed was taken (`ok`) or not (`refused`).
    pub fn reloaded(&self, what: &'static str, result: &'static str) {
        self.files.reloads.get_or_create(&WhatResult { what, result }).inc();
    }
}
