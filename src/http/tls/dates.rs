//! From when and until when a certificate is good, as it says itself.
//!
//! It reads as much of a certificate's DER (RFC 5280, 4.1) as stands before and at its dates, and nothing else of it. What it does
//! not: judge. Certificates are verified by those who are shown them.

use jiff::{Timestamp, civil, tz::Offset};
use rustls::pki_types::CertificateDer;

/// The tags that are met on the way.
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// Of a certificate's version, which may be left out.
const VERSION: u8 = 0xa0;

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dates {
    /// From then on.
    pub from: Timestamp,
    /// Until then.
    pub until: Timestamp,
}

impl Dates {
    /// Of a chain: when all of it is good. None when one of its certificates does not say it as it should.
    pub fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let each: Vec<Self> = chain.iter().map(|certificate| read(certificate)).collect::<Option<_>>()?;
        let from = each.iter().map(|dates| dates.from).max()?;
        let until = each.iter().map(|dates| dates.until).min()?;
        Some(Self { from, until })
    }
}

fn read(certificate: &[u8]) -> Option<Dates> {
    let mut outer = Der(certificate);
    let mut certificate = Der(outer.expect(SEQUENCE)?);
    let mut signed = Der(certificate.expect(SEQUENCE)?);
    if signed.0.first() == Some(&VERSION) {
        signed.expect(VERSION)?;
    }
    signed.expect(INTEGER)?; // the serial number
    signed.expect(SEQUENCE)?; // the algorithm
    signed.expect(SEQUENCE)?; // the issuer
    let mut validity = Der(signed.expect(SEQUENCE)?);
    Some(Dates { from: validity.time()?, until: validity.time()? })
}

/// What is left to be read.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((*tag, content))
    }

    /// The content of the next element, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    fn time(&mut self) -> Option<Timestamp> {
        let (tag, text) = self.next()?;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            // Two digits mean 1950 to 2049.
            UTC_TIME => {
                let (year, rest) = number(text, 2)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => number(text, 4)?,
            _ => return None,
        };
        let mut parts = [0_i8; 5];
        let mut rest = rest;
        for part in &mut parts {
            let (value, left) = number(rest, 2)?;
            (*part, rest) = (i8::try_from(value).ok()?, left);
        }
        let [month, day, hour, minute, second] = parts;
        let time = civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        rest.is_empty().then(|| Offset::UTC.to_timestamp(time).ok())?
    }
}

/// A number of so many digits, and what comes after it.
fn number(text: &str, digits: usize) -> Option<(i16, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok().map(|number| (number, rest)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn certificate(from: i32, until: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 2), date_time_ymd(until, 11, 21));
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_chain_is_good_while_all_of_it_is_in_either_form_of_a_date() {
        let of = |chain: &[CertificateDer<'_>]| Dates::of(chain).expect("dates");
        let (near, far) = (certificate(1999, 2027), certificate(2025, 2050));
        let dates = Dates { from: at("1999-01-02T00:00:00Z"), until: at("2027-11-21T00:00:00Z") };
        assert_eq!(of(std::slice::from_ref(&near)), dates);
        // From 2050 on a date has four digits of its year.
        let dates = Dates { from: at("2025-01-02T00:00:00Z"), until: at("2050-11-21T00:00:00Z") };
        assert_eq!(of(std::slice::from_ref(&far)), dates);
        let dates = Dates { from: at("2025-01-02T00:00:00Z"), until: at("2027-11-21T00:00:00Z") };
        assert_eq!(of(&[near, far]), dates);
        assert_eq!(Dates::of(&[]), None);
    }

    #[test]
    fn what_is_cut_short_or_garbled_says_nothing_and_harms_nobody() {
        let whole = certificate(2025, 2027);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None, "its first {end} bytes");
        }
        for at in 0..whole.len().min(256) {
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut garbled = whole.to_vec();
                garbled[at] = byte;
                read(&garbled); // whatever it says
            }
        }
    }
}
