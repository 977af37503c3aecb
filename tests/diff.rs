//! What `GET …/chats/{n}/diff` says is what would change, whatever was pushed.

use crate::support::{
    api::{Api, Run, file, settled},
    postgres::{TestDb, database},
    until::until,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use moorline::{model::object::Key, store};
use serde_json::{Value, json};
use std::collections::HashMap;

fn skill(name: &str, body: &str) -> Value {
    json!({"kind": "Skill", "source": format!("skills/{name}"), "sourcePath": format!("skills/{name}/SKILL.md"), "body": body, "status": "Ok"})
}

/// A chat moored to `resources`, and nothing left to do.
async fn moored(db: &TestDb, resources: Value) -> (Api, Run) {
    let api = Api::start(db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, resources).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    settled(db).await;
    (api, run)
}

async fn diff(api: &Api) -> Value {
    api.get("chats/fix/diff").await.expect(200)
}

fn sources(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|item| item["source"].as_str().expect("a source")).collect()
}

fn without_changes(diff: &Value) -> bool {
    ["added", "removed", "renamed", "changed"].iter().all(|list| diff[list] == json!([]))
}

#[tokio::test]
async fn a_diff_tells_what_was_added_removed_renamed_and_changed() {
    let db = database().await;
    let before =
        json!([file("AGENTS.md", "one\ntwo\nthree\n"), skill("gone", "bye\n"), skill("old", "same\n"), skill("still", "x\n")]);
    let (api, run) = moored(&db, before).await;
    let clean = diff(&api).await;
    assert!(without_changes(&clean), "{clean}");
    assert_eq!((&clean["kind"], &clean["apiVersion"]), (&json!("ChatDiff"), &json!("moorline.dev/v1alpha1")));
    assert_eq!((&clean["from"], clean.get("note")), (&clean["to"], None));

    let after =
        json!([file("AGENTS.md", "one\n2\nthree\n"), skill("came", "hi\n"), skill("new", "same\n"), skill("still", "x\n")]);
    let pushed = api.pushed(&run, 2, after).await;
    let told = diff(&api).await;
    let (chat, agent) = (api.chat("fix").await, api.agent("ws").await);
    let owner = json!({"name": "ws", "uid": agent["metadata"]["uid"]});
    assert_eq!(told["from"], clean["from"]);
    assert_eq!(
        told["from"],
        json!({"snapshot": chat["status"]["pinned"]["snapshot"], "hash": chat["status"]["pinned"]["hash"], "agent": owner})
    );
    assert_eq!(told["to"], json!({"snapshot": pushed["snapshot"]["name"], "hash": pushed["snapshot"]["hash"], "agent": owner}));
    assert_eq!(told["metadata"]["name"], "fix");
    assert_eq!(told["metadata"]["uid"], chat["metadata"]["uid"]);
    assert_eq!((sources(&told["added"]), sources(&told["removed"])), (vec!["skills/came"], vec!["skills/gone"]));
    assert_eq!(told["renamed"], json!([{"kind": "Skill", "from": "skills/old", "to": "skills/new"}]));
    let changed = &told["changed"][0];
    assert_eq!((sources(&told["changed"]), &changed["kind"]), (vec!["AGENTS.md"], &json!("InstructionFile")));
    assert_eq!(changed["unified"], "--- a/AGENTS.md\n+++ b/AGENTS.md\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n");
    assert_eq!((&changed["from"]["sizeBytes"], &changed["to"]["sizeBytes"]), (&json!(14), &json!(12)));
    assert!(changed.get("truncated").is_none() && changed.get("binary").is_none() && changed.get("note").is_none(), "{changed}");
    assert!(told["added"][0].get("body").is_none(), "only what changed shows what is in it");
    // A rename counts as one that went and one that came.
    let drift = &chat["status"]["drift"];
    assert_eq!((&drift["added"], &drift["changed"], &drift["removed"]), (&json!(2), &json!(1), &json!(2)), "{drift}");

    api.put("chats/fix/context", &json!({"token": "now"})).await.expect(200);
    let refreshed = diff(&api).await;
    assert!(without_changes(&refreshed) && refreshed["from"] == told["to"], "{refreshed}");
}

