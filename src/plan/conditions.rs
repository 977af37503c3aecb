//! What the conditions of a record should say, given what it is after its action. Pure.

use super::ChatFacts;
use crate::model::{
    condition::{ConditionType, Truth, Verdict, Verdicts, reason},
    push::Phase,
    target::{Pin, Target},
};

/// What conditions know of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health<'a> {
    /// How many of its resources are not `Ok`.
    pub degraded: i32,
    /// How many it has.
    pub resources: i32,
    /// What the agent said was wrong with its scan.
    pub error: &'a str,
}

/// A chat as it is after its action.
#[derive(Clone, Copy, Debug)]
pub struct ChatAfter<'a> {
    /// Its facts.
    pub facts: ChatFacts,
    /// Its pin.
    pub pin: Option<(Pin, Health<'a>)>,
    /// What it names.
    pub target: Target,
    /// The name it names it by; empty when it names none.
    pub target_name: &'a str,
    /// How far the target's run has got; none before its first.
    pub target_phase: Option<Phase>,
    /// What the conditions say now.
    pub before: &'a Verdicts,
}

/// What the conditions of a chat should say.
///
/// A frozen chat (archived, suspended, or terminal) keeps what was said of its drift, as it keeps the marker itself; only that
/// its agent is back at its very pin is said, once. Not of an archived one: what is said of it does not depend on its agent at all,
/// so no agent's news need to be told to it.
pub fn of_chat(chat: &ChatAfter<'_>) -> Verdicts {
    let mut verdicts = Verdicts::from([(ConditionType::Ready, ready(chat))]);
    if let Some((pin, health)) = chat.pin {
        verdicts.insert(ConditionType::Drifted, drifted(chat, pin));
        verdicts.insert(ConditionType::ResourcesDegraded, degraded(health));
    }
    verdicts
}

fn ready(chat: &ChatAfter<'_>) -> Verdict {
    let is = |reason, message: &str| Verdict::new(Truth::True, reason, message);
    let ChatFacts { archived, suspended, state, policy: _, refresh_pending: _, dirty } = chat.facts;
    if archived {
        return is(reason::ARCHIVED, "archived: it keeps the context it has");
    }
    if suspended {
        return is(reason::SUSPENDED, "suspended or paused: it keeps the context it has");
    }
    let pinned = || {
        if dirty {
            is(reason::PINNED_STALE, "pinned; its agent has moved on: refresh to follow")
        } else {
            is(reason::PINNED, "pinned")
        }
    };
    match (chat.target, chat.pin) {
        (Target::Unbound, _) => is(reason::UNBOUND, "names no agent and no workspace"),
        (_, Some(_)) if !state.is_active() => pinned(),
        (_, None) if !state.is_active() => is(reason::TERMINAL, "ended before it was pinned"),
        (Target::Missing, _) => {
            let message = format!("no agent for {}: create it, or name another", chat.target_name);
            Verdict::new(Truth::False, reason::AGENT_NOT_FOUND, message)
        }
        (Target::Agent { latest: None, .. }, _) => {
            let message = match chat.target_phase {
                None => format!("{} has not reported yet", chat.target_name),
                Some(Phase::Pending | Phase::Complete) => format!("{} has not reported everything yet", chat.target_name),
            };
            Verdict::new(Truth::Unknown, reason::WAITING_FOR_SNAPSHOT, message)
        }
        (Target::Agent { latest: Some(_), .. }, Some(_)) => pinned(),
        (Target::Agent { latest: Some(_), .. }, None) => {
            unreachable!("an active chat whose target has a latest snapshot is hydrated by its action")
        }
    }
}

fn drifted(chat: &ChatAfter<'_>, pin: Pin) -> Verdict {
    let before = chat.before.get(&ConditionType::Drifted);
    let own_latest = match chat.target {
        Target::Agent { id, latest } if id == pin.agent && !chat.facts.archived => latest,
        Target::Agent { .. } | Target::Unbound | Target::Missing => None,
    };
    let frozen = chat.facts.archived || chat.facts.suspended || !chat.facts.state.is_active();
    // The message names no resource: what changed is told by the event and by a GET of the chat, so that a chat that is dirty
    // already is not written again by every further push.
    match (chat.facts.dirty, own_latest) {
        (true, _) => {
            Verdict::new(Truth::True, reason::CONTENT_CHANGED, "its agent's latest snapshot is another one than its pin")
        }
        (false, Some(latest)) if latest.hash == pin.hash => Verdict::new(Truth::False, reason::UP_TO_DATE, ""),
        (false, Some(_) | None) if frozen => before
            .filter(|before| before.status != Truth::True)
            .cloned()
            .unwrap_or_else(|| Verdict::new(Truth::Unknown, reason::NO_SNAPSHOT, "not compared while it is frozen")),
        (false, Some(_) | None) => Verdict::new(Truth::Unknown, reason::NO_SNAPSHOT, "there is no snapshot to compare with"),
    }
}

fn degraded(health: Health<'_>) -> Verdict {
    let Health { degraded, resources, error } = health;
    if degraded > 0 {
        let mut message = format!("{degraded} of {resources} resources could not be used");
        if !error.is_empty() {
            message.push_str("; the agent says: ");
            message.push_str(error);
        }
        Verdict::new(Truth::True, reason::RESOURCES_EXCLUDED, message)
    } else if error.is_empty() {
        Verdict::new(Truth::False, reason::ALL_OK, "")
    } else {
        Verdict::new(Truth::True, reason::SCAN_FAILED, error)
    }
}

/// An agent as its conditions see it.
#[derive(Clone, Copy, Debug)]
pub struct AgentAfter<'a> {
    /// Its deletion was asked for.
    pub deleting: bool,
    /// It is suspended or paused.
    pub suspended: bool,
    /// How far its run has got; none before its first.
    pub phase: Option<Phase>,
    /// What it points at.
    pub latest: Option<Health<'a>>,
}

/// What the conditions of an agent should say.
pub fn of_agent(agent: &AgentAfter<'_>) -> Verdicts {
    let ready = match (agent.deleting, agent.suspended, agent.latest, agent.phase) {
        (true, _, _, _) => {
            Verdict::new(Truth::False, reason::DELETING, "being deleted: its chats are let go and keep their pins")
        }
        (false, true, _, _) => Verdict::new(Truth::True, reason::SUSPENDED, "suspended: pushes are refused"),
        (false, false, Some(_), _) => Verdict::new(Truth::True, reason::REPORTING, "has reported a complete context"),
        (false, false, None, None) => Verdict::new(Truth::Unknown, reason::NEVER_REPORTED, "has not reported yet"),
        (false, false, None, Some(Phase::Pending | Phase::Complete)) => {
            Verdict::new(Truth::Unknown, reason::NEVER_REPORTED, "has not reported everything yet")
        }
    };
    let mut verdicts = Verdicts::from([(ConditionType::Ready, ready)]);
    if agent.deleting {
        let letting_go = Verdict::new(Truth::True, reason::PROGRESSING, "its chats are being let go");
        verdicts.insert(ConditionType::Reconciling, letting_go);
    }
    if let Some(health) = agent.latest {
        verdicts.insert(ConditionType::ResourcesDegraded, degraded(health));
    }
    verdicts
}
