//! `moorline context CHAT`: what a chat is moored to.

use super::{
    output::{self, BOLD, Columns, Format, body, clean_line, styled, text},
    remote::Remote,
};
use crate::client::Call;
use anyhow::bail;
use clap::{ArgAction, Args, ValueEnum};
use http::{Method, header};
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode};

/// Show what a chat is moored to: its pinned instruction files, skills and configuration.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline context fix-login
  moorline context fix-login --bodies=false
  moorline context fix-login --format prompt > prompt.md")]
pub struct ContextArgs {
    /// The chat.
    pub chat: String,
    /// With the content of each resource; --bodies=false lists them only.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub bodies: bool,
    /// `prompt`: the instruction files and skills as one text for a model, made safe.
    #[arg(long, value_enum, conflicts_with = "output")]
    pub format: Option<TextFormat>,
    /// The whole answer, for programs.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// A text of the whole context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// For a model.
    Prompt,
}

/// Runs it.
pub async fn run(args: ContextArgs) -> anyhow::Result<ExitCode> {
    if !args.bodies && args.format.is_some() {
        bail!("--format prompt is made of bodies: leave --bodies=false out");
    }
    let client = args.remote.client().await?;
    let namespace = args.remote.namespace(&client);
    let call = Call::new(Method::GET, &["namespaces", namespace, "chats", &args.chat, "context"]);
    if let Some(TextFormat::Prompt) = args.format {
        let call = call.query("format", "prompt").header(header::ACCEPT, "text/markdown, application/json;q=0.5");
        output::print(&client.text(call).await?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let context: Value = client.call(call.query("bodies", if args.bodies { "true" } else { "false" })).await?;
    match args.output {
        Some(format) => output::print(&format.write(&context)?)?,
        None => output::print(&people(&args.chat, &context, args.bodies))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn people(chat: &str, context: &Value, bodies: bool) -> String {
    let pinned = &context["pinned"];
    let of = |path| clean_line(text(pinned, path));
    let mut said = format!(
        "{chat} is pinned to {} ({}) from {}: {} at {}\n",
        of("/snapshot"),
        of("/hash"),
        of("/agent/name"),
        of("/cause"),
        of("/at")
    );
    if !text(pinned, "/error").is_empty() {
        let _ = writeln!(said, "its agent says: {}", of("/error"));
    }
    let every = |field: &str| context[field].as_array().cloned().unwrap_or_default();
    let resources: Vec<(Value, bool)> =
        every("resources").into_iter().map(|it| (it, false)).chain(every("live").into_iter().map(|it| (it, true))).collect();
    if bodies {
        for (resource, live) in &resources {
            said.push('\n');
            said.push_str(&whole(resource, *live));
        }
    } else {
        let mut rows = vec![["KIND", "SOURCE", "STATUS", "SIZE", "CONTENT"].map(str::to_owned).to_vec()];
        rows.extend(resources.iter().map(|(resource, _)| {
            let of = |path| clean_line(text(resource, path));
            vec![of("/kind"), of("/source"), of("/status"), size(resource), of("/contentHash")]
        }));
        said.push_str(&Columns::default().lines(&rows));
    }
    said
}

fn size(resource: &Value) -> String {
    resource["sizeBytes"].as_i64().map(|bytes| bytes.to_string()).unwrap_or_default()
}

fn whole(resource: &Value, live: bool) -> String {
    let of = |path| clean_line(text(resource, path));
    let live = if live { ", live" } else { "" };
    let heading = format!("{} {} ({}, {} bytes{live})", of("/kind"), of("/source"), of("/status"), size(resource));
    let mut said = format!("{}\n", styled(BOLD, &heading));
    if !text(resource, "/error").is_empty() {
        let _ = writeln!(said, "{}", of("/error"));
    }
    if let Some(content) = resource["body"].as_str() {
        said.push_str(&body(content));
        if !content.ends_with('\n') && !content.is_empty() {
            said.push('\n');
        }
    } else if resource["bodyBase64"].is_string() {
        said.push_str("(not UTF-8; -o json has it in base64)\n");
    }
    said
}
