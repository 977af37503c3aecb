//! Field selectors: `metadata.name=fix,status.state!=Error`.

use super::BadSelector;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The path of a field.
    pub field: String,
    /// Whether it must be equal, or must not be.
    pub equal: bool,
    /// The value; empty stands for a field that is absent too.
    pub value: String,
}

/// A field selector: all of its terms must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

impl FieldSelector {
    /// Reads one over these fields; the empty text selects everything. In a value, `\`, `,` and `=` are written `\\`, `\,` and
    /// `\=`. Blanks are part of what they stand in, as with a kube-apiserver.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, BadSelector> {
        let mut found = Vec::new();
        for term in terms(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((field, equal, value)) = split(term) else {
                return Err(BadSelector(format!("{term:?} must be FIELD=VALUE, FIELD==VALUE or FIELD!=VALUE")));
            };
            if !known.contains(&field) {
                return Err(BadSelector(format!("field label not supported: {field}; these are: {}", known.join(", "))));
            }
            found.push(FieldTerm { field: field.to_owned(), equal, value: unescape(term, value)? });
        }
        Ok(Self(found))
    }

    /// Whether it selects an object; `field` gives the value of a field, empty when it is absent.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|term| (field(&term.field) == term.value) == term.equal)
    }
}

/// Cuts a selector at the commas that no backslash stands before.
fn terms(text: &str) -> Vec<&str> {
    let (mut found, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                found.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[begin..]);
    found
}

/// Cuts a term at its first operator.
fn split(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.find("!=").into_iter().chain(term.find('=')).min()?;
    let (field, rest) = term.split_at(at);
    let operator = ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(operator))?;
    Some((field, operator != "!=", &rest[operator.len()..]))
}

fn unescape(term: &str, value: &str) -> Result<String, BadSelector> {
    let mut text = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('\\' | ',' | '=')) => text.push(escaped),
                Some(other) => {
                    let message = format!("{term:?} has the escape \\{other}; there are \\\\, \\, and \\=");
                    return Err(BadSelector(message));
                }
                None => return Err(BadSelector(format!("{term:?} ends in a backslash that escapes nothing; write \\\\"))),
            },
            '=' => return Err(BadSelector(format!("{term:?} has a second '=' in its value; write \\="))),
            other => text.push(other),
        }
    }
    Ok(text)
}
