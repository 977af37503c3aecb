//! The snapshots: each was accepted, and is there until it is deleted; its name may come again after that.

use super::Findings;
use crate::histories::{log::Log, state::State};
use moorline::model::event::EventKind;
use std::collections::BTreeSet;

/// What is broken when the log and the rows differ.
const RULE: &str = "a snapshot is there from its acceptance to its deletion";

/// Follows their names through the log.
pub fn check(log: &Log, state: &State, findings: &mut Findings) {
    let mut there: BTreeSet<(&str, &str)> = BTreeSet::new();
    for event in &log.events {
        let name = (&*event.namespace, &*event.name);
        match event.kind {
            EventKind::SnapshotAccepted => {
                findings.unless(there.insert(name), RULE, || format!("{event}: there is one of that name"));
            }
            EventKind::SnapshotDeleted => {
                findings.unless(there.remove(&name), RULE, || format!("{event}: there is none of that name"));
            }
            _ => {}
        }
    }
    let rows: BTreeSet<(&str, &str)> = state.snapshots.values().map(|snapshot| (&*snapshot.namespace, &*snapshot.name)).collect();
    for (namespace, name) in rows.symmetric_difference(&there) {
        findings.add(RULE, format!("snapshot {namespace}/{name}: the log and the rows do not agree on whether it is there"));
    }
}
