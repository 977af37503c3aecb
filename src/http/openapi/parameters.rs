//! The parameters of operations: of paths, queries and headers, by what an operation does.

use super::super::{
    discovery::Entry,
    negotiate::{PUSH_BODY_MAX, WAIT_MAX},
};
use serde_json::{Value, json};

fn query(name: &str, schema: &Value, about: &str) -> Value {
    json!({"name": name, "in": "query", "required": false, "schema": schema, "description": about})
}

fn header(name: &str, about: &str) -> Value {
    json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"}, "description": about})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn words(words: &[&str]) -> Value {
    json!({"type": "string", "enum": words})
}

fn truth() -> Value {
    json!({"type": "boolean"})
}

/// Those that stand in a path.
pub fn of_path(path: &str) -> Vec<Value> {
    let label = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
    let subdomain = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
    let name = if path.contains("/agents/") { (label, 63) } else { (subdomain, 253) };
    let known = [
        ("namespace", (label, 63), "The namespace: a DNS label of at most 63 bytes. It needs no creating."),
        ("name", name, "The object's name."),
    ];
    let parameter = |(name, (pattern, longest), about): (&str, (&str, u32), &str)| {
        let schema = json!({"type": "string", "minLength": 1, "maxLength": longest, "pattern": pattern});
        json!({"name": name, "in": "path", "required": true, "schema": schema, "description": about})
    };
    known.into_iter().filter(|(name, ..)| path.contains(&format!("{{{name}}}"))).map(parameter).collect()
}

/// Those of an operation.
pub fn of(entry: &Entry, verb: &str) -> Vec<Value> {
    let mut all = vec![query("pretty", &text(), "Passed over: answers are compact JSON.")];
    match (entry.name, verb) {
        ("chats/context", "get") => {
            all.push(query("bodies", &truth(), "false leaves the bodies of resources out. Default: true."));
            let about = "json (default), or prompt: one sanitised text for a model, as text/markdown.";
            all.push(query("format", &words(&["json", "prompt"]), about));
            all.push(header(
                "If-None-Match",
                "An ETag of before: 304 when the pin and the live resources are still what they were.",
            ));
        }
        ("contextevents", "list") => {
            all.extend(events());
            all.extend(watch());
        }
        (_, "list") => {
            all.extend(list(entry.name));
            if entry.verbs.contains(&"watch") {
                all.extend(watch());
            }
        }
        (name, "get") => all.extend((!name.contains('/') || name == "chats/status").then(include_object)),
        (_, "delete") => all.extend(delete()),
        (name, "create" | "update" | "patch") => all.extend(write(name)),
        _ => {}
    }
    all
}

fn include_object() -> Value {
    let about = "How much of an object stands in each row of a Table (see Accept): None, Metadata (default) or Object.";
    query("includeObject", &words(&["None", "Metadata", "Object"]), about)
}

fn events() -> Vec<Value> {
    let limit = json!({"type": "integer", "format": "int64", "minimum": 0});
    vec![
        query("chat", &text(), "Only events of the chat of this name."),
        query("agent", &text(), "Only events that concern the agent of this name."),
        query("limit", &limit, "At most so many events; 500 when absent, and when more are asked for."),
        query(
            "cursor",
            &text(),
            "Only what comes after this metadata.name of an event; a list's metadata.continue is one. Absent: from the beginning of \
             what is kept. 410 Expired when what came after it may be gone.",
        ),
        query("continue", &text(), "The same as cursor."),
    ]
}

