//! What kubectl printed, without what differs from one run to the next: times, ages, uids, versions, addresses, widths.
//!
//! Nothing else is taken away, so whatever two servers say differently stays different.

use jiff::Timestamp;
use uuid::Uuid;

/// The lines of a text, made comparable.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(line).collect()
}

/// One line: its indentation, and its words with one space between them, or two where there were more (a table's columns).
pub fn line(text: &str) -> String {
    // Of the headers of a diff, only that there is one: they name temporary folders and times.
    for header in ["diff -u", "--- /", "+++ /"] {
        if text.starts_with(header) {
            return header.trim_end_matches('/').to_owned();
        }
    }
    let unindented = text.trim_start();
    let mut plain = text[..text.len() - unindented.len()].to_owned();
    let versioned = ["resourceVersion:", "resourceVersion\":", "Resource Version:"].iter().any(|key| unindented.contains(key));
    let mut spaces = 0;
    for (n, word) in unindented.trim_end().split(' ').enumerate() {
        if word.is_empty() {
            spaces += 1;
            continue;
        }
        if n > 0 {
            plain.push_str(if spaces > 0 { "  " } else { " " });
        }
        spaces = 0;
        plain.push_str(&words(word, versioned));
    }
    plain
}

/// A run of characters between spaces: the words in it, each replaced when it is of a kind that changes.
fn words(text: &str, versioned: bool) -> String {
    let punctuation = |c: char| matches!(c, '"' | '\'' | ',' | '=' | '{' | '}' | '[' | ']' | '(' | ')' | ';' | '/');
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(punctuation) {
        plain.push_str(word(&rest[..at], versioned));
        let after = at + rest[at..].chars().next().map_or(0, char::len_utf8);
        plain.push_str(&rest[at..after]);
        rest = &rest[after..];
    }
    plain.push_str(word(rest, versioned));
    plain
}

fn word(text: &str, versioned: bool) -> &str {
    if text.parse::<Uuid>().is_ok() {
        "UID"
    } else if text.parse::<Timestamp>().is_ok() {
        "TIME"
    } else if is_age(text) {
        "AGE"
    } else if text.starts_with("127.0.0.1:") {
        "SERVER"
    } else if versioned && text.parse::<u64>().is_ok() {
        "VERSION"
    } else {
        text
    }
}

/// `5s`, `2m30s`, `3h5m`, and `0s` as it may be a moment ago.
fn is_age(text: &str) -> bool {
    let mut digits = 0;
    for c in text.chars() {
        match c {
            '0'..='9' => digits += 1,
            's' | 'm' | 'h' | 'd' if digits > 0 => digits = 0,
            _ => return false,
        }
    }
    digits == 0 && !text.is_empty()
}

#[test]
fn what_changes_from_run_to_run_is_named_and_the_rest_is_kept() {
    for (printed, plain) in [
        ("fix    web    True   12s", "fix  web  True  AGE"),
        ("  resourceVersion: \"35184372103516\"", "  resourceVersion: \"VERSION\""),
        ("+  resourceVersion: \"7\"", "+  resourceVersion: \"VERSION\""),
        ("    revision: 12", "    revision: 12"),
        ("  uid: 3f2504e0-4f89-11d3-9a0c-0305e82c3301", "  uid: UID"),
        ("Creation Timestamp:  2026-11-21T08:00:00Z", "Creation Timestamp:  TIME"),
        ("--- /tmp/LIVE-1/x\t2026-11-21 08:00:00", "--- "),
        ("  Normal  ContextHydrated  2m30s (x2 over 5m)  moorline", "  Normal  ContextHydrated  AGE (x2 over AGE)  moorline"),
        ("days: d5", "days: d5"),
    ] {
        assert_eq!(line(printed), plain);
    }
}
