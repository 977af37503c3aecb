//! Pushes over HTTP: what is taken comes back exactly, what is not changes nothing.

use crate::support::{
    api::{Api, Cause, Refused, Run, digest, file, settled},
    postgres::{TestDb, database},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn sha(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn skill(n: usize) -> Value {
    json!({"kind": "Skill", "source": format!("skills/{n}"), "sourcePath": format!("skills/{n}/SKILL.md"), "body": "x", "status": "Ok"})
}

/// An agent with a snapshot and a chat moored to it, and nothing left to do.
async fn moored(db: &TestDb) -> (Api, Run) {
    let api = Api::start(db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    api.create_chat("fix", json!({"agentRef": {"name": "ws"}})).await;
    settled(db).await;
    (api, run)
}

/// A push that must be refused as invalid, with these fields at fault and no others, and change nothing.
async fn invalid(db: &TestDb, api: &Api, report: &Value, wanted: &[&str]) -> Refused {
    let before = digest(db).await;
    let refused = api.push("ws", report).await.refused(422, "Invalid");
    let mut got = refused.fields();
    got.sort_unstable();
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    assert_eq!(got, wanted, "{refused:?}");
    for Cause { field, message, .. } in &refused.causes {
        assert!(refused.message.contains(field.as_str()), "{field} is not in the message: {}", refused.message);
        assert!(!message.is_empty());
    }
    assert_eq!(digest(db).await, before, "a refused push changed the database");
    refused
}

#[tokio::test]
async fn a_run_that_is_over_is_refused_and_changes_nothing() {
    let db = database().await;
    let (api, old) = moored(&db).await;
    let new = api.register_run("ws").await;
    assert!(new.epoch > old.epoch && new.id != old.id);
    settled(&db).await;
    let before = digest(&db).await;
    let mut mixed = new.report(1, json!([]));
    mixed["runID"] = json!(old.id);
    let mut ahead = new.report(1, json!([]));
    ahead["epoch"] = json!(new.epoch + 1);
    let mut behind = new.report(1, json!([]));
    behind["epoch"] = json!(old.epoch);
    let foreign = json!({"runID": "0195d1a2-0000-7000-8000-000000000000", "epoch": new.epoch, "seq": 1, "phase": "Complete", "resources": []});
    for report in [old.report(2, json!([])), old.report(1, json!([file("AGENTS.md", "one")])), mixed, ahead, behind, foreign] {
        let refused = api.push("ws", &report).await.refused(409, "Conflict");
        let cause = refused.cause("StaleRun");
        assert!(cause.message.contains(&new.epoch.to_string()), "the agent's epoch is not named: {}", cause.message);
    }
    assert_eq!(digest(&db).await, before);
    // An agent without any run.
    api.create_agent("fresh", json!({})).await;
    let mut report = old.report(1, json!([]));
    report["epoch"] = json!(1);
    api.push("fresh", &report).await.refused(409, "Conflict").cause("StaleRun");
}

#[tokio::test]
async fn a_number_that_does_not_rise_is_refused_unless_it_is_the_same_push_again() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    let five = run.report(5, json!([file("AGENTS.md", "five"), skill(1)]));
    let first = api.push("ws", &five).await.expect(200);
    assert_eq!((&first["accepted"], &first["changed"]), (&json!(true), &json!(true)));
    settled(&db).await;
    let before = digest(&db).await;
    // The reply was lost: the same again, in another order too.
    assert_eq!(api.push("ws", &five).await.expect(200), first);
    let turned = run.report(5, json!([skill(1), file("AGENTS.md", "five")]));
    assert_eq!(api.push("ws", &turned).await.expect(200), first);
    let mut pending = five.clone();
    pending["phase"] = json!("Pending");
    let mut with_error = five.clone();
    with_error["error"] = json!("half");
    for report in [
        run.report(5, json!([file("AGENTS.md", "other")])),
        run.report(4, json!([file("AGENTS.md", "five"), skill(1)])),
        run.report(1, json!([file("AGENTS.md", "one")])),
        pending,
        with_error,
    ] {
        let refused = api.push("ws", &report).await.refused(409, "Conflict");
        let cause = refused.cause("OutOfOrder");
        assert!(cause.message.contains('5'), "the last accepted number is not named: {}", cause.message);
    }
    assert_eq!(digest(&db).await, before);
    // A push that changed nothing is repeated as such.
    let six = run.report(6, json!([file("AGENTS.md", "five"), skill(1)]));
    assert_eq!(api.push("ws", &six).await.expect(200)["changed"], false);
    assert_eq!(api.push("ws", &six).await.expect(200)["changed"], false);
}

#[tokio::test]
async fn a_suspended_agent_and_one_that_is_not_there_are_refused() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    api.push("nobody", &run.report(2, json!([]))).await.refused(404, "NotFound");
    api.post("agents/nobody/runs", &json!({})).await.refused(404, "NotFound");
    api.patch("agents/ws", &json!({"spec": {"suspend": true}})).await.expect(200);
    settled(&db).await;
    let before = digest(&db).await;
    let refused = api.push("ws", &run.report(2, json!([]))).await.refused(403, "Forbidden");
    refused.cause("Suspended");
    assert_eq!(digest(&db).await, before);
    api.patch("agents/ws", &json!({"spec": {"suspend": false}})).await.expect(200);
    api.push("ws", &run.report(2, json!([]))).await.expect(200);
}

#[tokio::test]
async fn every_limit_names_field_limit_and_what_was_got() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    let one = |resource: Value| run.report(2, json!([resource]));
    let with = |field: &str, value: Value| {
        let mut report = one(skill(1));
        report["resources"][0][field] = value;
        report
    };
    let many: Vec<Value> = (0..1_001).map(skill).collect();
    let heavy: Vec<Value> = (0..17)
        .map(|n| json!({"kind": "Skill", "source": format!("skills/{n}"), "body": "y".repeat(256 << 10), "status": "Ok"}))
        .collect();
    let mut long_error = one(skill(1));
    long_error["error"] = json!("e".repeat(4_097));
    for (report, field, limit, got) in [
        (run.report(2, json!(many)), "resources", 1_000, 1_001),
        (run.report(2, json!(heavy)), "resources", 4 << 20, 17 * (256 << 10)),
        (with("body", json!("b".repeat((256 << 10) + 1))), "resources[0].body", 256 << 10, (256 << 10) + 1),
        (with("source", json!("s".repeat(1_025))), "resources[0].source", 1_024, 1_025),
        (with("source", json!("ä".repeat(513))), "resources[0].source", 1_024, 1_026),
        (with("error", json!("e".repeat(4_097))), "resources[0].error", 4_096, 4_097),
        (long_error, "error", 4_096, 4_097),
    ] {
        let refused = invalid(&db, &api, &report, &[field]).await;
        let message = &refused.causes[0].message;
        assert!(message.contains(&limit.to_string()) && message.contains(&got.to_string()), "{field}: {message}");
    }
    let mut base64 = one(skill(1));
    base64["resources"][0].as_object_mut().unwrap().remove("body");
    base64["resources"][0]["bodyBase64"] = json!(STANDARD.encode(vec![0xff; (256 << 10) + 1]));
    invalid(&db, &api, &base64, &["resources[0].bodyBase64"]).await;

    // At the limits all is well: sixteen bodies of 256 KiB are 4 MiB, in base64 as well.
    let full: Vec<Value> = (0..1_000)
        .map(|n| match n {
            0..8 => json!({"kind": "Skill", "source": format!("skills/{n}"), "body": "y".repeat(256 << 10), "status": "Ok"}),
            8..16 => {
                let body = STANDARD.encode(vec![0xff; 256 << 10]);
                json!({"kind": "Skill", "source": format!("skills/{n}"), "bodyBase64": body, "status": "Ok"})
            }
            16 => json!({"kind": "Skill", "source": "s".repeat(1_024), "status": "Invalid", "error": "e".repeat(4_096)}),
            n => json!({"kind": "Skill", "source": format!("skills/{n}"), "body": "", "status": "Ok"}),
        })
        .collect();
    let mut report = run.report(2, json!(full));
    report["error"] = json!("e".repeat(4_096));
    assert_eq!(api.push("ws", &report).await.expect(200)["changed"], true);
    let latest = &api.agent("ws").await["status"]["latestSnapshot"];
    assert_eq!((&latest["resourceCount"], &latest["sizeBytes"]), (&json!(1_000), &json!(4 << 20)));
}

