//! `moorline apply -f`: makes Chats and Agents as manifests say, for people without kubectl.
//!
//! What it does: create what is not there, and merge a manifest into what is. What it does not: remember what the last manifest
//! said, as kubectl does in an annotation: a field that is left out of a manifest keeps its value; `field: null` takes it away.

mod manifest;

use super::{
    exit, output,
    remote::Remote,
};
use crate::{
    client::{Call, CallError, Client},
    v1alpha1::GROUP,
};
use clap::Args;
use http::Method;
use manifest::{Fault, Manifest};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Create or change Chats and Agents as manifests say: YAML or JSON, many documents a file.
///
/// A field that is left out keeps its value; null takes it away. Unknown fields are refused. Every document is tried, and every
/// fault told. Exit codes: 0 all are as they should be; 1 one or more are not.
#[derive(Args, Clone, Debug)]
pub struct ApplyArgs {
    /// A file, a directory (its .yaml, .yml and .json files), or - for standard input. May be given more than once.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filename: Vec<String>,
    /// Ask the server what it would do, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Created,
    Configured,
    Unchanged,
}

impl Done {
    const fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// Runs it.
pub async fn run(args: ApplyArgs) -> anyhow::Result<ExitCode> {
    let (manifests, mut faults) = manifest::read(&args.filename);
    let client = args.remote.client().await?;
    for manifest in &manifests {
        let namespace = manifest.namespace.as_deref().unwrap_or(args.remote.namespace(&client));
        match apply(&client, namespace, manifest, args.dry_run).await {
            Ok(done) => {
                let dry = if args.dry_run { " (server dry run)" } else { "" };
                let (kind, name) = (manifest.kind.singular(), &manifest.name);
                output::print(&format!("{kind}.{GROUP}/{name} {}{dry}\n", done.word()))?;
            }
            Err(error @ CallError::Lost { .. }) => {
                tell(&faults);
                return Err(error.into());
            }
            Err(error) => faults.push(manifest.fault(error.to_string())),
        }
    }
    tell(&faults);
    if manifests.is_empty() && faults.is_empty() {
        eprintln!("moorline: there is no document in {}", args.filename.join(", "));
        return Ok(ExitCode::from(exit::FAILED));
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn tell(faults: &[Fault]) {
    for fault in faults {
        eprintln!("moorline: {fault}");
    }
}

/// Creates it, or merges it into what is there. Somebody may do either at the same time: then it is the other.
async fn apply(client: &Client, namespace: &str, manifest: &Manifest, dry_run: bool) -> Result<Done, CallError> {
    let path = ["namespaces", namespace, manifest.kind.plural(), &manifest.name];
    let dry = dry_run.then_some("All");
    let strictly = |call: Call| call.query("fieldValidation", "Strict").query("fieldManager", "moorline").maybe("dryRun", dry);
    let mut create_first = false;
    loop {
        let before: Option<Value> = match client.call(Call::new(Method::GET, &path)).await {
            Ok(object) => Some(object),
            Err(CallError::Refused(refusal)) if refusal.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let Some(before) = before else {
            let create = strictly(Call::new(Method::POST, &path[..3]).json(manifest.object.clone()));
            match client.call::<Value>(create).await {
                Ok(_) => return Ok(Done::Created),
                Err(CallError::Refused(refusal)) if refusal.reason == "AlreadyExists" && !create_first => {
                    create_first = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
        };
        let patch = strictly(Call::new(Method::PATCH, &path).merge_patch(manifest.object.clone()));
        let after: Value = client.call(patch).await?;
        return Ok(if asked(&before) == asked(&after) { Done::Unchanged } else { Done::Configured });
    }
}

/// What of an object is asked of it: what a manifest can change.
fn asked(object: &Value) -> Value {
    let metadata = &object["metadata"];
    json!([object["spec"], metadata["labels"], metadata["annotations"]])
}
