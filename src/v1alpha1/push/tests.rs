//! One test for each sentence of api.md §3 and DESIGN.md §7 about what a push may be.

use super::*;
use serde_json::{Value, json};

#[expect(clippy::needless_pass_by_value, reason = "`request(json!([…]))` reads better at its many calls")]
fn request(resources: Value) -> Value {
    json!({"runID": "0191d2a4-0000-7000-8000-000000000001", "epoch": 3, "seq": 12, "phase": "Complete", "resources": resources})
}

fn convert(request: Value) -> Result<Push, Vec<Fault>> {
    serde_json::from_value::<PushRequest>(request).unwrap().try_into()
}

fn with(changes: Value) -> Value {
    let mut request = request(json!([]));
    let Value::Object(changes) = changes else { panic!("not an object") };
    request.as_object_mut().unwrap().extend(changes);
    request
}

fn one(changes: Value) -> Value {
    let mut resource = json!({"kind": "InstructionFile", "source": "AGENTS.md", "body": "be kind", "status": "Ok"});
    let Value::Object(changes) = changes else { panic!("not an object") };
    for (field, value) in changes {
        match value {
            Value::Null => resource.as_object_mut().unwrap().remove(&field),
            value => resource.as_object_mut().unwrap().insert(field, value),
        };
    }
    request(json!([resource]))
}

/// The faults as `(field, kind)`, after checking that each message says something and says what was got.
#[track_caller]
fn faults(request: Value) -> Vec<(String, FaultKind)> {
    let faults = convert(request).expect_err("the request is faulty");
    for fault in &faults {
        assert!(fault.message.len() < 600, "a message stays a message: {} bytes", fault.message.len());
    }
    faults.into_iter().map(|fault| (fault.field, fault.kind)).collect()
}

#[track_caller]
fn assert_fault(request: Value, field: &str, kind: FaultKind, message: &str) {
    let faults = convert(request).expect_err("the request is faulty");
    assert_eq!(faults, [Fault::new(field, kind, message)]);
}

const MCP_HASH: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000001";

#[test]
fn the_example_of_the_api_page_is_taken() {
    let push = convert(request(json!([
        {"kind": "InstructionFile", "source": "AGENTS.md", "sourcePath": "AGENTS.md", "body": "…", "status": "Ok", "error": ""},
        {"kind": "Skill", "source": "skills/tdd", "sourcePath": "skills/tdd/SKILL.md", "body": "…", "status": "Ok"},
        {"kind": "McpConfig", "source": ".mcp.json", "contentHash": MCP_HASH, "sizeBytes": 812, "status": "Ok"},
        {"kind": "McpServer", "source": "github", "body": "{\"tools\":[…]}", "status": "Ok"}])))
    .unwrap();
    assert_eq!((push.epoch, push.seq, push.phase), (3, 12, Phase::Complete));
    assert_eq!(push.pinned.iter().map(|r| r.meta.source.as_str()).collect::<Vec<_>>(), ["AGENTS.md", ".mcp.json", "skills/tdd"]);
    assert_eq!(push.pinned[1].meta.size_bytes, 812);
    assert_eq!(push.pinned[1].meta.content_hash, Some(MCP_HASH.parse().unwrap()));
    assert_eq!(push.pinned[0].meta.content_hash, Some(ContentHash::of("…".as_bytes())));
    assert_eq!(push.live.len(), 1);
}

#[test]
fn an_empty_list_is_a_complete_empty_context() {
    let push = convert(request(json!([]))).unwrap();
    assert_eq!((push.phase, push.pinned.len()), (Phase::Complete, 0));
}

#[test]
fn a_missing_list_is_not_an_empty_one() {
    assert_eq!(faults(request(Value::Null)), [("resources".into(), FaultKind::Required)]);
}