fn list(name: &str) -> Vec<Value> {
    let limit = json!({"type": "integer", "format": "int64", "minimum": 0});
    let (orders, order, fields) = match name {
        "chats" => (
            &["name", "-updated"][..],
            "name (default: namespace, then name), or -updated: what a person or a runner changed last comes first.",
            ", spec.owner, spec.agentRef.name, spec.workspaceRef.name, spec.archived, status.state, status.dirty",
        ),
        "agents" => (&["name"][..], "name: namespace, then name.", ", spec.workspace"),
        "agentsnapshots" => (&["name"][..], "name: namespace, then name.", ", spec.agentRef.name"),
        _ => (&["name"][..], "name: namespace, then name.", ""),
    };
    let fields = format!(
        "Only objects whose fields are so: FIELD=VALUE and FIELD!=VALUE, joined by commas, over metadata.name, \
         metadata.namespace{fields}. 400 names a field that is not served."
    );
    vec![
        query("limit", &limit, "At most so many objects; 0 or absent: all. A page is full unless it is the last."),
        query(
            "continue",
            &text(),
            "metadata.continue of the page before: what comes after it. Opaque; send the other parameters but limit as they were: \
             400 names what is different. 410 Expired when it is too old: begin again without it.",
        ),
        query("labelSelector", &text(), "Only objects whose labels are so, as in Kubernetes: a=b,c!=d,e in (f,g),h,!i,n>5."),
        query("fieldSelector", &text(), &fields),
        query("orderBy", &words(orders), order),
        include_object(),
    ]
}

fn watch() -> Vec<Value> {
    let seconds = json!({"type": "integer", "format": "int64", "minimum": 0});
    vec![
        query(
            "watch",
            &truth(),
            "Answer with a stream of changes, one WatchEvent a line, from resourceVersion on. Accept: text/event-stream gives \
             Server-Sent Events.",
        ),
        query("allowWatchBookmarks", &truth(), "Of a watch: send BOOKMARK events, which carry only a version to resume from."),
        query(
            "resourceVersion",
            &text(),
            "Of a list: not older than this; absent or 0: as it is now; 504 when the database does not get there. Of a watch: where it \
             begins, a version of a list or of an object. Absent or 0: with the present objects. 410 Expired when it is from before \
             retention or a restore: list again.",
        ),
        query(
            "resourceVersionMatch",
            &words(&["NotOlderThan", "Exact"]),
            "How resourceVersion is meant. Exact, of a list: 410 Expired when something was written since. NotOlderThan is required \
             with sendInitialEvents.",
        ),
        query(
            "sendInitialEvents",
            &truth(),
            "Of a watch: send the present objects as ADDED first, then a BOOKMARK annotated k8s.io/initial-events-end.",
        ),
        query("timeoutSeconds", &seconds, "Of a watch: end it after so many seconds."),
    ]
}

fn dry_run() -> Value {
    query("dryRun", &words(&["All"]), "All: check everything, answer as if, and change nothing.")
}

fn prefer() -> Value {
    let about = format!(
        "wait=N: answer when the loop has caught up, after at most N seconds (0 to {WAIT_MAX}); Preference-Applied says whether it \
         has. respond-async: answer at once."
    );
    header("Prefer", &about)
}

fn delete() -> Vec<Value> {
    let about = "Of a chat: Background (default; Foreground is the same) deletes what is below it too, Orphan keeps that. May stand in \
                 the body instead, which is heeded first.";
    vec![query("propagationPolicy", &words(&["Background", "Foreground", "Orphan"]), about), dry_run(), prefer()]
}

fn write(name: &str) -> Vec<Value> {
    let mut all = vec![dry_run(), query("fieldManager", &text(), "Passed over: who changed which field is not kept."), prefer()];
    let about = match name {
        // kubectl looks for it on any patch of the kind, this one too; which one it finds first is left to chance.
        "chats/status" => "Passed over: every field other than status.state and status.lastError is refused, with 422.",
        // So few fields that there is nothing to ask about.
        "chats/context" | "agents/runs" => return all,
        _ => {
            "Unknown and duplicate fields. Strict: 400, naming them. Warn (default): done, with a Warning header for each. Ignore: \
             done."
        }
    };
    all.push(query("fieldValidation", &words(&["Ignore", "Warn", "Strict"]), about));
    all
}

/// The limits of a body, as a description says them.
pub fn body_limit(name: &str) -> String {
    let limit = if name == "agents/snapshot" { PUSH_BODY_MAX } else { super::super::negotiate::BODY_MAX };
    format!("At most {} MiB.", mebibytes(limit))
}

/// `1.5` of 1.5 MiB: a limit is a whole number of halves.
fn mebibytes(bytes: usize) -> String {
    let half = if bytes >> 19 & 1 == 1 { ".5" } else { "" };
    format!("{}{half}", bytes >> 20)
}
