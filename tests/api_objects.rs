//! Chats and agents over HTTP, as a client of Kubernetes knows objects.

use crate::support::{
    api::{Api, BASE, digest, file, settled},
    postgres::database,
    until::until,
};
use reqwest::Method;
use serde_json::{Value, json};

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no text at {pointer} of {object}"))
}

fn version(object: &Value) -> u128 {
    text(object, "/metadata/resourceVersion").parse().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| text(item, "/metadata/name")).collect()
}

/// The condition of a type.
fn condition<'a>(object: &'a Value, type_: &str) -> &'a Value {
    object["status"]["conditions"].as_array().unwrap().iter().find(|condition| condition["type"] == type_).unwrap()
}

#[tokio::test]
async fn a_chat_is_created_moored_read_updated_and_deleted() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let body = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat",
        "metadata": {"name": "fix", "labels": {"team": "web"}, "annotations": {"note": "any text\nat all"}},
        "spec": {"title": "Fix it", "agentRef": {"name": "ws"}, "owner": "alice"}});
    let made = api.post("chats", &body).await.expect(201);
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("moorline.dev/v1alpha1"), &json!("Chat")));
    assert_eq!(made["metadata"]["labels"], body["metadata"]["labels"]);
    assert_eq!(made["metadata"]["annotations"], body["metadata"]["annotations"]);
    assert_eq!((&made["metadata"]["generation"], &made["metadata"]["namespace"]), (&json!(1), &json!("team-a")));
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        text(&made, &format!("/metadata/{field}"));
    }
    assert_eq!(made["status"]["pinned"]["cause"], "Hydrated", "whoever creates a chat sees it pinned: {made}");
    assert_eq!(made["status"]["observedGeneration"], 1);
    assert_eq!(condition(&made, "Ready")["status"], "True");
    for (field, default) in [
        ("refreshPolicy", json!("Manual")),
        ("suspend", json!(false)),
        ("archived", json!(false)),
        ("deletionPolicy", json!("Delete")),
    ] {
        assert_eq!(made["spec"][field], default, "{field}");
    }
    let got = api.chat("fix").await;
    assert_eq!((&got["metadata"], &got["spec"]), (&made["metadata"], &made["spec"]));
    assert_eq!(api.get("chats/fix/status").await.expect(200)["metadata"], got["metadata"]);
    api.post("chats", &body).await.refused(409, "AlreadyExists");

    // PUT replaces: what it leaves out is as if it had never been said. Spec raises the generation, metadata does not.
    let mut wanted = json!({"metadata": {"name": "fix"}, "spec": {"owner": "alice", "agentRef": {"name": "ws"}}});
    let put = api.with("prefer", "wait=10").put("chats/fix", &wanted).await;
    assert_eq!(put.header("preference-applied"), Some("wait=10"));
    let put = put.expect(200);
    assert_eq!((put["spec"].get("title"), put["metadata"].get("labels")), (None, None));
    assert_eq!((&put["metadata"]["generation"], &put["status"]["observedGeneration"]), (&json!(2), &json!(2)));
    assert!(version(&put) > version(&made));
    wanted["metadata"]["labels"] = json!({"a": "b"});
    let labelled = api.put("chats/fix", &wanted).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
    assert!(version(&labelled) > version(&put));
    // The same again changes nothing.
    settled(&db).await;
    let before = digest(&db).await;
    let same = api.put("chats/fix", &wanted).await.expect(200);
    assert_eq!(version(&same), version(&labelled));
    assert_eq!(digest(&db).await, before);

    // PATCH merges: null takes away.
    let patched = api.patch("chats/fix", &json!({"metadata": {"labels": {"a": null, "c": "d"}}, "spec": {"title": "T"}})).await;
    let patched = patched.expect(200);
    assert_eq!((&patched["metadata"]["labels"], &patched["spec"]["title"]), (&json!({"c": "d"}), &json!("T")));
    assert_eq!((&patched["spec"]["agentRef"], &patched["metadata"]["generation"]), (&json!({"name": "ws"}), &json!(3)));

    let gone = api.delete("chats/fix").await.expect(200);
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
    api.get("chats/fix").await.refused(404, "NotFound");
    api.delete("chats/fix").await.refused(404, "NotFound");
    api.put("chats/fix", &wanted).await.refused(404, "NotFound");
    api.patch("chats/fix", &json!({})).await.refused(404, "NotFound");
}

