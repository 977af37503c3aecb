//! `model::selector`: what is read as a selector is what it says, and nothing else.

use moorline::{
    http::{
        page::{selectable, selectors},
        status::Resource,
    },
    model::{
        object::TextMap,
        selector::{FieldSelector, LabelSelector, Requirement},
    },
};

use super::tape::Tape;

/// The first byte says of what list; the bytes after it are a label selector, and a field selector; and labels that either may
/// select or not.
pub fn run(data: &[u8]) {
    let mut tape = Tape(data);
    let resource = *tape.pick(&[Resource::Chats, Resource::Agents, Resource::AgentSnapshots]);
    let text = String::from_utf8_lossy(tape.0).into_owned();
    let labels = LabelSelector::parse(&text);
    let fields = FieldSelector::parse(&text, selectable(resource));
    assert_eq!(selectors(resource, Some(&text), None).is_ok(), labels.is_ok(), "a list reads it as it is");
    assert_eq!(selectors(resource, None, Some(&text)).is_ok(), fields.is_ok(), "a list reads it as it is");
    if let Ok(labels) = labels {
        of_labels(&labels, tape);
    }
    if let Ok(fields) = fields {
        of_fields(&fields, selectable(resource));
    }
}

fn of_labels(selector: &LabelSelector, mut tape: Tape<'_>) {
    let terms: Vec<String> = selector.0.iter().map(written).collect();
    assert_eq!(LabelSelector::parse(&terms.join(",")).ok().as_ref(), Some(selector), "written out and read again: {terms:?}");
    // Labels made of the selector's own words, so that some of them are selected.
    for _ in 0..4 {
        let mut labels = TextMap::new();
        for term in &selector.0 {
            let (key, mut values) = match term {
                Requirement::In(key, values) | Requirement::NotIn(key, values) => (key, values.clone()),
                Requirement::Exists(key) | Requirement::Absent(key) => (key, Vec::new()),
                Requirement::Greater(key, number) | Requirement::Less(key, number) => {
                    (key, [number.saturating_sub(1), *number, number.saturating_add(1)].map(|n| n.to_string()).to_vec())
                }
            };
            values.extend([String::new(), "other".into()]);
            if !tape.byte().is_multiple_of(3) {
                labels.insert(key.clone(), tape.pick(&values).clone());
            }
        }
        let mut each = selector.0.iter().map(|term| LabelSelector(vec![term.clone()]).matches(&labels));
        assert_eq!(selector.matches(&labels), each.all(|one| one), "all of its terms");
        for term in &selector.0 {
            let holds = LabelSelector(vec![term.clone()]).matches(&labels);
            assert_eq!(holds, means(term, &labels), "{term:?} of {labels:?}");
        }
    }
}

/// The documented meaning of a term, once more.
fn means(term: &Requirement, labels: &TextMap) -> bool {
    let value = |key: &String| labels.get(key).map(String::as_str);
    let number = |key: &String| value(key).and_then(|text| text.parse::<i64>().ok());
    match term {
        Requirement::In(key, values) => values.iter().any(|wanted| value(key) == Some(wanted)),
        Requirement::NotIn(key, values) => !values.iter().any(|wanted| value(key) == Some(wanted)),
        Requirement::Exists(key) => value(key).is_some(),
        Requirement::Absent(key) => value(key).is_none(),
        Requirement::Greater(key, bound) => number(key) > Some(*bound),
        Requirement::Less(key, bound) => number(key).is_some() && number(key) < Some(*bound),
    }
}

fn written(term: &Requirement) -> String {
    match term {
        // A set must not be empty, so the empty value alone has this form only.
        Requirement::In(key, values) if values.len() == 1 => format!("{key}={}", values[0]),
        Requirement::NotIn(key, values) if values.len() == 1 => format!("{key}!={}", values[0]),
        Requirement::In(key, values) => format!("{key} in ({})", values.join(",")),
        Requirement::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
        Requirement::Exists(key) => key.clone(),
        Requirement::Absent(key) => format!("!{key}"),
        Requirement::Greater(key, bound) => format!("{key}>{bound}"),
        Requirement::Less(key, bound) => format!("{key}<{bound}"),
    }
}

fn of_fields(selector: &FieldSelector, known: &[&str]) {
    let terms: Vec<String> = selector
        .0
        .iter()
        .map(|term| {
            assert!(known.contains(&term.field.as_str()), "a field that is not known: {term:?}");
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            format!("{}{}{value}", term.field, if term.equal { "=" } else { "!=" })
        })
        .collect();
    let text = terms.join(",");
    assert_eq!(FieldSelector::parse(&text, known).ok().as_ref(), Some(selector), "written out and read again: {text:?}");
    for term in &selector.0 {
        let one = FieldSelector(vec![term.clone()]);
        assert_eq!(one.matches(|_| term.value.as_str()), term.equal, "{term:?} of its own value");
        let other = format!("{}x", term.value);
        assert_eq!(one.matches(|_| other.as_str()), !term.equal, "{term:?} of another value");
    }
}
