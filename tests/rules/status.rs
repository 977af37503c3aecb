//! What may be said of a status, and where.

use super::{
    chats::chat,
    row::{Of, Row, Sent, Verdict::Taken, refused},
};
use serde_json::{Value, json};

const CHATS: Of = Of("chats");

const WRITTEN_BY: &str = "**`status`.** Over HTTP, `…/status` takes `state` and `lastError`, and a patch of the object that \
                          would change its status is refused. A kube-apiserver lets whoever may update `…/status` write all \
                          of it, and passes over what the object's own path says of it; the controller's next apply \
                          takes its fields back.";

/// The table.
pub fn rows() -> Vec<Row> {
    let there = || chat(json!({}));
    let said = |about, status: Value| CHATS.change(about, there(), Sent::MergeStatus(json!({"status": status})));
    vec![
        said("a state", json!({"state": "Running"})),
        said("every word of a state's last error", json!({"state": "Error", "lastError": "ä".repeat(4096)})),
        said("a state that is none", json!({"state": "Flying"})).refused(&["status.state"]),
        said("a state that is a number", json!({"state": 7})).refused(&["status.state"]),
        said("an error of 4,097 characters", json!({"lastError": "x".repeat(4097)})).refused(&["status.lastError"]),
        said("an error that is a list", json!({"lastError": []})).refused(&["status.lastError"]),
        said("a pin", json!({"dirty": true})).differs(Taken, refused(&["status.dirty"]), WRITTEN_BY),
        CHATS.change("a state with the object", there(), Sent::Merge(json!({"status": {"state": "Completed"}}))).differs(
            Taken,
            refused(&["status.state"]),
            WRITTEN_BY,
        ),
        CHATS.create("a status from the start", json!({"spec": {"owner": "alice"}, "status": {"state": "Completed"}})),
        CHATS.create("a status that is none, from the start", json!({"spec": {"owner": "alice"}, "status": {"state": "Flying"}})),
        CHATS.create("a status that is a text", json!({"spec": {"owner": "alice"}, "status": "fine"})),
        CHATS.change(
            "another status in the place of the object",
            there(),
            Sent::Put(json!({"spec": {"owner": "alice"}, "status": {"state": "Completed"}})),
        ),
    ]
}
