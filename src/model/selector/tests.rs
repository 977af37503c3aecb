//! What selectors select, against tables and against a naive evaluation of the same terms.

use super::{FieldSelector, LabelSelector, Requirement};
use crate::model::object::TextMap;
use proptest::prelude::*;

fn labels(pairs: &[(&str, &str)]) -> TextMap {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn label_selectors_select_as_a_kube_apiservers() {
    let of =
        labels(&[("app", "web"), ("tier", "front"), ("example.dev/x", ""), ("n", "10"), ("huge", &"9".repeat(20)), ("in", "in")]);
    for (text, selects) in [
        ("", true),
        (" \t\n", true),
        ("app=web", true),
        (" app == web , tier=front ", true),
        ("app=web,tier=back", false),
        ("app!=web", false),
        ("missing!=web", true),
        ("app in (web, api)", true),
        ("app in(web)", true),
        ("app notin (web,api)", false),
        ("missing notin (a)", true),
        ("app", true),
        ("!app", false),
        ("! missing,example.dev/x", true),
        ("example.dev/x=", true),
        ("example.dev/x==,app", true),
        ("app=", false),
        ("app!=", true),
        ("example.dev/x in (,)", true),
        ("app in (,web)", true),
        ("app notin (a,)", true),
        ("example.dev/x notin (a,,b)", false),
        ("in in (in)", true),
        ("in=in", true),
        ("notin", false),
        ("n>9", true),
        ("n > 10", false),
        ("n<11", true),
        ("n<10", false),
        ("app>1", false),
        ("app<1", false),
        ("missing>1", false),
        ("huge>1", false), // it is no number of 64 bits
        ("n=10,n=11", false),
    ] {
        assert_eq!(LabelSelector::parse(text).expect(text).matches(&of), selects, "{text:?}");
    }
}

#[test]
fn what_is_no_label_selector_is_refused_with_what_was_found_and_where() {
    for (bad, says) in [
        (",", "found ',' at character 1, expected a label's key"),
        ("app,", "found the end at character 5, expected a label's key"),
        ("a,,b", "found ',' at character 3"),
        ("=x", "found '=' at character 1"),
        ("!", "found the end at character 2, expected a label's key"),
        ("!!a", "found '!' at character 2"),
        ("!a=b", "found '=' at character 3, expected a comma or the end"),
        ("a b", "found \"b\" at character 3, expected one of =, ==, !=, in, notin, > and <"),
        ("a=b c", "found \"c\" at character 5, expected a comma or the end"),
        ("a=b=c", "found '=' at character 4"),
        ("a===b", "found '=' at character 4, expected a value"),
        ("a in b", "found \"b\" at character 6, expected '('"),
        ("a in (b", "found the end at character 8, expected ',' or ')'"),
        ("a in ()", "found ')' at character 7, expected a value: the set must not be empty"),
        ("a in ((b))", "found '(' at character 7"),
        ("a in (b c)", "found \"c\" at character 9, expected ',' or ')'"),
        ("a in (in = b)", "found '=' at character 10"),
        ("a)b", "found ')' at character 2"),
        ("a>b", "found \"b\" at character 3, expected a whole number"),
        ("a>", "found the end at character 3, expected a whole number"),
        ("a>=1", "found '=' at character 3"),
        ("a<99999999999999999999", "expected a whole number from 0 of at most 64 bits"),
        ("a>-1", "expected a whole number from 0"),
        ("-x", "at character 1: a key must be a qualified name"),
        ("ok, a/b/c = d", "at character 5: a key must be a qualified name"),
        ("a=-b", "at character 3: a label value must be letters"),
        ("a in (ok, ä)", "at character 11: a label value must be letters"),
        ("app ~ x", "found \"~\" at character 5"),
    ] {
        let error = LabelSelector::parse(bad).expect_err(bad).to_string();
        assert!(error.contains(says), "{bad:?}: {error}");
    }
    let long = format!("a={}", "b".repeat(64));
    let error = LabelSelector::parse(&long).expect_err("64 characters").to_string();
    assert!(error.contains("at most 63 bytes, got 64"), "{error}");
}

const KNOWN: &[&str] = &["metadata.name", "spec.owner", "status.dirty"];

#[test]
fn field_selectors_know_their_fields_and_escapes() {
    let value = |name: &str| match name {
        "metadata.name" => "fix",
        "spec.owner" => r"a,b=c\d",
        _ => "",
    };
    for (text, selects) in [
        ("", true),
        (",,", true),
        ("metadata.name=fix", true),
        ("metadata.name==fix,status.dirty=", true),
        ("metadata.name!=fix", false),
        ("metadata.name!=,status.dirty!=true", true),
        (r"spec.owner=a\,b\=c\\d", true),
        (r"spec.owner!=a\,b\=c\\d", false),
        ("metadata.name= fix", false),
    ] {
        assert_eq!(FieldSelector::parse(text, KNOWN).expect(text).matches(value), selects, "{text:?}");
    }
}

#[test]
fn what_is_no_field_selector_is_refused_with_what_there_is() {
    for (bad, says) in [
        ("spec.title=x", "field label not supported: spec.title; these are: metadata.name, spec.owner, status.dirty"),
        ("metadata.name = fix", "field label not supported: metadata.name ;"),
        ("=x", "field label not supported: ;"),
        ("nonsense", "\"nonsense\" must be FIELD=VALUE, FIELD==VALUE or FIELD!=VALUE"),
        ("metadata.name=a=b", "has a second '=' in its value"),
        (r"metadata.name=a\b", r"has the escape \b"),
        (r"metadata.name=a\", "ends in a backslash"),
        (r"metadata.name=a\,spec.owner=b", "has a second '=' in its value"),
    ] {
        let error = FieldSelector::parse(bad, KNOWN).expect_err(bad).to_string();
        assert!(error.contains(says), "{bad:?}: {error}");
    }
}

/// A term as it is written, and whether it holds, without any of the code above.
#[derive(Clone, Debug)]
struct Naive {
    text: String,
    key: String,
    operator: &'static str,
    values: Vec<String>,
}

impl Naive {
    fn holds(&self, labels: &TextMap) -> bool {
        let found = labels.get(&self.key);
        let among = |value: &String| self.values.iter().any(|wanted| wanted == value);
        let number = found.and_then(|value| value.parse::<i64>().ok());
        let bound = || self.values[0].parse::<i64>().expect("a number");
        match self.operator {
            "exists" => found.is_some(),
            "absent" => found.is_none(),
            "=" | "==" | "in" => matches!(found, Some(value) if among(value)),
            "!=" | "notin" => !matches!(found, Some(value) if among(value)),
            ">" => number.is_some_and(|number| number > bound()),
            "<" => number.is_some_and(|number| number < bound()),
            other => panic!("{other}"),
        }
    }
}

fn a_key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "in", "notin", "example.dev/tier"]).prop_map(str::to_owned)
}

