//! The operations on the resources of the group: from the table of what is served, one for each verb of each line.

use super::{
    super::{
        discovery::{Entry, TABLE},
        negotiate::PATCH_TYPES,
        patch::OPERATIONS_MAX,
    },
    parameters,
    schemas::{group_version_kind, meta_reference, reference},
};
use serde_json::{Map, Value, json};

/// Where all paths of the group begin.
pub const BASE: &str = "/apis/moorline.dev/v1alpha1";

/// How whatever is of a namespace is refused when it is none.
pub const NO_NAMESPACE: &str = "Invalid: the namespace is no DNS label.";

/// Where the objects are that an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Namespaced,
    AllNamespaces,
}

/// The paths of all resources.
pub fn paths() -> Map<String, Value> {
    let mut paths = Map::new();
    for entry in TABLE {
        // A watch is a list with a parameter.
        for verb in entry.verbs.iter().filter(|verb| **verb != "watch") {
            let (path, method) = place(entry, verb);
            insert(&mut paths, &path, method, operation(entry, verb, Scope::Namespaced));
            if *verb == "list" {
                insert(&mut paths, &format!("{BASE}/{}", entry.name), "get", operation(entry, verb, Scope::AllNamespaces));
            }
        }
    }
    paths
}

/// Adds an operation to its path, which has its own parameters.
pub fn insert(paths: &mut Map<String, Value>, path: &str, method: &str, operation: Value) {
    let parameters = parameters::of_path(path);
    let item =
        paths.entry(path).or_insert_with(|| if parameters.is_empty() { json!({}) } else { json!({"parameters": parameters}) });
    item[method] = operation;
}

fn place(entry: &Entry, verb: &str) -> (String, &'static str) {
    let (resource, subresource) = entry.name.split_once('/').map_or((entry.name, None), |(name, sub)| (name, Some(sub)));
    let collection = format!("{BASE}/namespaces/{{namespace}}/{resource}");
    let one = match subresource {
        None => format!("{collection}/{{name}}"),
        Some(sub) => format!("{collection}/{{name}}/{sub}"),
    };
    match (verb, subresource) {
        ("list", _) => (collection, "get"),
        ("create", None) => (collection, "post"),
        ("create", Some(_)) => (one, "post"),
        ("update", _) => (one, "put"),
        ("patch", _) => (one, "patch"),
        ("delete", _) => (one, "delete"),
        (_, _) => (one, "get"),
    }
}

fn operation(entry: &Entry, verb: &str, scope: Scope) -> Value {
    let mut operation = json!({
        "operationId": id(entry, verb, scope),
        "tags": ["moorlineDev_v1alpha1"],
        "description": about(entry, verb, scope),
        "parameters": parameters::of(entry, verb),
        "responses": responses(entry, verb),
        "x-kubernetes-action": match verb {
            "create" => "post",
            "update" => "put",
            other => other,
        },
        "x-kubernetes-group-version-kind": group_version_kind(entry.kind),
    });
    let content = takes(entry, verb);
    if !content.is_empty() {
        let content: Map<String, Value> =
            content.into_iter().map(|(media, schema)| (media.to_owned(), json!({"schema": schema}))).collect();
        let required = verb != "delete" && !matches!(entry.name, "agents/runs" | "chats/context");
        let limit = parameters::body_limit(entry.name);
        operation["requestBody"] = json!({"required": required, "description": limit, "content": content});
    }
    operation
}