#[tokio::test]
async fn an_agent_is_created_read_updated_and_deleted_and_every_pin_stays() {
    let db = database().await;
    let api = Api::start(&db).await;
    let made = api.create_agent("ws", json!({"workspace": "w", "build": 7, "serviceAccountName": "robot"})).await;
    assert_eq!((&made["kind"], &made["metadata"]["generation"]), (&json!("Agent"), &json!(1)));
    let defaults = json!({"suspend": false, "revisionHistoryLimit": 10, "deletionPolicy": "Delete"});
    for (field, default) in defaults.as_object().unwrap() {
        assert_eq!(&made["spec"][field], default, "{field}");
    }
    api.post("agents", &json!({"metadata": {"name": "ws"}})).await.refused(409, "AlreadyExists");
    let run = api.register_run("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    api.create_chat("by-workspace", json!({"workspaceRef": {"name": "w"}})).await["status"]["pinned"].as_object().expect("a pin");
    let patched = api.with("prefer", "wait=10").patch("agents/ws", &json!({"spec": {"build": 8}})).await.expect(200);
    assert_eq!((&patched["metadata"]["generation"], &patched["status"]["observedGeneration"]), (&json!(2), &json!(2)));
    let kept = json!({"metadata": {"name": "ws"}, "spec": {"workspace": "w"}});
    let put = api.put("agents/ws", &kept).await.expect(200);
    assert_eq!((put["spec"].get("build"), put["spec"].get("serviceAccountName")), (None, None));
    for (spec, field) in [
        (json!({"build": -1}), "spec.build"),
        (json!({"build": 1_u64 << 53}), "spec.build"),
        (json!({"revisionHistoryLimit": 0}), "spec.revisionHistoryLimit"),
        (json!({"revisionHistoryLimit": 101}), "spec.revisionHistoryLimit"),
        (json!({"workspace": "Bad"}), "spec.workspace"),
    ] {
        let refused = api.patch("agents/ws", &json!({"spec": spec})).await.refused(422, "Invalid");
        assert_eq!(refused.fields(), [field]);
    }
    let pinned = api.get("chats/fix/context").await.expect(200);
    let gone = api.delete("agents/ws").await.expect(200);
    assert_eq!(gone["metadata"]["name"], "ws");
    until("the agent is gone", || async { (api.get("agents/ws").await.status == 404).then_some(()) }).await;
    settled(&db).await;
    let after = api.get("chats/fix/context").await.expect(200);
    assert_eq!((&after["pinned"], &after["resources"]), (&pinned["pinned"], &pinned["resources"]));
    let ready = |chat: &Value| condition(chat, "Ready").clone();
    let chat = api.chat("fix").await;
    assert_eq!((&ready(&chat)["status"], &ready(&chat)["reason"]), (&json!("False"), &json!("AgentNotFound")));
    // Creating it again mends that, although it is another one.
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "two")])).await;
    until("the chat is ready again", || async { (ready(&api.chat("fix").await)["status"] == "True").then_some(()) }).await;
}

