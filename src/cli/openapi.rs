//! `moorline openapi`: the description of the API, without a server.

use super::output::{self, Format};
use crate::http::openapi;
use clap::Args;
use std::process::ExitCode;

/// Print the OpenAPI 3.0 description of the API.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline openapi > moorline.json
  moorline openapi -o yaml")]
pub struct OpenApiArgs {
    /// How.
    #[arg(short, long, value_enum, default_value = "json")]
    pub output: Format,
}

/// Runs it.
pub fn run(args: &OpenApiArgs) -> anyhow::Result<ExitCode> {
    output::print(&args.output.write(&openapi::build())?)?;
    Ok(ExitCode::SUCCESS)
}
