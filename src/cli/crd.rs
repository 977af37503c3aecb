//! `moorline crd`: the custom resource definitions, from the types that the API speaks.

use crate::v1alpha1::{Agent, AgentSnapshot, Chat};
use anyhow::Context as _;
use clap::Args;
use kube::CustomResourceExt as _;
use std::{fs, path::PathBuf, process::ExitCode};

/// Print the custom resource definitions as YAML.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  moorline crd | kubectl apply -f -
  moorline crd --dir crds")]
pub struct CrdArgs {
    /// Write one file per kind here instead.
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

/// The file name of each definition, and its YAML.
pub fn definitions() -> anyhow::Result<Vec<(&'static str, String)>> {
    let yaml = |crd| serde_saphyr::to_string(&crd).context("writing YAML");
    Ok(vec![
        ("agents.yaml", yaml(serde_json::to_value(Agent::crd())?)?),
        ("agentsnapshots.yaml", yaml(serde_json::to_value(AgentSnapshot::crd())?)?),
        ("chats.yaml", yaml(serde_json::to_value(Chat::crd())?)?),
    ])
}

/// Runs it.
pub fn run(args: &CrdArgs) -> anyhow::Result<ExitCode> {
    for (name, yaml) in definitions()? {
        match &args.dir {
            Some(dir) => {
                fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
                let path = dir.join(name);
                fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
