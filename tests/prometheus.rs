//! The rules and the dashboard that the chart ships: they are well-formed, they are tested, somebody is told what to do, and every
//! query of theirs runs on a real Prometheus that scrapes a real server.

use crate::{
    metrics::{documented, worked},
    support::{
        cluster::Front,
        envtest::ControlPlane,
        prometheus::{Prometheus, promtool},
    },
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/charts/moorline/files")
}

/// The rules, each with what it is called.
fn rules() -> Vec<Value> {
    let text = fs::read_to_string(files().join("rules.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn dashboard() -> Value {
    serde_json::from_slice(&fs::read(files().join("dashboard.json")).unwrap()).unwrap()
}

/// The queries of the dashboard, with where each is.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let of = |panel: &Value| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().unwrap().to_owned()))
    };
    panels.flat_map(of).collect()
}

#[tokio::test]
async fn promtool_is_content_with_the_rules_and_with_their_tests() {
    for args in [&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"][..], &["test", "rules", "rules.test.yaml"]] {
        let said = promtool(args, &files()).await;
        let text = [said.stdout, said.stderr].map(|said| String::from_utf8(said).unwrap()).concat();
        assert!(said.status.success(), "promtool {args:?}: {text}");
    }
}

#[test]
fn every_alert_is_tested_and_tells_a_person_what_is_wrong_and_what_to_do() {
    let tests = fs::read_to_string(files().join("rules.test.yaml")).unwrap();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in rules() {
        let Some(alert) = rule["alert"].as_str() else {
            let record = rule["record"].as_str().unwrap();
            assert!(tests.contains(&format!("expr: '{record}'")), "{record} is not tested");
            continue;
        };
        assert!(alerts.insert(alert.to_owned()), "{alert} is there twice");
        assert!(tests.contains(&format!("ALERTS{{alertname=\"{alert}\", ")), "{alert} is not seen to fire in rules.test.yaml");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{alert}");
        let annotation = |name: &str| rule["annotations"][name].as_str().unwrap_or_else(|| panic!("{alert} has no {name}"));
        assert!(!annotation("summary").contains("{{"), "{alert}: a summary groups, so it says the same each time");
        assert!(annotation("description").len() > annotation("summary").len(), "{alert}");
        assert_eq!(annotation("runbook_url"), format!("docs/operations.md#{}", alert.to_lowercase()));
        assert!(page.contains(&format!("\n## {alert}\n")), "docs/operations.md has no heading for {alert}");
    }
    for heading in page.lines().filter_map(|line| line.strip_prefix("## Moorline")) {
        assert!(
            alerts.contains(&format!("Moorline{heading}")),
            "docs/operations.md speaks of {heading}, of which there is no rule"
        );
    }
    for word in documentation_of_metrics() {
        assert!(alerts.contains(&word), "docs/metrics.md speaks of {word}, of which there is no rule");
    }
}

/// The alerts that docs/metrics.md names.
fn documentation_of_metrics() -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.filter(|word| word.len() > 8 && word.starts_with("Moorline")).map(str::to_owned).collect()
}

#[test]
fn the_dashboard_is_one_that_grafana_loads_and_works_with_any_prometheus() {
    let dashboard = dashboard();
    for (field, value) in [("title", "Moorline"), ("uid", "moorline")] {
        assert_eq!(dashboard[field], value);
    }
    assert!(dashboard["schemaVersion"].as_i64().is_some_and(|version| version >= 36) && dashboard.get("id").is_none());
    assert!(dashboard.get("__inputs").is_none(), "a provisioned dashboard cannot ask for inputs");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "namespace", "job"]);
    assert_eq!((&variables[0]["type"], &variables[0]["query"]), (&"datasource".into(), &"prometheus".into()));
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{title}: its id is taken");
        let at = |field: &str| panel["gridPos"][field].as_i64().unwrap();
        assert!(at("w") > 0 && at("h") > 0 && at("x") >= 0 && at("x") + at("w") <= 24, "{title}: {}", panel["gridPos"]);
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies over another panel at {cell:?}");
        }
        match panel["type"].as_str().unwrap() {
            "row" => continue,
            "timeseries" | "stat" => {}
            other => panic!("{title}: {other}"),
        }
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 3), "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        let refs: Vec<&str> =
            panel["targets"].as_array().unwrap().iter().map(|target| target["refId"].as_str().unwrap()).collect();
        assert_eq!(refs.iter().collect::<BTreeSet<_>>().len(), refs.len(), "{title}: {refs:?}");
        for source in panel["targets"].as_array().unwrap().iter().chain([panel]).map(|part| &part["datasource"]) {
            assert_eq!((&source["type"], &source["uid"]), (&"prometheus".into(), &"${datasource}".into()), "{title}");
        }
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("job=~\"$job\", namespace=~\"$namespace\""), "{title}: {query}");
        }
    }
}