#[tokio::test]
async fn a_diff_is_as_of_the_request_not_as_converged() {
    let db = database().await;
    let (api, run) = moored(&db, json!([file("AGENTS.md", "a\n")])).await;
    api.patch("chats/fix", &json!({"spec": {"suspend": true}})).await.expect(200);
    settled(&db).await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "b\n")])).await;
    settled(&db).await;
    let chat = api.chat("fix").await;
    assert_eq!((&chat["status"]["dirty"], &chat["status"]["drift"]["changed"]), (&json!(false), &json!(1)), "{chat}");
    assert_eq!(sources(&diff(&api).await["changed"]), ["AGENTS.md"]);
}

#[tokio::test]
async fn what_is_not_pinned_or_not_there_is_said_so() {
    let db = database().await;
    let api = Api::start(&db).await;
    api.create_agent("ws", json!({})).await;
    api.with("prefer", "respond-async")
        .post("chats", &json!({"metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}}))
        .await
        .expect(201);
    let refused = api.get("chats/fix/diff").await.refused(404, "NotPinned");
    assert_eq!(refused.message, api.get("chats/fix/context").await.refused(404, "NotPinned").message);
    api.get("chats/nobody/diff").await.refused(404, "NotFound");
    api.put("chats/fix/diff", &json!({})).await.refused(405, "MethodNotAllowed");
}

#[tokio::test]
async fn without_anything_to_compare_with_the_diff_is_empty_and_says_why() {
    let db = database().await;
    let (api, _) = moored(&db, json!([file("AGENTS.md", "a\n")])).await;
    let pinned = diff(&api).await["from"].clone();
    api.create_agent("fresh", json!({})).await;
    for (reference, why) in [
        (json!({"name": "fresh"}), "agent \"fresh\" has no snapshot yet"),
        (json!({"name": "nobody"}), "is not there"),
        (Value::Null, "names no agent"),
    ] {
        api.patch("chats/fix", &json!({"spec": {"agentRef": reference}})).await.expect(200);
        settled(&db).await;
        let told = diff(&api).await;
        assert!(without_changes(&told) && told.get("to").is_none(), "{told}");
        assert_eq!(told["from"], pinned, "the pin stays");
        let note = told["note"].as_str().expect("a note");
        assert!(note.contains(why) && note.ends_with("there is nothing to compare with"), "{note}");
    }
}

#[tokio::test]
async fn a_chat_that_names_another_agent_now_is_compared_with_what_that_has() {
    let db = database().await;
    let (api, _) = moored(&db, json!([file("AGENTS.md", "a\n"), skill("same", "s\n")])).await;
    let other = api.running_agent("other").await;
    api.pushed(&other, 1, json!([file("AGENTS.md", "b\n"), skill("same", "s\n")])).await;
    // One that has ended is not rebound by itself.
    api.patch("chats/fix/status", &json!({"status": {"state": "Completed"}})).await.expect(200);
    api.patch("chats/fix", &json!({"spec": {"agentRef": {"name": "other"}}})).await.expect(200);
    settled(&db).await;
    let told = diff(&api).await;
    assert_eq!((&told["from"]["agent"]["name"], &told["to"]["agent"]["name"]), (&json!("ws"), &json!("other")));
    assert_eq!(told["note"], "the chat names agent \"other\" now, and its pin came from \"ws\"");
    assert_eq!(sources(&told["changed"]), ["AGENTS.md"]);
    assert!(told["changed"][0]["unified"].as_str().expect("a diff").ends_with("-a\n+b\n"), "{told}");
    assert_eq!(api.chat("fix").await["status"].get("drift"), None, "drift is only ever from an agent's own snapshot");
}

#[tokio::test]
async fn what_is_no_text_or_has_no_body_says_so() {
    let db = database().await;
    let mcp = |seed: &str| json!({"kind": "McpConfig", "source": ".mcp.json", "contentHash": format!("sha256:{}", seed.repeat(64)), "sizeBytes": 7, "status": "Ok"});
    let bytes = |body: &[u8]| json!({"kind": "Skill", "source": "bytes", "bodyBase64": STANDARD.encode(body), "status": "Ok"});
    let nul = |body: &str| json!({"kind": "Skill", "source": "nul", "body": body, "status": "Ok"});
    let lost =
        json!({"kind": "Skill", "source": "skills/grows", "sizeBytes": 999_999, "status": "Oversize", "error": "too large"});
    let mut invalid = skill("breaks", "same");
    invalid["status"] = json!("Invalid");
    let before = json!([mcp("a"), bytes(b"\xff"), nul("a\u{0}"), skill("grows", "x"), skill("breaks", "same")]);
    let (api, run) = moored(&db, before).await;
    api.pushed(&run, 2, json!([mcp("b"), bytes(b"\xfe\xff"), nul("b"), lost, invalid])).await;
    let told = diff(&api).await;
    let all = told["changed"].as_array().expect("a list");
    assert_eq!(sources(&told["changed"]), [".mcp.json", "bytes", "nul", "skills/breaks", "skills/grows"]);
    assert!(all.iter().all(|changed| changed.get("unified").is_none()), "{told}");
    let binary: Vec<bool> = all.iter().map(|changed| changed["binary"] == true).collect();
    assert_eq!(binary, [false, true, true, false, false]);
    assert_eq!((&all[1]["from"]["sizeBytes"], &all[1]["to"]["sizeBytes"]), (&json!(1), &json!(2)));
    assert_eq!(all[0]["note"], "the body of an McpConfig is never kept, because it holds tokens");
    assert_eq!(all[3]["note"], "the content is the same; it was Ok, and is Invalid");
    assert_eq!(all[4]["note"], "no body is kept of what it is: Oversize");
    assert_eq!(
        (&all[4]["to"]["status"], &all[4]["to"]["error"], &all[4]["to"]["sizeBytes"]),
        (&json!("Oversize"), &json!("too large"), &json!(999_999))
    );
}

#[tokio::test]
async fn the_largest_contexts_are_compared_within_bounds() {
    let db = database().await;
    let body = |n: usize, word: &str| format!("{word} {n}\n").repeat((256 << 10) / (word.len() + 4));
    let version = |word: &str| Value::Array((10..26).map(|n| skill(&n.to_string(), &body(n, word))).collect());
    let (api, run) = moored(&db, version("before")).await;
    api.pushed(&run, 2, version("after")).await;
    let told = diff(&api).await;
    let all = told["changed"].as_array().expect("a list");
    let unified: Vec<&str> = all.iter().filter_map(|changed| changed["unified"].as_str()).collect();
    assert_eq!(all.len(), 16);
    assert!(all.iter().all(|changed| changed["truncated"] == true), "each is longer than its limit");
    assert!(unified.iter().all(|text| text.len() <= 64 << 10 && text.len() > 63 << 10 && text.ends_with('\n')));
    assert!(unified.iter().map(|text| text.len()).sum::<usize>() <= 1 << 20);
}

#[tokio::test]
async fn only_who_may_read_a_chat_gets_its_diff() {
    let db = database().await;
    let api = Api::with_tokens(&db, "t-alice,alice,1\nt-bob,bob,2\nt-admin,root,4,\"system:masters\"\n").await;
    let (alice, bob, admin) = (api.as_token("t-alice"), api.as_token("t-bob"), api.as_token("t-admin"));
    let run = admin.running_agent("ws").await;
    admin.pushed(&run, 1, json!([file("AGENTS.md", "secret one\n")])).await;
    admin.create_chat("fix", json!({"owner": "alice", "agentRef": {"name": "ws"}})).await;
    settled(&db).await;
    admin.pushed(&run, 2, json!([file("AGENTS.md", "secret two\n")])).await;
    let refused = bob.get("chats/fix/diff").await;
    assert!(!refused.text.contains("secret") && !refused.text.contains("sha256"), "{}", refused.text);
    let refused = refused.refused(403, "Forbidden");
    assert!(refused.message.contains("chats/diff") && refused.message.contains("bob"), "{}", refused.message);
    bob.get("chats/nobody/diff").await.refused(404, "NotFound");
    for caller in [alice, admin] {
        let told = caller.get("chats/fix/diff").await.expect(200);
        assert!(told["changed"][0]["unified"].as_str().expect("a diff").contains("+secret two"), "{told}");
    }
}

#[tokio::test]
async fn pin_and_latest_fit_the_bodies_while_all_of_them_move() {
    let db = database().await;
    let (api, run) = moored(&db, json!([file("AGENTS.md", "version 1\n")])).await;
    let mut versions = HashMap::from([(api.chat("fix").await["status"]["pinned"]["hash"].clone(), 1)]);
    let mut answers = Vec::new();
    for n in 2..40 {
        let report = run.report(n, json!([file("AGENTS.md", &format!("version {n}\n"))]));
        let token = json!({"token": n.to_string()});
        let (pushed, refreshed, first, second) = tokio::join!(
            api.push("ws", &report),
            api.put("chats/fix/context", &token),
            api.get("chats/fix/diff"),
            api.get("chats/fix/diff"),
        );
        versions.insert(pushed.expect(200)["snapshot"]["hash"].clone(), n);
        refreshed.expect(200);
        answers.extend([first.expect(200), second.expect(200)]);
    }
    let mut drifted = 0;
    for told in answers {
        let (from, to) = (versions[&told["from"]["hash"]], versions[&told["to"]["hash"]]);
        assert!(from <= to, "a chat is never ahead of its agent: {told}");
        if from == to {
            assert!(without_changes(&told), "{told}");
        } else {
            drifted += 1;
            let wanted = format!("-version {from}\n+version {to}\n");
            assert!(told["changed"][0]["unified"].as_str().is_some_and(|text| text.ends_with(&wanted)), "{told}");
        }
    }
    assert!(drifted > 0, "some of them were asked in between");
    until("the chat follows", || async {
        api.put("chats/fix/context", &json!({"token": "last"})).await.expect(200);
        without_changes(&diff(&api).await).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bodies_are_of_the_moment_of_the_pin_whatever_retention_takes_meanwhile() {
    let db = database().await;
    let (api, run) = moored(&db, json!([file("AGENTS.md", "a\n")])).await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "b\n")])).await;
    settled(&db).await;
    let mut tx = store::one_moment(&db.pool).await.expect("a transaction");
    let ends = store::diff::ends(&mut tx, &Key::new("team-a", "fix")).await.expect("a read").expect("the chat");
    sqlx::query("DELETE FROM blobs").execute(&db.pool).await.expect("deleting");
    for (end, body) in [(ends.pinned, "a\n"), (ends.latest, "b\n")] {
        let end = end.expect("an end");
        let hashes: Vec<_> = end.manifest.iter().filter_map(|resource| resource.content_hash).collect();
        let bodies = store::snapshots::bodies(&mut tx, "team-a", end.agent_id, &hashes).await.expect("a read");
        assert_eq!(bodies.get(&hashes[0]).map(Vec::as_slice), Some(body.as_bytes()));
    }
}

#[tokio::test]
async fn discovery_and_open_api_know_of_diffs() {
    let db = database().await;
    let api = Api::start(&db).await;
    let known = api.get("/apis/moorline.dev/v1alpha1").await.expect(200);
    let entry = known["resources"].as_array().expect("a list").iter().find(|entry| entry["name"] == "chats/diff").expect("it");
    assert_eq!((&entry["kind"], &entry["verbs"]), (&json!("ChatDiff"), &json!(["get"])));
    let document = api.get("/openapi/v3/apis/moorline.dev/v1alpha1").await.expect(200);
    let path = &document["paths"]["/apis/moorline.dev/v1alpha1/namespaces/{namespace}/chats/{name}/diff"]["get"];
    let schema = path["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].as_str().expect("a schema");
    let schema = &document["components"]["schemas"][schema.rsplit('/').next().expect("a name")];
    let item = |of: &str| {
        let items = &schema["properties"][of]["items"];
        let named = items["$ref"].as_str().map(|name| name.rsplit('/').next().expect("a name"));
        named.map_or(items, |name| &document["components"]["schemas"][name]).clone()
    };
    assert_eq!(item("renamed")["required"], json!(["kind", "from", "to"]));
    assert!(item("changed")["properties"]["unified"]["description"].as_str().is_some());
}
