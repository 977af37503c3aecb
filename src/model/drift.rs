//! How two contexts differ, counted and with the first names: what events and `status.drift` carry. What counts as a
//! change is `diff`'s to say.

use super::{
    diff::{Step, steps},
    resource::ResourceMeta,
    word::word_enum,
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many differing resources a drift names.
pub const DRIFT_NAMES_MAX: usize = 20;

word_enum! {
    /// What happened to a resource.
    ChangeKind {
        /// It is in the latest, not in the pin.
        Added,
        /// It is in both, with another content or status.
        Changed,
        /// It is in the pin, not in the latest.
        Removed,
    }
}

/// One resource that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The resource's kind.
    pub kind: super::resource::ResourceKind,
    /// The resource's source.
    pub source: String,
    /// What happened to it.
    pub change: ChangeKind,
}

/// How the latest differs from the pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// How many resources were added.
    pub added: usize,
    /// How many were changed.
    pub changed: usize,
    /// How many were removed.
    pub removed: usize,
    /// The first [`DRIFT_NAMES_MAX`] of them, in (kind, source) order.
    pub resources: Vec<Change>,
    /// Whether there are more than `resources` names.
    pub truncated: bool,
}

impl Drift {
    /// How `to` differs from `from`; both in (kind, source) order, as manifests are. A renamed resource counts as one that
    /// went and one that came.
    pub fn between(from: &[ResourceMeta], to: &[ResourceMeta]) -> Self {
        let mut drift = Self::default();
        for step in steps(from, to) {
            match step {
                Step::Removed(resource) => drift.note(resource, ChangeKind::Removed),
                Step::Added(resource) => drift.note(resource, ChangeKind::Added),
                Step::Changed(_, resource) => drift.note(resource, ChangeKind::Changed),
            }
        }
        drift
    }

    /// How many resources differ.
    pub fn total(&self) -> usize {
        self.added + self.changed + self.removed
    }

    fn note(&mut self, resource: &ResourceMeta, change: ChangeKind) {
        match change {
            ChangeKind::Added => self.added += 1,
            ChangeKind::Changed => self.changed += 1,
            ChangeKind::Removed => self.removed += 1,
        }
        if self.resources.len() < DRIFT_NAMES_MAX {
            self.resources.push(Change { kind: resource.kind, source: resource.source.clone(), change });
        } else {
            self.truncated = true;
        }
    }
}

/// `3 resources changed: AGENTS.md, skills/tdd, skills/plans`; at most five names.
impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.total() == 1 { "" } else { "s" };
        write!(f, "{} resource{plural} changed", self.total())?;
        for (n, change) in self.resources.iter().take(5).enumerate() {
            f.write_str(if n == 0 { ": " } else { ", " })?;
            f.write_str(&change.source)?;
            match change.change {
                ChangeKind::Changed => {}
                ChangeKind::Added => f.write_str(" (added)")?,
                ChangeKind::Removed => f.write_str(" (removed)")?,
            }
        }
        if self.total() > 5 {
            write!(f, " and {} more", self.total() - 5)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{Resource, ResourceKind};

    fn file(source: &str, body: &str) -> ResourceMeta {
        Resource::ok(ResourceKind::InstructionFile, source, source, body.as_bytes().to_vec()).meta
    }

    #[test]
    fn added_changed_and_removed_resources_are_counted_and_named_in_order() {
        let from = [file("a", "1"), file("b", "1"), file("c", "1")];
        let to = [file("a", "1"), file("b", "2"), file("d", "1")];
        let drift = Drift::between(&from, &to);
        assert_eq!((drift.added, drift.changed, drift.removed, drift.truncated), (1, 1, 1, false));
        assert_eq!(drift.to_string(), "3 resources changed: b, c (removed), d (added)");
        assert_eq!(Drift::between(&from, &from), Drift::default());
    }

    #[test]
    fn a_moved_file_with_the_same_content_is_no_drift() {
        let (a, mut b) = (file("a", "1"), file("a", "1"));
        b.source_path = "elsewhere/a".into();
        assert_eq!(Drift::between(&[a], &[b]).total(), 0);
    }

    #[test]
    fn at_most_twenty_resources_are_named_and_all_are_counted() {
        let many: Vec<_> = (0..30).map(|n| file(&format!("{n:02}"), "x")).collect();
        let drift = Drift::between(&[], &many);
        assert_eq!((drift.added, drift.resources.len(), drift.truncated), (30, 20, true));
        assert!(drift.to_string().ends_with(" and 25 more"), "{drift}");
        assert_eq!(Drift::between(&[], &many[..5]).to_string().split(", ").last(), Some("04 (added)"), "five are all named");
    }
}
