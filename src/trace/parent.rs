//! W3C Trace Context: what a client says in `traceparent`. `tracestate` is for vendors, and is not read.

use super::TraceId;
use axum::http::HeaderMap;

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: [u8; 8],
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Context {
    /// Whose trace a request belongs to. Anything that does not have the form of the standard is as if it were not there, as the
    /// standard asks.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all("traceparent").iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        Self::parse(value.to_str().ok()?)
    }

    /// `version-trace-parent-flags`, in lower-case hexadecimal digits. Of later versions the first four fields count.
    fn parse(text: &str) -> Option<Self> {
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut fields = text.trim().split('-');
        let version: [u8; 1] = bytes(fields.next()?)?;
        let (trace, span, flags) = (bytes(fields.next()?)?, bytes(fields.next()?)?, bytes::<1>(fields.next()?)?);
        let ok = version != [0xff] && (version != [0] || fields.next().is_none()) && trace != [0; 16] && span != [0; 8];
        ok.then_some(Self { trace: TraceId(trace), span, sampled: flags[0] & 1 == 1 })
    }
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_that_has_its_form_names_a_place_in_a_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(good).expect("it has its form");
        assert_eq!(context.trace.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!((context.span, context.sampled), ([0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7], true));
        assert!(!Context::parse(&good.replace("-01", "-00")).expect("it has its form").sampled);
        assert!(Context::parse(&format!("{}-more", good.replacen("00", "01", 1))).is_some(), "of a later version");
    }

    #[test]
    fn anything_else_is_as_if_it_were_not_there() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473ü-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.append("traceparent", good.parse().expect("a value"));
        assert!(Context::of(&headers).is_some());
        headers.append("traceparent", good.parse().expect("a value"));
        assert_eq!(Context::of(&headers), None, "two of them");
    }
}
