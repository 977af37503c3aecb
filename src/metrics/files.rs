//! Of files that are read again when they change, and of the serving certificate that one of them holds.

use super::{Metrics, What, put};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatResult {
    what: &'static str,
    result: &'static str,
}

#[derive(Debug)]
pub(super) struct Files {
    reloads: Family<WhatResult, Counter>,
    refused: Family<What, Gauge>,
    certificate: Arc<Certificate>,
}

/// From when and until when the serving certificate is good; nothing where none is served, or it does not say.
#[derive(Debug, Default)]
struct Certificate(Mutex<Option<(Timestamp, Timestamp)>>);

impl Collector for Certificate {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some((from, until)) = *self.0.lock().unwrap_or_else(PoisonError::into_inner) else { return Ok(()) };
        for (name, help, at) in [
            (
                "moorline_tls_certificate_not_before_timestamp",
                "From when on the serving certificate, and those above it that it is shown with, are good",
                from,
            ),
            (
                "moorline_tls_certificate_expiry_timestamp",
                "When the serving certificate, or the first of those above it that it is shown with, expires",
                until,
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
            ConstGauge::new(at.as_second()).encode(metric)?;
        }
        Ok(())
    }
}

impl Files {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let certificate = Arc::<Certificate>::default();
        registry.register_collector(Box::new(Arc::clone(&certificate)));
        Self {
            reloads: put(
                registry,
                "moorline_reloads",
                "Files that were read again because they changed, by what they hold and whether it was taken",
                Family::default(),
            ),
            refused: put(
                registry,
                "moorline_file_refused",
                "1 while what a file newly says is refused and what it said before is in use, by what it holds",
                Family::default(),
            ),
            certificate,
        }
    }
}

impl Metrics {
    /// A file that changed was taken (`ok`) or not (`refused`).
    pub fn reloaded(&self, what: &'static str, result: &'static str) {
        self.files.reloads.get_or_create(&WhatResult { what, result }).inc();
        self.files.refused.get_or_create(&What { what }).set((result != "ok").into());
    }

    /// From when and until when the serving certificate is good, as it says itself.
    pub fn certificate(&self, dates: Option<(Timestamp, Timestamp)>) {
        *self.files.certificate.0.lock().unwrap_or_else(PoisonError::into_inner) = dates;
    }
}
