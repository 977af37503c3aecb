//! Reading contexts, many at once and again and again: whatever is kept or shared on the way, each answer is the truth as of
//! its request, and only for whom it is.

use crate::support::{
    api::{Api, BASE, file, settled},
    postgres::database,
};
use futures::future::join_all;
use serde_json::json;

#[tokio::test]
async fn an_answer_is_the_same_whether_it_was_read_before_or_not() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    // What looks like the place where the resources go is not.
    let misleading = "{\"resources\":[],\"live\":[]}";
    let mut odd = file("odd", "\u{0}\"\\\n\u{1f}é👩\u{200d}💻");
    odd["sourcePath"] = json!("\"resources\":[]");
    let bytes = json!({"kind": "Skill", "source": "bytes", "bodyBase64": "//4=", "status": "Ok"});
    let live = json!({"kind": "McpServer", "source": "github", "body": misleading, "status": "Ok"});
    let mut report = run.report(1, json!([file("AGENTS.md", misleading), odd, bytes, live]));
    report["error"] = json!(misleading);
    api.push("ws", &report).await.expect(200);
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    api.create_chat("other", json!({"agentRef": {"name": "ws"}})).await;
    settled(&db).await;
    let (first, second) = (api.get("chats/fix/context").await, api.get("chats/fix/context").await);
    assert_eq!((first.status, first.header("content-type")), (200, Some("application/json")));
    assert_eq!(first.header("content-length"), Some(first.text.len().to_string().as_str()));
    assert_eq!((&first.text, first.header("etag")), (&second.text, second.header("etag")));
    let context = first.json;
    assert_eq!((&context["kind"], &context["metadata"]["name"]), (&json!("ChatContext"), &json!("fix")));
    assert_eq!(context["pinned"]["error"], misleading);
    assert_eq!((&context["pinned"]["resourceCount"], &context["resources"][0]["body"]), (&json!(3), &json!(misleading)));
    assert_eq!(context["resources"][1]["body"], "\u{0}\"\\\n\u{1f}é👩\u{200d}💻");
    assert_eq!((&context["resources"][2]["bodyBase64"], &context["live"][0]["body"]), (&json!("//4="), &json!(misleading)));
    let other = api.get("chats/other/context").await.expect(200);
    assert_eq!((&other["metadata"]["name"], &other["resources"]), (&json!("other"), &context["resources"]));
    for _ in 0..2 {
        let bare = api.get("chats/fix/context?bodies=false").await.expect(200);
        assert_eq!(bare["resources"][0]["contentHash"], context["resources"][0]["contentHash"]);
        let resources = bare["resources"].as_array().expect("a list").iter().chain(bare["live"].as_array().expect("a list"));
        assert!(resources.into_iter().all(|one| one.get("body").is_none() && one.get("bodyBase64").is_none()), "{bare}");
    }
}

#[tokio::test]
async fn an_entity_tag_tells_the_agents_apart_that_say_the_same() {
    let db = database().await;
    let api = Api::start(&db).await;
    for agent in ["one", "two"] {
        let run = api.running_agent(agent).await;
        api.pushed(&run, 1, json!([file("AGENTS.md", "the same")])).await;
    }
    api.create_chat("fix", json!({"agentRef": {"name": "one"}})).await;
    api.create_chat("other", json!({"agentRef": {"name": "one"}})).await;
    settled(&db).await;
    let tagged = async |path: &str| {
        let answer = api.get(path).await;
        (answer.header("etag").expect("a tag").to_owned(), answer.expect(200)["pinned"].clone())
    };
    let (tag, pinned) = tagged("chats/fix/context").await;
    assert_ne!(tagged("chats/other/context").await.0, tag, "another chat is another context");
    // What the body says of the context is as it was.
    api.patch("chats/fix", &json!({"metadata": {"labels": {"n": "1"}}})).await.expect(200);
    assert_eq!(api.with("if-none-match", &tag).get("chats/fix/context").await.status, 304);
    api.patch("chats/fix", &json!({"spec": {"agentRef": {"name": "two"}}})).await.expect(200);
    settled(&db).await;
    api.put("chats/fix/context", &json!({"token": "now"})).await.expect(200);
    let (moved, now) = tagged("chats/fix/context").await;
    assert_eq!((&now["agent"]["name"], &now["hash"]), (&json!("two"), &pinned["hash"]));
    assert_ne!(moved, tag, "the body names another agent: {now}");
    assert_eq!(api.with("if-none-match", &tag).get("chats/fix/context").await.status, 200);
}

