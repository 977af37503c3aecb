//! What may be a name: Kubernetes' own rules (apimachinery `validation.IsDNS1123Label`, `IsDNS1123Subdomain`,
//! `IsQualifiedName`, `IsValidLabelValue`), so that every record could be an object in a cluster.

use super::fault::{Fault, FaultKind};
use std::collections::BTreeMap;

/// Longest DNS label, in bytes: agents, namespaces, workspaces.
pub const LABEL_MAX: usize = 63;
/// Longest DNS subdomain, in bytes: chats.
pub const SUBDOMAIN_MAX: usize = 253;
/// Most bytes that the annotations of an object may take together, as in Kubernetes.
pub const ANNOTATIONS_MAX: usize = 256 * 1024;
/// Longest token of a request annotation, in characters.
pub const TOKEN_MAX: usize = 64;

/// Checks a DNS label: lower-case letters, digits and `-`, beginning and ending with a letter or digit, at most 63 bytes.
pub fn dns_label(field: &str, name: &str) -> Option<Fault> {
    if name.is_empty() {
        return Some(Fault::new(field, FaultKind::Required, "must not be empty"));
    }
    if name.len() > LABEL_MAX {
        return Some(Fault::new(field, FaultKind::TooLong, format!("must be at most {LABEL_MAX} bytes, got {}", name.len())));
    }
    (!is_label(name)).then(|| {
        let rule = "must be lower-case letters, digits and '-', beginning and ending with a letter or digit";
        Fault::new(field, FaultKind::Invalid, format!("{rule}, got {name:?}"))
    })
}

/// Checks a DNS subdomain: labels joined by dots, at most 253 bytes together.
pub fn dns_subdomain(field: &str, name: &str) -> Option<Fault> {
    if name.is_empty() {
        return Some(Fault::new(field, FaultKind::Required, "must not be empty"));
    }
    if name.len() > SUBDOMAIN_MAX {
        return Some(Fault::new(field, FaultKind::TooLong, format!("must be at most {SUBDOMAIN_MAX} bytes, got {}", name.len())));
    }
    (!name.split('.').all(is_label)).then(|| {
        let rule = "must be lower-case letters, digits, '-' and '.', beginning and ending with a letter or digit";
        Fault::new(field, FaultKind::Invalid, format!("{rule}, got {name:?}"))
    })
}

/// Checks labels: qualified names as keys, values of at most 63 characters.
pub fn labels(field: &str, labels: &BTreeMap<String, String>) -> Vec<Fault> {
    let mut faults = keys(field, labels.keys().map(|key| (key.as_str(), key.clone())));
    for (key, value) in labels {
        let fault = label_value(value).map(|(kind, rule)| Fault::new(field, kind, format!("the value of {key:?} {rule}")));
        faults.extend(fault);
    }
    faults
}

/// What is wrong with a label's value, if anything: the rule, and what was got.
pub fn label_value(value: &str) -> Option<(FaultKind, String)> {
    if value.len() > LABEL_MAX {
        return Some((FaultKind::TooLong, format!("must be at most {LABEL_MAX} bytes, got {}", value.len())));
    }
    let rule = "must be letters, digits, '-', '_' and '.', beginning and ending with a letter or digit";
    (!value.is_empty() && !is_qualified_part(value)).then(|| (FaultKind::Invalid, format!("{rule}, got {value:?}")))
}

/// Checks annotations: qualified names as keys, 256 KiB together.
pub fn annotations(field: &str, annotations: &BTreeMap<String, String>) -> Vec<Fault> {
    // Kubernetes looks at them in small letters.
    let mut faults = keys(field, annotations.keys().map(|key| (key.as_str(), key.to_ascii_lowercase())));
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > ANNOTATIONS_MAX {
        let message = format!("annotations must be at most {ANNOTATIONS_MAX} bytes together, got {size}");
        faults.push(Fault::new(field, FaultKind::TooLong, message));
    }
    faults
}

/// Checks the second of each, and shows the first. The field is the map: so a kube-apiserver names it.
fn keys<'a>(field: &str, keys: impl Iterator<Item = (&'a str, String)>) -> Vec<Fault> {
    let bad = |key: &str| {
        let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
        let prefix_ok = prefix.is_none_or(|p| p.len() <= SUBDOMAIN_MAX && p.split('.').all(is_label));
        !(prefix_ok && !name.is_empty() && name.len() <= LABEL_MAX && is_qualified_part(name))
    };
    let rule =
        "a key must be a qualified name: an optional DNS subdomain and '/', then at most 63 letters, digits, '-', '_' and '.'";
    keys.filter(|(_, looked_at)| bad(looked_at))
        .map(|(key, _)| Fault::new(field, FaultKind::Invalid, format!("{rule}, got {key:?}")))
        .collect()
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    bytes.iter().copied().all(inner) && end(bytes.first()) && end(bytes.last())
}

fn is_qualified_part(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.iter().copied().all(inner) && end(bytes.first()) && end(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_dns_names_are_refused_with_the_rule_and_what_was_got() {
        for good in ["a", "ws-42", "0", &"a".repeat(63)] {
            assert_eq!(dns_label("metadata.name", good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a\0b", &"a".repeat(64)] {
            let fault = dns_label("metadata.name", bad).unwrap_or_else(|| panic!("{bad:?} was taken for a label"));
            assert_eq!(fault.field, "metadata.name");
        }
        assert_eq!(dns_subdomain("metadata.name", "fix.the-login.1"), None);
        for bad in ["a..b", ".a", "a.", "a/b", &"a".repeat(254)] {
            assert!(dns_subdomain("metadata.name", bad).is_some(), "{bad:?} was taken for a subdomain");
        }
    }

    #[test]
    fn a_subdomain_has_253_bytes_and_annotations_256_kib_and_no_more() {
        let longest = ["a", "b", "c", "d"].map(|letter| letter.repeat(63)).join(".")[..SUBDOMAIN_MAX].to_owned();
        assert_eq!(dns_subdomain("metadata.name", &longest), None);
        let longer = dns_subdomain("metadata.name", &format!("{longest}d")).expect("a fault");
        assert_eq!((longer.kind, longer.message.as_str()), (FaultKind::TooLong, "must be at most 253 bytes, got 254"));
        let note = |bytes: usize| annotations("metadata.annotations", &[("n".to_owned(), "x".repeat(bytes - 1))].into());
        assert_eq!(note(262_144), []);
        assert_eq!(note(262_145).len(), 1, "keys count as well");
    }

    #[test]
    fn every_bad_label_and_annotation_is_listed() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(labels("metadata.labels", &map(&[("moorline.dev/agent", "ws-42"), ("x", "")])), []);
        assert_eq!(labels("metadata.labels", &map(&[("x", &"a".repeat(63))])), []);
        assert_eq!(labels("metadata.labels", &map(&[("x", &"a".repeat(64))]))[0].kind, FaultKind::TooLong);
        assert_eq!(labels("metadata.labels", &map(&[("a b", "c"), ("x", "-y"), ("/z", "1")])).len(), 3);
        assert_eq!(annotations("metadata.annotations", &map(&[("note", "any text\nat all")])), []);
        assert_eq!(annotations("metadata.annotations", &map(&[("note", &"x".repeat(ANNOTATIONS_MAX))])).len(), 1);
    }
}
