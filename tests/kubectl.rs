//! The real kubectl, 1.32 or newer, against a server of ours: what people type.

use crate::support::{
    api::{Api, NAMESPACE, file},
    kubectl::Kubectl,
    postgres::database,
};
use serde_json::json;

fn manifest(title: &str) -> String {
    format!(
        "apiVersion: moorline.dev/v1alpha1\nkind: Agent\nmetadata:\n  name: ws\nspec:\n  workspace: w\n---\n\
         apiVersion: moorline.dev/v1alpha1\nkind: Chat\nmetadata:\n  name: fix\nspec:\n  title: {title}\n  agentRef:\n    name: ws\n"
    )
}

const APPLY: &[&str] = &["apply", "-f", "-"];

#[tokio::test]
async fn kubectl_is_new_enough_for_this_to_mean_something() {
    let db = database().await;
    let api = Api::start(&db).await;
    let version = Kubectl::at(&api.url, NAMESPACE).json(&["version"]).await;
    let client = &version["clientVersion"];
    // `v1.36.3`, and `v1.32.4-somebody's`; `major` and `minor` are empty in one that was built from modules.
    let numbers: Vec<u32> = client["gitVersion"].as_str().unwrap()[1..].split('.').map_while(|n| n.parse().ok()).collect();
    assert!(numbers >= vec![1, 32], "{client}");
    assert!(version["serverVersion"]["gitVersion"].is_string(), "{version}");
}

#[tokio::test]
async fn kubectl_finds_and_explains_what_there_is() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let resources = kubectl.run(&["api-resources", "--api-group", "moorline.dev"]).await.out();
    for name in ["agents", "chats", "agentsnapshots"] {
        let line = resources.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_else(|| panic!("{resources}"));
        assert!(line.contains("moorline.dev/v1alpha1") && line.contains("true"), "{line}");
    }
    assert!(resources.contains("mchat") && resources.contains("magent"), "short names: {resources}");
    let explained = kubectl.run(&["explain", "chat.spec"]).await.out();
    for field in ["agentRef", "workspaceRef", "parentRef", "refreshPolicy", "archived", "title"] {
        assert!(explained.contains(field), "{field}: {explained}");
    }
    assert!(explained.contains("it starts with that one's pin"), "with its documentation: {explained}");
    assert!(kubectl.run(&["explain", "agent.status.latestSnapshot.hash"]).await.out().contains("hash"));
    kubectl.run(&["explain", "chat.spec.nothing"]).await.err();
}

#[tokio::test]
async fn kubectl_applies_reads_changes_and_deletes() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let made = kubectl.fed(APPLY, &manifest("one")).await.out();
    assert_eq!(made.lines().collect::<Vec<_>>(), ["agent.moorline.dev/ws created", "chat.moorline.dev/fix created"]);
    let same = kubectl.fed(APPLY, &manifest("one")).await.out();
    assert_eq!(same.lines().collect::<Vec<_>>(), ["agent.moorline.dev/ws unchanged", "chat.moorline.dev/fix unchanged"]);
    let changed = kubectl.fed(APPLY, &manifest("two")).await.out();
    assert_eq!(changed.lines().collect::<Vec<_>>(), ["agent.moorline.dev/ws unchanged", "chat.moorline.dev/fix configured"]);
    let dropped = manifest("two").replace("  workspace: w\n", "  build: 3\n");
    kubectl.fed(APPLY, &dropped).await.out();
    let agent = kubectl.json(&["get", "agent", "ws"]).await;
    assert_eq!((agent["spec"].get("workspace"), &agent["spec"]["build"]), (None, &json!(3)), "apply takes away what is left out");

    let chat = kubectl.json(&["get", "chat", "fix"]).await;
    assert_eq!((&chat["kind"], &chat["spec"]["title"]), (&json!("Chat"), &json!("two")));
    let yaml = kubectl.run(&["get", "mchat", "fix", "-o", "yaml"]).await.out();
    assert!(yaml.starts_with("apiVersion: moorline.dev/v1alpha1\nkind: Chat\n"), "{yaml}");
    assert!(kubectl.run(&["get", "chats,agents", "-o", "name"]).await.out().contains("chat.moorline.dev/fix"));
    assert!(kubectl.run(&["get", "chats"]).await.out().contains("fix"));
    let all = kubectl.json(&["get", "chats", "--all-namespaces"]).await;
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    let said = kubectl.run(&["get", "chat", "nobody"]).await.err();
    assert!(said.contains("chats.moorline.dev \"nobody\" not found"), "{said}");

    kubectl.run(&["label", "chat", "fix", "team=web"]).await.out();
    kubectl.run(&["patch", "chat", "fix", "--type", "merge", "-p", r#"{"spec":{"title":"three"}}"#]).await.out();
    let patch = r#"{"status":{"state":"Running"}}"#;
    kubectl.run(&["patch", "chat", "fix", "--subresource", "status", "--type", "merge", "-p", patch]).await.out();
    let chat = kubectl.json(&["get", "chat", "fix"]).await;
    assert_eq!((&chat["metadata"]["labels"]["team"], &chat["spec"]["title"]), (&json!("web"), &json!("three")));
    assert_eq!(chat["status"]["state"], "Running");
    kubectl.run(&["label", "chat", "fix", "team-"]).await.out();
    assert_eq!(kubectl.json(&["get", "chat", "fix"]).await["metadata"].get("labels"), None);

    let rehearsed = kubectl.fed(&["apply", "--dry-run=server", "-f", "-"], &manifest("four")).await.out();
    assert!(rehearsed.contains("configured (server dry run)"), "{rehearsed}");
    assert_eq!(api.chat("fix").await["spec"]["title"], "three");

    let gone = kubectl.run(&["delete", "chat/fix", "agent/ws"]).await.out();
    assert!(gone.contains("\"fix\" deleted") && gone.contains("\"ws\" deleted"), "{gone}");
    api.get("chats/fix").await.refused(404, "NotFound");
    api.get("agents/ws").await.refused(404, "NotFound");
    assert!(kubectl.run(&["delete", "chat", "fix", "--ignore-not-found"]).await.ok);
}

#[tokio::test]
async fn kubectl_refreshes_a_chat_by_annotation() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    let drift = api.with("prefer", "wait=20").push("ws", &run.report(2, json!([file("AGENTS.md", "two")]))).await;
    drift.expect(200);
    assert_eq!(kubectl.json(&["get", "chat", "fix"]).await["status"]["dirty"], true);
    kubectl.run(&["annotate", "chat", "fix", "moorline.dev/refresh-requested-at=now"]).await.out();
    let handled = || async {
        Some(kubectl.json(&["get", "chat", "fix"]).await).filter(|chat| chat["status"]["lastHandledRefresh"] == "now")
    };
    let chat = crate::support::until::until("the token is handled", handled).await;
    assert_eq!((&chat["status"]["dirty"], &chat["status"]["pinned"]["cause"]), (&json!(false), &json!("Refreshed")));
    assert_eq!(api.get("chats/fix/context").await.expect(200)["resources"][0]["body"], "two");
}