fn a_value() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "x", "y.z", "in", "7", "12", "99999999999999999999"]).prop_map(str::to_owned)
}

fn blanks() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", " ", "\t ", "\n"]).prop_map(str::to_owned)
}

fn a_term() -> impl Strategy<Value = Naive> {
    let operator = prop::sample::select(vec!["exists", "absent", "=", "==", "!=", "in", "notin", ">", "<"]);
    let values = prop::collection::vec(a_value(), 1..4);
    (a_key(), operator, values, 0..20_i64, prop::collection::vec(blanks(), 4)).prop_map(
        |(key, operator, values, number, blank)| {
            let [b0, b1, b2, b3] = &blank[..] else { unreachable!("four blanks") };
            let (text, values) = match operator {
                "exists" => (format!("{b0}{key}{b1}"), vec![]),
                "absent" => (format!("{b0}!{b1}{key}{b2}"), vec![]),
                "in" | "notin" => {
                    (format!("{b0}{key} {b1}{operator}{b2}({b3}{}{b1})", values.join(&format!("{b2},{b3}"))), values)
                }
                ">" | "<" => (format!("{b0}{key}{b1}{operator}{b2}{number}{b3}"), vec![number.to_string()]),
                _ => (format!("{b0}{key}{b1}{operator}{b2}{}{b3}", values[0]), values[..1].to_vec()),
            };
            // `in ()` is refused: one empty value is written with a comma.
            let text = if values == [""] && operator.ends_with("in") { text.replace(')', ",)") } else { text };
            Naive { text, key, operator, values }
        },
    )
}

proptest! {
    #[test]
    fn a_label_selector_selects_what_all_of_its_terms_select(
        terms in prop::collection::vec(a_term(), 1..5),
        labels in prop::collection::btree_map(a_key(), a_value(), 0..5),
    ) {
        let text = terms.iter().map(|term| term.text.as_str()).collect::<Vec<_>>().join(",");
        let selector = LabelSelector::parse(&text).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        prop_assert_eq!(selector.0.len(), terms.len());
        prop_assert_eq!(selector.matches(&labels), terms.iter().all(|term| term.holds(&labels)), "{:?}", text);
    }

    #[test]
    fn a_field_selector_selects_what_all_of_its_terms_select(
        terms in prop::collection::vec((prop::sample::select(KNOWN.to_vec()), any::<bool>(), r"[ab,=\\! ]{0,3}"), 0..5),
        values in prop::collection::vec(r"[ab,=\\! ]{0,3}", 3),
    ) {
        let escaped = |value: &str| value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
        let text = terms.iter().map(|(field, equal, value)| {
            // `a==…` would be the other operator for a value that begins with '='; it is escaped, so it is not.
            format!("{field}{}{}", if *equal { "=" } else { "!=" }, escaped(value))
        });
        let text = text.collect::<Vec<_>>().join(",");
        let selector = FieldSelector::parse(&text, KNOWN).map_err(|error| TestCaseError::fail(format!("{text:?}: {error}")))?;
        let value = |field: &str| values[KNOWN.iter().position(|known| *known == field).expect("known")].as_str();
        let naive = terms.iter().all(|(field, equal, wanted)| (value(field) == wanted) == *equal);
        prop_assert_eq!(selector.matches(value), naive, "{:?}", text);
    }

    #[test]
    fn any_text_is_read_or_refused_with_a_sentence(text in r"[a-z=!<>(), \\\t./-]{0,24}|\PC{0,12}") {
        if let Err(error) = LabelSelector::parse(&text) {
            prop_assert!(error.to_string().contains("at character"), "{:?}: {}", text, error);
        }
        FieldSelector::parse(&text, KNOWN).ok();
    }
}

#[test]
fn values_that_stand_twice_count_once() {
    let selector = LabelSelector::parse("a in (x,y,x)").expect("a selector");
    assert_eq!(selector.0, [Requirement::In("a".into(), vec!["x".into(), "y".into()])]);
}