#[test]
fn a_status_other_than_ok_needs_no_content() {
    for status in ResourceStatus::ALL.iter().filter(|status| **status != ResourceStatus::Ok) {
        for kind in ResourceKind::ALL {
            let push = convert(request(json!([{"kind": kind, "source": "x", "status": status, "error": "why"}]))).unwrap();
            let resource = push.pinned.iter().chain(&push.live).next().unwrap();
            assert_eq!((resource.meta.status, resource.meta.content_hash), (*status, None));
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_come_back_as_they_were() {
    let bytes = vec![0, 159, 146, 150, 0];
    let resource = Resource::ok(ResourceKind::InstructionFile, "AGENTS.md", "AGENTS.md", bytes);
    let report = ResourceReport::from(&resource);
    assert_eq!((&report.body, report.body_base64.as_deref()), (&None, Some("AJ+SlgA=")));
    assert_eq!(convert(request(json!([report]))).unwrap().pinned, [resource]);
}

#[test]
fn a_body_may_hold_nul() {
    let push = convert(one(json!({"body": "a\0b"}))).unwrap();
    assert_eq!(push.pinned[0].body.as_deref(), Some(&b"a\0b"[..]));
}

#[test]
fn the_agent_never_sends_the_body_of_an_mcp_config() {
    let resource = Resource::ok(ResourceKind::McpConfig, ".mcp.json", ".mcp.json", b"{\"token\":\"secret\"}".to_vec());
    let report = ResourceReport::from(&resource);
    assert_eq!((&report.body, &report.body_base64), (&None, &None));
    assert_eq!(report.size_bytes, Some(18));
    assert!(!serde_json::to_string(&report).unwrap().contains("secret"));
}

#[test]
fn the_run_is_a_uuid() {
    assert_fault(with(json!({"runID": "run 7"})), "runID", FaultKind::Invalid, "must be a UUID, got \"run 7\"");
    assert_eq!(faults(with(json!({"runID": ""}))), [("runID".into(), FaultKind::Required)]);
}

#[test]
fn epoch_and_seq_are_from_1_to_2_to_the_53_minus_1() {
    for field in ["epoch", "seq"] {
        for bad in [0, -1, 1_i64 << 53, i64::MAX] {
            let message = format!("must be from 1 to 2^53 - 1 (9007199254740991), got {bad}");
            assert_fault(with(json!({field: bad})), field, FaultKind::Invalid, &message);
        }
        for good in [1, (1_i64 << 53) - 1] {
            convert(with(json!({field: good}))).unwrap();
        }
    }
}

#[test]
fn words_are_those_that_are_known() {
    assert_fault(with(json!({"phase": "Done"})), "phase", FaultKind::NotSupported, "\"Done\" is none of Pending, Complete");
    assert_eq!(faults(with(json!({"phase": ""}))), [("phase".into(), FaultKind::Required)]);
    assert_eq!(faults(one(json!({"kind": "skill"}))), [("resources[0].kind".into(), FaultKind::NotSupported)]);
    let message = "\"Fine\" is none of Ok, Oversize, Unreadable, Invalid, Excluded";
    assert_fault(one(json!({"status": "Fine"})), "resources[0].status", FaultKind::NotSupported, message);
}

#[test]
fn api_version_and_kind_may_be_left_out_but_not_be_others() {
    convert(with(json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "AgentSnapshotPush"}))).unwrap();
    let expected = [("apiVersion".into(), FaultKind::NotSupported), ("kind".into(), FaultKind::NotSupported)];
    assert_eq!(faults(with(json!({"apiVersion": "v1", "kind": "Pod"}))), expected);
}

#[test]
fn two_resources_of_one_kind_and_source_are_refused_and_the_first_is_named() {
    let agents = json!({"kind": "InstructionFile", "source": "AGENTS.md", "body": "a", "status": "Ok"});
    let skill = json!({"kind": "Skill", "source": "AGENTS.md", "body": "a", "status": "Ok"});
    let message = "\"InstructionFile\" \"AGENTS.md\" is already resources[0]";
    assert_fault(request(json!([agents, skill, agents])), "resources[2].source", FaultKind::Duplicate, message);
    assert_eq!(faults(request(json!([agents, agents, agents]))).len(), 2);
}

#[test]
fn body_and_body_base64_exclude_each_other() {
    let message = "must be left out when body is given, got both";
    assert_fault(one(json!({"bodyBase64": "YQ=="})), "resources[0].bodyBase64", FaultKind::Forbidden, message);
}

#[test]
fn base64_must_be_base64() {
    for bad in ["***", "YQ", "YQ=", "YQ==\n", "Y Q=="] {
        let request = one(json!({"body": null, "bodyBase64": bad}));
        assert_eq!(faults(request), [("resources[0].bodyBase64".into(), FaultKind::Invalid)], "{bad:?}");
    }
}

#[test]
fn a_content_hash_is_well_formed_and_that_of_the_body() {
    for bad in ["", "sha256:12", "md5:00", &MCP_HASH.to_uppercase()] {
        assert_eq!(
            faults(one(json!({"contentHash": bad}))),
            [("resources[0].contentHash".into(), FaultKind::Invalid)],
            "{bad:?}"
        );
    }
    let right = ContentHash::of(b"be kind");
    let message = format!("must be the sha256 of the body, {right}, got {MCP_HASH}");
    assert_fault(one(json!({"contentHash": MCP_HASH})), "resources[0].contentHash", FaultKind::Invalid, &message);
    convert(one(json!({"contentHash": right}))).unwrap();
}

#[test]
fn a_size_is_not_negative_and_that_of_the_body() {
    let message = "must be the size of the body, 7 bytes, got 8";
    assert_fault(one(json!({"sizeBytes": 8})), "resources[0].sizeBytes", FaultKind::Invalid, message);
    let message = "must be from 0 to 2^53 - 1 (9007199254740991), got -1";
    assert_fault(one(json!({"sizeBytes": -1})), "resources[0].sizeBytes", FaultKind::Invalid, message);
    convert(one(json!({"sizeBytes": 7}))).unwrap();
}

#[test]
fn an_mcp_config_never_carries_a_body() {
    for (field, body) in [("body", "{}"), ("bodyBase64", "e30=")] {
        for status in ["Ok", "Invalid"] {
            let config = json!({"kind": "McpConfig", "source": ".mcp.json", "contentHash": ContentHash::of(b"{}"), "status": status, field: body});
            assert_eq!(faults(request(json!([config]))), [(format!("resources[0].{field}"), FaultKind::Forbidden)]);
        }
    }
}

#[test]
fn ok_needs_content_and_an_mcp_config_its_hash() {
    let message = "an InstructionFile that is Ok must carry its content in body or bodyBase64, got neither";
    assert_fault(one(json!({"body": null, "contentHash": MCP_HASH})), "resources[0].body", FaultKind::Required, message);
    let config = json!({"kind": "McpConfig", "source": ".mcp.json", "status": "Ok", "sizeBytes": 2});
    assert_eq!(faults(request(json!([config]))), [("resources[0].contentHash".into(), FaultKind::Required)]);
    convert(one(json!({"body": ""}))).expect("an empty file is content");
}

#[test]
fn a_source_is_1_to_1024_bytes() {
    assert_fault(one(json!({"source": ""})), "resources[0].source", FaultKind::Required, "must be 1 to 1024 bytes, got 0");
    let message = "must be at most 1024 bytes, got 1025";
    assert_fault(one(json!({"source": "x".repeat(1025)})), "resources[0].source", FaultKind::TooLong, message);
    convert(one(json!({"source": "x".repeat(1024)}))).unwrap();
    assert_eq!(faults(one(json!({"source": "é".repeat(513)}))).len(), 1, "bytes are counted, not characters");
}

#[test]
fn paths_and_errors_are_at_most_4096_bytes() {
    let message = "must be at most 4096 bytes, got 4097";
    let long = "x".repeat(4097);
    assert_fault(one(json!({"sourcePath": long})), "resources[0].sourcePath", FaultKind::TooLong, message);
    assert_fault(one(json!({"error": long})), "resources[0].error", FaultKind::TooLong, message);
    assert_fault(with(json!({"error": long})), "error", FaultKind::TooLong, message);
    convert(with(json!({"error": "x".repeat(4096)}))).unwrap();
}

#[test]
fn nul_is_refused_where_text_columns_would() {
    let message = "must not contain U+0000, got one at byte 1";
    for field in ["source", "sourcePath", "error"] {
        assert_fault(one(json!({field: "a\0"})), &format!("resources[0].{field}"), FaultKind::Invalid, message);
    }
    assert_fault(with(json!({"error": "a\0"})), "error", FaultKind::Invalid, message);
}

#[test]
fn a_body_is_at_most_256_kib_decoded() {
    convert(one(json!({"body": "x".repeat(256 << 10)}))).unwrap();
    let message = "must be at most 262144 bytes decoded, got 262145";
    assert_fault(one(json!({"body": "x".repeat((256 << 10) + 1)})), "resources[0].body", FaultKind::TooLong, message);
    let encoded = BASE64.encode(vec![7; (256 << 10) + 1]);
    assert_fault(one(json!({"body": null, "bodyBase64": encoded})), "resources[0].bodyBase64", FaultKind::TooLong, message);
}

#[test]
fn bodies_are_at_most_4_mib_together() {
    let bodies = |last: usize| {
        let mut sizes = vec![256 << 10; 16];
        sizes.push(last);
        let resources = sizes.iter().enumerate().map(
            |(i, size)| json!({"kind": "Skill", "source": format!("skills/{i}"), "body": "x".repeat(*size), "status": "Ok"}),
        );
        request(resources.collect())
    };
    convert(bodies(0)).unwrap();
    let message = "all bodies together must be at most 4194304 bytes decoded, got 4194305";
    assert_fault(bodies(1), "resources", FaultKind::TooLong, message);
}

#[test]
fn there_are_at_most_1000_resources() {
    let many = |n: usize| {
        request((0..n).map(|i| json!({"kind": "Skill", "source": format!("skills/{i}"), "status": "Excluded"})).collect())
    };
    convert(many(1000)).unwrap();
    assert_fault(many(1001), "resources", FaultKind::TooMany, "must be at most 1000 resources, got 1001");
    assert_eq!(
        faults(request((0..5000).map(|_| json!({})).collect())).len(),
        1 + 3 * 1000 + 999,
        "past the limit nothing is looked at"
    );
}

#[test]
fn every_fault_is_listed() {
    let request = json!({"runID": "x", "epoch": 0, "seq": 0, "phase": "x", "error": "\0", "resources": [
        {"kind": "x", "source": "", "sourcePath": "\0", "status": "x", "error": "\0", "body": "a", "contentHash": "x", "sizeBytes": 2},
        {"kind": "McpConfig", "source": "\0", "status": "Ok", "body": "a"},
        {"kind": "McpConfig", "source": "\0", "status": "Ok", "body": "a", "bodyBase64": "!"},
    ]});
    let mut fields: Vec<_> = faults(request).into_iter().map(|(field, _)| field).collect();
    fields.sort();
    let mut expected: Vec<String> = ["runID", "epoch", "seq", "phase", "error"].map(str::to_owned).into();
    expected.extend(
        ["kind", "source", "sourcePath", "status", "error", "contentHash", "sizeBytes"].map(|f| format!("resources[0].{f}")),
    );
    expected.extend(["source", "body", "contentHash"].map(|f| format!("resources[1].{f}")));
    expected.extend(["source", "source", "body", "bodyBase64", "bodyBase64", "contentHash"].map(|f| format!("resources[2].{f}")));
    expected.sort();
    assert_eq!(fields, expected);
}

#[test]
fn an_empty_object_lacks_everything_and_says_so() {
    let fields: Vec<_> = faults(json!({})).into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["runID", "epoch", "seq", "phase", "resources"]);
}

