//! Lists by selector: what is selected, page by page, in SQL and as a kube-apiserver selects.

use crate::support::{
    api::{Api, NAMESPACE, file, settled},
    postgres::database,
};
use serde_json::{Value, json};
use std::fmt::Write as _;

const BASE: &str = "/apis/moorline.dev/v1alpha1";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

/// A selector as it stands in an address.
fn escaped(selector: &str) -> String {
    let mut text = String::new();
    for byte in selector.bytes() {
        write!(text, "%{byte:02X}").unwrap();
    }
    text
}

#[tokio::test]
async fn chats_are_selected_by_label_and_by_field_and_pages_are_full() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws-1").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for n in 0..6 {
        let labels = json!({"n": n.to_string(), "parity": if n % 2 == 0 { "even" } else { "odd" }});
        let spec = if n < 3 {
            json!({"agentRef": {"name": "ws-1"}, "owner": "alice"})
        } else {
            json!({"owner": "bob", "archived": n == 5})
        };
        let chat = json!({"metadata": {"name": format!("chat-{n}"), "labels": labels}, "spec": spec});
        api.post(&format!("{BASE}/namespaces/{NAMESPACE}/chats"), &chat).await.expect(201);
    }
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    settled(&db).await;
    let list = async |query: String| api.get(&format!("{BASE}/namespaces/{NAMESPACE}/chats?{query}")).await.expect(200);
    for (selector, wanted) in [
        ("parity=even", &["chat-0", "chat-2", "chat-4"][..]),
        ("parity!=even", &["chat-1", "chat-3", "chat-5"]),
        ("n in (1,4),parity=odd", &["chat-1"]),
        ("n notin (0,1,2)", &["chat-3", "chat-4", "chat-5"]),
        ("!parity", &[]),
        ("parity,n=5", &["chat-5"]),
        ("missing!=x,n==0", &["chat-0"]),
    ] {
        assert_eq!(names(&list(format!("labelSelector={}", escaped(selector))).await), wanted, "{selector}");
    }
    for (selector, wanted) in [
        ("metadata.name=chat-3", &["chat-3"][..]),
        ("metadata.name!=chat-3,spec.owner=bob", &["chat-4", "chat-5"]),
        ("spec.agentRef.name=ws-1", &["chat-0", "chat-1", "chat-2"]),
        ("spec.agentRef.name!=ws-1,spec.archived=false", &["chat-3", "chat-4"]),
        ("spec.workspaceRef.name=", &["chat-0", "chat-1", "chat-2", "chat-3", "chat-4", "chat-5"]),
        ("status.dirty=true", &["chat-0", "chat-1", "chat-2"]),
        ("status.state=Completed", &[]),
        ("metadata.namespace=elsewhere", &[]),
    ] {
        assert_eq!(names(&list(format!("fieldSelector={}", escaped(selector))).await), wanted, "{selector}");
    }
    // Pages are cut from what is selected.
    let query = format!("limit=2&labelSelector={}", escaped("parity=even"));
    let first = list(query.clone()).await;
    assert_eq!(names(&first), ["chat-0", "chat-2"]);
    let token = first["metadata"]["continue"].as_str().expect("another page").to_owned();
    let second = list(format!("{query}&continue={token}")).await;
    assert_eq!((names(&second), &second["metadata"]["continue"]), (vec!["chat-4"], &Value::Null));
    assert_eq!(first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let refused =
        api.get(&format!("{BASE}/namespaces/{NAMESPACE}/chats?limit=2&continue={token}")).await.refused(400, "BadRequest");
    assert!(refused.message.starts_with("continue:"), "{}", refused.message);
}

#[tokio::test]
async fn agents_and_snapshots_are_selected_too_and_everywhere() {
    let db = database().await;
    let api = Api::start(&db).await;
    for (name, spec) in [("ws-1", json!({"workspace": "ws"})), ("ws-2", json!({}))] {
        api.create_agent(name, spec).await;
        let run = api.register_run(name).await;
        api.pushed(&run, 1, json!([file("AGENTS.md", name)])).await;
    }
    let list = async |path: &str, query: &str| api.get(&format!("{BASE}/{path}?{query}")).await.expect(200);
    assert_eq!(names(&list("agents", &format!("fieldSelector={}", escaped("spec.workspace=ws"))).await), ["ws-1"]);
    let by_label = list("agentsnapshots", &format!("labelSelector={}", escaped("moorline.dev/agent=ws-2"))).await;
    let by_field = list("agentsnapshots", &format!("fieldSelector={}", escaped("spec.agentRef.name=ws-2"))).await;
    assert_eq!((names(&by_label).len(), names(&by_label)), (1, names(&by_field)));
    assert!(names(&by_label)[0].starts_with("ws-2-"));
    let refused = api.get(&format!("{BASE}/agents?fieldSelector={}", escaped("spec.build=1"))).await.refused(400, "BadRequest");
    assert!(refused.message.contains("spec.build") && refused.message.contains("spec.workspace"), "{}", refused.message);
}

#[tokio::test]
async fn a_selector_never_shows_what_is_not_ones_own() {
    let db = database().await;
    let api = Api::with_tokens(&db, "a,alice,1\nb,bob,2\nroot,admin,3,\"system:masters\"\n").await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    alice.create_chat("hers", json!({})).await;
    bob.create_chat("his", json!({})).await;
    for query in ["fieldSelector=spec.owner%3Dalice", "fieldSelector=metadata.name%3Dhers", "labelSelector=%21x"] {
        let seen = bob.get(&format!("{BASE}/chats?{query}")).await.expect(200);
        assert!(!names(&seen).contains(&"hers"), "{query}");
    }
}
