//! `moorline openapi`: the description of the API, without a server.

mod reference;

use super::output::{self, Format};
use crate::http::openapi;
use clap::{Args, ValueEnum};
use std::process::ExitCode;

/// Print the OpenAPI 3.0 description of the API.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline openapi > moorline.json
  moorline openapi -o yaml
  moorline openapi -o markdown")]
pub struct OpenApiArgs {
    /// How.
    #[arg(short, long, value_enum, default_value = "json")]
    pub output: Form,
}

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// As JSON.
    Json,
    /// As YAML.
    Yaml,
    /// As a page for people to read.
    Markdown,
}

/// Runs it.
pub fn run(args: &OpenApiArgs) -> anyhow::Result<ExitCode> {
    let description = openapi::build();
    let text = match args.output {
        Form::Json => Format::Json.write(&description)?,
        Form::Yaml => Format::Yaml.write(&description)?,
        Form::Markdown => reference::page(&description),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