#[tokio::test]
async fn every_fault_of_a_push_is_listed() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    let zero = "sha256:".to_owned() + &"0".repeat(64);
    let resources = json!([
        {"kind": "InstructionFile", "source": "AGENTS.md", "body": "a", "status": "Ok"},
        {"kind": "InstructionFile", "source": "AGENTS.md", "body": "b", "status": "Ok"},
        {"kind": "Poem", "source": "x", "body": "b", "status": "Ok"},
        {"kind": "Skill", "source": "s1", "body": "b", "status": "Fine"},
        {"kind": "Skill", "source": "s2", "body": "b", "status": "Ok", "contentHash": zero},
        {"kind": "Skill", "source": "s3", "body": "b", "status": "Ok", "contentHash": "md5:1"},
        {"kind": "Skill", "source": "s4", "body": "b", "status": "Ok", "sizeBytes": 2},
        {"kind": "Skill", "source": "s5", "bodyBase64": "not base64!", "status": "Ok"},
        {"kind": "Skill", "source": "s6", "bodyBase64": "eA", "status": "Ok"},
        {"kind": "Skill", "source": "s7", "body": "b", "bodyBase64": "Yg==", "status": "Ok"},
        {"kind": "Skill", "source": "s8", "status": "Ok"},
        {"kind": "Skill", "source": "", "body": "b", "status": "Ok"},
        {"kind": "McpConfig", "source": ".mcp.json", "body": "{}", "status": "Ok", "contentHash": sha(b"{}")},
        {"kind": "McpConfig", "source": "other.json", "status": "Ok", "sizeBytes": 2},
        {"kind": "McpServer", "source": "negative", "body": "{}", "status": "Ok", "sizeBytes": -1},
        // No faults: a duplicate only by source is none.
        {"kind": "Skill", "source": "AGENTS.md", "body": "b", "status": "Ok"},
    ]);
    let wanted = [
        "resources[1].source",
        "resources[2].kind",
        "resources[3].status",
        "resources[4].contentHash",
        "resources[5].contentHash",
        "resources[6].sizeBytes",
        "resources[7].bodyBase64",
        "resources[8].bodyBase64",
        "resources[9].bodyBase64",
        "resources[10].body",
        "resources[11].source",
        "resources[12].body",
        "resources[13].contentHash",
        "resources[14].sizeBytes",
    ];
    let refused = invalid(&db, &api, &run.report(2, resources), &wanted).await;
    let said = |field: &str| refused.causes.iter().find(|cause| cause.field == field).unwrap();
    assert_eq!(said("resources[1].source").reason, "FieldValueDuplicate");
    assert!(said("resources[1].source").message.contains("AGENTS.md"));
    assert!(said("resources[2].kind").message.contains("Poem") && said("resources[2].kind").message.contains("InstructionFile"));
    assert!(said("resources[3].status").message.contains("Fine") && said("resources[3].status").message.contains("Unreadable"));
    let hash = &said("resources[4].contentHash").message;
    assert!(hash.contains(&sha(b"b")) && hash.contains(&zero), "{hash}");

    let nonsense = json!({"runID": "me", "epoch": 0, "seq": 0, "phase": "Halfway", "resources": []});
    invalid(&db, &api, &nonsense, &["runID", "epoch", "seq", "phase"]).await;
    invalid(&db, &api, &json!({}), &["runID", "epoch", "seq", "phase", "resources"]).await;
    let mut rounded = run.report(1 << 53, json!([]));
    rounded["epoch"] = json!(1_u64 << 53);
    invalid(&db, &api, &rounded, &["epoch", "seq"]).await;
}

