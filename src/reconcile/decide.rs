//! From chats to outcomes. Pure but for learning how contexts differ, which is a function of their hashes.
//!
//! Chats that look alike share one outcome: the decision is made once for each distinct look. That is speed; a batch of a
//! thousand chats that become dirty is decided once.

use super::{
    drifts::{Drifts, Pair, Pairs, batches},
    poison,
};
use crate::{
    model::{
        condition::Conditions,
        drift::Drift,
        push::Phase,
        target::{Pin, Target},
    },
    plan::{
        Action, Change, ChatFacts, DirtyChange, PinChange, RefreshChange,
        conditions::{ChatAfter, Health, of_chat},
        plan,
    },
    store::{
        StoreError,
        converge::{Class, ClassEvent, Lane, Loaded, Outcomes, SnapshotFacts},
        snapshots,
    },
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use std::{collections::HashMap, sync::Arc};
use uuid::Uuid;

/// All that an outcome depends on.
#[derive(PartialEq, Eq, Hash)]
struct Look<'a> {
    facts: ChatFacts,
    pin: Option<Pin>,
    target: Target,
    reference: Option<&'a str>,
    target_phase: Option<Phase>,
    reconcile_pending: bool,
    generation_behind: bool,
    copies: bool,
    conditions: *const Conditions,
}

/// Decides for the chats of one batch.
pub(super) struct Decider<'a> {
    drifts: &'a Drifts,
    /// What events of this batch will say: whatever others make the process forget meanwhile.
    learned: HashMap<Pair, Arc<Drift>>,
    lane: Lane,
    /// The agent of a lap that copies a refresh token, and the token.
    token: Option<(Uuid, &'a str)>,
}