#[tokio::test]
async fn kubectl_prints_what_is_wrong() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let said = kubectl.fed(&["apply", "--server-side", "-f", "-"], &manifest("one")).await.err();
    assert!(said.contains("server-side apply is not served here: use `kubectl apply` without --server-side"), "{said}");
    let typo = manifest("one").replace("title:", "titel:");
    let said = kubectl.fed(APPLY, &typo).await.err();
    assert!(said.contains("strict decoding error: unknown field \"spec.titel\""), "{said}");
    api.get("chats/fix").await.refused(404, "NotFound");
    let warned = kubectl.fed(&["apply", "--validate=warn", "-f", "-"], &typo).await;
    assert!(warned.ok && warned.err.contains("Warning: unknown field \"spec.titel\""), "{warned:?}");
    let bad = manifest("one").replace("name: fix", "name: Fix_it");
    let said = kubectl.fed(APPLY, &bad).await.err();
    assert!(said.contains("Fix_it") && said.contains("metadata.name"), "{said}");
}

/// The words of each line.
fn words(out: &str) -> Vec<Vec<&str>> {
    out.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn kubectl_prints_the_columns_and_more_of_them_when_asked_for_wide() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    let drift = api.with("prefer", "wait=20").push("ws", &run.report(2, json!([file("AGENTS.md", "two")]))).await;
    drift.expect(200);
    let pinned = api.chat("fix").await["status"]["pinned"]["snapshot"].as_str().unwrap().to_owned();

    let out = kubectl.run(&["get", "chats"]).await.out();
    let [head, row] = words(&out).try_into().unwrap();
    assert_eq!(head, ["NAME", "AGENT", "READY", "DRIFTED", "PINNED", "REASON", "AGE"]);
    assert_eq!(row[..5], ["fix", "ws", "True", "True", &pinned]);
    let out = kubectl.run(&["get", "chat", "fix", "-o", "wide"]).await.out();
    let [head, row] = words(&out).try_into().unwrap();
    assert_eq!(head, ["NAME", "AGENT", "READY", "DRIFTED", "PINNED", "REASON", "DRIFTING", "STATE", "MESSAGE", "AGE"]);
    assert!(row[6].ends_with('s'), "how long it has been drifting: {row:?}");
    assert_eq!(row[7], "Waiting");

    let out = kubectl.run(&["get", "agents", "-o", "wide", "--no-headers"]).await.out();
    let latest = api.agent("ws").await["status"]["latestSnapshot"]["name"].as_str().unwrap().to_owned();
    assert_eq!(words(&out)[0][..4], ["ws", "True", &latest, "2"]);
    let out = kubectl.run(&["get", "msnap", "-A", "--sort-by", ".spec.revision"]).await.out();
    let rows = words(&out);
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "AGENT", "REV", "RESOURCES", "AGE"]);
    assert_eq!(
        (&rows[1][..5], &rows[2][..5]),
        (&[NAMESPACE, &pinned, "ws", "1", "1"][..], &[NAMESPACE, &latest, "ws", "2", "1"][..])
    );
    let out = kubectl.run(&["get", "moorline", "--show-labels"]).await.out();
    assert!(out.contains("chat.moorline.dev/fix") && out.contains("moorline.dev/agent=ws"), "{out}");
}

