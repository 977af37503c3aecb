//! The ways around: by naming an agent, by being a parent, by what streams and counts, and by being called alike.

use super::{
    World,
    world::{BODY, NAME},
};
use crate::support::until::until;
use serde_json::json;

#[tokio::test]
async fn nobody_gets_at_an_agents_context_by_naming_it_in_a_chat_of_their_own() {
    let world = World::begin(&[]).await;
    let agent = format!("{NAME}-agent");
    let new = json!({"metadata": {"name": "new"}, "spec": {"agentRef": {"name": agent}}});
    for (who, body) in [("stranger", &new), ("neighbour", &new), ("viewer", &new), ("owner", &new)] {
        let (code, text) = world.send(who, "POST", "chats", Some(body.clone())).await;
        assert_eq!(code, 403, "{who}: {text}");
    }
    // Nor with a chat that they have.
    let (code, text) = world.send("owner", "PATCH", "chats/owns", Some(json!({"spec": {"agentRef": {"name": agent}}}))).await;
    assert_eq!(code, 403, "{text}");
    let (code, text) = world.send("owner", "PATCH", "chats/owns", Some(json!({"spec": {"title": "mine"}}))).await;
    assert_eq!(code, 200, "{text}");
    assert!(!world.get_as("owner", &world.path("chats/owns/context")).await.1.contains(BODY));
}

/// Who creates chats and nothing else creates their own, and has them begin with what they may read.
#[tokio::test]
async fn who_may_create_chats_creates_their_own_and_inherits_only_what_they_may_read() {
    let world = World::begin(&[]).await;
    let create = json!([{"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": ["create"]}]);
    world.cluster.allow_in(&world.namespace, world.user("stranger"), &create).await;
    let made = |name: &str, spec: serde_json::Value| json!({"metadata": {"name": name}, "spec": spec});
    until("the right is there", || async {
        let (code, _) = world.send("stranger", "POST", "chats?dryRun=All", Some(made("mine", json!({})))).await;
        (code == 201).then_some(())
    })
    .await;
    let given = made("given", json!({"owner": "somebody else"}));
    assert_eq!(world.send("stranger", "POST", "chats", Some(given)).await.0, 403);
    let child = made("child", json!({"parentRef": {"name": format!("{NAME}-chat")}}));
    let (code, text) = world.send("stranger", "POST", "chats", Some(child)).await;
    assert_eq!(code, 422, "{text}");
    let (code, text) =
        world.send("editor", "POST", "chats", Some(made("c2", json!({"parentRef": {"name": format!("{NAME}-chat")}})))).await;
    assert_eq!(code, 422, "an editor may change the parent, and not read its context: {text}");
}

#[tokio::test]
async fn whoever_sees_a_diff_without_the_context_sees_what_changed_and_no_bodies() {
    let world = World::begin(&[]).await;
    let differ = json!([{"apiGroups": ["moorline.dev"], "resources": ["chats/diff"], "resourceNames": [format!("{NAME}-chat")], "verbs": ["get"]}]);
    world.cluster.allow_in(&world.namespace, world.user("stranger"), &differ).await;
    let path = world.path(&format!("chats/{NAME}-chat/diff"));
    let text = until("the right is there", || async {
        let (code, text) = world.get_as("stranger", &path).await;
        (code == 200).then_some(text)
    })
    .await;
    assert!(text.contains("AGENTS.md") && !text.contains(BODY), "{text}");
    assert_eq!(world.get_as("stranger", &world.path("chats/owns/diff")).await.0, 403, "the right is to one chat");
}