/// Named as Kubernetes names them; what is more than reading and writing an object has a verb of its own.
fn id(entry: &Entry, verb: &str, scope: Scope) -> String {
    const GROUP: &str = "MoorlineDevV1alpha1";
    match (entry.name, verb) {
        ("agents/runs", _) => return format!("register{GROUP}NamespacedAgentRun"),
        ("agents/snapshot", _) => return format!("push{GROUP}NamespacedAgentSnapshot"),
        ("chats/context", "update") => return format!("refresh{GROUP}NamespacedChat"),
        _ => {}
    }
    let verb = match verb {
        "get" => "read",
        "update" => "replace",
        other => other,
    };
    let sub = entry.name.split_once('/').map(|(_, sub)| capital(sub)).unwrap_or_default();
    let of = TABLE.iter().find(|other| entry.name.split('/').next() == Some(other.name)).map_or(entry.kind, |other| other.kind);
    match scope {
        Scope::Namespaced => format!("{verb}{GROUP}Namespaced{of}{sub}"),
        Scope::AllNamespaces => format!("{verb}{GROUP}{of}ForAllNamespaces"),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn about(entry: &Entry, verb: &str, scope: Scope) -> String {
    let Entry { name, kind, .. } = entry;
    let text = match (*name, verb) {
        ("agents/runs", _) => {
            "Register a run, one process lifetime of an agent. Its epoch fences its pushes: those of earlier runs are refused from now on."
        }
        ("agents/snapshot", _) => {
            "Push a report of an agent's context. The same epoch and seq with the same content again has the same answer."
        }
        ("chats/context", "get") => {
            "What a chat is moored to: its pinned resources with their bodies, and the live ones of its agent."
        }
        ("chats/context", _) => {
            "Refresh: ask a chat to move to its agent's latest snapshot. Waits up to 5 seconds for it unless told otherwise."
        }
        ("chats/diff", _) => {
            "What differs between a chat's pin and its agent's latest snapshot, with unified diffs of the bodies."
        }
        ("chats/why", _) => "The rule that made a chat what it is, or that is about to change it, with what the decision saw.",
        ("chats/status", "patch") => "Report of whoever runs the chat: status.state and status.lastError, and nothing else.",
        ("chats", "create") => "Create a Chat. Waits up to 5 seconds until it is pinned unless told otherwise.",
        ("chats", "delete") => "Delete a Chat, and what branched off it.",
        ("agents", "delete") => {
            "Delete an Agent. Its chats keep their pins; it is shown with a deletionTimestamp until the loop has let them go."
        }
        _ => "",
    };
    if !text.is_empty() {
        return text.to_owned();
    }
    match (verb, scope) {
        ("list", Scope::Namespaced) => format!("List {name} of a namespace, by the page."),
        ("list", Scope::AllNamespaces) => format!("List {name} of every namespace that the caller may read, by the page."),
        ("create", _) => format!("Create an object of kind {kind}."),
        ("update", _) => format!("Replace the spec, labels and annotations of an object of kind {kind}."),
        ("patch", _) => format!("Merge a patch into the spec, labels and annotations of an object of kind {kind}."),
        ("delete", _) => format!("Delete an object of kind {kind}."),
        (_, _) => format!("Read an object of kind {kind}."),
    }
}

/// What an operation takes: media types, each with its schema.
fn takes(entry: &Entry, verb: &str) -> Vec<(&'static str, Value)> {
    let json = |schema: Value| vec![("application/json", schema)];
    match (entry.name, verb) {
        (_, "patch") => PATCH_TYPES.iter().map(|(media, _)| (*media, patch(media))).collect(),
        (_, "delete") => json(meta_reference("DeleteOptions")),
        ("agents/runs", _) => json(json!({"type": "object", "description": "Empty."})),
        ("chats/context", "update") => json(reference("ChatRefresh")),
        (_, "create" | "update") => json(reference(entry.kind)),
        _ => Vec::new(),
    }
}

/// A JSON patch is a list of operations; the others have the form of what they change.
fn patch(media: &str) -> Value {
    match media {
        "application/json-patch+json" => {
            json!({"type": "array", "description": format!("At most {OPERATIONS_MAX} operations."), "items": json_patch_operation()})
        }
        _ => meta_reference("Patch"),
    }
}

/// One operation of a JSON patch (RFC 6902); its paths are JSON pointers (RFC 6901).
fn json_patch_operation() -> Value {
    let pointer = json!({"type": "string", "pattern": r"^(/([^/~]|~[01])*){0,32}$"});
    let form = |words: &[&str], field: &str, schema: &Value| {
        let properties = json!({"op": {"type": "string", "enum": words}, "path": pointer, field: schema});
        json!({"type": "object", "required": ["op", "path", field], "properties": properties})
    };
    let mut remove = form(&["remove"], "path", &pointer);
    remove["required"] = json!(["op", "path"]);
    let value = json!({"description": "Any value."});
    json!({"type": "object", "oneOf": [form(&["add", "replace", "test"], "value", &value), remove, form(&["copy", "move"], "from", &pointer)]})
}

fn responses(entry: &Entry, verb: &str) -> Value {
    let (code, gives) = match (entry.name, verb) {
        ("agents/snapshot", _) => ("200", reference("AgentSnapshotPushAnswer")),
        ("chats/context", "update") => ("200", reference("Chat")),
        ("chats", "delete") => ("200", meta_reference("Status")),
        (_, "list") => ("200", reference(&format!("{}List", entry.kind))),
        (_, "create") => ("201", reference(entry.kind)),
        _ => ("200", reference(entry.kind)),
    };
    let mut content = json!({"application/json": {"schema": gives}});
    if verb == "list" && entry.verbs.contains(&"watch") {
        content["application/json;stream=watch"] = json!({"schema": meta_reference("WatchEvent")});
    }
    let said = if code == "201" { "Created" } else { "OK" };
    let mut responses = Map::new();
    responses.insert(code.into(), json!({"description": said, "content": content}));
    if (entry.name, verb) == ("chats/context", "get") {
        responses[code]["content"]["text/markdown"] = json!({"schema": {"type": "string"}});
        responses.insert("304".into(), json!({"description": "Still what If-None-Match names."}));
    }
    for (code, about) in refusals(entry, verb) {
        let content = json!({"application/json": {"schema": meta_reference("Status")}});
        responses.insert(code.into(), json!({"description": about, "content": content}));
    }
    Value::Object(responses)
}

/// How an operation can fail. Each is a `Status` whose `reason` is the first word here.
fn refusals(entry: &Entry, verb: &str) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("400", "BadRequest: the request cannot be understood; the message names the parameter or field."),
        ("401", "Unauthorized: the caller is not known."),
        ("403", "Forbidden: the caller may not; of a push also: the agent is suspended."),
        ("406", "NotAcceptable: nothing that Accept names is served."),
        ("503", "ServiceUnavailable: the database is away; ask again after Retry-After seconds."),
    ];
    let writes = matches!(verb, "create" | "update" | "patch");
    if entry.name == "chats/context" && verb == "get" {
        all.push(("404", "NotFound: no such chat. NotPinned: it has no pin yet."));
    } else if verb != "list" && (verb, entry.singular.is_empty()) != ("create", false) {
        all.push(("404", "NotFound: no object of this name."));
    }
    match (entry.name, verb) {
        ("chats" | "agents" | "agentsnapshots", "list") => {
            all.push(("410", "Expired: continue or resourceVersion is too old; list again without it."));
            all.push(("422", "Invalid: resourceVersionMatch or sendInitialEvents does not go with the rest."));
            all.push(("504", "Timeout, with a cause ResourceVersionTooLarge: ask again after Retry-After seconds."));
        }
        (_, "list") => all.push(("410", "Expired: the cursor is too old; list again without it.")),
        ("agents/snapshot", _) => {
            all.push(("409", "Conflict, with a cause StaleRun (another run is newer) or OutOfOrder (seq is not newer)."));
            all.push(("429", "TooManyRequests: push again after Retry-After seconds."));
        }
        ("agents" | "chats", "create") => all.push(("409", "AlreadyExists: an object of this name exists.")),
        ("chats/context", "update") => all.push(("409", "Conflict: the chat is archived.")),
        (_, "update" | "patch" | "delete") => {
            all.push(("409", "Conflict: resourceVersion or uid is another, or a manifest owns the object."));
        }
        _ => {}
    }
    if verb == "delete" {
        all.push(("413", "RequestEntityTooLarge: the body is over the limit."));
        all.push(("422", "Invalid: options that do not go together, or a uid or resourceVersion that is none."));
    }
    if verb == "list" && entry.name == "contextevents" {
        all.push(("422", NO_NAMESPACE));
    }
    if writes {
        all.push(("413", "RequestEntityTooLarge: the body is over the limit."));
        all.push(("415", "UnsupportedMediaType: the body is of another type than those listed."));
        all.push(("422", "Invalid: details.causes lists every field that is wrong, with its limit and what was got."));
    }
    all
}
