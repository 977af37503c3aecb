//! What objects were before: the states that a watcher may know an object in, from what the events say that their transactions
//! changed. Of an object that changed too often to keep each, all that is kept is whose it was.

use super::{Id, Look};
use crate::{
    model::{access::Reach, event::EventKind, object::TextMap},
    store::events::{Cursor, Logged},
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How many states an object may have had before, that a watcher may know it in, until all that is known is whose it was: it may
/// have been anything else.
const CHAIN_MAX: usize = 32;

/// Whose an object was: nobody's, perhaps.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whose(Option<String>);

/// What one transaction changed of an object's [`Look`], as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// Where the event stands that says so.
    at: Option<Cursor>,
    created: bool,
    /// Not what it was before an event, but what watchers were shown after those that come before this in a chain.
    shown: Option<Box<Look>>,
    /// It may have looked like anything; whose it was is known still.
    anything: bool,
    /// Whose it was at one time or another, besides what the others say.
    owners: BTreeSet<String>,
    labels: Option<TextMap>,
    fields: BTreeMap<&'static str, String>,
    owner: Option<Whose>,
}

impl Before {
    /// What an event says was before it.
    pub(super) fn read(event: &Logged) -> Self {
        let created = matches!(event.kind, EventKind::ChatCreated | EventKind::AgentCreated | EventKind::SnapshotAccepted);
        let is_agent = matches!(event.kind, EventKind::AgentUpdated);
        let told = event.payload.get("before").map(|before| Self::of(before, is_agent)).unwrap_or_default();
        Self { at: Some(event.cursor), created, ..told }
    }

    /// What is said to have been before, by field.
    pub(super) fn of(told: &Value, is_agent: bool) -> Self {
        let mut before = Self::default();
        let Some(told) = told.as_object() else { return before };
        for (name, value) in told {
            let text = || match value {
                Value::String(text) => text.clone(),
                Value::Bool(flag) => flag.to_string(),
                Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => String::new(),
            };
            let field = match name.as_str() {
                "labels" => {
                    before.labels = serde_json::from_value(value.clone()).ok();
                    before.anything |= before.labels.is_none();
                    continue;
                }
                "serviceAccount" => {
                    before.owner = Some(Whose(value.as_str().map(ToOwned::to_owned)));
                    continue;
                }
                "agent" => "spec.agentRef.name",
                "workspace" if is_agent => "spec.workspace",
                "workspace" => "spec.workspaceRef.name",
                "archived" => "spec.archived",
                "state" => "status.state",
                "dirty" => "status.dirty",
                // A newer Moorline, which runs beside this one, tells something that this one does not know to look at.
                _ => {
                    before.anything = true;
                    continue;
                }
            };
            before.fields.insert(field, text());
        }
        before
    }

    /// All that is known of an object whose last state nobody can read.
    pub(super) fn unread() -> Self {
        Self { anything: true, ..Self::default() }
    }

    /// Watchers were shown this.
    pub(super) fn of_shown(look: Look) -> Self {
        Self { shown: Some(Box::new(look)), ..Self::default() }
    }

    /// What watchers were shown, if this says it.
    pub(super) fn shown(&self) -> Option<&Look> {
        self.shown.as_deref()
    }

    /// All that is kept of too many: whose it was, and whether it came to be and nobody was shown it since.
    fn of_anything(chain: Vec<Self>) -> Self {
        let created = chain.iter().rev().take_while(|before| before.shown.is_none()).find(|before| before.created);
        let (created, at) = (created.is_some(), created.and_then(|before| before.at));
        let owners = chain.into_iter().flat_map(|before| {
            let last = before.owner.and_then(|Whose(owner)| owner);
            before.owners.into_iter().chain(last)
        });
        Self { at, created, anything: true, owners: owners.collect(), ..Self::default() }
    }

    /// It came to be, after this place.
    pub(super) fn created_after(&self, place: Cursor) -> bool {
        self.created && self.at.is_none_or(|at| at > place)
    }

    /// Takes what an object looked like after this back to what it looked like before, as far as is known, and says whether
    /// somebody who reaches this much and selects such objects may know it from then; to whom it `is_new`, it was nothing before.
    pub(super) fn may_be_known(&self, is_new: bool, look: &mut Look, reach: &Reach, selects: impl Fn(&Look) -> bool) -> bool {
        self.lay_over(look);
        let reached = reach.covers(look.owner.as_deref());
        if self.anything {
            return reached || self.owners.iter().any(|owner| reach.covers(Some(owner)));
        }
        !is_new && reached && selects(look)
    }