#[test]
fn what_was_got_is_cut_before_it_is_shown() {
    let long = "k".repeat(1 << 20);
    assert_eq!(faults(one(json!({"kind": long, "status": long, "contentHash": long}))).len(), 3);
}

#[test]
fn the_schema_documents_and_requires_what_the_conversion_does() {
    let schema = serde_json::to_value(schemars::schema_for!(PushRequest)).unwrap();
    assert_eq!(schema["required"], json!(["runID", "epoch", "seq", "phase", "resources"]));
    assert_eq!(schema["properties"]["resources"]["maxItems"], 1000);
    assert_eq!(schema["properties"]["resources"]["type"], "array");
    let report = &schema["$defs"]["ResourceReport"];
    assert_eq!(report["required"], json!(["kind", "source", "status"]));
    for (name, property) in report["properties"].as_object().unwrap() {
        assert!(property["description"].is_string(), "{name} is documented");
    }
}

#[test]
fn answers_are_spelled_as_the_api_page_spells_them() {
    let id = Uuid::nil();
    let run = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "AgentRun", "runID": id, "epoch": 3});
    assert_eq!(serde_json::to_value(RunResponse::new(id, 3)).unwrap(), run);
    let none = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "AgentSnapshotPush", "accepted": true, "changed": false});
    assert_eq!(serde_json::to_value(PushResponse::accepted(false, None)).unwrap(), none);
    let snapshot = SnapshotRef { name: "ws-42-3f9c1b2a77d0".into(), hash: MCP_HASH.into(), revision: 3 };
    let some = serde_json::to_value(PushResponse::accepted(true, Some(snapshot))).unwrap();
    assert_eq!(some["snapshot"], json!({"name": "ws-42-3f9c1b2a77d0", "hash": MCP_HASH, "revision": 3}));
}
