//! The checker: compares what clients were told, what watchers were told, the log and the last state with one another and with a
//! sequential model. It trusts none of them more than the others, and asks nothing of the server.

mod agents;
mod chats;
mod end;
mod follow;
mod snapshots;
mod walk;
mod watch;
mod writes;

use super::{
    history::History,
    log::{Event, Log},
    state::State,
    watchers::Seen,
};
use std::{collections::HashMap, fmt};
use uuid::Uuid;

/// Everything that there is to compare.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub history: History,
    pub log: Log,
    /// When everything is quiet.
    pub state: State,
    pub seen: Vec<Seen>,
}

/// A sentence of DESIGN that is not so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// Where: objects and events by name.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// What was found.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: &'static str, what: String) {
        self.0.push(Violation { rule, what });
    }

    fn unless(&mut self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(rule, what());
        }
    }
}

/// The events of each object, in order; snapshots have no uid, and are looked at by name (`snapshots`).
fn stories(log: &Log) -> HashMap<Uuid, Vec<&Event>> {
    let mut stories: HashMap<Uuid, Vec<&Event>> = HashMap::new();
    for event in &log.events {
        if let Some(id) = event.subject {
            stories.entry(id).or_default().push(event);
        }
    }
    stories
}

/// Everything that is not so.
pub fn check(evidence: &Evidence) -> Vec<Violation> {
    let mut findings = Findings::default();
    let stories = stories(&evidence.log);
    for pair in evidence.log.events.windows(2) {
        findings.unless(pair[0].place < pair[1].place, "the log is in order", || format!("{} comes before {}", pair[0], pair[1]));
    }
    let followed = chats::check(&stories, &evidence.state, &mut findings);
    agents::check(&stories, &evidence.state, &mut findings);
    snapshots::check(&evidence.log, &evidence.state, &mut findings);
    end::check(&stories, &evidence.state, &mut findings);
    writes::check(evidence, &stories, &followed, &mut findings);
    watch::check(evidence, &stories, &mut findings);
    findings.0
}
