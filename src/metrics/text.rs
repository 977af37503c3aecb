//! The formats of a scrape. The registry writes OpenMetrics; Prometheus' own text format is made of it, line by line.

/// A format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0: with units and exemplars.
    OpenMetrics,
    /// Prometheus' text format 0.0.4, which everything reads: without them.
    Prometheus,
}

impl Format {
    /// What a client that sends this `Accept` takes: OpenMetrics when it names it, the other when it names nothing that we have.
    pub fn of(accept: Option<&str>) -> Self {
        let media =
            |range: &str| range.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/openmetrics-text");
        if accept.is_some_and(|accept| accept.split(',').any(media)) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// OpenMetrics as Prometheus' text format: counters are called as their samples are, and there are no units, no exemplars and no
/// mark at the end.
pub(super) fn prometheus(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
            if let Some((_, help)) = help.take() {
                text.extend(["# HELP ", &name, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", &name, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.push_str(line.split_once(" # {").map_or(line, |(sample, _)| sample));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_name_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::of(Some(prometheus)), Format::OpenMetrics);
        for other in [None, Some("*/*"), Some("text/plain"), Some("application/json"), Some("")] {
            assert_eq!(Format::of(other), Format::Prometheus, "{other:?}");
        }
    }

    #[test]
    fn the_older_format_has_counters_by_their_samples_names_and_nothing_that_it_does_not_know() {
        let openmetrics = "# HELP pushes Pushes, by result.\n# TYPE pushes counter\npushes_total{result=\"a\"} 2 # {trace_id=\"f\"} 1\n\
            # HELP wait_seconds Time.\n# TYPE wait_seconds histogram\n# UNIT wait_seconds seconds\nwait_seconds_sum 1.0\n\
            wait_seconds_bucket{le=\"1\"} 1 # {trace_id=\"f\"} 0.5 1.0\n# EOF\n";
        let text = "# HELP pushes_total Pushes, by result.\n# TYPE pushes_total counter\npushes_total{result=\"a\"} 2\n\
            # HELP wait_seconds Time.\n# TYPE wait_seconds histogram\nwait_seconds_sum 1.0\nwait_seconds_bucket{le=\"1\"} 1\n";
        assert_eq!(prometheus(openmetrics), text);
    }
}
