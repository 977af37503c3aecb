//! `moorline crd`: the custom resource definitions, from the types that the API speaks.

use crate::v1alpha1::definition::all;
use anyhow::Context as _;
use clap::Args;
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
pub fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    let yaml =
        |(plural, definition)| Ok((format!("{plural}.yaml"), serde_saphyr::to_string(&definition).context("writing YAML")?));
    all().into_iter().map(yaml).collect()
}

/// Runs it.
pub fn run(args: &CrdArgs) -> anyhow::Result<ExitCode> {
    for (name, yaml) in definitions()? {
        match &args.dir {
            Some(dir) => {
                fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
                let path = dir.join(&name);
                fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
            }
            None => print!("---\n{yaml}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