#[tokio::test]
async fn kubectl_explains_every_field_with_its_words_and_checks_fields_strictly() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let policy = kubectl.run(&["explain", "chat.spec.refreshPolicy"]).await.out();
    assert!(policy.contains("ENUM:") && policy.contains("OnDrift") && policy.contains("Manual"), "{policy}");
    assert!(policy.contains("FIELD: refreshPolicy <string>"), "{policy}");
    let tree = kubectl.run(&["explain", "chats", "--recursive"]).await.out();
    for field in [
        "agentRef\t<",
        "dirtySince\t<string>",
        "lastTransitionTime\t<string>",
        "resourceVersion\t<string>",
        "truncated\t<boolean>",
    ] {
        assert!(tree.contains(field), "{field}: {tree}");
    }
    for (path, word) in [
        ("agent.spec.revisionHistoryLimit", "1 to 100"),
        ("agentsnapshot.spec.resources.contentHash", "sha256"),
        ("chat.status.drift.resources.change", "Added, Changed or Removed"),
        ("chat.metadata.labels", "Map of string keys"),
        ("chat.status.conditions.reason", "CamelCase"),
    ] {
        let said = kubectl.run(&["explain", path]).await.out();
        assert!(said.contains(word), "{path}: {said}");
    }
    let twice = manifest("one").replace("  title: one\n", "  title: one\n  suspendd: true\n");
    let said = kubectl.fed(&["apply", "--validate=strict", "-f", "-"], &twice).await.err();
    assert!(said.contains("unknown field \"spec.suspendd\""), "{said}");
    kubectl.fed(&["apply", "--validate=ignore", "-f", "-"], &twice).await.out();
    let patch = r#"{"spec":{"titel":"x"}}"#;
    let warned = kubectl.run(&["patch", "chat", "fix", "--type", "merge", "-p", patch]).await;
    assert!(warned.ok && warned.err.contains("unknown field \"spec.titel\""), "{warned:?}");
}

#[tokio::test]
async fn kubectl_waits_watches_selects_and_tells_the_story() {
    let db = database().await;
    let api = Api::start(&db).await;
    let kubectl = Kubectl::at(&api.url, NAMESPACE);
    let run = api.running_agent("ws").await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    api.create_chat("other", json!({})).await;
    kubectl.run(&["label", "chat", "fix", "colour=red"]).await.out();
    // It waits for what comes only after it has begun to: the push is sent when its watch is open.
    let (waited, ()) = tokio::join!(kubectl.run(&["wait", "chat/fix", "--for=condition=Ready", "--timeout=25s"]), async {
        crate::support::until::until("kubectl watches", || async {
            let metrics = reqwest::get(format!("{}/metrics", api.url)).await.unwrap().text().await.unwrap();
            metrics.lines().any(|line| line.starts_with("moorline_watchers ") && !line.ends_with(" 0")).then_some(())
        })
        .await;
        api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    });
    assert!(waited.out().contains("chat.moorline.dev/fix condition met"));
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    crate::support::until::until("the chat has drifted and the log says so", || async {
        let told = kubectl.run(&["describe", "chat", "fix"]).await.out();
        told.contains("ContextDrifted").then_some(told)
    })
    .await;
    let told = kubectl.run(&["describe", "chat", "fix"]).await.out();
    for words in ["ContextHydrated", "1 resource changed: AGENTS.md", "moorline"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let events = kubectl.run(&["events", "--for", "chat/fix"]).await.out();
    assert!(events.contains("ContextDrifted") && !events.contains("AgentCreated"), "{events}");
    assert_eq!(kubectl.run(&["get", "chats", "-l", "colour=red", "-o", "name"]).await.out(), "chat.moorline.dev/fix\n");
    let dirty = kubectl.run(&["get", "chats", "--field-selector", "status.dirty=true", "-o", "name"]).await.out();
    assert_eq!(dirty, "chat.moorline.dev/fix\n");
    // A watch that ends by itself: what there is, and no row twice.
    let watched = kubectl.run(&["get", "chats", "-w", "--request-timeout=3s", "--no-headers"]).await;
    let rows: Vec<&str> = watched.out.lines().collect();
    assert_eq!(rows.len(), 2, "{watched:?}");
    kubectl.run(&["delete", "chat", "fix", "--wait"]).await.out();
}
