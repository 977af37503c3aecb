//! Agents, good and bad.

use super::row::{Of, Row, Sent};
use serde_json::{Value, json};

const AGENTS: Of = Of("agents");

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in its place")]
fn agent(spec: Value) -> Value {
    json!({"spec": spec})
}

fn called(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {}})
}

/// The table.
pub fn rows() -> Vec<Row> {
    [good(), numbers(), names(), changes()].into_iter().flatten().collect()
}

fn good() -> Vec<Row> {
    let all = json!({
        "workspace": "ws", "build": 7, "serviceAccountName": "system:serviceaccount:team-a:ws-42", "suspend": true,
        "revisionHistoryLimit": 100, "deletionPolicy": "Retain",
    });
    vec![
        AGENTS.create("nothing: everything has its default", agent(json!({}))),
        AGENTS.create("no spec", json!({})),
        AGENTS.create("every field", agent(all)),
        AGENTS.create("nulls count as absence", agent(json!({"workspace": null, "build": null, "revisionHistoryLimit": null}))),
        AGENTS.create("a service account of 253 characters", agent(json!({"serviceAccountName": "ü".repeat(253)}))),
        AGENTS
            .create("a service account of 254 characters", agent(json!({"serviceAccountName": "ü".repeat(254)})))
            .refused(&["spec.serviceAccountName"]),
        AGENTS.create("an empty service account", agent(json!({"serviceAccountName": ""}))).refused(&["spec.serviceAccountName"]),
        AGENTS.create("an empty workspace", agent(json!({"workspace": ""}))).refused(&["spec.workspace"]),
        AGENTS.create("a workspace in capitals", agent(json!({"workspace": "WS"}))).refused(&["spec.workspace"]),
        AGENTS.create("a workspace of 64 bytes", agent(json!({"workspace": "w".repeat(64)}))).refused(&["spec.workspace"]),
        AGENTS.create("a policy that is none", agent(json!({"deletionPolicy": "Orphan"}))).refused(&["spec.deletionPolicy"]),
    ]
}

fn numbers() -> Vec<Row> {
    let build = |build: Value| agent(json!({"build": build}));
    let limit = |limit: Value| agent(json!({"revisionHistoryLimit": limit}));
    vec![
        AGENTS.create("the first build", build(json!(0))),
        AGENTS.create("the last build", build(json!(9_007_199_254_740_991_i64))),
        AGENTS.create("a build beyond the last", build(json!(9_007_199_254_740_992_i64))).refused(&["spec.build"]),
        AGENTS.create("a build beyond 64 bits", build(json!(18_446_744_073_709_551_615_u64))).refused(&["spec.build"]),
        AGENTS.create("a build below 0", build(json!(-1))).refused(&["spec.build"]),
        AGENTS.create("a build that is half", build(json!(0.5))).refused(&["spec.build"]),
        AGENTS.create("a build with a point, but whole", build(json!(7.0))),
        AGENTS.create("a build that is a text", build(json!("7"))).refused(&["spec.build"]),
        AGENTS.create("a history of 1", limit(json!(1))),
        AGENTS.create("a history of 0", limit(json!(0))).refused(&["spec.revisionHistoryLimit"]),
        AGENTS.create("a history of 101", limit(json!(101))).refused(&["spec.revisionHistoryLimit"]),
        AGENTS.create("a history beyond 32 bits", limit(json!(4_294_967_297_i64))).refused(&["spec.revisionHistoryLimit"]),
        AGENTS.create("a history that is a list", limit(json!([10]))).refused(&["spec.revisionHistoryLimit"]),
    ]
}

fn names() -> Vec<Row> {
    vec![
        AGENTS.create("a name of 63 bytes", called(&"n".repeat(63))),
        AGENTS.create("a name of 64 bytes", called(&"n".repeat(64))).refused(&["metadata.name"]),
        AGENTS.create("a name with a dot", called("ws.42")).refused(&["metadata.name"]),
        AGENTS.create("a name in capitals", called("WS")).refused(&["metadata.name"]),
        AGENTS.create("a generated name", json!({"metadata": {"generateName": "gen-"}})),
        AGENTS.create("a long generated name", json!({"metadata": {"generateName": "g".repeat(100)}})),
        AGENTS.create("a generated name with a dot", json!({"metadata": {"generateName": "gen.a-"}})).refused(&["metadata.name"]),
        AGENTS
            .create("a bad name and a bad history", json!({"metadata": {"name": "a.b"}, "spec": {"revisionHistoryLimit": 0}}))
            .refused(&["metadata.name", "spec.revisionHistoryLimit"]),
    ]
}

fn changes() -> Vec<Row> {
    let seven = || agent(json!({"workspace": "ws", "build": 7, "serviceAccountName": "bot"}));
    vec![
        AGENTS.change(
            "every field changes",
            seven(),
            Sent::Put(agent(json!({
            "workspace": "other", "build": 6, "serviceAccountName": "tob", "suspend": true, "revisionHistoryLimit": 3,
            "deletionPolicy": "Retain"}))),
        ),
        AGENTS.change("everything left out", seven(), Sent::Put(agent(json!({})))),
        AGENTS.change("the spec left out", seven(), Sent::Put(json!({}))),
        AGENTS.change("no workspace any more", seven(), Sent::Merge(json!({"spec": {"workspace": null, "build": null}}))),
        AGENTS.change("a bad build", seven(), Sent::Merge(json!({"spec": {"build": -7}}))).refused(&["spec.build"]),
        AGENTS.change("a whole build with a point", seven(), Sent::Merge(json!({"spec": {"build": 8.0}}))),
    ]
}