#[tokio::test]
async fn whoever_reads_after_a_refresh_reads_what_it_brought_however_many_read() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "version 1")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    settled(&db).await;
    for n in 2..12 {
        let body = format!("version {n}");
        api.pushed(&run, n, json!([file("AGENTS.md", &body)])).await;
        // Readers that are under way while the pin moves see one or the other, whole.
        let refresh = async {
            let token = json!({"token": n.to_string()});
            api.put("chats/fix/context", &token).await.expect(200);
            api.get("chats/fix/context").await.expect(200)
        };
        let (after, meanwhile) = tokio::join!(refresh, join_all((0..20).map(|_| api.get("chats/fix/context"))));
        assert_eq!(after["resources"][0]["body"], json!(body));
        for answer in meanwhile {
            let seen = answer.expect(200);
            let of = seen["resources"][0]["body"].as_str().expect("a body").to_owned();
            let pinned = if of == body { &after["pinned"]["hash"] } else { &seen["pinned"]["hash"] };
            assert_eq!((&seen["pinned"]["hash"], of == body), (pinned, seen["pinned"]["hash"] == after["pinned"]["hash"]));
        }
    }
}

#[tokio::test]
async fn many_at_once_each_get_their_own_and_nobody_gets_anothers() {
    let db = database().await;
    let api = Api::with_tokens(&db, "t-alice,alice,1\nt-bob,bob,2\nt-admin,root,4,\"system:masters\"\n").await;
    let (alice, bob, admin) = (api.as_token("t-alice"), api.as_token("t-bob"), api.as_token("t-admin"));
    for namespace in ["team-a", "team-b"] {
        let base = format!("{BASE}/namespaces/{namespace}");
        admin.post(&format!("{base}/agents"), &json!({"metadata": {"name": "ws"}})).await.expect(201);
        let run = admin.post(&format!("{base}/agents/ws/runs"), &json!({})).await.expect(201);
        let resources = json!([file("AGENTS.md", &format!("secret of {namespace}"))]);
        let report = json!({"runID": run["runID"], "epoch": run["epoch"], "seq": 1, "phase": "Complete", "resources": resources});
        admin.put(&format!("{base}/agents/ws/snapshot"), &report).await.expect(200);
        for n in 0..10 {
            let spec = json!({"owner": "alice", "agentRef": {"name": "ws"}});
            admin.post(&format!("{base}/chats"), &json!({"metadata": {"name": format!("c{n}")}, "spec": spec})).await.expect(201);
        }
    }
    settled(&db).await;
    let asked = (0..200).map(|n| {
        let (alice, bob) = (&alice, &bob);
        async move {
            let (namespace, chat) = (["team-a", "team-b"][n % 2], format!("c{}", n / 2 % 12));
            let path = format!("{BASE}/namespaces/{namespace}/chats/{chat}/context");
            let there = n / 2 % 12 < 10;
            if n % 3 == 0 {
                let refused = bob.get(&path).await;
                assert!(!refused.text.contains("secret"), "{}", refused.text);
                refused.refused(if there { 403 } else { 404 }, if there { "Forbidden" } else { "NotFound" });
            } else if there {
                let context = alice.get(&path).await.expect(200);
                let metadata = &context["metadata"];
                assert_eq!((&metadata["namespace"], &metadata["name"]), (&json!(namespace), &json!(chat)));
                assert_eq!(context["resources"][0]["body"], json!(format!("secret of {namespace}")));
            } else {
                alice.get(&path).await.refused(404, "NotFound");
            }
        }
    });
    join_all(asked).await;
    // Somebody who hangs up takes nobody's answer along.
    let path = format!("{BASE}/namespaces/team-a/chats/c1/context");
    for _ in 0..20 {
        let (gone, stays) = (alice.get(&path), alice.get(&path));
        tokio::select! {
            biased;
            _ = gone => {}
            () = tokio::task::yield_now() => {}
        }
        stays.await.expect(200);
    }
}
