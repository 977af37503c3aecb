//! `moorline diff CHAT`: what would change if a chat moved from its pin to what its agent has now.

use super::{
    output::{self, BOLD, CYAN, Format, GREEN, RED, body, clean_line, styled, text},
    remote::Remote,
};
use crate::client::Call;
use anstyle::Style;
use clap::Args;
use http::Method;
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode};

/// Show what would change if a chat moved to what its agent has now.
///
/// Exit codes: 0; with --exit-code as diff(1): 0 no difference, 1 a difference, 2 failed, 4 no such chat, or it has no pin.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline diff fix-login
  moorline diff fix-login --exit-code > /dev/null || echo it would change")]
pub struct DiffArgs {
    /// The chat.
    pub chat: String,
    /// Exit with 1 when there is a difference, and with 2 when it cannot be told.
    #[arg(long)]
    pub exit_code: bool,
    /// The whole answer, for programs.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// `--exit-code`: there is a difference.
const DIFFERS: u8 = 1;
/// `--exit-code`: it cannot be told.
const TROUBLE: u8 = 2;

/// Runs it.
pub async fn run(args: DiffArgs) -> anyhow::Result<ExitCode> {
    match compare(&args).await {
        Ok(true) if args.exit_code => Ok(ExitCode::from(DIFFERS)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if args.exit_code && super::exit::code(&error) == super::exit::FAILED => {
            eprintln!("moorline: {}", crate::telemetry::reasons(&*error));
            Ok(ExitCode::from(TROUBLE))
        }
        Err(error) => Err(error),
    }
}

/// Prints the difference; answers with whether there is one.
async fn compare(args: &DiffArgs) -> anyhow::Result<bool> {
    let client = args.remote.client().await?;
    let namespace = args.remote.namespace(&client);
    let call = Call::new(Method::GET, &["namespaces", namespace, "chats", &args.chat, "diff"]);
    let diff: Value = client.call(call).await?;
    match args.output {
        Some(format) => output::print(&format.write(&diff)?)?,
        None => output::print(&people(&diff))?,
    }
    Ok(["added", "removed", "renamed", "changed"].iter().any(|part| !list(&diff, part).is_empty()))
}

fn list<'a>(diff: &'a Value, part: &str) -> &'a [Value] {
    diff[part].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// As `diff -u` tells it; what has no lines to compare is told in a line of its own.
fn people(diff: &Value) -> String {
    let mut said = String::new();
    let end = |end: &str| {
        let of = |path: &str| clean_line(text(diff, &format!("/{end}{path}")));
        format!("{} ({}) of {}", of("/snapshot"), of("/hash"), of("/agent/name"))
    };
    let differs = ["added", "removed", "renamed", "changed"].iter().any(|part| !list(diff, part).is_empty());
    if differs {
        let _ = writeln!(said, "{}", styled(BOLD, &format!("pinned {}", end("from"))));
        let _ = writeln!(said, "{}", styled(BOLD, &format!("latest {}", end("to"))));
    }
    if !text(diff, "/note").is_empty() {
        let _ = writeln!(said, "{}", clean_line(text(diff, "/note")));
    }
    for (part, sign, style) in [("removed", '-', RED), ("added", '+', GREEN)] {
        for resource in list(diff, part) {
            let size = resource["sizeBytes"].as_i64().unwrap_or_default();
            let line = format!("{sign} {}: {part}, {size} bytes", named(resource, "/source"));
            let _ = writeln!(said, "{}", styled(style, &line));
        }
    }
    for resource in list(diff, "renamed") {
        let line = format!("  {}: is {} now, with the same content", named(resource, "/from"), clean_line(text(resource, "/to")));
        let _ = writeln!(said, "{line}");
    }
    for resource in list(diff, "changed") {
        said.push_str(&changed(resource));
    }
    said
}

fn named(resource: &Value, path: &str) -> String {
    format!("{} {}", clean_line(text(resource, "/kind")), clean_line(text(resource, path)))
}

fn changed(resource: &Value) -> String {
    let (from, to) = (text(resource, "/from/status"), text(resource, "/to/status"));
    let status = if from == to { String::new() } else { format!(", was {} and is {}", clean_line(from), clean_line(to)) };
    let mut said = format!("{}\n", styled(BOLD, &format!("! {}: changed{status}", named(resource, "/source"))));
    for side in ["/to/error", "/note"] {
        if !text(resource, side).is_empty() {
            let _ = writeln!(said, "  {}", clean_line(text(resource, side)));
        }
    }
    if resource["binary"] == true {
        said.push_str("  not text: only the hashes can be compared\n");
    }
    // The first two lines name the files, so that `patch -p1` takes what this prints.
    for (at, line) in text(resource, "/unified").split_inclusive('\n').enumerate() {
        let bare = line.trim_end_matches('\n');
        let style = match bare.as_bytes() {
            _ if at < 2 => BOLD,
            [b'@', b'@', ..] => CYAN,
            [b'+', ..] => GREEN,
            [b'-', ..] => RED,
            _ => Style::new(),
        };
        let _ = writeln!(said, "{}", styled(style, &body(bare)));
    }
    if resource["truncated"] == true {
        said.push_str("  (cut here: too long)\n");
    }
    said
}