impl<'a> Decider<'a> {
    pub(super) fn new(drifts: &'a Drifts, lane: Lane, token: Option<(Uuid, &'a str)>) -> Self {
        Self { drifts, learned: HashMap::new(), lane, token }
    }

    /// Compares the pairs of contexts among `chats` that an event will speak of and that are not yet known; reads their manifests,
    /// a few at a time.
    pub(super) async fn learn_drifts(
        &mut self,
        tx: &mut PgConnection,
        namespace: &str,
        chats: &[Loaded],
    ) -> Result<(), StoreError> {
        let mut wanted = Pairs::new();
        for chat in chats {
            if let (Some((pin, _)), Some(latest)) = (&chat.pin, chat.target.latest())
                && pin.hash != latest.hash
                && self.action(chat).change().event.is_some()
            {
                let pair = (pin.hash, latest.hash);
                match self.drifts.get(&pair) {
                    Some(drift) => drop(self.learned.insert(pair, drift)),
                    // What was learned before the locks is not read again under them, whatever others made the process forget.
                    None if self.learned.contains_key(&pair) => {}
                    None => drop(wanted.insert(pair, (pin.snapshot, latest.snapshot))),
                }
            }
        }
        for batch in batches(wanted) {
            let manifests = snapshots::manifests(tx, namespace, &batch.snapshots).await?;
            let between = |(pair, (from, to))| Some((pair, Arc::new(Drift::between(manifests.get(&from)?, manifests.get(&to)?))));
            let new = batch.pairs.into_iter().filter_map(between).collect();
            self.drifts.keep(&new);
            self.learned.extend(new);
        }
        Ok(())
    }

    /// The outcomes. In the fan-out lane a chat to which nothing happens is left out, and so is never locked or written.
    pub(super) fn decide(&self, chats: &[Loaded], now: Timestamp) -> Outcomes {
        let mut outcomes = Outcomes::default();
        let mut looks: HashMap<Look<'_>, Option<usize>> = HashMap::new();
        for chat in chats {
            let look = Look {
                facts: chat.facts,
                pin: chat.pin.as_ref().map(|(pin, _)| *pin),
                target: chat.target,
                reference: chat.reference.as_deref(),
                target_phase: chat.target_phase,
                reconcile_pending: chat.reconcile_pending,
                generation_behind: chat.generation_behind,
                copies: self.copies(chat),
                conditions: Arc::as_ptr(&chat.conditions),
            };
            let class = *looks.entry(look).or_insert_with(|| {
                let class = self.class(chat, now);
                (self.lane == Lane::Due || class.is_something()).then(|| {
                    outcomes.classes.push(class);
                    outcomes.classes.len() - 1
                })
            });
            outcomes.chats.extend(class.map(|class| (chat.id, class)));
        }
        outcomes
    }

    /// Whether the agent's refresh token is copied to this chat: it is bound to the agent, not archived, and has not seen it.
    fn copies(&self, chat: &Loaded) -> bool {
        let Some((agent, token)) = self.token else { return false };
        let bound = match (&chat.pin, chat.target) {
            (Some((pin, _)), _) => Some(pin.agent),
            (None, Target::Agent { id, .. }) => Some(id),
            (None, Target::Unbound | Target::Missing) => None,
        };
        let seen = [&chat.refresh_requested, &chat.refresh_handled].into_iter().any(|known| known.as_deref() == Some(token));
        bound == Some(agent) && !chat.facts.archived && !seen
    }

    fn facts(&self, chat: &Loaded) -> ChatFacts {
        ChatFacts { refresh_pending: chat.facts.refresh_pending || self.copies(chat), ..chat.facts }
    }

    fn action(&self, chat: &Loaded) -> Action {
        plan(self.facts(chat), chat.pin.as_ref().map(|(pin, _)| *pin), chat.target)
    }

    fn class(&self, chat: &Loaded, now: Timestamp) -> Class {
        let facts = self.facts(chat);
        let before = chat.pin.as_ref().map(|(pin, _)| *pin);
        let action = plan(facts, before, chat.target);
        let change = action.change();
        let (after, pin) = action.apply(facts, before, chat.target);
        let health = match change.pin {
            PinChange::Keep => chat.pin.as_ref().map(|(_, facts)| facts),
            PinChange::Move(..) => chat.latest.as_ref(),
            PinChange::Clear => None,
        };
        let mut verdicts = of_chat(&ChatAfter {
            facts: after,
            pin: pin.zip(health.map(health_of)),
            target: chat.target,
            target_name: chat.reference.as_deref().unwrap_or_default(),
            target_phase: chat.target_phase,
            before: &chat.conditions.verdicts(),
        });
        if self.lane == Lane::Fanout {
            // It stays due for the other lane, which knows whether what failed is mended.
            poison::still_fails(&chat.conditions, &mut verdicts);
        }
        let conditions = chat.conditions.patch(&verdicts, now);
        let refresh_handled = change.refresh == RefreshChange::Handled && facts.refresh_pending;
        let seen = self.lane == Lane::Due && (chat.reconcile_pending || chat.generation_behind);
        let event = change.told(!conditions.is_empty() || refresh_handled || seen).map(|kind| ClassEvent {
            kind,
            agent: pin.or(before).map(|pin| pin.agent),
            payload: self.payload(chat, change, before, now),
        });
        let refresh_token = self.token.filter(|_| self.copies(chat)).map(|(_, token)| token.to_owned());
        Class { pin: change.pin, dirty: change.dirty, refresh_handled, refresh_token, conditions, event }
    }

    /// What the transaction saw: hashes, names, what changed. Never a body. `before` holds what this event changed of the
    /// selectable fields, as it was.
    fn payload(&self, chat: &Loaded, change: Change, before: Option<Pin>, now: Timestamp) -> Value {
        let mut payload = Map::new();
        let latest = chat.target.latest();
        if change.event.is_some() {
            let to = match change.pin {
                PinChange::Clear => None,
                PinChange::Keep | PinChange::Move(..) => latest,
            };
            payload.insert("from".into(), before.map_or(Value::Null, |pin| json!(pin.hash)));
            payload.insert("to".into(), to.map_or(Value::Null, |latest| json!(latest.hash)));
            let name = |facts: Option<&SnapshotFacts>| facts.map_or(Value::Null, |facts| json!(facts.name));
            payload.insert("fromSnapshot".into(), name(chat.pin.as_ref().map(|(_, facts)| facts)));
            payload.insert("toSnapshot".into(), name(to.and(chat.latest.as_ref())));
            let agent = match change.pin {
                PinChange::Move(..) => chat.target_agent.as_ref(),
                PinChange::Keep | PinChange::Clear => chat.pin_agent.as_ref(),
            };
            payload.insert("agent".into(), json!(agent));
            if let (Some(pin), Some(to)) = (before, to)
                && let Some(drift) = self.learned.get(&(pin.hash, to.hash))
            {
                payload.insert("drift".into(), json!(drift.as_ref()));
            }
        }
        if let PinChange::Move(_, cause) = change.pin {
            payload.insert("cause".into(), json!(cause));
        }
        match (change.dirty, chat.facts.dirty) {
            (DirtyChange::Begin, _) => {
                payload.insert("since".into(), json!(now));
                payload.insert("before".into(), json!({"dirty": false}));
            }
            (DirtyChange::End, true) => {
                payload.insert("before".into(), json!({"dirty": true}));
            }
            (DirtyChange::End, false) | (DirtyChange::Keep, _) => {}
        }
        Value::Object(payload)
    }
}

fn health_of(facts: &SnapshotFacts) -> Health<'_> {
    let SnapshotFacts { name: _, degraded, resources, error } = facts;
    Health { degraded: *degraded, resources: *resources, error }
}

impl Class {
    /// Whether anything would be written. All that a chat shows anew is an event, so besides that there is only a token to be copied.
    fn is_something(&self) -> bool {
        self.event.is_some() || self.refresh_token.is_some()
    }
}
