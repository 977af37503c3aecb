//! `moorline completion SHELL`: what makes a shell complete this command line.

use super::output;
use clap::{Args, Command};
use clap_complete::Shell;
use std::process::ExitCode;

/// Print a script that completes this command line, for a shell to source.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  source <(moorline completion bash)
  moorline completion fish > ~/.config/fish/completions/moorline.fish")]
pub struct CompletionArgs {
    /// For which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs it on the whole command line.
pub fn run(args: &CompletionArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "moorline", &mut script);
    output::print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}
