//! `moorline version`: of this program, and of the server.

use super::{
    output::{self, Format, clean_line, text},
    remote::Remote,
};
use crate::client::Call;
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Print the version of this program, and that of the server.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline version
  moorline version --client -o json")]
pub struct VersionArgs {
    /// Only of this program; asks no server.
    #[arg(long)]
    pub client: bool,
    /// For programs.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it. This program's version is told also when the server cannot be asked.
pub async fn run(args: VersionArgs) -> anyhow::Result<ExitCode> {
    let ours = env!("CARGO_PKG_VERSION");
    if args.output.is_none() {
        output::print(&format!("moorline {ours}\n"))?;
    }
    let mut told = json!({"clientVersion": ours});
    let mut failed = None;
    if !args.client {
        let client = args.remote.client().await?;
        match client.call::<Value>(Call::absolute(Method::GET, &["version"])).await {
            Ok(server) if args.output.is_none() => {
                let said = format!("server   {} at {}\n", clean_line(text(&server, "/gitVersion")), client.place());
                output::print(&said)?;
            }
            Ok(server) => told["serverVersion"] = server,
            Err(error) => failed = Some(error),
        }
    }
    if let Some(format) = args.output {
        output::print(&format.write(&told)?)?;
    }
    failed.map_or(Ok(ExitCode::SUCCESS), |error| Err(error.into()))
}