#[tokio::test]
async fn a_report_that_is_not_complete_never_becomes_a_snapshot_and_completing_it_shows() {
    let db = database().await;
    let (api, _) = moored(&db).await;
    let first = api.agent("ws").await;
    assert_eq!(first["status"]["phase"], "Complete");
    let run = api.register_run("ws").await;
    let registered = api.agent("ws").await;
    assert_eq!(registered["status"]["phase"], "Pending");
    assert_eq!(registered["status"]["latestSnapshot"], first["status"]["latestSnapshot"], "latest stays, and still hydrates");
    api.create_chat("meanwhile", json!({"agentRef": {"name": "ws"}})).await["status"]["pinned"].as_object().expect("a pin");

    let mut pending = run.report(1, json!([file("AGENTS.md", "half of it")]));
    pending["phase"] = json!("Pending");
    pending["error"] = json!("still reading");
    let answer = api.push("ws", &pending).await.expect(200);
    assert_eq!((&answer["changed"], &answer["snapshot"]["revision"]), (&json!(false), &json!(1)));
    let shown = api.agent("ws").await;
    assert_eq!((&shown["status"]["phase"], &shown["status"]["error"]), (&json!("Pending"), &json!("still reading")));
    assert_eq!(shown["status"]["latestSnapshot"], first["status"]["latestSnapshot"]);

    // Complete with what is latest already: no new snapshot, and yet it shows.
    let answer = api.pushed(&run, 2, json!([file("AGENTS.md", "one")])).await;
    assert_eq!((&answer["changed"], &answer["snapshot"]["revision"]), (&json!(false), &json!(1)));
    settled(&db).await;
    let complete = api.agent("ws").await;
    assert_eq!(complete["status"]["phase"], "Complete");
    assert_eq!(complete["status"].get("error"), None);
    let version = |agent: &Value| agent["metadata"]["resourceVersion"].as_str().unwrap().parse::<u128>().unwrap();
    assert!(version(&complete) > version(&shown));
    // What changes nothing shown moves nothing.
    api.pushed(&run, 3, json!([file("AGENTS.md", "one")])).await;
    settled(&db).await;
    assert_eq!(api.agent("ws").await, complete);
    let list = api.get("agentsnapshots").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn going_back_leads_to_the_same_snapshot() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    let a = api.pushed(&run, 2, json!([file("AGENTS.md", "a"), skill(1)])).await;
    let b = api.pushed(&run, 3, json!([file("AGENTS.md", "b")])).await;
    let again = api.pushed(&run, 4, json!([skill(1), file("AGENTS.md", "a")])).await;
    assert_ne!(a["snapshot"], b["snapshot"]);
    assert_eq!((&again["snapshot"], &again["changed"]), (&a["snapshot"], &json!(true)));
    let name = a["snapshot"]["name"].as_str().unwrap();
    let hash = a["snapshot"]["hash"].as_str().unwrap();
    assert_eq!(name, format!("ws-{}", &hash["sha256:".len()..][..12]));
    let snapshot = api.get(&format!("agentsnapshots/{name}")).await.expect(200);
    assert_eq!(snapshot["metadata"]["labels"]["moorline.dev/agent"], "ws");
    assert_eq!((&snapshot["spec"]["hash"], &snapshot["spec"]["revision"]), (&a["snapshot"]["hash"], &json!(2)));
    let resources = snapshot["spec"]["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 2);
    assert!(resources.iter().all(|resource| resource.get("body").is_none() && resource.get("bodyBase64").is_none()));
    assert_eq!(resources[0]["contentHash"], sha(b"a"));
    assert_eq!(api.get("agentsnapshots").await.expect(200)["items"].as_array().unwrap().len(), 3);
    // The empty context is a context too.
    let empty = api.pushed(&run, 5, json!([])).await;
    assert_eq!((&empty["changed"], &empty["snapshot"]["revision"]), (&json!(true), &json!(4)));
}

#[tokio::test]
async fn whatever_bytes_are_pushed_come_back_exactly() {
    let db = database().await;
    let (api, run) = moored(&db).await;
    let texts = ["", "a\0b\0", "line\r\nline\n\ttab \"quoted\" \\", "\u{feff}Grüße 👋 \u{202e}", "\u{1}\u{7f}\u{ffff}", "null"];
    let bytes: [&[u8]; 4] = [b"\xff\xfe\0\x80", b"\xed\xa0\x80", b"half \xe2\x82", &[0; 300]];
    let of = |kind: &str, n: usize| format!("{kind}-{n:02}");
    let mut resources = Vec::new();
    for (n, text) in texts.iter().enumerate() {
        resources.push(json!({"kind": "Skill", "source": of("text", n), "body": text, "status": "Ok",
            "contentHash": sha(text.as_bytes()), "sizeBytes": text.len()}));
        resources.push(json!({"kind": "McpServer", "source": of("text", n), "body": text, "status": "Ok"}));
    }
    for (n, bytes) in bytes.iter().enumerate() {
        resources.push(json!({"kind": "Skill", "source": of("bytes", n), "bodyBase64": STANDARD.encode(bytes), "status": "Ok"}));
        resources
            .push(json!({"kind": "McpServer", "source": of("bytes", n), "bodyBase64": STANDARD.encode(bytes), "status": "Ok"}));
    }
    resources
        .push(json!({"kind": "McpConfig", "source": ".mcp.json", "contentHash": sha(b"secret"), "sizeBytes": 6, "status": "Ok"}));
    resources.push(json!({"kind": "InstructionFile", "source": "CLAUDE.md", "sizeBytes": 99_999, "status": "Oversize", "error": "too large"}));
    api.pushed(&run, 2, json!(resources)).await;
    api.put("chats/fix/context", &json!({})).await.expect(200);
    let context = api.get("chats/fix/context").await.expect(200);
    for class in ["resources", "live"] {
        let found = context[class].as_array().unwrap();
        let got = |source: &str| -> Vec<u8> {
            let resource =
                found.iter().find(|resource| resource["source"] == source).unwrap_or_else(|| panic!("{class} {source}"));
            match (resource["body"].as_str(), resource["bodyBase64"].as_str()) {
                (Some(text), None) => text.as_bytes().to_vec(),
                (None, Some(base64)) => STANDARD.decode(base64).unwrap(),
                both => panic!("{class} {source}: {both:?}"),
            }
        };
        for (n, text) in texts.iter().enumerate() {
            assert_eq!(got(&of("text", n)), text.as_bytes(), "{class} {text:?}");
        }
        for (n, bytes) in bytes.iter().enumerate() {
            assert_eq!(got(&of("bytes", n)), *bytes, "{class} {bytes:?}");
        }
        let order: Vec<(&str, &str)> =
            found.iter().map(|r| (r["kind"].as_str().unwrap(), r["source"].as_str().unwrap())).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
    let config = context["resources"].as_array().unwrap().iter().find(|resource| resource["kind"] == "McpConfig").unwrap();
    assert_eq!((&config["contentHash"], &config["sizeBytes"]), (&json!(sha(b"secret")), &json!(6)));
    assert!(config.get("body").is_none() && config.get("bodyBase64").is_none());
    let oversize = context["resources"].as_array().unwrap().iter().find(|resource| resource["source"] == "CLAUDE.md").unwrap();
    assert_eq!((&oversize["status"], &oversize["error"]), (&json!("Oversize"), &json!("too large")));

    let bare = api.get("chats/fix/context?bodies=false").await.expect(200);
    let all = bare["resources"].as_array().unwrap().iter().chain(bare["live"].as_array().unwrap());
    assert!(all.clone().count() > 0 && all.clone().all(|r| r.get("body").is_none() && r.get("bodyBase64").is_none()));
}
