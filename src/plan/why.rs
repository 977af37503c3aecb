//! Which rule of the decision made a chat what it is, in a sentence. Pure.
//!
//! What it does: [`why`] asks [`explain`] what it would do now, with what the loop reads. While that is something, that is the
//! answer. A chat that has settled is kept as it is by the last rule, which explains nothing; then the answer is the rule that
//! made what the chat shows: a marker is always made by rule 7, and a pin says by its cause which rule moved it. What it does
//! not: it reads no history, so a drift episode that is over is not told; `moorline events` tells it.

use super::{Action, ChatFacts, Decision, RepinCause, Rule, UnpinCause, explain};
use crate::model::{
    chat::{PinCause, RefreshPolicy},
    target::{Pin, Target},
    word::word_enum,
};
use jiff::Timestamp;

/// A pin, with the names and times that the decision does not look at.
#[derive(Clone, Copy, Debug)]
pub struct SeenPin<'a> {
    /// The pin.
    pub pin: Pin,
    /// The name of its agent.
    pub agent: &'a str,
    /// Why it is there.
    pub cause: PinCause,
    /// Since when.
    pub at: Timestamp,
}

/// A chat as the loop reads it, with names.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The chat's name.
    pub name: &'a str,
    /// What the decision knows of it.
    pub facts: ChatFacts,
    /// Whether it is an ancestor that is archived, and not the chat itself.
    pub inherited_archived: bool,
    /// Its pin.
    pub pin: Option<SeenPin<'a>>,
    /// What it names now.
    pub target: Target,
    /// The name of that agent.
    pub target_agent: Option<&'a str>,
    /// What the chat says: `agent ws-42`, `workspace ws`; none when it names nothing.
    pub reference: Option<&'a str>,
    /// Start of the drift episode.
    pub dirty_since: Option<Timestamp>,
}

word_enum! {
    /// What a person can do about it.
    Remedy {
        /// Refresh the chat.
        Refresh,
        /// Unarchive it, or the ancestor that is archived.
        Unarchive,
        /// Resume it: `spec.suspend`, or the annotation that pauses it.
        Resume,
        /// Create the agent that it names, or name another.
        CreateAgent,
        /// Have the agent report a complete context.
        Report,
        /// Name an agent or a workspace.
        NameAgent,
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The rule that made the chat what it is, or that is about to change it.
    pub rule: Rule,
    /// What the rule did, or is about to do.
    pub action: &'static str,
    /// What the loop would do now, when that is not to keep the chat as it is.
    pub next: Option<Decision>,
    /// All of it in a sentence.
    pub message: String,
    /// What a person can do.
    pub remedy: Option<Remedy>,
}

/// The name of an action, as it is told.
pub const fn action_name(action: Action) -> &'static str {
    match action {
        Action::Keep => "Keep",
        Action::Acknowledge => "Acknowledge",
        Action::Hydrate(_) => "Hydrate",
        Action::Repin(_, RepinCause::Rebound) => "Repin(Rebound)",
        Action::Repin(_, RepinCause::Refreshed) => "Repin(Refreshed)",
        Action::Repin(_, RepinCause::AutoRefreshed) => "Repin(AutoRefreshed)",
        Action::Unpin(UnpinCause::Cleared) => "Unpin(Cleared)",
        Action::MarkDirty => "MarkDirty",
        Action::MarkClean => "MarkClean",
    }
}

/// Explains a chat.
pub fn why(seen: &Seen<'_>) -> Why {
    let now = explain(seen.facts, seen.pin.map(|seen| seen.pin), seen.target);
    if now.action != Action::Keep {
        return about_to(seen, now);
    }
    let mut why = if now.rule == Rule::Frozen { frozen(seen) } else { settled(seen) };
    if seen.facts.refresh_pending {
        why.message.push_str("; a refresh was asked for and waits until that changes");
    }
    why
}