#[tokio::test]
async fn a_write_that_knows_an_older_version_is_refused() {
    let db = database().await;
    let api = Api::start(&db).await;
    let chat = api.create_chat("fix", json!({"title": "one"})).await;
    let agent = api.create_agent("ws", json!({})).await;
    let newer = api.patch("chats/fix", &json!({"spec": {"title": "two"}})).await.expect(200);
    api.patch("agents/ws", &json!({"spec": {"build": 1}})).await.expect(200);
    settled(&db).await;
    let before = digest(&db).await;
    for (path, old) in [("chats/fix", &chat), ("agents/ws", &agent)] {
        let known = json!({"resourceVersion": old["metadata"]["resourceVersion"]});
        let mut whole = old.clone();
        whole.as_object_mut().unwrap().remove("status");
        api.put(path, &whole).await.refused(409, "Conflict");
        api.patch(path, &json!({"metadata": known})).await.refused(409, "Conflict");
        let delete = api.request(Method::DELETE, path).json(&json!({"preconditions": known}));
        api.send(delete).await.refused(409, "Conflict");
        let other = json!({"preconditions": {"uid": "0195d1a2-0000-7000-8000-000000000000"}});
        api.send(api.request(Method::DELETE, path).json(&other)).await.refused(409, "Conflict");
        // What is no version of this object may be one of another server's, or of a list: whoever knows it is to read again.
        for strange in ["1", "010", "11", "0", "18446744073709551615", "99999999999999999999999999"] {
            let known = json!({"resourceVersion": strange});
            api.patch(path, &json!({"metadata": known})).await.refused(409, "Conflict");
            api.put(path, &json!({"metadata": known, "spec": whole["spec"]})).await.refused(409, "Conflict");
            let delete = api.request(Method::DELETE, path).json(&json!({"preconditions": known}));
            api.send(delete).await.refused(409, "Conflict");
        }
        for nonsense in ["x", "-2", "1e3", "+10", " 10"] {
            let refused = api.patch(path, &json!({"metadata": {"resourceVersion": nonsense}})).await.refused(422, "Invalid");
            assert_eq!(refused.fields(), ["metadata.resourceVersion"]);
        }
        let renamed = api.put(path, &json!({"metadata": {"name": "other"}, "spec": {}})).await.refused(400, "BadRequest");
        assert!(renamed.message.contains("other"), "{}", renamed.message);
    }
    api.patch(
        "chats/fix/status",
        &json!({"metadata": {"resourceVersion": chat["metadata"]["resourceVersion"]}, "status": {"state": "Running"}}),
    )
    .await
    .refused(409, "Conflict");
    assert_eq!(digest(&db).await, before);
    let current = api.chat("fix").await;
    assert!(version(&current) >= version(&newer));
    let known = json!({"metadata": {"resourceVersion": current["metadata"]["resourceVersion"]}, "spec": {"title": "three"}});
    assert_eq!(api.patch("chats/fix", &known).await.expect(200)["spec"]["title"], "three");
}

#[tokio::test]
async fn patches_at_once_all_take_effect() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("fix", json!({})).await;
    let patches = (0..6).map(|n| {
        let (api, label) = (&api, format!("l{n}"));
        async move { api.patch("chats/fix", &json!({"metadata": {"labels": {label: "x"}}})).await.status }
    });
    assert_eq!(futures::future::join_all(patches).await, [200; 6]);
    assert_eq!(api.chat("fix").await["metadata"]["labels"].as_object().unwrap().len(), 6);
}

#[tokio::test]
async fn names_can_be_generated() {
    let db = database().await;
    let api = Api::start(&db).await;
    for path in ["chats", "agents"] {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..5 {
            let made = api.post(path, &json!({"metadata": {"generateName": "ws-"}, "spec": {}})).await.expect(201);
            let name = text(&made, "/metadata/name").to_owned();
            assert!(name.starts_with("ws-") && name.len() == 8, "{name}");
            assert!(seen.insert(name));
        }
        let long = api.post(path, &json!({"metadata": {"generateName": "a".repeat(100)}, "spec": {}})).await.expect(201);
        assert!(text(&long, "/metadata/name").len() <= 63);
        api.post(path, &json!({"metadata": {"generateName": "Bad_"}, "spec": {}})).await.refused(422, "Invalid");
        let named = json!({"metadata": {"name": "named", "generateName": "ws-"}, "spec": {}});
        assert_eq!(api.post(path, &named).await.expect(201)["metadata"]["name"], "named");
    }
}

