//! `moorline why CHAT`: the rule that decided, with what it saw.

use super::{
    output::{self, Format, clean},
    remote::Remote,
};
use crate::{
    client::Call,
    v1alpha1::why::{ChatWhy, Remedy},
};
use clap::Args;
use http::Method;
use serde_json::Value;
use std::{fmt::Write as _, process::ExitCode};

/// Say why a chat is what it is: the rule that decided, and what it saw.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline why fix-login
  moorline why fix-login -o yaml")]
pub struct WhyArgs {
    /// The chat.
    pub chat: String,
    /// The whole answer, for programs.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
pub async fn run(args: WhyArgs) -> anyhow::Result<ExitCode> {
    let client = args.remote.client().await?;
    let namespace = args.remote.namespace(&client);
    let call = Call::new(Method::GET, &["namespaces", namespace, "chats", &args.chat, "why"]);
    if let Some(format) = args.output {
        let why: Value = client.call(call).await?;
        output::print(&format.write(&why)?)?;
    } else {
        let why: ChatWhy = client.call(call).await?;
        let elsewhere = if namespace == client.namespace() { String::new() } else { format!(" -n {namespace}") };
        output::print(&format!("{}.{}\n", clean(&why.message), advice(&why, &elsewhere)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What to do, as something that can be typed where that is possible.
fn advice(why: &ChatWhy, elsewhere: &str) -> String {
    let chat = why.metadata.name.as_deref().unwrap_or_default();
    let names = why.saw.names.as_deref().unwrap_or("the agent that it names");
    let mut said = match why.remedy {
        None => String::new(),
        Some(Remedy::Refresh) => format!(" To move it: moorline refresh {chat}{elsewhere}"),
        Some(Remedy::Unarchive) => {
            " To let it move: set spec.archived to false, here or on the chat above that is archived".into()
        }
        Some(Remedy::Resume) => {
            " To let it move: set spec.suspend to false, and take the annotation moorline.dev/paused away".into()
        }
        Some(Remedy::CreateAgent) => format!(" It goes on by itself when {names} is there: create it, or name another"),
        Some(Remedy::Report) => {
            let agent = why.saw.target.as_ref().map_or("its agent", |agent| agent.name.as_str());
            format!(" It goes on by itself when {agent} has reported everything: is `moorline agent` running there?")
        }
        Some(Remedy::NameAgent) => " To give it a context: set spec.agentRef or spec.workspaceRef".into(),
    };
    if let Some(at) = &why.saw.retry_at {
        let _ = write!(said, " The loop failed on it, and tries again at {}: the server's log says why", at.0);
    }
    said
}
