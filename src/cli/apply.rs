//! `moorline apply -f`: makes Chats and Agents as manifests say, for people without kubectl.
//!
//! What it does: what `kubectl apply` does with a custom resource, on the same annotation, so that either can go on where the other
//! was: create what is not there, and merge a manifest three ways into what is. What it does not: prune what no manifest names any
//! more, or apply on the server's side, which a Moorline server refuses.

pub mod manifest;
pub mod merge;

use super::{
    exit,
    output::{self, Format},
    remote::Remote,
};
use crate::{
    client::{Call, CallError, Client},
    v1alpha1::GROUP,
};
use clap::{Args, ValueEnum};
use http::Method;
use manifest::{Fault, Manifest};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Create or change Chats and Agents as manifests say: YAML or JSON, many documents a file.
///
/// A field that the last manifest had and this one has not is taken away; what others wrote stays. Unknown fields are refused. Every
/// document is tried, and every fault told. Exit codes: 0 all are as they should be; 1 one or more are not.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline apply -f chats.yaml
  moorline apply -R -f manifests/ --dry-run=server
  sed s/OLD/NEW/ chat.yaml | moorline apply -f -")]
pub struct ApplyArgs {
    /// A file, a directory (its .yaml, .yml and .json files), or - for standard input. May be given more than once.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    pub filename: Vec<String>,
    /// The directories below a directory too.
    #[arg(short = 'R', long)]
    pub recursive: bool,
    /// `server`: ask the server what it would do, and do nothing.
    #[arg(long, value_enum, default_value = "none", num_args = 0..=1, default_missing_value = "server", require_equals = true)]
    pub dry_run: DryRun,
    /// The objects as they are afterwards, or only KIND/NAME, instead of what became of each.
    #[arg(short, long, value_enum)]
    pub output: Option<Shown>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// Whether anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// It is done.
    None,
    /// The server says what it would do.
    Server,
}

/// The forms in which objects are shown afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// Only KIND/NAME.
    Name,
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
    let (manifests, mut faults) = manifest::read(&args.filename, args.recursive);
    let client = args.remote.client().await?;
    let (asked, usual) = (args.remote.asked_namespace(), args.remote.namespace(&client));
    let is_dry = args.dry_run == DryRun::Server;
    let mut objects = Vec::new();
    for manifest in &manifests {
        let namespace = match (manifest.namespace.as_deref(), asked) {
            (Some(own), Some(asked)) if own != asked => {
                faults.push(manifest.fault(format!("metadata.namespace is {own:?}, and --namespace says {asked:?}")));
                continue;
            }
            (Some(own), _) => own,
            (None, _) => usual,
        };
        match apply(&client, namespace, manifest, is_dry).await {
            Ok((done, object)) => {
                let named = format!("{}.{GROUP}/{}", manifest.kind.singular(), manifest.name);
                let dry = if is_dry { " (server dry run)" } else { "" };
                match args.output {
                    None => output::print(&format!("{named} {}{dry}\n", done.word()))?,
                    Some(Shown::Name) => output::print(&format!("{named}\n"))?,
                    Some(Shown::Json | Shown::Yaml) => objects.push(object),
                }
            }
            Err(error @ CallError::Lost { .. }) => {
                tell(&faults);
                return Err(error.into());
            }
            Err(error) => faults.push(manifest.fault(error.to_string())),
        }
    }
    match args.output {
        Some(Shown::Json) => show(Format::Json, objects)?,
        Some(Shown::Yaml) => show(Format::Yaml, objects)?,
        Some(Shown::Name) | None => {}
    }
    tell(&faults);
    if manifests.is_empty() && faults.is_empty() {
        eprintln!("moorline: there is no document in {}", args.filename.join(", "));
        return Ok(ExitCode::from(exit::FAILED));
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

/// One object as itself, more as a list.
fn show(format: Format, mut objects: Vec<Value>) -> anyhow::Result<()> {
    match objects.len() {
        0 => Ok(()),
        1 => Ok(output::print(&format.write(&objects.remove(0))?)?),
        _ => {
            let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects});
            Ok(output::print(&format.write(&list)?)?)
        }
    }
}

fn tell(faults: &[Fault]) {
    for fault in faults {
        eprintln!("moorline: {fault}");
    }
}

/// Creates it, or merges it into what is there. Somebody may do either at the same time: then it is the other.
async fn apply(client: &Client, namespace: &str, manifest: &Manifest, is_dry: bool) -> Result<(Done, Value), CallError> {
    let path = ["namespaces", namespace, manifest.kind.plural(), &manifest.name];
    let dry = is_dry.then_some("All");
    let strictly = |call: Call| call.query("fieldValidation", "Strict").query("fieldManager", "moorline").maybe("dryRun", dry);
    let wanted = merge::remembering(&manifest.object, namespace);
    let mut was_created_meanwhile = false;
    loop {
        let before: Option<Value> = match client.call(Call::new(Method::GET, &path)).await {
            Ok(object) => Some(object),
            Err(CallError::Refused(refusal)) if refusal.is_not_found() => None,
            Err(error) => return Err(error),
        };
        let Some(before) = before else {
            let create = strictly(Call::new(Method::POST, &path[..3]).json(wanted.clone()));
            match client.call(create).await {
                Ok(object) => return Ok((Done::Created, object)),
                Err(CallError::Refused(refusal)) if refusal.reason == "AlreadyExists" && !was_created_meanwhile => {
                    was_created_meanwhile = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
        };
        let Some(change) = merge::changes(&wanted, &before) else {
            return Ok((Done::Unchanged, before));
        };
        let after = client.call(strictly(Call::new(Method::PATCH, &path).merge_patch(change))).await?;
        return Ok((Done::Configured, after));
    }
}