#[tokio::test]
async fn what_is_immutable_stays_and_what_contradicts_itself_is_refused() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_chat("root", json!({"owner": "alice"})).await;
    api.create_chat("child", json!({"owner": "alice", "parentRef": {"name": "root"}})).await;
    settled(&db).await;
    let before = digest(&db).await;
    for (path, patch, field) in [
        ("chats/child", json!({"spec": {"owner": "bob"}}), "spec.owner"),
        ("chats/child", json!({"spec": {"parentRef": {"name": "child"}}}), "spec.parentRef"),
        ("chats/child", json!({"spec": {"parentRef": null}}), "spec.parentRef"),
        ("chats/root", json!({"spec": {"parentRef": {"name": "child"}}}), "spec.parentRef"),
        ("chats/root", json!({"spec": {"agentRef": {"name": "a"}, "workspaceRef": {"name": "w"}}}), "spec"),
        (
            "chats/root",
            json!({"metadata": {"annotations": {"moorline.dev/refresh-requested-at": "t".repeat(65)}}}),
            "metadata.annotations",
        ),
    ] {
        let refused = api.patch(path, &patch).await.refused(422, "Invalid");
        assert!(refused.fields()[0].starts_with(field), "{patch}: {refused:?}");
    }
    for parent in ["nobody", "self"] {
        let body = json!({"metadata": {"name": "self"}, "spec": {"parentRef": {"name": parent}}});
        let refused = api.post("chats", &body).await.refused(422, "Invalid");
        assert!(refused.fields()[0].starts_with("spec.parentRef"), "{refused:?}");
        assert!(refused.message.contains(parent));
    }
    assert_eq!(digest(&db).await, before);
}

#[tokio::test]
async fn deleting_a_chat_takes_what_is_below_it_unless_told_to_leave_it() {
    let db = database().await;
    let api = Api::start(&db).await;
    let tree = async || {
        api.create_chat("a", json!({})).await;
        api.create_chat("b", json!({"parentRef": {"name": "a"}})).await;
        api.create_chat("c", json!({"parentRef": {"name": "b"}})).await;
    };
    tree().await;
    api.delete("chats/b").await.expect(200);
    until("the subtree is gone", || async { (names(&api.get("chats").await.json) == ["a"]).then_some(()) }).await;
    api.delete("chats/a").await.expect(200);
    for (query, body) in [
        ("?propagationPolicy=Orphan", Value::Null),
        ("", json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"})),
    ] {
        tree().await;
        let request = api.request(Method::DELETE, &format!("chats/b{query}"));
        api.send(if body.is_null() { request } else { request.json(&body) }).await.expect(200);
        settled(&db).await;
        let list = api.get("chats").await.expect(200);
        assert_eq!(names(&list), ["a", "c"], "{query} {body}");
        assert_eq!(api.chat("c").await["spec"].get("parentRef"), None, "it is nobody's child now");
        api.delete("chats/a").await.expect(200);
        assert_eq!(names(&api.get("chats").await.json), ["c"]);
        api.delete("chats/c").await.expect(200);
    }
    api.create_chat("a", json!({})).await;
    api.delete("chats/a?propagationPolicy=Sideways").await.refused(400, "BadRequest");
    // Archiving covers what is below.
    api.create_chat("b", json!({"parentRef": {"name": "a"}})).await;
    api.with("prefer", "wait=10").patch("chats/a", &json!({"spec": {"archived": true}})).await.expect(200);
    settled(&db).await;
    api.put("chats/b/context", &json!({"token": "t"})).await.refused(409, "Conflict").cause("Archived");
}

#[tokio::test]
async fn lists_come_in_full_pages_of_one_version() {
    let db = database().await;
    let api = Api::start(&db).await;
    let mut wanted = Vec::new();
    for n in 0..7 {
        let name = format!("c{n}");
        api.create_chat(&name, json!({})).await;
        wanted.push(name);
    }
    let other = format!("{BASE}/namespaces/team-b/chats");
    api.post(&other, &json!({"metadata": {"name": "elsewhere"}})).await.expect(201);
    for (limit, pages) in [(3, vec![3, 3, 1]), (7, vec![7]), (1, vec![1; 7]), (100, vec![7])] {
        let mut got = Vec::new();
        let mut sizes = Vec::new();
        let mut versions = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let page = api.get(&format!("chats?{query}")).await.expect(200);
            assert_eq!((&page["kind"], &page["apiVersion"]), (&json!("ChatList"), &json!("moorline.dev/v1alpha1")));
            let found: Vec<String> = names(&page).into_iter().map(str::to_owned).collect();
            sizes.push(found.len());
            got.extend(found);
            versions.push(version(&page));
            // What is written between the pages does not change what they say they are.
            api.patch("chats/c0", &json!({"metadata": {"labels": {"n": sizes.len().to_string()}}})).await.expect(200);
            let Some(token) = page["metadata"]["continue"].as_str() else { break };
            query = format!("limit={limit}&continue={token}");
        }
        assert_eq!((&got, &sizes), (&wanted, &pages), "limit {limit}");
        assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    }
    let all = api.get(&format!("{BASE}/chats")).await.expect(200);
    assert_eq!(all["items"].as_array().unwrap().len(), 8);
    let one = api.get("chats?fieldSelector=metadata.name%3Dc3").await.expect(200);
    assert_eq!(names(&one), ["c3"]);
    assert_eq!(api.get("chats?fieldSelector=metadata.name%3Dnobody").await.expect(200)["items"], json!([]));
    for bad in [
        "continue=garbage",
        "continue=e30",
        "limit=-1",
        "limit=many",
        "labelSelector=a%20b",
        "fieldSelector=spec.nothing%3Dx",
        "fieldSelector=nonsense",
    ] {
        for path in ["chats", "agents", "agentsnapshots"] {
            api.get(&format!("{path}?{bad}")).await.refused(400, "BadRequest");
        }
    }
}

