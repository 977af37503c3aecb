//! `moorline refresh`: asks chats to move to what their agents have now.
//!
//! What it does: one chat by one, or all that have drifted, page by page and some at once; or all of an agent's, which is one
//! request that the server's loop carries out. What it does not: decide; a chat that may not move says so.

mod progress;

use super::{exit, output::text, remote};
use crate::{
    client::{Call, CallError, Client},
    clock,
    model::object::REFRESH_ANNOTATION,
};
use anyhow::Context as _;
use clap::{ArgGroup, Args};
use http::Method;
use progress::Progress;
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// How many chats are asked at once.
const AT_ONCE: usize = 8;
/// How many chats a page of the drifted ones has.
const PAGE: &str = "200";
/// The longest that the server waits for its loop in one request.
const PREFER_MAX: Duration = Duration::from_secs(30);
/// How long is waited unless said.
const WAIT: Duration = Duration::from_secs(5);
/// Between two looks at a record.
const LOOK: Duration = Duration::from_millis(500);

/// Ask chats to move to the latest snapshot of their agent.
///
/// Waits 5 seconds for each unless told otherwise. Exit codes: 0 all were refreshed, or asked and are waiting; 1 one or more
/// failed, or, with --wait, have not moved in time; 4 the one chat or agent that was named is not there.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["chats", "agent", "all"]))]
#[command(after_help = "Examples:
  moorline refresh fix-login
  moorline refresh --agent ws-1 --wait 1m
  moorline refresh --all -A")]
pub struct RefreshArgs {
    /// These chats.
    #[arg(value_name = "CHAT")]
    pub chats: Vec<String>,
    /// All chats that use this agent's context and are not archived.
    #[arg(long)]
    pub agent: Option<String>,
    /// Every chat that has drifted and is not archived.
    #[arg(long)]
    pub all: bool,
    /// With --all: of every namespace that you may read.
    #[arg(short = 'A', long, requires = "all", conflicts_with_all = ["chats", "agent"])]
    pub all_namespaces: bool,
    /// Wait so long for each, and fail when it has not moved then.
    #[arg(long, value_name = "DURATION", value_parser = remote::duration)]
    pub wait: Option<Duration>,
    /// Ask, and do not wait.
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Which server.
    #[command(flatten)]
    pub remote: remote::Remote,
}

/// How long to wait, and whether it matters.
#[derive(Clone, Copy, Debug)]
struct Patience {
    limit: Duration,
    must: bool,
}

/// What became of one chat.
enum Outcome {
    /// It moved: to this snapshot, or to none.
    Refreshed(String),
    /// It was asked, and has not moved yet, for this reason.
    Waiting(String),
}

/// Runs it.
pub async fn run(args: RefreshArgs) -> anyhow::Result<ExitCode> {
    let client = args.remote.client().await?;
    let namespace = args.remote.namespace(&client);
    let limit = if args.no_wait { Duration::ZERO } else { args.wait.unwrap_or(WAIT) };
    let patience = Patience { limit, must: args.wait.is_some() };
    if let Some(agent) = &args.agent {
        return of_agent(&client, namespace, agent, patience).await;
    }
    let mut run = Run { client: &client, patience, progress: Progress::new(args.all), jobs: JoinSet::new() };
    if args.all {
        run.all((!args.all_namespaces).then_some(namespace)).await?;
    } else if let [chat] = args.chats.as_slice() {
        // Its refusal decides the exit code.
        let outcome = refresh(&client, namespace, chat, patience).await?;
        run.progress.tell(chat, &outcome, patience.must);
    } else {
        for chat in &args.chats {
            run.begin(namespace.to_owned(), chat.clone(), chat.clone()).await?;
        }
    }
    run.end().await
}

/// Some chats at once.
struct Run<'a> {
    client: &'a Client,
    patience: Patience,
    progress: Progress,
    jobs: JoinSet<(String, Result<Outcome, CallError>)>,
}

