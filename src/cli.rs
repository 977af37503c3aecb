//! The command line: one file per command, each turning flags and `MOORLINE_*` variables into a call of the library, or into
//! calls of a server.

pub mod agent;
pub mod apply;
pub mod completion;
pub mod context;
pub mod crd;
pub mod dev;
pub mod diff;
pub mod events;
pub mod exit;
pub mod get;
pub mod kind;
pub mod man;
pub mod migrate;
pub mod openapi;
pub mod output;
pub mod refresh;
pub mod remote;
pub mod serve;
pub mod uninstall;
pub mod version;
pub mod why;

use crate::config::LogFormat;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use std::{env, ffi::OsString, path::Path, process::ExitCode};
use tokio_util::sync::CancellationToken;

/// The name under which kubectl finds this program as a plugin.
const PLUGIN: &str = "kubectl-moorline";

/// Keeps AI coding chats moored to immutable snapshots of their agent's context.
#[derive(Debug, Parser)]
#[command(name = "moorline", version, after_help = exit::HELP)]
pub struct Cli {
    /// How log lines look. What is logged: RUST_LOG.
    #[arg(long, global = true, env = "MOORLINE_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Colours in what a command prints.
    #[arg(long, global = true, env = "MOORLINE_COLOR", value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: output::Color,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show objects: chats, agents, agentsnapshots.
    Get(get::GetArgs),
    /// Show what a chat is moored to.
    Context(context::ContextArgs),
    /// Show what would change if a chat moved to what its agent has now.
    Diff(diff::DiffArgs),
    /// Ask chats to move to the latest snapshot of their agent.
    Refresh(refresh::RefreshArgs),
    /// Say why a chat is what it is.
    Why(why::WhyArgs),
    /// Show what happened, and what happens.
    Events(events::EventsArgs),
    /// Create or change Chats and Agents as manifests say.
    Apply(apply::ApplyArgs),
    /// Report the context of a workspace.
    ///
    /// Exit codes: 0 told to stop, or pushed with --once; 1 failed; 3 another process reports for this agent now.
    Agent(agent::AgentArgs),
    /// Run everything on a private PostgreSQL, for one workspace.
    Dev(dev::DevArgs),
    /// Serve the API and run the loop.
    Serve(Box<serve::ServeArgs>),
    /// Bring the database's schema to the version of this binary.
    Migrate(migrate::MigrateArgs),
    /// Print the custom resource definitions as YAML.
    Crd(crd::CrdArgs),
    /// Print the OpenAPI description of the API.
    Openapi(openapi::OpenApiArgs),
    /// Print a script that completes this command line.
    Completion(completion::CompletionArgs),
    /// Print the manual page of this program, or write those of all its commands.
    Man(man::ManArgs),
    /// Print the version of this program, and that of the server.
    Version(version::VersionArgs),
    /// Take what Moorline has put on the objects of a cluster off again.
    Uninstall(uninstall::UninstallArgs),
}

impl Command {
    /// What is logged when `RUST_LOG` does not say: `dev` tells a story of its own on standard output, and who asks a server
    /// is told what is wrong by the command.
    pub const fn default_log(&self) -> &'static str {
        match self {
            Self::Dev(_) | Self::Uninstall(_) => "warn",
            Self::Agent(_) | Self::Serve(_) | Self::Migrate(_) | Self::Crd(_) => "info,sqlx=warn,kube_client=off",
            Self::Get(_)
            | Self::Context(_)
            | Self::Diff(_)
            | Self::Refresh(_)
            | Self::Why(_)
            | Self::Events(_)
            | Self::Apply(_)
            | Self::Openapi(_)
            | Self::Completion(_)
            | Self::Man(_)
            // The transport's own log of a failure that the command tells anyhow.
            | Self::Version(_) => "error,kube_client=off",
        }
    }
}

/// The command line, named as whoever types it knows it.
pub fn command() -> clap::Command {
    command_as(env::args_os().next())
}

fn command_as(program: Option<OsString>) -> clap::Command {
    let is_plugin = program.is_some_and(|program| Path::new(&program).file_stem().is_some_and(|stem| stem == PLUGIN));
    if is_plugin { Cli::command().bin_name("kubectl moorline") } else { Cli::command() }
}

/// Reads the command line; does not come back when it cannot be read, or asks for help.
pub fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Runs a command until it is done or `shutdown`.
pub async fn run(cli: Cli, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    cli.color.apply();
    let until = shutdown.clone();
    // Dropping a request that is under way is all there is to stopping; those that have more to do are told.
    let asking = async move |asking| {
        tokio::select! {
            done = asking => done,
            () = until.cancelled() => Ok(ExitCode::from(exit::INTERRUPTED)),
        }
    };
    let asked: futures::future::BoxFuture<'static, anyhow::Result<ExitCode>> = match cli.command {
        Command::Agent(args) => return agent::run(args, shutdown).await,
        Command::Dev(args) => return dev::run(args, shutdown).await,
        Command::Serve(args) => return Box::pin(serve::run(*args, shutdown)).await,
        Command::Migrate(args) => return migrate::run(args).await,
        Command::Crd(args) => return crd::run(&args),
        Command::Uninstall(args) => return uninstall::run(args, shutdown).await,
        Command::Openapi(args) => return openapi::run(&args),
        Command::Completion(args) => return completion::run(&args, Cli::command()),
        Command::Man(args) => return man::run(&args, Cli::command()),
        Command::Get(args) => Box::pin(get::run(args)),
        Command::Context(args) => Box::pin(context::run(args)),
        Command::Diff(args) => Box::pin(diff::run(args)),
        Command::Refresh(args) => Box::pin(refresh::run(args)),
        Command::Why(args) => Box::pin(why::run(args)),
        Command::Events(args) => Box::pin(events::run(args)),
        Command::Apply(args) => Box::pin(apply::run(args)),
        Command::Version(args) => Box::pin(version::run(args)),
    };
    asking(asked).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_gives_examples_that_can_be_typed() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut lines = help.lines();
            assert_eq!(lines.next(), Some("Examples:"), "{}", command.get_name());
            let own = lines.filter(|line| line.contains(&format!("moorline {}", command.get_name()))).collect::<Vec<_>>();
            assert!(!own.is_empty(), "{help}");
            for example in own {
                let typed = example.split("moorline ").nth(1).unwrap_or_default();
                let words = typed.split([' ', '\n']).take_while(|word| !["|", ">", "||", "&&"].contains(word));
                let words = words.map(|word| word.trim_end_matches(')'));
                let read = Cli::command().try_get_matches_from(std::iter::once("moorline").chain(words));
                assert!(read.is_ok(), "{example}: {}", read.err().map(|error| error.to_string()).unwrap_or_default());
            }
        }
    }

    #[test]
    fn as_a_plugin_it_is_named_as_it_is_typed() {
        for (program, named) in [("/usr/bin/kubectl-moorline", "kubectl moorline"), ("target/debug/moorline", "moorline")] {
            let usage = command_as(Some(program.into())).render_usage().to_string();
            assert!(usage.contains(&format!("Usage: {named} ")), "{usage}");
        }
    }
}
