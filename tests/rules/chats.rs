//! Chats, good and bad.

use super::row::{Of, Row, Sent, Verdict::Taken, refused};
use serde_json::{Value, json};

const CHATS: Of = Of("chats");

const OWNER: &str = "**`spec.owner` left out.** The HTTP API fills in whoever creates the chat, and an update without it \
                     leaves it as it is. A kube-apiserver fills in nothing: Moorline gives the record its owner when it takes \
                     the manifest over, and the manifest's `owner`, or its absence, never changes.";
const EMPTY: &str = "**An empty `title`.** It is the same as none, and the HTTP API shows it as none.";
const PARENT: &str = "**`spec.parentRef` that names no chat, and what a child inherits.** A custom resource definition knows one \
                      object only. The HTTP API refuses a parent that the caller may not read, and shows the child with the \
                      reference that it inherits.";

/// A chat of alice.
#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in its place")]
pub fn chat(spec: Value) -> Value {
    let mut all = json!({"spec": {"owner": "alice"}});
    all["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    all
}

#[expect(clippy::needless_pass_by_value, reason = "callers write `json!` in its place")]
fn spec(patch: Value) -> Value {
    json!({"spec": patch})
}

/// The table.
pub fn rows() -> Vec<Row> {
    [good(), owners_and_titles(), references(), types(), changes()].into_iter().flatten().collect()
}

fn good() -> Vec<Row> {
    let all = json!({
        "owner": "alice", "title": "Fix the login page", "agentRef": {"name": "ws-42"}, "refreshPolicy": "OnDrift",
        "suspend": true, "archived": true, "deletionPolicy": "Retain",
    });
    vec![
        CHATS.create("nothing but an owner: everything else has its default", chat(json!({}))),
        CHATS.create("every field but a parent", json!({"metadata": {"labels": {"team": "web"}}, "spec": all})),
        CHATS.create("a workspace", chat(json!({"workspaceRef": {"name": "ws"}}))),
        CHATS.create(
            "nulls count as absence",
            chat(json!({"title": null, "agentRef": null, "archived": null, "refreshPolicy": null})),
        ),
        CHATS.create("no spec", json!({})).differs(Taken, Taken, OWNER),
        CHATS.create("a null spec", json!({"spec": null})).differs(Taken, Taken, OWNER),
        CHATS.create("no owner", json!({"spec": {"title": "x"}})).differs(Taken, Taken, OWNER),
        CHATS.create("a field that nobody knows", chat(json!({"colour": "red"}))),
        CHATS.send("a field that nobody knows, strictly", Sent::CreateStrictly(chat(json!({"colour": "red"})))).refused(&[]),
        CHATS.create("an empty title", chat(json!({"title": ""}))).differs(Taken, Taken, EMPTY),
    ]
}

fn owners_and_titles() -> Vec<Row> {
    vec![
        CHATS.create("an owner of 253 characters", chat(json!({"owner": "ä".repeat(253)}))),
        CHATS.create("an owner of 254 characters", chat(json!({"owner": "ä".repeat(254)}))).refused(&["spec.owner"]),
        CHATS.create("an empty owner", chat(json!({"owner": ""}))).refused(&["spec.owner"]),
        CHATS.create("an owner with U+0000", chat(json!({"owner": "a\0b"}))).refused(&["spec.owner"]),
        CHATS.create("an owner of other signs", chat(json!({"owner": "system:serviceaccount:team-a:bot \u{1f600}\n"}))),
        CHATS.create("a title of 512 characters", chat(json!({"title": "\u{1f600}".repeat(512)}))),
        CHATS.create("a title of 513 characters", chat(json!({"title": "\u{1f600}".repeat(513)}))).refused(&["spec.title"]),
        CHATS.create("a title of lines", chat(json!({"title": "one\n\ttwo\u{7}"}))),
        CHATS.create("a title with U+0000", chat(json!({"title": "a\0b"}))).refused(&["spec.title"]),
        CHATS.create("a title of 1.4 MB", chat(json!({"title": "x".repeat(1_400_000)}))).refused(&["spec.title"]),
    ]
}

fn references() -> Vec<Row> {
    let agent = |name: &str| chat(json!({"agentRef": {"name": name}}));
    let workspace = |name: &str| chat(json!({"workspaceRef": {"name": name}}));
    let parent = |name: &str| json!({"metadata": {"name": "its-own"}, "spec": {"owner": "alice", "parentRef": {"name": name}}});
    let (agent_name, workspace_name, parent_name) =
        (&["spec.agentRef.name"], &["spec.workspaceRef.name"], &["spec.parentRef.name"]);
    vec![
        CHATS.create("an agent's name of 63 bytes", agent(&"a".repeat(63))),
        CHATS.create("an agent's name of 64 bytes", agent(&"a".repeat(64))).refused(agent_name),
        CHATS.create("an empty agent's name", agent("")).refused(agent_name),
        CHATS.create("an agent's name with a dot", agent("ws.42")).refused(agent_name),
        CHATS.create("an agent's name in capitals", agent("WS-42")).refused(agent_name),
        CHATS.create("an agent's name that ends with a hyphen", agent("ws-")).refused(agent_name),
        CHATS.create("an agent's name that ends with a line feed", agent("ws\n")).refused(agent_name),
        CHATS.create("an agent's name of one digit", agent("7")),
        CHATS.create("a workspace's name of 63 bytes", workspace(&"w".repeat(63))),
        CHATS.create("a workspace's name of 64 bytes", workspace(&"w".repeat(64))).refused(workspace_name),
        CHATS.create("a workspace's name with an underscore", workspace("my_ws")).refused(workspace_name),
        CHATS
            .create("both references", chat(json!({"agentRef": {"name": "a"}, "workspaceRef": {"name": "w"}})))
            .refused(&["spec.workspaceRef"]),
        CHATS.create("one reference and a null", chat(json!({"agentRef": {"name": "a"}, "workspaceRef": null}))),
        CHATS.create("a reference without a name", chat(json!({"agentRef": {}}))).refused(agent_name),
        CHATS.create("a reference with a null name", chat(json!({"agentRef": {"name": null}}))).refused(agent_name),
        CHATS.create("a reference to another namespace", chat(json!({"agentRef": {"name": "a", "namespace": "b"}}))),
        CHATS.create("itself for a parent", parent("its-own")).refused(parent_name),
        CHATS.create("a parent that no name can be", parent("No.Such_Chat")).refused(parent_name),
        CHATS.create("a parent's name of 254 bytes", parent(&"p".repeat(254))).refused(parent_name),
        CHATS.create("a parent that is not there", parent("nobody")).differs(Taken, refused(parent_name), PARENT),
        CHATS
            .create("two faults of references", chat(json!({"agentRef": {"name": "A"}, "workspaceRef": {"name": "W"}})))
            .refused(&["spec.agentRef.name", "spec.workspaceRef.name", "spec.workspaceRef"]),
    ]
}

fn types() -> Vec<Row> {
    vec![
        CHATS.create("a title that is a number", chat(json!({"title": 7}))).refused(&["spec.title"]),
        CHATS.create("a policy that is none", chat(json!({"refreshPolicy": "Sometimes"}))).refused(&["spec.refreshPolicy"]),
        CHATS.create("a policy in small letters", chat(json!({"refreshPolicy": "manual"}))).refused(&["spec.refreshPolicy"]),
        CHATS.create("an empty policy", chat(json!({"deletionPolicy": ""}))).refused(&["spec.deletionPolicy"]),
        CHATS.create("a flag that is a text", chat(json!({"suspend": "true"}))).refused(&["spec.suspend"]),
        CHATS.create("a flag that is a number", chat(json!({"archived": 1}))).refused(&["spec.archived"]),
        CHATS.create("a reference that is a text", chat(json!({"agentRef": "ws-42"}))).refused(&["spec.agentRef"]),
        CHATS.create("a reference that is a list", chat(json!({"agentRef": [{"name": "a"}]}))).refused(&["spec.agentRef"]),
        CHATS.create("a name that is a number", chat(json!({"agentRef": {"name": 7}}))).refused(&["spec.agentRef.name"]),
        CHATS.create("a spec that is a text", json!({"spec": "all"})).refused(&["spec"]),
        CHATS.create("a spec that is a list", json!({"spec": []})).refused(&["spec"]),
        CHATS
            .create("wrong types in two fields", chat(json!({"title": 7, "suspend": "no"})))
            .refused(&["spec.suspend", "spec.title"]),
    ]
}

fn changes() -> Vec<Row> {
    let alice = || chat(json!({"title": "one"}));
    let bound = || chat(json!({"agentRef": {"name": "a"}}));
    vec![
        CHATS.change("another title", alice(), Sent::Put(chat(json!({"title": "two"})))),
        CHATS.change("the title left out", alice(), Sent::Put(chat(json!({})))),
        CHATS.change("the same again", alice(), Sent::Put(alice())),
        CHATS.change(
            "a patch of every other field",
            alice(),
            Sent::Merge(spec(json!({
            "refreshPolicy": "OnDrift", "suspend": true, "deletionPolicy": "Retain", "agentRef": {"name": "b"}}))),
        ),
        CHATS.change(
            "from an agent to a workspace",
            bound(),
            Sent::Merge(spec(json!({"agentRef": null, "workspaceRef": {"name": "w"}}))),
        ),
        CHATS
            .change("a workspace beside an agent", bound(), Sent::Merge(spec(json!({"workspaceRef": {"name": "w"}}))))
            .refused(&["spec.workspaceRef"]),
        CHATS.change("to another agent", bound(), Sent::Merge(spec(json!({"agentRef": {"name": "b"}})))),
        CHATS.change("archived", bound(), Sent::Merge(spec(json!({"archived": true})))),
        CHATS.change("a default asked for by null", chat(json!({"suspend": true})), Sent::Merge(spec(json!({"suspend": null})))),
        CHATS.change("another owner", alice(), Sent::Merge(spec(json!({"owner": "mallory"})))).refused(&["spec.owner"]),
        CHATS
            .change("another owner by PUT", alice(), Sent::Put(json!({"spec": {"owner": "mallory", "title": "one"}})))
            .refused(&["spec.owner"]),
        CHATS.change("the same owner", alice(), Sent::Merge(spec(json!({"owner": "alice"})))),
        CHATS.change("no owner any more", alice(), Sent::Put(json!({"spec": {"title": "two"}}))).differs(
            refused(&["spec.owner"]),
            Taken,
            OWNER,
        ),
        CHATS.change("no owner any more, by patch", alice(), Sent::Merge(spec(json!({"owner": null})))).differs(
            refused(&["spec.owner"]),
            Taken,
            OWNER,
        ),
        CHATS
            .change("an owner where none was named", json!({"spec": {}}), Sent::Merge(spec(json!({"owner": "system:anonymous"}))))
            .differs(refused(&["spec.owner"]), Taken, OWNER),
        CHATS
            .change("another owner where none was named", json!({}), Sent::Merge(spec(json!({"owner": "mallory"}))))
            .refused(&["spec.owner"]),
        CHATS
            .change("a parent that was not", alice(), Sent::Merge(spec(json!({"parentRef": {"name": "other"}}))))
            .refused(&["spec.parentRef"]),
        CHATS
            .change(
                "a parent that was not, by JSON patch",
                alice(),
                Sent::Operations(json!([{"op": "add", "path": "/spec/parentRef", "value": {"name": "other"}}])),
            )
            .refused(&["spec.parentRef"]),
        CHATS
            .change("a bad reference", alice(), Sent::Merge(spec(json!({"agentRef": {"name": "A_B"}}))))
            .refused(&["spec.agentRef.name"]),
        CHATS.change("a wrong type", alice(), Sent::Merge(spec(json!({"title": [1]})))).refused(&["spec.title"]),
        CHATS
            .change("a policy that is none", alice(), Sent::Merge(spec(json!({"refreshPolicy": "Sometimes"}))))
            .refused(&["spec.refreshPolicy"]),
        CHATS.change("a spec that is a number", alice(), Sent::Merge(json!({"spec": 7}))).refused(&["spec"]),
        CHATS
            .change(
                "a JSON patch that tests in vain",
                alice(),
                Sent::Operations(json!([{"op": "test", "path": "/spec/title", "value": "two"}])),
            )
            .differs(
                refused(&[]),
                refused(&["spec.title"]),
                "**A JSON patch that cannot be done.** The HTTP API names the field \
                of the operation; a kube-apiserver says only that it could not be done.",
            ),
    ]
}