#[tokio::test]
async fn of_a_status_only_state_and_last_error_are_written() {
    let db = database().await;
    let api = Api::start(&db).await;
    let chat = api.create_chat("fix", json!({"title": "T"})).await;
    let patch = async |body: &Value| api.patch("chats/fix/status", body).await;
    let reported = patch(&json!({"status": {"state": "Running", "lastError": "none yet"}})).await.expect(200);
    assert_eq!((&reported["status"]["state"], &reported["status"]["lastError"]), (&json!("Running"), &json!("none yet")));
    assert_eq!(reported["metadata"]["generation"], chat["metadata"]["generation"]);
    for state in ["Waiting", "Paused", "Pending", "RequiresAction", "Completed", "Error"] {
        assert_eq!(patch(&json!({"status": {"state": state}})).await.expect(200)["status"]["state"], state);
    }
    settled(&db).await;
    let before = digest(&db).await;
    for (body, field) in [
        (json!({"status": {"dirty": true}}), "status.dirty"),
        (json!({"status": {"pinned": null}}), "status.pinned"),
        (json!({"spec": {"title": "x"}}), "spec"),
        (json!({"status": {"state": "Sleeping"}}), "status.state"),
        (json!({"status": {"lastError": "x".repeat(4_097)}}), "status.lastError"),
        (json!({"status": {"lastError": 1}}), "status.lastError"),
        (json!({"status": {"state": null}}), "status.state"),
        (json!({"status": null}), "status"),
        (json!({"status": "Running"}), "status"),
    ] {
        let refused = patch(&body).await.refused(422, "Invalid");
        assert_eq!(refused.fields(), [field]);
    }
    let many = patch(&json!({"spec": {}, "status": {"dirty": 1, "state": "x"}})).await.refused(422, "Invalid");
    assert_eq!(many.causes.len(), 3);
    assert_eq!(digest(&db).await, before);
    // And the other way around: a write of the object leaves the status alone.
    let mut whole = api.chat("fix").await;
    whole["status"]["state"] = json!("Running");
    whole["status"]["dirty"] = json!(true);
    let put = api.put("chats/fix", &whole).await.expect(200);
    assert_eq!((&put["status"]["state"], &put["status"]["dirty"]), (&json!("Error"), &json!(false)));
    let refused = api.patch("chats/fix", &json!({"status": {"state": "Running"}})).await.refused(422, "Invalid");
    assert_eq!(refused.fields(), ["status.state"]);
    assert_eq!(patch(&json!({"status": {"lastError": null}})).await.expect(200)["status"].get("lastError"), None);
}

