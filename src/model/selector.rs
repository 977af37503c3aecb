//! Selectors, as Kubernetes writes them: over labels and over fields. Parsing and matching; nothing here knows SQL or HTTP.
//!
//! The grammar is that of a kube-apiserver (k8s.io/apimachinery, `labels.Parse` and `fields.ParseSelector`): terms joined by
//! commas, all of which must hold.

use super::{name, object::TextMap};

/// What is wrong with a selector: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSelector(String);

/// One term of a label selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `key=value`, `key==value`, `key in (…)`: the label is one of these.
    In(String, Vec<String>),
    /// `key!=value`, `key notin (…)`: the label is none of these, or absent.
    NotIn(String, Vec<String>),
    /// `key`: the label is there.
    Exists(String),
    /// `!key`: it is not.
    Absent(String),
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

impl LabelSelector {
    /// Reads one; the empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, BadSelector> {
        terms(text)?.into_iter().map(requirement).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it selects an object with these labels.
    pub fn matches(&self, labels: &TextMap) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
        })
    }
}

/// Cuts a selector at the commas that are not between parentheses.
fn terms(text: &str) -> Result<Vec<&str>, BadSelector> {
    let (mut found, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '(' if inside => return Err(BadSelector(format!("{text:?} opens a parenthesis inside of another"))),
            '(' => inside = true,
            ')' if !inside => return Err(BadSelector(format!("{text:?} closes a parenthesis that is not open"))),
            ')' => inside = false,
            ',' if !inside => {
                found.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(BadSelector(format!("{text:?} does not close a parenthesis")));
    }
    found.push(&text[begin..]);
    if found == [""] || text.trim().is_empty() {
        return Ok(Vec::new());
    }
    Ok(found)
}

fn requirement(term: &str) -> Result<Requirement, BadSelector> {
    let term = term.trim();
    let requirement = if let Some(key) = term.strip_prefix('!') {
        Requirement::Absent(key.trim().to_owned())
    } else if let Some((key, value)) = term.split_once("!=") {
        Requirement::NotIn(key.trim().to_owned(), vec![value.trim().to_owned()])
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        Requirement::In(key.trim().to_owned(), vec![value.trim().to_owned()])
    } else if let Some((head, values)) = term.split_once('(') {
        let values: Vec<String> =
            values.trim_end().trim_end_matches(')').split(',').map(|value| value.trim().to_owned()).collect();
        match head.split_whitespace().collect::<Vec<_>>()[..] {
            [key, "in"] => Requirement::In(key.to_owned(), values),
            [key, "notin"] => Requirement::NotIn(key.to_owned(), values),
            _ => return Err(BadSelector(format!("{term:?} must be `KEY in (…)` or `KEY notin (…)`"))),
        }
    } else {
        Requirement::Exists(term.to_owned())
    };
    let (key, values) = match &requirement {
        Requirement::In(key, values) | Requirement::NotIn(key, values) => (key, values.as_slice()),
        Requirement::Exists(key) | Requirement::Absent(key) => (key, &[][..]),
    };
    let probe = |value: &str| name::labels("selector", &TextMap::from([(key.clone(), value.to_owned())]));
    let fault = probe("").into_iter().next().or_else(|| values.iter().find_map(|value| probe(value).into_iter().next()));
    match fault {
        None => Ok(requirement),
        Some(fault) => Err(BadSelector(format!("{term:?}: {}", fault.message))),
    }
}

/// A field selector: paths, each with whether it must be equal, and the value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads one over these fields; the empty text selects everything.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, BadSelector> {
        let mut found = Vec::new();
        for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
            let (field, equal, value) = if let Some((field, value)) = term.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
                (field, true, value)
            } else {
                return Err(BadSelector(format!("{term:?} must be FIELD=VALUE, FIELD==VALUE or FIELD!=VALUE")));
            };
            let (field, value) = (field.trim(), value.trim());
            if !known.contains(&field) {
                return Err(BadSelector(format!("field label not supported: {field}; these are: {}", known.join(", "))));
            }
            found.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(found))
    }

    /// Whether it selects an object; `field` gives the value of a field, empty when it is absent.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|(name, equal, value)| (field(name) == value) == *equal)
    }

    /// The value that a field must be equal to, if there is one.
    pub fn wants(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, equal, _)| *equal && name == field).map(|(_, _, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> TextMap {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn label_selectors_select_as_a_kube_apiservers() {
        let of = labels(&[("app", "web"), ("tier", "front"), ("example.dev/x", "")]);
        for (text, selects) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app!=web", false),
            ("missing!=web", true),
            ("app in (web, api)", true),
            ("app notin (web,api)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing,example.dev/x", true),
            ("example.dev/x=", true),
        ] {
            assert_eq!(LabelSelector::parse(text).expect(text).matches(&of), selects, "{text}");
        }
        for bad in ["app in web", "app in (a", "a)b", "=x", "app=a b", ",", "-x", "a in ((b))", "app ~ x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_selectors_know_their_fields() {
        let known = ["metadata.name", "status.dirty"];
        let selector = FieldSelector::parse("metadata.name!=x, status.dirty==true", &known).expect("a selector");
        let value = |name: &str| if name == "metadata.name" { "fix" } else { "true" };
        assert!(selector.matches(value));
        assert_eq!(selector.wants("status.dirty"), Some("true"));
        let error = FieldSelector::parse("spec.title=x", &known).expect_err("unknown").to_string();
        assert!(error.contains("spec.title") && error.contains("metadata.name, status.dirty"), "{error}");
        assert!(FieldSelector::parse("nonsense", &known).is_err());
    }
}
