//! Log lines are for machines too: every JSON line of a real server is one flat object, and docs/logs.md has every field.

use crate::support::{
    postgres::database,
    serve::{Client, Replica, push_of},
    until::until,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::Path,
};

/// The fields of docs/logs.md, with the types that each may have.
fn documented() -> BTreeMap<String, String> {
    of_page(&fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/logs.md")).unwrap())
}

/// Those of such a page.
pub fn of_page(text: &str) -> BTreeMap<String, String> {
    let rows = text.lines().filter(|line| line.starts_with("| `") && line.split('|').count() == 5);
    let mut all = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names: Vec<&str> = cells[1].split(',').map(|name| name.trim().trim_matches('`')).collect();
        let types: Vec<&str> = cells[2].split(", ").collect();
        for (at, name) in names.iter().enumerate() {
            all.insert((*name).to_owned(), types.get(at).unwrap_or(&types[0]).to_string());
        }
    }
    all
}

/// The fields that the source gives to lines and spans.
fn of_the_source(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            of_the_source(&entry, all);
            continue;
        }
        let text = fs::read_to_string(&entry).unwrap();
        let text = text.split("\n#[cfg(test)]").next().unwrap();
        for word in ["error", "warn", "info", "debug", "info_span", "debug_span"] {
            for call in text.split(&format!("tracing::{word}!(")).skip(1) {
                all.extend(fields(call));
            }
        }
    }
}

/// The names before `=` and the bare names among the arguments of a call.
fn fields(call: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted, mut escaped) = (vec![String::new()], 0, false, false);
    for c in call.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                parts.last_mut().unwrap().push('"');
            }
            _ if quoted => {}
            ')' if depth == 0 => break,
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => parts.push(String::new()),
            _ if depth == 0 => parts.last_mut().unwrap().push(c),
            _ => {}
        }
    }
    let name = |part: &String| part.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned();
    let is_a_field = |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    parts.iter().map(name).filter(is_a_field).collect()
}

#[test]
fn every_field_that_the_source_gives_to_a_line_is_on_the_page_and_no_other() {
    let mut all = BTreeSet::from(["timestamp", "level", "target", "message"].map(str::to_owned));
    of_the_source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(all.difference(&documented).collect::<Vec<_>>(), Vec::<&String>::new(), "not in docs/logs.md");
    assert_eq!(documented.difference(&all).collect::<Vec<_>>(), Vec::<&String>::new(), "in docs/logs.md only");
}

#[tokio::test]
async fn every_line_of_a_real_server_is_one_flat_object_with_fields_of_the_page() {
    let db = database().await;
    let place = tempfile::tempdir().unwrap();
    let log = place.path().join("log");
    let flags = ["--database-url", &db.url, "--log-format=json"];
    let told = [("RUST_LOG", "info,moorline=debug")];
    let replica =
        Replica::in_an_environment(Path::new(env!("CARGO_BIN_EXE_moorline")), &flags, &told, File::create(&log).unwrap().into())
            .await;
    let client = Client::new();
    let agent = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "ws"}, "spec": {}});
    assert_eq!(client.post(&replica.url, "agents", agent).await.0, 201);
    let (_, run) = client.post(&replica.url, "agents/ws/runs", json!({})).await;
    let secret = "the body of an instruction file";
    let (code, _) = client.send(&replica.url, "PUT", "agents/ws/snapshot", Some(push_of(&run, 1, "Complete", secret))).await;
    assert_eq!(code, 200);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let url = format!("{}/apis/moorline.dev/v1alpha1/namespaces/default/chats/none", replica.url);
    let request =
        client.http.get(url).header("x-request-id", "ours").header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    assert_eq!(request.send().await.unwrap().status().as_u16(), 404);
    let text = || fs::read_to_string(&log).unwrap();
    let parsed = |text: &str| text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).collect::<Vec<_>>();
    let answered = until("the request is in the log", || async {
        parsed(&text()).into_iter().find(|line| line["request_id"] == "ours" && line["message"] == "answered")
    })
    .await;
    let expected = [
        ("level", json!("DEBUG")),
        ("target", json!("moorline::http::telemetry")),
        ("trace_id", json!(trace)),
        ("code", json!(404)),
    ];
    for (name, value) in expected {
        assert_eq!(answered[name], value, "{answered}");
    }
    assert_eq!(replica.terminate().await, Some(0));

    let (text, documented) = (text(), documented());
    assert!(!text.contains(secret), "a body is in the log");
    let lines = parsed(&text);
    assert_eq!(lines.len(), text.lines().count(), "every line is an object: {text}");
    assert!(lines.iter().any(|line| line["message"] == "stopped" && line["level"] == "INFO"), "{text}");
    for line in lines {
        let object = line.as_object().unwrap();
        for name in ["timestamp", "level", "target", "message"] {
            assert!(object[name].is_string(), "{line}");
        }
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
        if !line["target"].as_str().unwrap().starts_with("moorline") {
            continue; // a library's
        }
        for (name, value) in object {
            let types = documented.get(name).unwrap_or_else(|| panic!("docs/logs.md has no {name}: {line}"));
            let is = match value {
                Value::Number(_) => "number",
                Value::Bool(_) => "boolean",
                _ => "string",
            };
            assert!(types.contains(is) && !value.is_object() && !value.is_array(), "{name} is to be a {types}: {line}");
        }
    }
}