/// A service account of another namespace has the name of the agent's, and nothing else.
#[tokio::test]
async fn an_agent_is_its_service_accounts_of_its_own_namespace_and_nobodys_else() {
    let world = World::begin(&[]).await;
    for (method, path, body) in [
        ("POST", format!("agents/{NAME}-agent/runs"), json!({})),
        ("PATCH", format!("agents/{NAME}-agent"), json!({"spec": {"suspend": true}})),
        ("DELETE", format!("agents/{NAME}-agent"), json!({})),
    ] {
        let (code, text) = world.send("other-robot", method, &path, Some(body)).await;
        assert_eq!(code, 403, "{method} {path}: {text}");
    }
    for list in ["agents", "agentsnapshots", "contextevents"] {
        for path in [world.path(list), format!("/apis/moorline.dev/v1alpha1/{list}")] {
            let (code, text) = world.get_as("other-robot", &path).await;
            assert_eq!((code, text.contains(NAME)), (200, false), "{path}: {text}");
        }
    }
    // A user's whole name is no service account's name: nothing is theirs that has it.
    let account = &world.user("stranger").name;
    let in_full = json!({"metadata": {"name": "in-full"}, "spec": {"serviceAccountName": account}});
    let watch = world.answer("stranger", &world.path("contextevents?watch=1&timeoutSeconds=2")).await;
    let (code, text) = world.send("admin", "POST", "agents", Some(in_full)).await;
    assert_eq!(code, 201, "{text}");
    assert_eq!(world.get_as("stranger", &world.path("agents/in-full")).await.0, 403);
    for list in ["agents", "contextevents", "events"] {
        let (code, text) = world.get_as("stranger", &world.path(list)).await;
        assert_eq!((code, text.contains("in-full")), (200, false), "{list}: {text}");
    }
    assert!(!watch.text().await.unwrap().contains("in-full"));
    assert!(world.get_as("viewer", &world.path("contextevents")).await.1.contains("in-full"));
    // The right one finds its own in all namespaces, too.
    let (_, text) = world.get_as("owner", "/apis/moorline.dev/v1alpha1/agents").await;
    assert!(text.contains("robots") && !text.contains(NAME), "{text}");
}

/// Rights in one namespace are not rights to lists of all; rights to all are.
#[tokio::test]
async fn lists_and_watches_of_all_namespaces_show_what_the_right_to_all_of_them_gives() {
    let world = World::begin(&[]).await;
    for list in ["chats", "agents", "agentsnapshots", "contextevents"] {
        for query in ["", "?watch=1&timeoutSeconds=1"] {
            let path = format!("/apis/moorline.dev/v1alpha1/{list}{query}");
            for (who, sees) in [("editor", false), ("neighbour", false), ("stranger", false), ("admin", true)] {
                let (code, text) = world.get_as(who, &path).await;
                assert_eq!((code, text.contains(NAME)), (200, sees), "{who}: {path}: {text}");
            }
        }
    }
    for (who, sees) in [("viewer", false), ("admin", true)] {
        assert_eq!(world.get_as(who, "/api/v1/events").await.1.contains(NAME), sees, "{who}");
    }
}

/// What happens while they watch reaches those who may see it, and nobody else; what counts and what is said on the way tells
/// nobody of names or bodies.
#[tokio::test]
async fn no_stream_no_metric_and_no_log_line_tells_a_wrong_reader() {
    let world = World::begin(&[]).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=4";
    let mut streams = Vec::new();
    for who in ["viewer", "stranger", "neighbour", "owner"] {
        for list in ["chats", "agents", "agentsnapshots"] {
            streams.push((who, world.answer(who, &world.path(&format!("{list}?{query}"))).await));
        }
        for list in ["contextevents", "events"] {
            streams.push((who, world.answer(who, &world.path(&format!("{list}?watch=1&timeoutSeconds=4"))).await));
        }
    }
    world.push_anew(3, &format!("{BODY} anew")).await;
    let (code, text) = world.send("editor", "PUT", &format!("chats/{NAME}-chat/context"), Some(json!({"token": "now"}))).await;
    assert_eq!(code, 200, "{text}");
    let read = streams.into_iter().map(|(who, stream)| async move { (who, stream.text().await.unwrap()) });
    for (who, text) in futures::future::join_all(read).await {
        assert_eq!(text.contains(NAME), who == "viewer", "{who}: {text}");
        assert!(!text.contains(BODY), "{who}: {text}");
    }
    for path in ["/metrics", "/livez", "/readyz", "/healthz"] {
        let (_, text) = world.get_with("", path).await;
        assert!(!text.contains(NAME) && !text.contains(BODY) && !text.contains(&world.namespace), "{path}: {text}");
    }
    world.must_not_have_logged(&[BODY]);
}