    /// Whether somebody who sees every object may know it from then.
    pub(super) fn is_known_to_all(&self, is_new: bool) -> bool {
        self.anything || !is_new
    }

    /// It may have looked otherwise besides.
    pub(super) fn is_not_all(&mut self) {
        self.anything = true;
    }

    /// It is known what it looked like.
    pub(super) fn is_certain(&self) -> bool {
        !self.anything
    }

    /// Takes what an object looked like after this back to what it looked like before, as far as is known.
    pub(super) fn lay_over(&self, look: &mut Look) {
        if let Some(labels) = &self.labels {
            look.labels.clone_from(labels);
        }
        if let Some(Whose(owner)) = &self.owner {
            look.owner.clone_from(owner);
        }
        for (field, value) in &self.fields {
            look.fields.insert(field, value.clone());
        }
    }

    /// It changed what selectors and authorization look at.
    pub(super) fn changes_look(&self) -> bool {
        self.anything || self.labels.is_some() || self.owner.is_some() || !self.fields.is_empty()
    }

    fn says_nothing(&self) -> bool {
        let Self { at: _, created, shown, anything, owners, labels, fields, owner } = self;
        !created && shown.is_none() && !anything && owners.is_empty() && labels.is_none() && fields.is_empty() && owner.is_none()
    }
}

/// What has been missed of objects whose rows were passed over.
#[derive(Clone, Debug, Default)]
pub struct Missed(HashMap<Id, Vec<Before>>);

impl Missed {
    /// Notes what was before an event that was passed over.
    pub(super) fn note(&mut self, id: Id, before: Before) {
        let chain = self.0.entry(id).or_default();
        if chain.len() >= CHAIN_MAX {
            *chain = vec![Before::of_anything(std::mem::take(chain))];
        }
        // The first says that there is something to tell, whatever it says was before.
        if chain.is_empty() || !before.says_nothing() {
            chain.push(before);
        }
    }

    /// Takes what was missed of an object.
    pub fn take(&mut self, id: &Id) -> Vec<Before> {
        if self.0.is_empty() { Vec::new() } else { self.0.remove(id).unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id::Chat(uuid::Uuid::nil())
    }

    fn owned(owner: Option<&str>) -> Look {
        Look { owner: owner.map(ToOwned::to_owned), ..Look::default() }
    }

    fn of_owner(owner: Option<&str>) -> Before {
        Before { owner: Some(Whose(owner.map(ToOwned::to_owned))), ..Before::default() }
    }

    fn of_state(state: usize) -> Before {
        Before { fields: BTreeMap::from([("status.state", state.to_string())]), ..Before::default() }
    }

    /// Whether somebody may know an object of `owner` from one of these times.
    fn known(chain: &[Before], owner: Option<&str>, reader: &str) -> bool {
        let mut look = owned(owner);
        let reach = Reach::Own(reader.into());
        let mut known = false;
        for before in chain.iter().rev() {
            known |= before.may_be_known(before.created, &mut look, &reach, |_| true); // each goes on from where the one before left `look`
        }
        known
    }

    #[test]
    fn what_changed_too_often_may_be_known_to_whoever_it_belonged_to_and_to_nobody_else() {
        let mut missed = Missed::default();
        for (n, owner) in [Some("bob"), None, Some("carol")].into_iter().enumerate() {
            missed.note(id(), of_owner(owner));
            for m in 0..CHAIN_MAX * 2 {
                missed.note(id(), of_state(n * 1_000 + m));
            }
        }
        let chain = missed.take(&id());
        assert!(chain.len() <= CHAIN_MAX + 1 && chain[0].anything);
        for reader in ["alice", "bob", "carol"] {
            assert!(known(&chain, Some("alice"), reader), "{reader}");
        }
        assert!(!known(&chain, Some("alice"), "mallory"));
        assert!(!known(&chain, None, "mallory"));
    }

    #[test]
    fn what_a_newer_version_tells_of_before_may_have_been_anything() {
        for before in [serde_json::json!({"mood": "sunny"}), serde_json::json!({"labels": 7})] {
            let event = Logged {
                cursor: Cursor { rv: 1, seq: 1 },
                namespace: "team-a".into(),
                kind: EventKind::ChatUpdated,
                subject: None,
                name: "fix".into(),
                chat: None,
                agent: None,
                payload: serde_json::json!({"before": before}),
                at: jiff::Timestamp::UNIX_EPOCH,
            };
            let read = Before::read(&event);
            let may_be_known =
                |owner: &str| read.may_be_known(false, &mut owned(Some(owner)), &Reach::Own("alice".into()), |_| false);
            assert!(may_be_known("alice") && !may_be_known("bob"), "{before}");
        }
    }
}