/// What a query reads: words before `{` or `[` or in brackets that are metrics by their prefix.
fn metrics_of(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    let prefixes = ["moorline_", "controller_runtime_", "workqueue_", "leader_election_", "process_", "job:"];
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

#[test]
fn every_query_reads_metrics_that_there_are() {
    let documented = documented();
    let rules = rules();
    let recorded: BTreeSet<&str> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let mut all: Vec<(String, String)> = queries(&dashboard());
    all.extend(rules.iter().map(|rule| ("a rule".to_owned(), rule["expr"].as_str().unwrap().to_owned())));
    for (place, query) in &all {
        let read = metrics_of(query);
        assert!(!read.is_empty(), "{place} reads nothing: {query}");
        for name in read {
            let base = name.strip_suffix("_bucket").unwrap_or(&name);
            assert!(documented.contains_key(base) || recorded.contains(&*name), "{place} reads {name}, which nobody exposes");
        }
    }
    let shown: BTreeSet<String> = all.iter().flat_map(|(_, query)| metrics_of(query)).collect();
    let shown: BTreeSet<&str> = shown.iter().map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect();
    let unseen: Vec<&String> = documented.keys().filter(|name| !shown.contains(name.as_str())).collect();
    assert_eq!(unseen, UNSEEN, "metrics that neither the dashboard nor a rule looks at");
}

/// What is for a person who asks for it.
const UNSEEN: [&str; 4] = [
    "moorline_horizon_lag_transactions",
    "moorline_reloads_total",
    "workqueue_unfinished_work_seconds",
    "workqueue_work_duration_seconds",
];

/// Panels that have nothing to show while all is well.
const FAILURES: [&str; 5] =
    ["Failures", "Statements that fail", "Writes that failed", "Watches of the cluster", "Snapshots and events removed"];

#[tokio::test]
async fn every_query_runs_on_a_prometheus_that_scrapes_a_server_which_has_worked() {
    let front = Front::start(ControlPlane::shared().await, &["--mirror=all", "--retention-interval=1s"]).await;
    worked(&front).await;
    let address = front.replica.url.strip_prefix("http://").unwrap();
    let prometheus = Prometheus::scraping(address, &files().join("rules.yaml")).await;
    // Again, so that what is counted has risen between two scrapes.
    front.push("ws", "three").await;
    front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
    front.kubectl(&["annotate", "--overwrite", "chat/fix", "moorline.dev/refresh-requested-at=again"]).await.out();
    front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
    crate::support::until::until("that has been scraped", || async {
        let seen = prometheus.query("moorline_chat_drift_seconds_count >= 2").await.unwrap();
        (!seen.is_empty()).then_some(())
    })
    .await;

    for (panel, query) in queries(&dashboard()) {
        let asked = query.replace("$job", ".*").replace("$namespace", ".*").replace("$__rate_interval", "1m");
        let found = prometheus.query(&asked).await.unwrap_or_else(|error| panic!("{panel}: {asked}: {error}"));
        assert!(!found.is_empty() || FAILURES.contains(&panel.as_str()), "{panel} has nothing to show: {asked}");
    }
    for rule in prometheus.rules().await {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "an alert of a server that is well: {rule}");
    }
    let alerts = rules();
    for rule in alerts.iter().filter(|rule| rule["record"].is_string()) {
        let query = rule["expr"].as_str().unwrap();
        let failed_requests = query.contains("5.."); // there are none
        let found = prometheus.query(query).await.unwrap();
        assert!(!found.is_empty() || failed_requests, "{query} has nothing");
    }
}
