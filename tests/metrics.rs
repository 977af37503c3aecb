//! What a server measures is what docs/metrics.md says: every metric that a real server exposes is there, with its type and its
//! labels, and nothing else is.

use crate::support::{cluster::Front, envtest::ControlPlane, until::until};
use moorline::metrics::{Format, METRICS};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

/// A metric: its type and its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    kind: String,
    labels: BTreeSet<String>,
}

/// What a text in Prometheus' format exposes, by the names that people use. The labels of a histogram's buckets are its own, but
/// for `le`.
fn exposed(text: &str) -> BTreeMap<String, Shape> {
    let mut all: BTreeMap<String, Shape> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kind.clone_into(&mut all.entry(name.to_owned()).or_default().kind);
        } else if !line.starts_with('#') {
            let (name, labels) = line.split_once(['{', ' ']).unwrap();
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let shape = all.get_mut(name).map_or(base, |_| name);
            let shape = all.get_mut(shape).unwrap_or_else(|| panic!("{line} has no type"));
            if line.contains('{') {
                let labels = labels.split_once('}').unwrap().0;
                let names = labels.split(',').filter_map(|label| Some(label.split_once("=\"")?.0.to_owned()));
                shape.labels.extend(names.filter(|name| name != "le"));
            }
        }
    }
    all
}

/// What docs/metrics.md says there is.
pub fn documented() -> BTreeMap<String, Shape> {
    of_page(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap())
}

/// What such a page says there is.
pub fn of_page(text: &str) -> BTreeMap<String, Shape> {
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    rows.map(|cells| {
        let [_, name, kind, labels, meaning, action, _] = cells[..] else {
            panic!("a row of docs/metrics.md has 5 cells: {cells:?}")
        };
        assert!(!meaning.is_empty() && !action.is_empty(), "{name} says what it means and what to do");
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned()).filter(|label| !label.is_empty());
        (name.trim_matches('`').to_owned(), Shape { kind: kind.to_owned(), labels: labels.collect() })
    })
    .collect()
}

#[tokio::test]
async fn what_a_real_server_exposes_is_what_the_page_on_metrics_says_and_nothing_else() {
    let front = Front::start(ControlPlane::shared().await, &["--mirror=all", "--retention-interval=1s"]).await;
    worked(&front).await;
    let text = until("retention has passed, and all has been counted", || async {
        let text = front.metrics_text(None).await.1;
        let there =
            ["moorline_retention_passes_total{", "moorline_chat_drift_seconds_count 1", "moorline_chats{state=\"pinned\"} "];
        there.iter().all(|line| text.contains(line)).then_some(text)
    })
    .await;
    assert!(!text.contains("fix") && !text.contains(&front.namespace), "metrics say nothing of records: {text}");

    // What only a failure makes, which this process has instead of the server.
    METRICS.mirror_failed("other");
    METRICS.watch_failed("chats");
    METRICS.query("db.none", std::time::Duration::ZERO, false);
    METRICS.reconcile_failed(moorline::metrics::Controller::Chats, "conflict");
    METRICS.removed("blobs", 0);
    // And what there is with TLS.
    METRICS.reloaded("tls_certificate", "refused");
    METRICS.certificate(Some((jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::UNIX_EPOCH)));
    let mut all = exposed(&text);
    for (name, shape) in exposed(&METRICS.text(Format::Prometheus)) {
        let known = all.entry(name).or_insert_with(|| shape.clone());
        known.labels.extend(shape.labels);
    }
    let documented = documented();
    for (name, shape) in &all {
        assert_eq!(Some(shape), documented.get(name), "{name}: what is exposed, and what docs/metrics.md says");
    }
    let missing: Vec<&String> = documented.keys().filter(|name| !all.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/metrics.md has what no server exposes: {missing:?}");
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        assert!(line.split(' ').count() > 4, "a metric says what it is: {line}");
    }
}

#[tokio::test]
async fn openmetrics_is_for_those_who_ask_for_it_with_units_and_the_older_format_for_all_others() {
    let db = crate::support::postgres::database().await;
    let api = crate::support::api::Api::start(&db).await;
    let (kind, text) = {
        let answer =
            api.with("accept", "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4").get("/metrics").await;
        (answer.header("content-type").unwrap().to_owned(), answer.text)
    };
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(text.ends_with("# EOF\n") && text.contains("# UNIT moorline_hydrate_seconds seconds\n"), "{text}");
    assert!(text.contains("# TYPE moorline_lease_transitions counter\n"), "{text}");
    let answer = api.get("/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!answer.text.contains("# UNIT") && !answer.text.contains("# EOF"), "{}", answer.text);
    assert!(answer.text.contains("# TYPE moorline_lease_transitions_total counter\n"), "{}", answer.text);
}

/// A chat is made, hydrated, drifts and is refreshed, in front of a cluster which is shown it.
pub async fn worked(front: &Front<'_>) {
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    let chat = json!({"kind": "Chat", "metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}, "owner": "alice"}});
    front.apply(&chat).await;
    front.until_shown("chat/fix", "Ready", "Unknown", "WaitingForSnapshot").await;
    front.push("ws", "one").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    front.push("ws", "two").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    front.kubectl(&["annotate", "chat/fix", "moorline.dev/refresh-requested-at=now"]).await.out();
    front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
}
