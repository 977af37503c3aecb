//! The simple JSON paths of printer columns, as a CRD may have them: `.status.pinned.snapshot` and
//! `.status.conditions[?(@.type=="Ready")].status`. No wildcards, slices or recursion: a kube-apiserver takes none there either
//! (kubernetes.io, "Custom resources", additional printer columns).

use serde_json::Value;

/// A path, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Into the field of an object.
    Field(String),
    /// To the first item of an array whose field has this text.
    Where { field: String, is: String },
}

/// A path that is not one of the simple ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be steps of the forms .FIELD and [?(@.FIELD==\"TEXT\")], got {path:?} from {at:?} on")]
pub struct BadPath {
    path: String,
    at: String,
}

impl Path {
    /// Reads one.
    pub fn parse(path: &str) -> Result<Self, BadPath> {
        let mut rest = path;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let Some((step, after)) = field(rest).or_else(|| filter(rest)) else {
                return Err(BadPath { path: path.to_owned(), at: rest.to_owned() });
            };
            steps.push(step);
            rest = after;
        }
        if steps.is_empty() { Err(BadPath { path: path.to_owned(), at: String::new() }) } else { Ok(Self(steps)) }
    }

    /// What it leads to; nothing when something on the way is missing.
    pub fn find<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, step| match step {
            Step::Field(name) => value.get(name),
            Step::Where { field, is } => {
                value.as_array()?.iter().find(|item| item.get(field).and_then(Value::as_str) == Some(is))
            }
        })
    }
}

/// `.FIELD`
fn field(text: &str) -> Option<(Step, &str)> {
    let text = text.strip_prefix('.')?;
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    is_name(name).then(|| (Step::Field(name.to_owned()), rest))
}

/// `[?(@.FIELD=="TEXT")]`
fn filter(text: &str) -> Option<(Step, &str)> {
    let (field, rest) = text.strip_prefix("[?(@.")?.split_once("==\"")?;
    let (is, rest) = rest.split_once("\")]")?;
    is_name(field).then(|| (Step::Where { field: field.to_owned(), is: is.to_owned() }, rest))
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_leads_through_fields_and_to_the_item_that_it_names() {
        let object = json!({"status": {"pinned": {"snapshot": "ws-1"}, "conditions": [
            {"type": "Drifted", "status": "False"}, {"type": "Ready", "status": "True"},
        ]}});
        let find = |path: &str| Path::parse(path).expect("a simple path").find(&object).cloned();
        assert_eq!(find(".status.pinned.snapshot"), Some(json!("ws-1")));
        assert_eq!(find(".status.conditions[?(@.type==\"Ready\")].status"), Some(json!("True")));
        assert_eq!(find(".status.conditions[?(@.type==\"Stalled\")].status"), None);
        assert_eq!(find(".status.dirtySince"), None);
        assert_eq!(find(".status.pinned[?(@.type==\"Ready\")].status"), None);
    }

    #[test]
    fn what_is_no_simple_path_is_said_with_its_place() {
        for (path, at) in [
            ("", ""),
            ("status", "status"),
            (".a..b", "..b"),
            (".a[*].b", "[*].b"),
            (".a[0]", "[0]"),
            (".a[?(@.b==1)]", "[?(@.b==1)]"),
        ] {
            let bad = Path::parse(path).expect_err(path);
            assert_eq!(bad.at, at, "{bad}");
        }
    }
}
