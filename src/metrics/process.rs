//! Of the process, under the names that every Prometheus client has, where the machine tells (`/proc`), and elsewhere nothing; and of
//! its runtime.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};
use std::{fmt, fs};

pub(super) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(Stat { cpu_seconds, resident_bytes }) = stat() {
            let (name, help) = ("process_cpu", "Time that this process has used of processors, the kernel's for it included");
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
            ConstCounter::new(cpu_seconds).encode(metric)?;
            let (name, help) = ("process_resident_memory", "Memory that this process has in hand");
            let metric = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            ConstGauge::new(resident_bytes).encode(metric)?;
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            let metric =
                encoder.encode_descriptor("process_open_fds", "Files and sockets that are open", None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX)).encode(metric)?;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let help = "Tasks that have begun and not ended: requests, watches, lanes";
            let metric = encoder.encode_descriptor("moorline_tasks", help, None, MetricType::Gauge)?;
            ConstGauge::new(i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX)).encode(metric)?;
        }
        Ok(())
    }
}

struct Stat {
    cpu_seconds: f64,
    resident_bytes: i64,
}

/// Linux' `/proc/self/stat`: after the name, which is in brackets, utime and stime are the 12th and 13th field, rss the 22nd.
fn stat() -> Option<Stat> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
    let ticks = f64::from(number(11)?) + f64::from(number(12)?);
    #[expect(clippy::cast_precision_loss, reason = "ticks a second are a hundred")]
    let cpu_seconds = ticks / rustix::param::clock_ticks_per_second() as f64;
    let pages = i64::from(number(21)?);
    Some(Stat { cpu_seconds, resident_bytes: pages * i64::try_from(rustix::param::page_size()).ok()? })
}
