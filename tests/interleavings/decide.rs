//! Deciding, by the product's own functions: `resolve` finds the target, `plan` decides, `of_chat` says what the conditions say
//! then, `Change::told` which event it is. What they answer is kept for each distinct look at a chat, because a look comes back in a
//! million states; that is speed.

use super::rows::{Agent, AgentId, Chat, Names, Progress, Snap, Tables};
use crate::support::plan_words::{agent_id, pin_on, snapshot};
use moorline::{
    model::{
        chat::{ChatState, Reference, RefreshPolicy},
        condition::Verdicts,
        push::Phase,
        target::{Candidate, Latest, Target, resolve},
    },
    plan::{
        ChatFacts, DirtyChange, PinChange, RefreshChange,
        conditions::{ChatAfter, Health, of_chat},
        plan,
    },
};
use std::{collections::HashMap, sync::Mutex};

/// Who converges a chat (`store::converge::Lane`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    Due,
    Fanout,
}

/// All that the outcome depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Look {
    chat: Chat,
    agents: [Option<Agent>; 2],
    lane: Lane,
}

/// What becomes of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pin {
    Keep,
    Move(Snap),
    Clear,
}

/// What is to be written to a chat: `store::converge::Class`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) pin: Pin,
    pub(crate) dirty: Option<bool>,
    pub(crate) handled: bool,
    pub(crate) says: u8,
    pub(crate) event: bool,
    /// `Class::is_something`.
    pub(crate) something: bool,
}

/// The outcomes that are known, and the conditions that have been said, by number.
#[derive(Default)]
pub(crate) struct Decider {
    known: Mutex<(HashMap<Look, Outcome>, Vec<Verdicts>)>,
}

impl Decider {
    /// `Decider::class` of `reconcile::decide`, of a chat and its target as one statement saw them.
    pub(crate) fn decide(&self, chat: &Chat, seen: &Tables, lane: Lane) -> Outcome {
        // Columns that it does not see must not make a look another one.
        let column = |chat: &Chat| Chat {
            asked: u8::from(chat.asked != chat.handled),
            handled: 0,
            spec_unseen: chat.spec_unseen && lane == Lane::Due,
            event_seq: 0,
            revision: 0,
            converged: 0,
            rv: 0,
            ..*chat
        };
        let agent = |agent: &Agent| Agent { epoch: 0, seq: 0, revision: 0, converged: 0, lap: None, ..*agent };
        let look = Look { chat: column(chat), agents: seen.agents.map(|row| row.as_ref().map(agent)), lane };
        let mut known = self.known.lock().unwrap();
        if let Some(outcome) = known.0.get(&look) {
            return *outcome;
        }
        let outcome = class(&look, &mut known.1);
        known.0.insert(look, outcome);
        outcome
    }

    /// What a chat is called in which state of which conditions, for whoever reads a trace.
    pub(crate) fn target(chat: &Chat, seen: &Tables) -> Target {
        resolve(&reference(chat), &candidates(&seen.agents))
    }
}

fn class(look: &Look, said: &mut Vec<Verdicts>) -> Outcome {
    if said.is_empty() {
        said.push(Verdicts::new()); // number 0: the conditions of a new chat
    }
    let facts = facts(&look.chat);
    let before = look.chat.pin.map(|snap| pin_on(snap.agent, snap.context));
    let target = resolve(&reference(&look.chat), &candidates(&look.agents));
    let action = plan(facts, before, target);
    let change = action.change();
    let (after, pin) = action.apply(facts, before, target);
    let health = Health { degraded: 0, resources: 1, error: "" };
    let name = match look.chat.names {
        Names::Nothing => String::new(),
        Names::Agent(name) => format!("agent {name}"),
        Names::Workspace => "workspace ws".into(),
    };
    let verdicts = of_chat(&ChatAfter {
        facts: after,
        pin: pin.map(|pin| (pin, health)),
        target,
        target_name: &name,
        target_phase: target_phase(target, &look.agents),
        before: &said[usize::from(look.chat.said)],
    });
    let says = said.iter().position(|known| *known == verdicts).unwrap_or_else(|| {
        said.push(verdicts);
        said.len() - 1
    });
    let says = u8::try_from(says).expect("a chat says few different things");
    let handled = change.refresh == RefreshChange::Handled && facts.refresh_pending;
    let event = change.told(says != look.chat.said || handled || look.chat.spec_unseen).is_some();
    let pin = match change.pin {
        PinChange::Keep => Pin::Keep,
        PinChange::Clear => Pin::Clear,
        PinChange::Move(to, _) => Pin::Move(snap_of(to)),
    };
    let dirty = match change.dirty {
        DirtyChange::Keep => None,
        DirtyChange::Begin => Some(true),
        DirtyChange::End => Some(false),
    };
    let something = pin != Pin::Keep || dirty.is_some() || handled || says != look.chat.said || event;
    Outcome { pin, dirty, handled, says, event, something }
}

fn facts(chat: &Chat) -> ChatFacts {
    ChatFacts {
        archived: chat.archived,
        suspended: false,
        state: if chat.terminal { ChatState::Completed } else { ChatState::Running },
        policy: if chat.on_drift { RefreshPolicy::OnDrift } else { RefreshPolicy::Manual },
        refresh_pending: chat.asked != 0 && chat.asked != chat.handled,
        dirty: chat.dirty,
    }
}

fn reference(chat: &Chat) -> Reference {
    match chat.names {
        Names::Nothing => Reference::Unbound,
        Names::Agent(name) => Reference::Agent(name.to_string()),
        Names::Workspace => Reference::Workspace("ws".into()),
    }
}

/// The agents; the one with the later uid has the higher build, as a rebuilt workspace's has.
fn candidates(agents: &[Option<Agent>]) -> Vec<Candidate> {
    let there = agents.iter().enumerate().filter_map(|(name, agent)| Some((name, agent.as_ref()?)));
    let candidate = |(name, agent): (usize, &Agent)| Candidate {
        id: agent_id(agent.id),
        name: name.to_string(),
        workspace: agent.in_workspace.then(|| "ws".into()),
        build: Some(agent.id.into()),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        deleting: agent.deleting,
        latest: agent.latest.map(|snap| snapshot(snap.agent, snap.context)),
    };
    there.map(candidate).collect()
}

fn target_phase(target: Target, agents: &[Option<Agent>]) -> Option<Phase> {
    let Target::Agent { id, .. } = target else { return None };
    let agent = agents.iter().flatten().find(|agent| agent_id(agent.id) == id)?;
    match agent.phase {
        Progress::NoRun => None,
        Progress::Pending => Some(Phase::Pending),
        Progress::Complete => Some(Phase::Complete),
    }
}

/// Back from the product's types, by the form that `support::plan_words` gives them.
pub(crate) fn snap_of(latest: Latest) -> Snap {
    let context = latest.hash.as_bytes()[0];
    let agent = (latest.snapshot.0 - i64::from(context)) / 1_000;
    Snap { agent: AgentId::try_from(agent).expect("uids are small"), context }
}