/// The loop has not come by yet.
fn about_to(seen: &Seen<'_>, now: Decision) -> Why {
    let Seen { name, .. } = seen;
    let (what, because) = match now.rule {
        Rule::Frozen => ("about to have its refresh acknowledged", "it is archived, so there is nothing to refresh".into()),
        Rule::AnotherAgent => ("about to be rebound", format!("{}, and it names {}", pinned(seen), target(seen))),
        Rule::RefreshPending => match now.action {
            Action::Unpin(_) => ("about to lose its pin", "a refresh was asked for, and it names no agent".into()),
            Action::Acknowledge => ("about to have its refresh acknowledged", "it names no agent and has no pin".into()),
            Action::Keep | Action::Hydrate(_) | Action::Repin(..) | Action::MarkDirty | Action::MarkClean => {
                ("about to be refreshed", format!("a refresh was asked for, and it names {}", target(seen)))
            }
        },
        Rule::NotPinned => ("about to be hydrated", format!("it has no pin, and names {}", target(seen))),
        Rule::NoLongerDrifted => ("about to be clean", format!("marked dirty, but {}", comparison(seen))),
        Rule::FollowsDrift => {
            ("about to follow its agent", format!("{}; refreshPolicy OnDrift, so it moves by itself", comparison(seen)))
        }
        Rule::Drifted => ("about to be dirty", comparison(seen)),
        Rule::NothingToDo => ("about to be kept", String::new()),
    };
    let action = action_name(now.action);
    Why {
        rule: now.rule,
        action,
        next: Some(now),
        message: format!("{name} is {what}: rule {} ({action}): {because}", now.rule.number()),
        remedy: None,
    }
}

/// Rule 1 keeps it.
fn frozen(seen: &Seen<'_>) -> Why {
    let (what, because, remedy) = match (seen.facts.archived, seen.inherited_archived) {
        (true, false) => ("archived", "it", Remedy::Unarchive),
        (true, true) => ("archived with an ancestor", "it", Remedy::Unarchive),
        (false, _) => ("suspended or paused", "until it is resumed it", Remedy::Resume),
    };
    let kept = match (seen.facts.dirty, seen.pin.is_some()) {
        (true, _) => format!("keeps the context it has, and stays dirty: {}", comparison(seen)),
        (false, true) => format!("keeps the context it has: {}", pinned(seen)),
        (false, false) => "stays without a context".into(),
    };
    let message = format!("{} is {what}: rule 1 (Keep): {because} {kept}", seen.name);
    Why { rule: Rule::Frozen, action: "Keep", next: None, message, remedy: Some(remedy) }
}

/// Rule 8 keeps it: tell what made it so.
fn settled(seen: &Seen<'_>) -> Why {
    let Seen { name, facts, .. } = seen;
    let answer = |rule: Rule, action: &'static str, what: &str, because: String, remedy| Why {
        rule,
        action,
        next: None,
        message: format!("{name} is {what}: rule {} ({action}): {because}", rule.number()),
        remedy,
    };
    let ended =
        if facts.state.is_active() { String::new() } else { format!("; its state is {}, so it stays as it is", facts.state) };
    if facts.dirty {
        let waits = match (facts.state.is_active(), facts.policy) {
            (true, RefreshPolicy::Manual | RefreshPolicy::OnDrift) => {
                format!("; refreshPolicy {}, so it waits for a refresh", facts.policy)
            }
            (false, _) => ended,
        };
        let because = format!("{}{waits}", comparison(seen));
        return answer(Rule::Drifted, "MarkDirty", "dirty", because, Some(Remedy::Refresh));
    }
    let Some(pin) = &seen.pin else {
        let (what, because, remedy) = match (seen.target, seen.reference) {
            (Target::Unbound, _) => ("unbound", "it names no agent and no workspace".to_owned(), Some(Remedy::NameAgent)),
            _ if !facts.state.is_active() => ("without a context", format!("it was never pinned{ended}"), Some(Remedy::Refresh)),
            (Target::Missing, _) => ("waiting for its agent", missing(seen), Some(Remedy::CreateAgent)),
            (Target::Agent { .. }, _) => ("waiting for a snapshot", format!("it names {}", target(seen)), Some(Remedy::Report)),
        };
        return answer(Rule::NothingToDo, "Keep", what, because, remedy);
    };
    let (rule, action) = match pin.cause {
        PinCause::Hydrated => (Rule::NotPinned, "Hydrate"),
        PinCause::Refreshed => (Rule::RefreshPending, "Repin(Refreshed)"),
        PinCause::AutoRefreshed => (Rule::FollowsDrift, "Repin(AutoRefreshed)"),
        PinCause::Rebound => (Rule::AnotherAgent, "Repin(Rebound)"),
        PinCause::Inherited => (Rule::NothingToDo, "Keep"),
    };
    let mut because = format!("{} {}", pinned(seen), made(pin));
    let mut remedy = None;
    match seen.target {
        Target::Unbound => because.push_str("; it names no agent, so it keeps that"),
        Target::Missing => {
            because = format!("{because}; {}, so it keeps that", missing(seen));
            remedy = Some(Remedy::CreateAgent);
        }
        Target::Agent { id, .. } if id == pin.pin.agent => {
            because = format!("{because}; {}", latest_of_own(seen));
            remedy = differs(seen).then_some(Remedy::Refresh);
        }
        Target::Agent { latest, .. } => {
            because = format!("{because}; it names {}, so it keeps that", target(seen));
            remedy = latest.is_none().then_some(Remedy::Report);
        }
    }
    because.push_str(&ended);
    answer(rule, action, "pinned", because, remedy)
}

