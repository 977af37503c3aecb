//! The differences that `docs/kubectl.md` lists, each in a block marked `diff`:
//!
//! ````text
//! ```diff
//! @@ kubectl get chat fix -o yaml
//! -what the kube-apiserver says
//! +what Moorline says
//! ```
//! ````
//!
//! The text before a block is its reason. The tests read this, so the page cannot say less, or more, than is so.

use std::{collections::BTreeMap, fmt::Write as _};

/// The page.
const PAGE: &str = include_str!("../../docs/kubectl.md");

/// How the answers to one line differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line.
    pub step: String,
    /// `-` the kube-apiserver's, `+` ours.
    pub lines: Vec<String>,
}

/// What the page lists, by line.
pub fn on_the_page() -> BTreeMap<String, Vec<String>> {
    listed_in(PAGE)
}

fn listed_in(page: &str) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    let mut block: Option<(Option<String>, Vec<String>)> = None;
    for line in page.lines() {
        block = match (block, line.strip_prefix("@@ ")) {
            (None, _) => (line == "```diff").then(|| (None, Vec::new())),
            (Some((step, lines)), None) if line == "```" => {
                keep(&mut all, step, lines);
                None
            }
            (Some((step, lines)), Some(next)) => {
                keep(&mut all, step, lines);
                Some((Some(next.to_owned()), Vec::new()))
            }
            (Some((step, mut lines)), None) => {
                lines.push(line.to_owned());
                Some((step, lines))
            }
        };
    }
    all
}

fn keep(all: &mut BTreeMap<String, Vec<String>>, step: Option<String>, lines: Vec<String>) {
    if let Some(step) = step {
        assert!(!lines.is_empty(), "the page lists no difference of {step}");
        assert!(all.insert(step.clone(), lines).is_none(), "the page lists {step} twice");
    }
}

/// What is so and not on the page, and what is on the page and not so; as it would have to be written there.
pub fn against_the_page(found: &[Difference], listed: &BTreeMap<String, Vec<String>>) -> String {
    let mut wrong = String::new();
    for Difference { step, lines } in found {
        if listed.get(step) != Some(lines) {
            let lines = lines.join("\n");
            write!(wrong, "\nnot on the page, or otherwise:\n```diff\n@@ {step}\n{lines}\n```\n").unwrap();
        }
    }
    for step in listed.keys().filter(|step| !found.iter().any(|difference| difference.step == **step)) {
        write!(wrong, "\non the page, and not so any more: {step}\n").unwrap();
    }
    wrong
}

#[test]
fn a_difference_that_is_not_listed_or_is_no_more_is_told() {
    let page = "Why.\n\n```diff\n@@ kubectl a\n-one\n+two\n@@ kubectl b\n+more\n```\n\n```\nelse\n```\n";
    let listed = listed_in(page);
    let of = |step: &str, lines: &[&str]| Difference {
        step: step.to_owned(),
        lines: lines.iter().copied().map(str::to_owned).collect(),
    };
    let (a, b) = (of("kubectl a", &["-one", "+two"]), of("kubectl b", &["+more"]));
    assert_eq!(against_the_page(&[a.clone(), b.clone()], &listed), "");
    assert!(against_the_page(std::slice::from_ref(&a), &listed).contains("not so any more: kubectl b"));
    assert!(against_the_page(&[a.clone(), of("kubectl b", &["+less"])], &listed).contains("@@ kubectl b\n+less"));
    assert!(against_the_page(&[a, b, of("kubectl c", &["-x"])], &listed).contains("@@ kubectl c\n-x"));
}
