//! `Accept` (RFC 9110 §12.5.1), read: media ranges with their parameters, best first. What to do with them is for others to
//! say.

use super::super::status::ApiError;
use axum::http::{HeaderMap, header};

/// Most media ranges that are looked at; clients send three or four.
const RANGES_MAX: usize = 32;

/// One media range that a client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    media: String,
    parameters: Vec<(String, String)>,
    /// In thousandths; never 0, because that means "not this".
    quality: u16,
}

impl Range {
    /// Whether a media type is in this range, parameters aside: it is named, or `application/*`, or `*/*`.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        match self.media.split_once('/') {
            Some(("*", "*")) => true,
            Some((range, "*")) => range == kind,
            Some((range, sub)) => range == kind && sub == subtype,
            None => false,
        }
    }

    /// The value of a parameter other than `q`. Names are compared without case, values are as they came.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
        let mut range = Self { media, parameters: Vec::new(), quality: 1000 };
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            if name == "q" {
                range.quality = thousandths(value);
            } else {
                range.parameters.push((name, value.to_owned()));
            }
        }
        (range.quality > 0).then_some(range)
    }
}

/// A quality, 0 to 1 with at most three decimals; what is none counts as 1.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between 0 and 1000")]
fn thousandths(text: &str) -> u16 {
    text.parse::<f64>().ok().filter(|quality| (0.0..=1.0).contains(quality)).map_or(1000, |quality| (quality * 1000.0) as u16)
}

/// What a client accepts, what it likes best first, in its own order where it likes things equally. Empty when it does not say.
/// A client that says only what it does not accept accepts a range that is nothing's.
pub fn ranges(headers: &HeaderMap) -> Vec<Range> {
    let texts = headers.get_all(header::ACCEPT).iter().map(|value| value.to_str().unwrap_or("(not text)"));
    let given: Vec<&str> = texts.flat_map(|text| text.split(',')).filter(|text| !text.trim().is_empty()).collect();
    let mut ranges: Vec<Range> = given.iter().take(RANGES_MAX).filter_map(|text| Range::parse(text)).collect();
    if ranges.is_empty() && !given.is_empty() {
        return vec![Range { media: String::new(), parameters: Vec::new(), quality: 1 }];
    }
    ranges.sort_by_key(|range| std::cmp::Reverse(range.quality)); // stable
    ranges
}

/// Refuses a request that does not accept plain JSON: the answer to every write is that.
pub fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let ranges = ranges(headers);
    let plain = |range: &Range| range.is("application", "json") && range.parameter("as").is_none();
    if ranges.is_empty() || ranges.iter().any(plain) {
        return Ok(());
    }
    Err(ApiError::not_acceptable("only the following media types will be returned: application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn accepting(accept: &'static str) -> HeaderMap {
        [(header::ACCEPT, HeaderValue::from_static(accept))].into_iter().collect()
    }

    #[test]
    fn what_is_liked_best_comes_first_and_what_is_refused_does_not_come() {
        let ranges = ranges(&accepting("text/plain;q=0.2, Text/HTML;Level=\"1\", a/b;q=0, */*;q=0.25"));
        let media: Vec<&str> = ranges.iter().map(|range| range.media.as_str()).collect();
        assert_eq!(media, ["text/html", "*/*", "text/plain"]);
        assert_eq!(ranges[0].parameter("level"), Some("1"));
        assert!(ranges[1].is("image", "png") && !ranges[0].is("image", "png"));
    }

    #[test]
    fn a_write_is_answered_in_plain_json_or_refused() {
        for accept in [
            "",
            "application/json",
            "*/*",
            "application/*;q=0.1",
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        ] {
            assert!(expect_json(&accepting(accept)).is_ok(), "{accept}");
        }
        for accept in ["text/plain", "application/json;q=0", "application/json;as=Table;v=v1;g=meta.k8s.io", "application/yaml"] {
            assert_eq!(expect_json(&accepting(accept)).expect_err(accept).code().as_u16(), 406);
        }
    }
}
