//! `moorline agent DIR`: reports the context of a workspace to a server.

use crate::{
    clock,
    workspace::{
        self, AgentSpec, Options, Outcome, RunError,
        push::{ApiClient, DeliveryError},
        watch,
    },
};
use anyhow::Context as _;
use clap::{ArgAction, Args};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tokio_util::sync::CancellationToken;

/// Report the context of the workspace DIR (instruction files, skills, MCP configuration) and watch it for changes.
///
/// Exit codes: 0 told to stop, or pushed with --once; 1 failed; 3 another process reports for this agent now.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline agent . --name ws-1
  moorline agent /workspace --name ws-42 --workspace ws --build 42 --once")]
pub struct AgentArgs {
    /// The root of the workspace.
    pub dir: PathBuf,
    /// Address of the Moorline server.
    #[arg(long, env = "MOORLINE_SERVER", default_value = "http://127.0.0.1:8460")]
    pub server: String,
    /// Namespace of the Agent.
    #[arg(long, env = "MOORLINE_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Name of the Agent.
    #[arg(long, env = "MOORLINE_NAME")]
    pub name: String,
    /// Workspace that a created Agent belongs to. An Agent that exists already keeps its own.
    #[arg(long, env = "MOORLINE_WORKSPACE")]
    pub workspace: Option<String>,
    /// Build of the workspace that a created Agent is of; the highest build is the workspace's current agent.
    #[arg(long, env = "MOORLINE_BUILD", requires = "workspace")]
    pub build: Option<u32>,
    /// Create the Agent when there is none.
    #[arg(long, env = "MOORLINE_CREATE", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub create: bool,
    /// Scan and push once, and exit.
    #[arg(long, env = "MOORLINE_ONCE")]
    pub once: bool,
    /// With --once: give up after so many seconds.
    #[arg(long, env = "MOORLINE_GIVE_UP_AFTER", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub give_up_after: u64,
    /// File with a bearer token. It is read again at each request.
    #[arg(long, env = "MOORLINE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File of certificates that vouch for the server, instead of this machine's.
    #[arg(long, env = "MOORLINE_CERTIFICATE_AUTHORITY", value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
}

/// Runs the command until it is done or `shutdown`.
pub async fn run(args: AgentArgs, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
    let AgentArgs {
        dir,
        server,
        namespace,
        name,
        workspace,
        build,
        create,
        once,
        give_up_after,
        token_file,
        certificate_authority,
    } = args;
    let mut client = ApiClient::new(&server, &namespace, &name, token_file).context("--server")?;
    if let Some(authority) = certificate_authority {
        client = client.trusting(&authority)?;
    }
    let options = Options {
        root: dir,
        client,
        create: create.then_some(AgentSpec { workspace, build }),
        once: once.then_some(Duration::from_secs(give_up_after)),
        watch: watch::Settings::default(),
    };
    match workspace::run(options, clock::system(), shutdown).await {
        Ok(Outcome::Stopped) => Ok(ExitCode::SUCCESS),
        Ok(Outcome::Pushed(delivery)) => {
            println!("{delivery}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ RunError::Delivery(DeliveryError::Superseded { .. })) => {
            eprintln!("moorline: {error}");
            Ok(ExitCode::from(super::exit::SUPERSEDED))
        }
        Err(error) => Err(error.into()),
    }
}
