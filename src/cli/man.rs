//! `moorline man`: the manual pages of this command line, for whoever packages it.

use super::output;
use anyhow::Context as _;
use clap::{Args, Command};
use std::{fs, path::PathBuf, process::ExitCode};

/// Print the manual page of this program, or write those of all its commands.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  moorline man > moorline.1
  moorline man --dir man1")]
pub struct ManArgs {
    /// Write one page per command here instead: moorline.1, moorline-get.1, and so on.
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
}

/// Runs it on the whole command line.
pub fn run(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    // `help` says what these pages say, and has none of its own.
    let command = command.disable_help_subcommand(true);
    if let Some(dir) = &args.dir {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        clap_mangen::generate_to(command, dir).with_context(|| format!("writing manual pages to {}", dir.display()))?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::print(&String::from_utf8(page)?)?;
    }
    Ok(ExitCode::SUCCESS)
}
