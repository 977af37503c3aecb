//! What agents report: a few contexts for each, and their hashes, computed here and not by the server.

use super::{history::Target, operation::CONTENTS};
use moorline::model::{
    hash::ContextHash,
    resource::{Resource, ResourceKind, ResourceMeta},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

/// The files of a context. One of them is empty, and one has two files; each says whose it is.
fn files(agent: &Target, content: u64) -> Vec<(ResourceKind, &'static str, String)> {
    let says = |what: &str| format!("{agent} says {what} {content}");
    match content {
        0 => Vec::new(),
        1 => {
            vec![(ResourceKind::InstructionFile, "AGENTS.md", says("rules")), (ResourceKind::Skill, "skills/tdd", says("skill"))]
        }
        _ => vec![(ResourceKind::InstructionFile, "AGENTS.md", says("rules"))],
    }
}

/// As a push has them.
pub fn resources(agent: &Target, content: u64) -> Value {
    let files = files(agent, content).into_iter();
    files
        .map(|(kind, source, body)| json!({"kind": kind, "source": source, "sourcePath": source, "body": body, "status": "Ok"}))
        .collect()
}

/// The hash that it has to have.
pub fn hash(agent: &Target, content: u64) -> String {
    let meta = |(kind, source, body): (ResourceKind, &str, String)| Resource::ok(kind, source, source, body.into_bytes()).meta;
    let metas: Vec<ResourceMeta> = files(agent, content).into_iter().map(meta).collect();
    ContextHash::of(&metas).to_string()
}

/// Whether the agent may have it. They are few, and asked for millions of times.
pub fn is_of(agent: &Target, hash: &str) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<Target, Vec<String>>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    if !known.contains_key(agent) {
        known.insert(agent.clone(), (0..CONTENTS).map(|content| self::hash(agent, content)).collect());
    }
    known[agent].iter().any(|known| known == hash)
}

/// Whether a chat's context, as it is read, is what its hash says, and of the agent that it says; otherwise what is wrong.
pub fn fault_of(context: &Value) -> Option<String> {
    let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let agent = Target { namespace: text("/metadata/namespace"), name: text("/pinned/agent/name") };
    let mut metas: Vec<ResourceMeta> = Vec::new();
    for resource in context["resources"].as_array()? {
        let body = resource["body"].as_str().unwrap_or_default();
        if !body.starts_with(&format!("{agent} says ")) {
            return Some(format!("a context of {agent} has the body {body:?}"));
        }
        let kind = serde_json::from_value(resource["kind"].clone()).ok()?;
        let source = resource["source"].as_str()?;
        metas.push(Resource::ok(kind, source, source, body.as_bytes().to_vec()).meta);
    }
    let (computed, shown) = (ContextHash::of(&metas).to_string(), text("/pinned/hash"));
    (computed != shown).then(|| format!("a context shows the hash {shown}, and its bodies have {computed}"))
}