fn differs(seen: &Seen<'_>) -> bool {
    seen.pin.zip(seen.target.latest()).is_some_and(|(pin, latest)| pin.pin.hash != latest.hash)
}

fn pinned(seen: &Seen<'_>) -> String {
    match &seen.pin {
        Some(SeenPin { pin, agent, .. }) => format!("pinned {} from {agent}", pin.hash),
        None => "not pinned".into(),
    }
}

fn made(pin: &SeenPin<'_>) -> String {
    let how = match pin.cause {
        PinCause::Hydrated => "as its first context",
        PinCause::Refreshed => "because a refresh was asked for",
        PinCause::AutoRefreshed => "because refreshPolicy is OnDrift",
        PinCause::Rebound => "because it came to name another agent",
        PinCause::Inherited => "with its parent's pin, when it was created",
    };
    format!("{how} at {}", seconds(pin.at))
}

/// To the second, as objects show times.
fn seconds(at: Timestamp) -> String {
    at.round(jiff::Unit::Second).unwrap_or(at).to_string()
}

fn missing(seen: &Seen<'_>) -> String {
    format!("it names {}, which does not exist or is being deleted", seen.reference.unwrap_or("no agent"))
}

/// The target, with what it points at.
fn target(seen: &Seen<'_>) -> String {
    let reference = seen.reference.unwrap_or("no agent");
    let agent = seen.target_agent.unwrap_or_default();
    let named = match reference.strip_prefix("agent ") {
        Some(_) => reference.to_owned(),
        None => format!("{reference}, whose current agent is {agent}"),
    };
    match seen.target {
        Target::Unbound => "no agent".into(),
        Target::Missing => named,
        Target::Agent { latest: Some(latest), .. } => format!("{named}, with latest {}", latest.hash),
        Target::Agent { latest: None, .. } => format!("{named}, which has not reported a complete context yet"),
    }
}

fn latest_of_own(seen: &Seen<'_>) -> String {
    match (seen.target.latest(), differs(seen)) {
        (None, _) => "the agent has no latest snapshot to compare with".into(),
        (Some(_), false) => "that is the agent's latest".into(),
        (Some(latest), true) => format!("the agent's latest is {}", latest.hash),
    }
}

/// The pin beside what the target points at.
fn comparison(seen: &Seen<'_>) -> String {
    let pinned = pinned(seen);
    match (seen.target, seen.pin) {
        (Target::Agent { id, latest }, Some(pin)) if pin.pin.agent == id => match latest {
            Some(latest) => {
                let since = seen.dirty_since.map(|since| format!(" (since {})", seconds(since))).unwrap_or_default();
                format!("{pinned}, whose latest is {}{since}", latest.hash)
            }
            None => format!("{pinned}, which has no latest snapshot"),
        },
        (Target::Agent { .. } | Target::Missing, _) => format!("{pinned}, and it names {}", target(seen)),
        (Target::Unbound, _) => format!("{pinned}, and it names no agent"),
    }
}
