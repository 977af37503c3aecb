//! `moorline events`: what happened, in the order in which it did, and what happens.

use super::{
    output::{self, Columns, Format, clean_line, text},
    remote::Remote,
};
use crate::client::{Call, CallError, Client, Refusal};
use clap::Args;
use http::Method;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// Between two watches.
const PAUSE: Duration = Duration::from_millis(200);

/// Show what happened to chats and agents, oldest first.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline events --chat fix-login
  moorline events -A -w -o json")]
pub struct EventsArgs {
    /// Only of this chat.
    #[arg(long)]
    pub chat: Option<String>,
    /// Only of this agent.
    #[arg(long)]
    pub agent: Option<String>,
    /// Only what came after this cursor: `metadata.name` of the last event that you have seen.
    #[arg(long)]
    pub cursor: Option<String>,
    /// Of every namespace that you may read.
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// And go on, showing each event as it happens, until stopped.
    #[arg(short, long)]
    pub watch: bool,
    /// Whole, for programs. While watching: one event after another.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Which server.
    #[command(flatten)]
    pub remote: Remote,
}

/// Runs it.
pub async fn run(args: EventsArgs) -> anyhow::Result<ExitCode> {
    let client = args.remote.client().await?;
    let namespace = (!args.all_namespaces).then(|| args.remote.namespace(&client));
    let path = match namespace {
        Some(namespace) => vec!["namespaces", namespace, "contextevents"],
        None => vec!["contextevents"],
    };
    let call = Call::new(Method::GET, &path).maybe("chat", args.chat.as_deref()).maybe("agent", args.agent.as_deref());
    let mut log = Log { args: &args, columns: Columns::default(), cursor: args.cursor.clone(), version: String::new() };
    let whole = log.read(&client, &call).await?;
    if let (Some(format), false) = (args.output, args.watch) {
        output::print(&format.write(&json!({
            "apiVersion": crate::v1alpha1::API_VERSION, "kind": "ContextEventList",
            "metadata": {"resourceVersion": log.version}, "items": whole,
        }))?)?;
    }
    if !args.watch {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        log.follow(&client, &call).await?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The log, and how far it was told.
struct Log<'a> {
    args: &'a EventsArgs,
    columns: Columns,
    /// Of the last event that was told.
    cursor: Option<String>,
    /// Of the list: where to go on from when there was no event at all.
    version: String,
}

impl Log<'_> {
    /// Tells what there is, page by page; gives it back when it is to be printed as one list.
    async fn read(&mut self, client: &Client, call: &Call) -> anyhow::Result<Vec<Value>> {
        let mut whole = Vec::new();
        let mut next = self.cursor.clone();
        loop {
            let mut page: Value = client.call(call.clone().maybe("cursor", next.as_deref())).await?;
            text(&page, "/metadata/resourceVersion").clone_into(&mut self.version);
            let items = page["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
            self.tell(&items)?;
            if self.args.output.is_some() && !self.args.watch {
                whole.extend(items);
            }
            match text(&page, "/metadata/continue") {
                "" => return Ok(whole),
                more => next = Some(more.to_owned()),
            }
        }
    }

    fn tell(&mut self, events: &[Value]) -> anyhow::Result<()> {
        let Some(last) = events.last() else { return Ok(()) };
        self.cursor = Some(text(last, "/metadata/name").to_owned());
        match (self.args.output, self.args.watch) {
            (Some(format), true) => {
                for event in events {
                    let begin = if format == Format::Yaml { "---\n" } else { "" };
                    output::print(&format!("{begin}{}", format.write(event)?))?;
                }
            }
            (Some(_), false) => {}
            (None, _) => output::print(&self.lines(events))?,
        }
        Ok(())
    }

    fn lines(&mut self, events: &[Value]) -> String {
        let line = |namespace: &str, rest: [&str; 5]| {
            let namespace = self.args.all_namespaces.then(|| clean_line(namespace));
            namespace.into_iter().chain(rest.map(clean_line)).collect::<Vec<String>>()
        };
        // The widths of all lines are those of the first, which has room for every type and for names of usual length.
        let mut said = String::new();
        if self.columns.is_empty() {
            let widest =
                line("namespace-x", ["2026-01-01T00:00:00Z", "ContextConverged", "chat-of-a-person", "agent-of-some", ""]);
            self.columns.fit(&widest);
            said.push_str(&self.columns.lines(&[line("NAMESPACE", ["TIME", "TYPE", "CHAT", "AGENT", "MESSAGE"])]));
        }
        let lines: Vec<Vec<String>> = events
            .iter()
            .map(|event| {
                let paths = ["/at", "/type", "/chat/name", "/agent/name", "/message"];
                line(text(event, "/metadata/namespace"), paths.map(|path| text(event, path)))
            })
            .collect();
        said.push_str(&self.columns.lines(&lines));
        said
    }

    /// Tells what happens until the server ends the watch.
    async fn follow(&mut self, client: &Client, call: &Call) -> anyhow::Result<()> {
        let call = call.clone().query("watch", "1").query("allowWatchBookmarks", "true");
        let call = match &self.cursor {
            Some(cursor) => call.query("cursor", cursor),
            None => call.query("resourceVersion", &self.version),
        };
        let mut lines = client.lines(call).await?;
        while let Some(event) = lines.next().await? {
            let object = &event["object"];
            match text(&event, "/type") {
                "ERROR" => {
                    let code = object["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                    return Err(
                        CallError::Refused(Box::new(Refusal::read(client.place(), code, object.to_string().as_bytes()))).into()
                    );
                }
                "BOOKMARK" => match text(object, "/metadata/name") {
                    "" if self.cursor.is_none() => text(object, "/metadata/resourceVersion").clone_into(&mut self.version),
                    "" => {}
                    cursor => self.cursor = Some(cursor.to_owned()),
                },
                _ => self.tell(std::slice::from_ref(object))?,
            }
        }
        Ok(())
    }
}
