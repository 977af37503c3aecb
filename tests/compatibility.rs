//! What docs/compatibility.md promises of the next version, held to what the version before was (`tests/data/previous`, which
//! `scripts/previous-version note` makes): its fields, its metrics, the fields of its log lines, and what its agents push.

use crate::{
    logs, metrics,
    support::{api::Api, postgres::database},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether this version may take something away that the version before had: it has another minor version, or a major one.
fn may_break() -> bool {
    let before: Value = serde_json::from_str(&read("tests/data/previous/statements.json")).unwrap();
    let minor = |version: &str| version.rsplit_once('.').unwrap().0.to_owned();
    minor(before["version"].as_str().unwrap()) != minor(env!("CARGO_PKG_VERSION"))
}

/// Each field of a definition with its type, and each word of its enumerations.
fn shape(path: &str, schema: &Value, into: &mut BTreeSet<String>) {
    if let Some(kind) = schema["type"].as_str() {
        into.insert(format!("{path}: {kind}"));
    }
    for word in schema["enum"].as_array().into_iter().flatten() {
        into.insert(format!("{path} may be {word}"));
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        shape(&format!("{path}.{name}"), field, into);
    }
    for (part, of) in [("[]", "items"), ("{}", "additionalProperties")] {
        if schema[of].is_object() {
            shape(&format!("{path}{part}"), &schema[of], into);
        }
    }
}

fn shapes(folder: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path()) {
        let definition: Value = serde_saphyr::from_str(&fs::read_to_string(&entry).unwrap()).unwrap();
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        for version in definition["spec"]["versions"].as_array().unwrap() {
            let name = version["name"].as_str().unwrap();
            shape(&format!("{kind}/{name}"), &version["schema"]["openAPIV3Schema"], &mut all);
        }
    }
    all
}

#[test]
fn what_the_api_had_in_the_version_before_it_has_or_the_changelog_says_that_it_went() {
    let (before, now, told) = (shapes("tests/data/previous/crds"), shapes("crds"), read("CHANGELOG.md"));
    assert!(before.len() > 100, "{before:#?}");
    let named = |gone: &str| {
        let field = gone.split([':', ' ']).next().unwrap_or_default().rsplit('.').next().unwrap_or_default();
        told.contains(&format!("`{field}`"))
    };
    let gone: Vec<&String> = before.difference(&now).filter(|gone| !named(gone)).collect();
    assert!(gone.is_empty(), "gone without a word in CHANGELOG.md: {gone:#?}");
}

#[test]
fn metrics_and_fields_of_log_lines_keep_their_names_within_a_minor_version() {
    if may_break() {
        return;
    }
    let (before, now) = (metrics::of_page(&read("tests/data/previous/metrics.md")), metrics::documented());
    assert!(before.len() > 30);
    for (name, shape) in before {
        assert_eq!(now.get(&name), Some(&shape), "the metric {name}");
    }
    let (before, now) = (logs::of_page(&read("tests/data/previous/logs.md")), logs::of_page(&read("docs/logs.md")));
    assert!(before.len() > 20);
    for (name, kind) in before {
        assert_eq!(now.get(&name), Some(&kind), "the field {name} of a log line");
    }
}

/// What an agent of 0.1.0 sends, but for its run. It is not to be changed: its like runs in workspaces.
const PUSH: &str = include_str!("data/push-0.1.0.json");

/// By `docs/context_hash.py`, which shares no code with the server.
const HASH: &str = "sha256:fcce52264d94e36c741df75f64e84765145657532189ef83ec7b6d3027024ff9";

#[tokio::test]
async fn a_push_of_an_agent_of_the_first_version_is_taken_and_makes_the_same_hash() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    let mut push: Value = serde_json::from_str(PUSH).unwrap();
    (push["runID"], push["epoch"]) = (json!(run.id), json!(run.epoch));
    let taken = api.push(&run.agent, &push).await.expect(200);
    assert_eq!(taken["snapshot"]["hash"], json!(HASH), "{taken}");
}
