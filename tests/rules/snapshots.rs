//! Snapshots: in a cluster whoever mirrors them may write them, once; over HTTP nobody may.

use super::row::{Of, Row, Sent, Verdict::Taken, refused};
use serde_json::{Value, json};

const SNAPSHOTS: Of = Of("agentsnapshots");

const READ_ONLY: &str = "**AgentSnapshots.** Over HTTP they are read-only, for everybody: pushes make them and retention \
                         removes them, so every write is 405 and names no field. In a cluster they are a copy for reading that \
                         the controller writes, once; give nobody else the right to.";

fn hash() -> String {
    format!("sha256:{}", "0123456789abcdef".repeat(4))
}

fn resource(source: &str) -> Value {
    json!({"kind": "Skill", "source": source, "contentHash": hash(), "sizeBytes": 7, "status": "Ok"})
}

fn snapshot(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "agentRef": {"name": "ws-42", "uid": "6f1c4f9e-3a53-4a7e-9c1f-0d6a2a7c9b11"}, "hash": hash(), "revision": 1,
        "resourceCount": 1, "sizeBytes": 7, "resources": [resource("skills/tdd")],
    });
    change(&mut spec);
    json!({"metadata": {"labels": {"moorline.dev/agent": "ws-42"}}, "spec": spec})
}

/// The table.
pub fn rows() -> Vec<Row> {
    let taken = |row: Row| row.differs(Taken, refused(&[]), READ_ONLY);
    let not = |row: Row, field: &'static str| row.differs(refused(&[field]), refused(&[]), READ_ONLY);
    let with = |field: &str, value: Value| snapshot(|spec| spec[field] = value);
    let many = |n: usize| (0..n).map(|n| resource(&format!("skills/{n}"))).collect::<Vec<_>>();
    let large = |n: usize| {
        let one = |n: usize| {
            let mut one = resource(&format!("{n:0>512}"));
            one["sourcePath"] = json!("p".repeat(900));
            one["error"] = json!("e".repeat(256));
            one
        };
        (0..n).map(one).collect::<Vec<_>>()
    };
    let mut rows = vec![
        taken(SNAPSHOTS.create("one resource", snapshot(|_| ()))),
        taken(SNAPSHOTS.create("no resource", with("resources", json!([])))),
        taken(SNAPSHOTS.create("500 resources", with("resources", json!(many(500))))),
        taken(SNAPSHOTS.create("500 resources of the longest sources", with("resources", json!(large(500))))),
        not(SNAPSHOTS.create("501 resources", with("resources", json!(many(501)))), "spec.resources"),
        not(SNAPSHOTS.create("a hash without its algorithm", with("hash", json!("0".repeat(71)))), "spec.hash"),
        not(SNAPSHOTS.create("a short hash", with("hash", json!("sha256:00"))), "spec.hash"),
        not(SNAPSHOTS.create("revision 0", with("revision", json!(0))), "spec.revision"),
        not(SNAPSHOTS.create("a negative size", with("sizeBytes", json!(-1))), "spec.sizeBytes"),
        not(SNAPSHOTS.create("a body", with("resources", json!("body"))), "spec.resources"),
        not(
            SNAPSHOTS.create("one kind and source twice", with("resources", json!([resource("a"), resource("a")]))),
            "spec.resources[1]",
        ),
        not(SNAPSHOTS.create("no spec", json!({})), "spec"),
    ];
    let (long_source, long_error) = (resource(&"s".repeat(513)), {
        let mut one = resource("a");
        one["error"] = json!("e".repeat(257));
        one
    });
    rows.push(not(SNAPSHOTS.create("a source of 513", with("resources", json!([long_source]))), "spec.resources[0].source"));
    rows.push(not(SNAPSHOTS.create("an error of 257", with("resources", json!([long_error]))), "spec.resources[0].error"));
    rows.extend(changes());
    rows
}

/// Over HTTP nothing can be there before, so these are of names that nobody has.
fn changes() -> Vec<Row> {
    let not = |row: Row, theirs: &'static [&'static str]| row.differs(refused(theirs), refused(&[]), READ_ONLY);
    let change = |about, sent| SNAPSHOTS.change(about, snapshot(|_| ()), sent);
    vec![
        not(change("another revision", Sent::Merge(json!({"spec": {"revision": 2}}))), &["spec"]),
        not(change("a resource less", Sent::Merge(json!({"spec": {"resources": []}}))), &["spec"]),
        not(change("cut afterwards", Sent::Merge(json!({"spec": {"truncated": true}}))), &["spec"]),
        not(change("an error afterwards", Sent::Put(snapshot(|spec| spec["resources"][0]["error"] = json!("x")))), &["spec"]),
        change("other labels", Sent::Merge(json!({"metadata": {"labels": {"a": "b"}}}))).differs(Taken, refused(&[]), READ_ONLY),
        change("deleted", Sent::Delete).differs(Taken, refused(&[]), READ_ONLY),
    ]
}
