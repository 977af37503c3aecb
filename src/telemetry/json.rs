//! One flat JSON object a line: `timestamp`, `level`, `target`, `message`, then what the line says, then what the request or the
//! statement that it belongs to says. Where two say the same field, the line's own counts.

use serde_json::{Map, Value};
use std::fmt;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut said = Fields(Map::new());
        event.record(&mut said);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>().and_then(|fields| serde_json::from_str(&fields.fields).ok());
            for (name, value) in fields.unwrap_or_else(Map::new) {
                said.0.entry(name).or_insert(value);
            }
        }
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let metadata = event.metadata();
        let mut line = Map::new();
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), metadata.level().as_str().into());
        line.insert("target".into(), metadata.target().into());
        for name in ["timestamp", "level", "target"] {
            said.0.remove(name); // the line's own
        }
        line.insert("message".into(), said.0.remove("message").unwrap_or_else(|| "".into()));
        line.append(&mut said.0);
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// What a line says.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.put(field, i64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.put(field, u64::try_from(value).map_or_else(|_| value.to_string().into(), Value::from));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };
    use tracing_subscriber::fmt::{MakeWriter, format::JsonFields};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn a_line_is_one_flat_object_with_the_fields_of_its_request() {
        let lines = Lines::default();
        let subscriber =
            tracing_subscriber::fmt().with_writer(lines.clone()).fmt_fields(JsonFields::new()).event_format(Json).finish();
        tracing::subscriber::with_default(subscriber, || {
            let request = tracing::info_span!("http", request_id = "r1", trace_id = tracing::field::Empty, code = 1);
            request.record("trace_id", "t1");
            request.in_scope(|| tracing::warn!(code = 503, retried = true, ms = 1.5, level = "mine", "it \"failed\"\nbadly"));
            let pause_ms = std::time::Duration::from_millis(7).as_millis();
            tracing::info!(pause_ms);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2, "{text}");
        let expected = [("level", "WARN"), ("message", "it \"failed\"\nbadly"), ("request_id", "r1"), ("trace_id", "t1")];
        for (name, value) in expected {
            assert_eq!(lines[0][name], value, "{text}");
        }
        assert_eq!(
            (&lines[0]["code"], &lines[0]["retried"], &lines[0]["ms"]),
            (&503.into(), &true.into(), &1.5.into()),
            "{text}"
        );
        assert_eq!((&lines[1]["pause_ms"], &lines[1]["message"], &lines[1].get("request_id")), (&7.into(), &"".into(), &None));
        assert!(lines[1]["timestamp"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{text}");
        assert!(lines[1]["target"].as_str().is_some_and(|target| target.starts_with("moorline")), "{text}");
    }
}