#[tokio::test]
async fn a_context_has_an_etag_and_is_not_found_before_there_is_a_pin() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.create_chat("unbound", json!({})).await;
    let hasty = api.with("prefer", "respond-async");
    hasty.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    for name in ["unbound", "fix"] {
        let refused = api.get(&format!("chats/{name}/context")).await.refused(404, "NotPinned");
        assert!(refused.message.contains(name));
    }
    api.get("chats/nobody/context").await.refused(404, "NotFound");
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let tools = json!({"kind": "McpServer", "source": "github", "body": "{}", "status": "Ok"});
    let read = || async { Some(api.get("chats/fix/context").await).filter(|answer| answer.status == 200) };
    let first = until("the chat is moored", read).await;
    let etag = first.header("etag").expect("an entity tag").to_owned();
    let strong = etag.strip_prefix("W/").expect("it says nothing of the chat's version").to_owned();
    for known in [etag.clone(), format!("\"other\", {etag}"), "*".to_owned(), strong] {
        let same = api.with("if-none-match", &known).get("chats/fix/context").await;
        assert_eq!((same.status, same.text.as_str(), same.header("etag")), (304, "", Some(etag.as_str())), "{known}");
    }
    api.with("if-none-match", "\"other\"").get("chats/fix/context").await.expect(200);
    // The live class is another revision of the same pin.
    api.pushed(&run, 2, json!([file("AGENTS.md", "one"), tools])).await;
    let live = api.with("if-none-match", &etag).get("chats/fix/context").await;
    assert_ne!(live.header("etag"), Some(etag.as_str()));
    assert_eq!(live.expect(200)["live"][0]["source"], "github");
    // The latest snapshot moves, the pin does not.
    let etag = api.get("chats/fix/context").await.header("etag").unwrap().to_owned();
    let tools = json!({"kind": "McpServer", "source": "github", "body": "{}", "status": "Ok"});
    api.pushed(&run, 3, json!([file("AGENTS.md", "two"), tools])).await;
    settled(&db).await;
    let same = api.with("if-none-match", &etag).get("chats/fix/context").await;
    assert_eq!(same.status, 304, "{}", same.text);
    let chat = api.chat("fix").await;
    assert_eq!((&chat["status"]["dirty"], &chat["status"]["drift"]["changed"]), (&json!(true), &json!(1)));
    assert_eq!(chat["status"]["drift"]["resources"][0]["source"], "AGENTS.md");
    assert_ne!(chat["status"]["latest"]["hash"], chat["status"]["pinned"]["hash"]);
}