impl Run<'_> {
    async fn all(&mut self, namespace: Option<&str>) -> anyhow::Result<()> {
        let path = match namespace {
            Some(namespace) => vec!["namespaces", namespace, "chats"],
            None => vec!["chats"],
        };
        let drifted = Call::new(Method::GET, &path);
        let drifted = drifted.query("fieldSelector", "status.dirty=true,spec.archived=false").query("limit", PAGE);
        let mut next = String::new();
        loop {
            let call = if next.is_empty() { drifted.clone() } else { drifted.clone().query("continue", &next) };
            let page: Value = self.client.call(call).await?;
            let chats = page["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            self.progress.expect_more(chats.len());
            for chat in chats {
                let (of, name) = (text(chat, "/metadata/namespace"), text(chat, "/metadata/name"));
                let shown = if namespace.is_some() { name.to_owned() } else { format!("{of}/{name}") };
                self.begin(of.to_owned(), name.to_owned(), shown).await?;
            }
            text(&page, "/metadata/continue").clone_into(&mut next);
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// Begins with one when there is room.
    async fn begin(&mut self, namespace: String, chat: String, shown: String) -> anyhow::Result<()> {
        while self.jobs.len() >= AT_ONCE {
            self.one_done().await?;
        }
        let (client, patience) = (self.client.clone(), self.patience);
        self.jobs.spawn(async move { (shown, refresh(&client, &namespace, &chat, patience).await) });
        Ok(())
    }

    async fn one_done(&mut self) -> anyhow::Result<()> {
        let Some(done) = self.jobs.join_next().await else { return Ok(()) };
        let (chat, outcome) = done.context("refreshing a chat")?;
        match outcome {
            Ok(outcome) => self.progress.tell(&chat, &outcome, self.patience.must),
            // There is nobody to ask about the others.
            Err(error @ CallError::Lost { .. }) => {
                self.progress.stop();
                let done = self.progress.summary();
                return Err(anyhow::Error::new(error).context(format!("stopped at {chat}, after {done}")));
            }
            Err(error @ (CallError::Slow { .. } | CallError::Refused(_) | CallError::Answer { .. })) => {
                self.progress.fail(&chat, &error.to_string());
            }
        }
        Ok(())
    }

    async fn end(mut self) -> anyhow::Result<ExitCode> {
        while !self.jobs.is_empty() {
            self.one_done().await?;
        }
        let failed = self.progress.finish()?;
        Ok(if failed { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
    }
}

/// Asks one chat, and waits.
async fn refresh(client: &Client, namespace: &str, chat: &str, patience: Patience) -> Result<Outcome, CallError> {
    let deadline = Instant::now() + patience.limit;
    let token = clock::system().new_id().to_string();
    let call = Call::new(Method::PUT, &["namespaces", namespace, "chats", chat, "context"]).json(json!({"token": token}));
    let mut object: Value = client.call(call.wait(patience.limit.min(PREFER_MAX).as_secs())).await?;
    loop {
        if text(&object, "/status/lastHandledRefresh") == token {
            return Ok(Outcome::Refreshed(text(&object, "/status/pinned/snapshot").to_owned()));
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::Waiting(ready(&object)));
        }
        tokio::time::sleep(LOOK).await;
        object = client.call(Call::new(Method::GET, &["namespaces", namespace, "chats", chat])).await?;
    }
}

/// What the condition Ready says.
fn ready(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    ready.map(|ready| format!("{}: {}", text(ready, "/reason"), text(ready, "/message"))).unwrap_or_default()
}

/// Asks the loop to refresh all chats of an agent, and waits until it has told them.
async fn of_agent(client: &Client, namespace: &str, agent: &str, patience: Patience) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + patience.limit;
    let token = clock::system().new_id().to_string();
    let path = ["namespaces", namespace, "agents", agent];
    let asking = json!({"metadata": {"annotations": {REFRESH_ANNOTATION: token}}});
    let call = Call::new(Method::PATCH, &path).merge_patch(asking).wait(patience.limit.min(PREFER_MAX).as_secs());
    let mut object: Value = client.call(call).await?;
    loop {
        if text(&object, "/status/lastHandledRefresh") == token {
            super::output::print(&format!("the chats of {agent} were refreshed\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            super::output::print(&format!("the chats of {agent} were asked, and are not all refreshed yet\n"))?;
            return Ok(if patience.must { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS });
        }
        tokio::time::sleep(LOOK).await;
        object = client.call(Call::new(Method::GET, &path)).await?;
    }
}
