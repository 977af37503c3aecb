//! How far a refresh of many chats is: a bar on a terminal, a line a chat elsewhere, and at the end how many.

use super::Outcome;
use crate::cli::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::{fmt::Write as _, io};

/// Counts, and tells.
pub(super) struct Progress {
    /// Drawn on standard error, if that is a terminal.
    bar: ProgressBar,
    many: bool,
    refreshed: usize,
    waiting: usize,
    failed: usize,
    /// The first failure to write; told at the end.
    broken: Option<io::Error>,
}

impl Progress {
    /// With a bar for `all`.
    pub(super) fn new(all: bool) -> Self {
        let bar = if all { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} chats {msg}") {
            bar.set_style(style);
        }
        Self { bar, many: all, refreshed: 0, waiting: 0, failed: 0, broken: None }
    }

    /// A page of so many came.
    pub(super) fn expect_more(&self, chats: usize) {
        self.bar.inc_length(chats as u64);
    }

    /// One is done.
    pub(super) fn tell(&mut self, chat: &str, outcome: &Outcome, must: bool) {
        match outcome {
            Outcome::Refreshed(snapshot) if snapshot.is_empty() => {
                self.refreshed += 1;
                self.line(&format!("{chat} refreshed: it names no agent, and has no context now"));
            }
            Outcome::Refreshed(snapshot) => {
                self.refreshed += 1;
                self.line(&format!("{chat} refreshed: {snapshot}"));
            }
            Outcome::Waiting(why) if must => return self.fail(chat, &format!("not refreshed in time ({why})")),
            Outcome::Waiting(why) => {
                self.waiting += 1;
                self.line(&format!("{chat} asked, and not refreshed yet ({why})"));
            }
        }
        self.bar.inc(1);
    }

    /// One failed: that is told also where a bar is.
    pub(super) fn fail(&mut self, chat: &str, why: &str) {
        self.failed += 1;
        self.bar.suspend(|| eprintln!("moorline: {chat}: {why}"));
        self.bar.set_message(format!("({} failed)", self.failed));
        self.bar.inc(1);
    }

    fn line(&mut self, line: &str) {
        if self.bar.is_hidden()
            && let Err(error) = output::print(&format!("{}\n", output::clean_line(line)))
        {
            self.broken.get_or_insert(error);
        }
    }

    /// Takes the bar away.
    pub(super) fn stop(&self) {
        self.bar.finish_and_clear();
    }

    /// How many.
    pub(super) fn summary(&self) -> String {
        let chats = |count: usize| if count == 1 { "1 chat".to_owned() } else { format!("{count} chats") };
        let mut said = format!("{} refreshed", chats(self.refreshed));
        if self.waiting > 0 {
            let _ = write!(said, ", {} asked and not refreshed yet", self.waiting);
        }
        if self.failed > 0 {
            let _ = write!(said, ", {} failed", self.failed);
        }
        said
    }

    /// Tells how many, when they were many; whether any failed.
    pub(super) fn finish(self) -> anyhow::Result<bool> {
        self.stop();
        if let Some(error) = self.broken {
            return Err(error.into());
        }
        if self.many || self.refreshed + self.waiting + self.failed > 1 {
            output::print(&format!("{}\n", self.summary()))?;
        }
        Ok(self.failed > 0)
    }
}