#[tokio::test]
async fn a_token_refreshes_once_by_either_way() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    let mut seq = 0;
    let mut push = async |body: &str| {
        seq += 1;
        api.pushed(&run, seq, json!([file("AGENTS.md", body)])).await;
        settled(&db).await;
    };
    let body = async |name: &str| api.get(&format!("chats/{name}/context")).await.expect(200)["resources"][0]["body"].clone();
    let annotate = async |token: &str| {
        let patch = json!({"metadata": {"annotations": {"moorline.dev/refresh-requested-at": token}}});
        api.with("prefer", "wait=10").patch("chats/fix", &patch).await.expect(200)
    };
    push("one").await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    push("two").await;
    assert_eq!(body("fix").await, "one");
    let refreshed = api.put("chats/fix/context", &json!({"token": "t1"})).await.expect(200);
    assert_eq!((&refreshed["kind"], &refreshed["status"]["lastHandledRefresh"]), (&json!("Chat"), &json!("t1")));
    assert_eq!((&refreshed["status"]["pinned"]["cause"], &refreshed["status"]["dirty"]), (&json!("Refreshed"), &json!(false)));
    assert_eq!(body("fix").await, "two");
    push("three").await;
    api.put("chats/fix/context", &json!({"token": "t1"})).await.expect(200);
    settled(&db).await;
    assert_eq!(body("fix").await, "two", "the same token twice is once");
    // A patch after a PUT does not refresh again.
    api.with("prefer", "wait=10").patch("chats/fix", &json!({"spec": {"title": "patched"}})).await.expect(200);
    settled(&db).await;
    assert_eq!(body("fix").await, "two");
    let annotated = annotate("t2").await;
    assert_eq!(annotated["status"]["lastHandledRefresh"], "t2");
    assert_eq!(body("fix").await, "three");
    push("four").await;
    annotate("t2").await;
    settled(&db).await;
    assert_eq!(body("fix").await, "three");
    // Without a token every request is one of its own.
    for (n, state) in ["five", "six"].into_iter().enumerate() {
        push(state).await;
        api.put("chats/fix/context", &json!({})).await.expect(200);
        assert_eq!(body("fix").await, state, "{n}");
    }
    let refused = api.put("chats/fix/context", &json!({"token": "t".repeat(65)})).await.refused(422, "Invalid");
    assert!(refused.message.contains("64") && refused.message.contains("65"), "{}", refused.message);

    // An archived chat: refused by PUT, acknowledged and not applied by annotation.
    api.with("prefer", "wait=10").patch("chats/fix", &json!({"spec": {"archived": true}})).await.expect(200);
    push("seven").await;
    api.put("chats/fix/context", &json!({"token": "t3"})).await.refused(409, "Conflict").cause("Archived");
    assert_eq!(annotate("t4").await["status"]["lastHandledRefresh"], "t4");
    settled(&db).await;
    assert_eq!(body("fix").await, "six");

    // A token on the agent refreshes all its chats.
    api.create_chat("other", json!({"agentRef": {"name": "ws"}})).await;
    push("eight").await;
    assert_eq!(body("other").await, "seven");
    let patch = json!({"metadata": {"annotations": {"moorline.dev/refresh-requested-at": "all"}}});
    let agent = api.with("prefer", "wait=20").patch("agents/ws", &patch).await.expect(200);
    assert_eq!(agent["status"]["lastHandledRefresh"], "all");
    settled(&db).await;
    assert_eq!((body("other").await, body("fix").await), (json!("eight"), json!("six")));
}

#[tokio::test]
async fn whoever_asks_is_kept_waiting_or_not() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let chat = |name: &str| json!({"metadata": {"name": name}, "spec": {"agentRef": {"name": "ws"}}});
    let unasked = api.send(api.request(Method::POST, "chats").json(&chat("unasked"))).await;
    assert_eq!(unasked.header("preference-applied"), None, "it was not asked");
    assert!(unasked.expect(201)["status"]["pinned"].is_object());
    let unasked = api.send(api.request(Method::PUT, "chats/unasked/context").json(&json!({"token": "now"}))).await;
    assert_eq!(unasked.header("preference-applied"), None, "it was not asked");
    assert_eq!(unasked.expect(200)["status"]["lastHandledRefresh"], "now");
    let asked = api.with("prefer", "wait=10").post("chats", &chat("asked")).await;
    assert_eq!(asked.header("preference-applied"), Some("wait=10"));
    asked.expect(201);
    let long = api.with("prefer", "wait=600").patch("chats/asked", &json!({"spec": {"title": "x"}})).await;
    assert_eq!(long.header("preference-applied"), Some("wait=30"), "30 seconds is the longest");
    // A lock on the chats keeps the loop away, and the loop alone.
    let mut lock = db.pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM chats WHERE name = 'asked' FOR UPDATE").execute(&mut *lock).await.unwrap();
    let pushed = api.with("prefer", "wait=1").push("ws", &run.report(2, json!([file("AGENTS.md", "two")]))).await;
    assert_eq!(pushed.header("preference-applied"), None, "the loop has not caught up");
    pushed.expect(200);
    lock.rollback().await.unwrap();
    let pushed = api.with("prefer", "wait=20").push("ws", &run.report(3, json!([file("AGENTS.md", "three")]))).await;
    assert_eq!(pushed.header("preference-applied"), Some("wait=20"));
    assert_eq!(api.chat("asked").await["status"]["dirty"], true);
    // Nobody waits: what is answered is what was written.
    let hasty = api.with("prefer", "respond-async").post("chats", &chat("hasty")).await;
    assert_eq!(hasty.header("preference-applied"), None);
    let hasty = hasty.expect(201);
    assert_eq!((hasty["status"].get("pinned"), &hasty["metadata"]["generation"]), (None, &json!(1)));
}

