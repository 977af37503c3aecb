//! Status conditions: their types, their reasons, and when they last changed. Every word of them is a constant here.
//!
//! Stored as a flat map, `{"Ready": {status, reason, message}, "Ready@": time}`: a converge then writes `old || patch`, and
//! the patch of a whole batch is the same few bytes for every chat in it, however many different times they hold.

use super::word::word_enum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

word_enum! {
    /// What a condition speaks of. `Ready` is the summary; drift never turns it False.
    ConditionType {
        /// Whether the record can be used as it was asked for.
        Ready,
        /// Whether the pin differs from the latest. Present once pinned.
        Drifted,
        /// Whether a resource of the pinned (or latest) context is not `Ok`. Present once there is one.
        ResourcesDegraded,
        /// The loop has more to do with it, by itself. Present only when True, and not set for a pass that just goes well.
        Reconciling,
        /// The loop fails on it, and somebody should look: no retry will mend it. Present only when True.
        Stalled,
    }
}

/// Reasons, each one CamelCase word.
pub mod reason {
    /// Ready: the chat is pinned and up to date.
    pub const PINNED: &str = "Pinned";
    /// Ready: the chat is pinned and usable; its agent has moved on.
    pub const PINNED_STALE: &str = "PinnedStale";
    /// Ready Unknown: the agent has no complete snapshot yet.
    pub const WAITING_FOR_SNAPSHOT: &str = "WaitingForSnapshot";
    /// Ready False: nobody of that name exists. Creating it mends this.
    pub const AGENT_NOT_FOUND: &str = "AgentNotFound";
    /// Ready: the chat names no agent.
    pub const UNBOUND: &str = "Unbound";
    /// Ready: the record is archived.
    pub const ARCHIVED: &str = "Archived";
    /// Ready: the record is suspended or paused.
    pub const SUSPENDED: &str = "Suspended";
    /// Ready: the chat ended before it was ever pinned.
    pub const TERMINAL: &str = "Terminal";
    /// Drifted True.
    pub const CONTENT_CHANGED: &str = "ContentChanged";
    /// Drifted False.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Drifted Unknown: there is no snapshot to compare the pin with.
    pub const NO_SNAPSHOT: &str = "NoSnapshot";
    /// ResourcesDegraded True.
    pub const RESOURCES_EXCLUDED: &str = "ResourcesExcluded";
    /// ResourcesDegraded True: every resource is fine, but the scan was not.
    pub const SCAN_FAILED: &str = "ScanFailed";
    /// ResourcesDegraded False.
    pub const ALL_OK: &str = "AllOk";
    /// Reconciling True: the loop failed on this record and tries again.
    pub const PROGRESSING_WITH_RETRY: &str = "ProgressingWithRetry";
    /// Reconciling True: the loop works on it.
    pub const PROGRESSING: &str = "Progressing";
    /// Stalled True: the loop fails on this record again and again.
    pub const RECONCILE_FAILED: &str = "ReconcileFailed";
    /// Ready, of an agent: it has reported a complete context.
    pub const REPORTING: &str = "Reporting";
    /// Ready Unknown, of an agent: it has never reported a complete context.
    pub const NEVER_REPORTED: &str = "NeverReported";
    /// Ready False, of an agent: it is being deleted.
    pub const DELETING: &str = "Deleting";
}

word_enum! {
    /// A condition's status.
    Truth {
        /// It is so.
        True,
        /// It is not so.
        False,
        /// Nobody can tell yet.
        Unknown,
    }
}

/// What a condition says, without when it began to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// Is it so?
    pub status: Truth,
    /// One CamelCase word.
    pub reason: String,
    /// A sentence for people.
    #[serde(default)]
    pub message: String,
}

impl Verdict {
    /// A verdict.
    pub fn new(status: Truth, reason: &str, message: impl Into<String>) -> Self {
        Self { status, reason: reason.to_owned(), message: message.into() }
    }
}

/// What the conditions of a record should say now. Types that are not in it are not shown.
pub type Verdicts = BTreeMap<ConditionType, Verdict>;

/// What it says, and since when its status is that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// What it says.
    pub verdict: Verdict,
    /// When its status last changed.
    pub since: Timestamp,
}

/// The conditions of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(pub BTreeMap<ConditionType, Condition>);