#[tokio::test]
async fn a_rehearsal_answers_as_the_write_would_and_changes_nothing() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_agent("ws", json!({})).await;
    api.create_chat("fix", json!({"title": "T"})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let title = json!({"spec": {"title": "other"}});
    let named = json!({"metadata": {"name": "fix"}, "spec": {"title": "other"}});
    for caller in [(*api).clone(), api.with("prefer", "wait=2")] {
        let made =
            caller.post("chats?dryRun=All", &json!({"metadata": {"name": "new"}, "spec": {"title": "N"}})).await.expect(201);
        assert_eq!((&made["spec"]["title"], &made["metadata"]["name"]), (&json!("N"), &json!("new")));
        assert_eq!(caller.patch("chats/fix?dryRun=All", &title).await.expect(200)["spec"]["title"], "other");
        assert_eq!(caller.put("chats/fix?dryRun=All", &named).await.expect(200)["spec"]["title"], "other");
        let report = json!({"status": {"state": "Running"}});
        assert_eq!(caller.patch("chats/fix/status?dryRun=All", &report).await.expect(200)["status"]["state"], "Running");
        assert_eq!(caller.patch("agents/ws?dryRun=All", &json!({"spec": {"build": 3}})).await.expect(200)["spec"]["build"], 3);
        let agent = json!({"metadata": {"name": "ws"}, "spec": {"build": 4}});
        assert_eq!(caller.put("agents/ws?dryRun=All", &agent).await.expect(200)["spec"]["build"], 4);
        caller.post("agents?dryRun=All", &json!({"metadata": {"name": "new"}})).await.expect(201);
        caller.delete("chats/fix?dryRun=All").await.expect(200);
        caller.delete("agents/ws?dryRun=All").await.expect(200);
        let options = json!({"dryRun": ["All"]});
        caller.send(caller.request(Method::DELETE, "chats/fix").json(&options)).await.expect(200);
        caller.post("chats?dryRun=All", &json!({"metadata": {"name": "fix"}})).await.refused(409, "AlreadyExists");
        caller.post("chats?dryRun=All", &json!({"metadata": {"name": "Bad"}})).await.refused(422, "Invalid");
    }
    settled(&db).await;
    assert_eq!(digest(&db).await, before);
    // What cannot be rehearsed says so, or is rehearsed: it is never done.
    let run = api.register_run("ws").await;
    settled(&db).await;
    let before = digest(&db).await;
    api.put("agents/ws/snapshot?dryRun=All", &run.report(1, json!([file("AGENTS.md", "x")]))).await;
    api.post("agents/ws/runs?dryRun=All", &json!({})).await;
    api.put("chats/fix/context?dryRun=All", &json!({"token": "t"})).await;
    settled(&db).await;
    assert_eq!(digest(&db).await, before, "a rehearsal was done");
}

#[tokio::test]
async fn probes_and_metrics_are_served() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    for path in ["/livez", "/readyz"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.text.trim()), (200, "ok"), "{path}");
    }
    let metrics = api.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        "controller_runtime_reconcile_total{controller=\"chats\",result=\"success\"} ",
        "controller_runtime_reconcile_time_seconds_count{controller=\"agents\"} ",
        "workqueue_depth{name=\"chats\",controller=\"chats\"} ",
        "moorline_pushes_total{result=\"changed\"} ",
        "moorline_hydrate_seconds_count ",
    ] {
        let value = metrics.text.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_else(|| panic!("no line {line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}{value}");
    }
    assert!(!metrics.text.contains("team-a"), "metrics say nothing of records");
}