/// Stored conditions that do not have their form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("conditions: {0}")]
pub struct BadConditions(String);

impl Conditions {
    /// From the stored form. Types that this version does not know are left alone.
    pub fn from_stored(stored: &Value) -> Result<Self, BadConditions> {
        let map = stored.as_object().ok_or_else(|| BadConditions(format!("not an object but {stored}")))?;
        let mut conditions = BTreeMap::new();
        for kind in ConditionType::ALL {
            let Some(verdict) = map.get(kind.as_str()) else { continue };
            let verdict = Verdict::deserialize(verdict).map_err(|error| BadConditions(format!("{kind}: {error}")))?;
            let since = map.get(&since_key(*kind)).and_then(Value::as_str).and_then(|text| text.parse().ok());
            let since = since.ok_or_else(|| BadConditions(format!("{kind}: no time of its last transition")))?;
            conditions.insert(*kind, Condition { verdict, since });
        }
        Ok(Self(conditions))
    }

    /// What they say.
    pub fn verdicts(&self) -> Verdicts {
        self.0.iter().map(|(kind, condition)| (*kind, condition.verdict.clone())).collect()
    }

    /// One of them.
    pub fn get(&self, kind: ConditionType) -> Option<&Condition> {
        self.0.get(&kind)
    }

    /// What must be written so that they say `verdicts`; times of changed statuses become `now`.
    pub fn patch(&self, verdicts: &Verdicts, now: Timestamp) -> ConditionPatch {
        let mut patch = ConditionPatch::default();
        for (kind, verdict) in verdicts {
            let old = self.0.get(kind);
            if old.is_none_or(|old| old.verdict != *verdict) {
                patch.set.insert(kind.to_string(), serde_json::to_value(verdict).expect("a verdict is three texts"));
            }
            if old.is_none_or(|old| old.verdict.status != verdict.status) {
                patch.set.insert(since_key(*kind), Value::String(now.to_string()));
            }
        }
        for kind in self.0.keys().filter(|kind| !verdicts.contains_key(kind)) {
            patch.drop.push(kind.to_string());
            patch.drop.push(since_key(*kind));
        }
        patch
    }
}

/// The stored key of the time of a condition's last transition.
pub fn since_key(kind: ConditionType) -> String {
    format!("{kind}@")
}

/// A change of stored conditions: `(old || set) - drop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConditionPatch {
    /// Keys to set.
    pub set: Map<String, Value>,
    /// Keys to remove.
    pub drop: Vec<String>,
}

impl ConditionPatch {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.drop.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn stored(patch: &ConditionPatch, old: &Value) -> Value {
        let mut map = old.as_object().expect("an object").clone();
        map.extend(patch.set.clone());
        map.retain(|key, _| !patch.drop.contains(key));
        Value::Object(map)
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_does() {
        let empty = serde_json::json!({});
        let ready = |reason, status| Verdicts::from([(ConditionType::Ready, Verdict::new(status, reason, ""))]);
        let first = Conditions::default().patch(&ready(reason::PINNED, Truth::True), at(1));
        let one = stored(&first, &empty);
        let conditions = Conditions::from_stored(&one).expect("what was stored");
        let second = conditions.patch(&ready(reason::PINNED_STALE, Truth::True), at(2));
        let two = Conditions::from_stored(&stored(&second, &one)).expect("what was stored");
        let ready_now = two.get(ConditionType::Ready).expect("Ready");
        assert_eq!((ready_now.verdict.reason.as_str(), ready_now.since), (reason::PINNED_STALE, at(1)));
        assert!(two.patch(&two.verdicts(), at(3)).is_empty(), "what already stands is not written again");
        let gone = two.patch(&Verdicts::new(), at(4));
        assert_eq!(Conditions::from_stored(&stored(&gone, &two_stored(&second, &one))), Ok(Conditions::default()));
    }

    fn two_stored(patch: &ConditionPatch, old: &Value) -> Value {
        stored(patch, old)
    }

    #[test]
    fn stored_conditions_without_their_form_are_an_error_that_names_the_type() {
        let bad = Conditions::from_stored(&serde_json::json!({"Ready": {"status": "Perhaps", "reason": "x"}}));
        assert!(bad.expect_err("no such status").to_string().contains("Ready"));
    }
}
