//! The decision: what to do with one chat. Pure, synchronous, total: no I/O, no clock, no randomness (DESIGN.md §4).
//!
//! What it does: [`plan`] is the decision table, first rule that matches; [`explain`] is the same and says which rule it was;
//! [`why`] puts that into a sentence; [`Action::change`] says what an action does to a
//! record and which one event it is. What it does not: it never sees a row, a time or a name. The rows are read by
//! `reconcile`, and executing has no choices left. Everything here is correctness; nothing is speed.

pub mod conditions;
pub mod why;

use crate::model::{
    chat::{ChatState, PinCause, RefreshPolicy},
    event::EventKind,
    target::{Latest, Pin, Target},
};

/// What the decision needs to know of a chat besides its pin and its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "the decision table is written over exactly these independent facts")]
pub struct ChatFacts {
    /// Archived by its own wish or by an ancestor's.
    pub archived: bool,
    /// Suspended, or paused by annotation.
    pub suspended: bool,
    /// What its runner reports.
    pub state: ChatState,
    /// What to do when it drifts.
    pub policy: RefreshPolicy,
    /// A refresh token stands that has not been handled.
    pub refresh_pending: bool,
    /// A drift episode is recorded.
    pub dirty: bool,
}

/// What to do with a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    Keep,
    /// Say that the refresh token was seen; there is nothing to refresh.
    Acknowledge,
    /// First pin.
    Hydrate(Latest),
    /// Move the pin.
    Repin(Latest, RepinCause),
    /// Let the pin go.
    Unpin(UnpinCause),
    /// A drift episode begins.
    MarkDirty,
    /// The drift is gone by itself.
    MarkClean,
}

/// Why a pin moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RepinCause {
    /// The target is another agent than the pin's.
    Rebound,
    /// Somebody asked.
    Refreshed,
    /// The policy asked.
    AutoRefreshed,
}

/// Why a pin goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnpinCause {
    /// A person refreshed a chat that names no agent.
    Cleared,
}

/// A row of the table in DESIGN.md §4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// 1: archived, suspended or paused.
    Frozen,
    /// 2: the target has a snapshot, and is another agent than the pin's.
    AnotherAgent,
    /// 3: somebody asked for a refresh.
    RefreshPending,
    /// 4: no pin yet.
    NotPinned,
    /// 5: marked dirty, and does not differ any more.
    NoLongerDrifted,
    /// 6: differs, and its policy is to follow.
    FollowsDrift,
    /// 7: differs, and is not marked yet.
    Drifted,
    /// 8: otherwise.
    NothingToDo,
}

impl Rule {
    /// Every rule, in the order in which they are tried.
    pub const ALL: [Self; 8] = [
        Self::Frozen,
        Self::AnotherAgent,
        Self::RefreshPending,
        Self::NotPinned,
        Self::NoLongerDrifted,
        Self::FollowsDrift,
        Self::Drifted,
        Self::NothingToDo,
    ];

    /// Its number in the table.
    pub const fn number(self) -> u8 {
        match self {
            Self::Frozen => 1,
            Self::AnotherAgent => 2,
            Self::RefreshPending => 3,
            Self::NotPinned => 4,
            Self::NoLongerDrifted => 5,
            Self::FollowsDrift => 6,
            Self::Drifted => 7,
            Self::NothingToDo => 8,
        }
    }
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// The first rule that matched.
    pub rule: Rule,
    /// What it says to do.
    pub action: Action,
}

/// Decides.
pub fn plan(chat: ChatFacts, pin: Option<Pin>, target: Target) -> Action {
    explain(chat, pin, target).action
}

/// Decides, and says by which rule.
pub fn explain(chat: ChatFacts, pin: Option<Pin>, target: Target) -> Decision {
    let by = |rule, action| Decision { rule, action };
    if chat.archived {
        return by(Rule::Frozen, if chat.refresh_pending { Action::Acknowledge } else { Action::Keep });
    }
    if chat.suspended {
        return by(Rule::Frozen, Action::Keep);
    }
    let active = chat.state.is_active();
    let own_pin = match (pin, target) {
        (Some(pin), Target::Agent { id, .. }) if pin.agent == id => Some(pin),
        (Some(_) | None, Target::Agent { .. } | Target::Unbound | Target::Missing) => None,
    };
    let latest = target.latest();
    if let (Some(latest), Some(_), None) = (latest, pin, own_pin)
        && (active || chat.refresh_pending)
    {
        return by(Rule::AnotherAgent, Action::Repin(latest, RepinCause::Rebound));
    }
    if chat.refresh_pending {
        match (latest, target, pin) {
            (Some(latest), _, _) => return by(Rule::RefreshPending, Action::Repin(latest, RepinCause::Refreshed)),
            (None, Target::Unbound, Some(_)) => return by(Rule::RefreshPending, Action::Unpin(UnpinCause::Cleared)),
            (None, Target::Unbound, None) => return by(Rule::RefreshPending, Action::Acknowledge),
            // It stays pending until there is something to refresh to.
            (None, Target::Missing | Target::Agent { .. }, _) => {}
        }
    }
    if let (None, Some(latest)) = (pin, latest)
        && active
    {
        return by(Rule::NotPinned, Action::Hydrate(latest));
    }
    let drifted = own_pin.zip(latest).filter(|(pin, latest)| pin.hash != latest.hash);
    let up_to_date = own_pin.zip(latest).is_some_and(|(pin, latest)| pin.hash == latest.hash);
    if chat.dirty && (latest.is_none() || up_to_date) {
        return by(Rule::NoLongerDrifted, Action::MarkClean);
    }
    match (drifted, active, chat.policy, chat.dirty) {
        (Some((_, latest)), true, RefreshPolicy::OnDrift, _) => {
            by(Rule::FollowsDrift, Action::Repin(latest, RepinCause::AutoRefreshed))
        }
        (Some(_), true, RefreshPolicy::Manual, false) => by(Rule::Drifted, Action::MarkDirty),
        (Some(_), true, RefreshPolicy::Manual, true) | (Some(_), false, _, _) | (None, _, _, _) => {
            by(Rule::NothingToDo, Action::Keep)
        }
    }
}

/// What an action does to a chat's observed columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Change {
    /// To the pin.
    pub pin: PinChange,
    /// To the drift marker.
    pub dirty: DirtyChange,
    /// To a pending refresh.
    pub refresh: RefreshChange,
    /// The transition it is; none when at most a token was handled.
    pub event: Option<EventKind>,
}

impl Change {
    /// The one event of a converge: the transition; or, when it is none and the chat shows something else anew (conditions, a
    /// handled token, an observed generation), that it was updated. None when nothing that it shows changes.
    pub fn told(self, shown_besides: bool) -> Option<EventKind> {
        self.event.or(shown_besides.then_some(EventKind::ChatUpdated))
    }
}

/// What happens to a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinChange {
    /// Nothing.
    Keep,
    /// It is set, or moved.
    Move(Latest, PinCause),
    /// It goes.
    Clear,
}

/// What happens to a drift marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirtyChange {
    /// Nothing.
    Keep,
    /// An episode begins.
    Begin,
    /// It ends.
    End,
}

/// What happens to a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefreshChange {
    /// If one is pending, it stays so.
    Keep,
    /// If one is pending, it has been handled.
    Handled,
}

impl Action {
    /// What it does to a record.
    pub const fn change(self) -> Change {
        const NOTHING: Change =
            Change { pin: PinChange::Keep, dirty: DirtyChange::Keep, refresh: RefreshChange::Keep, event: None };
        match self {
            Self::Keep => NOTHING,
            Self::Acknowledge => Change { refresh: RefreshChange::Handled, ..NOTHING },
            Self::Hydrate(latest) => {
                Change { pin: PinChange::Move(latest, PinCause::Hydrated), event: Some(EventKind::ContextHydrated), ..NOTHING }
            }
            Self::Repin(latest, cause) => {
                let (cause, event) = match cause {
                    RepinCause::Rebound => (PinCause::Rebound, EventKind::AgentRebound),
                    RepinCause::Refreshed => (PinCause::Refreshed, EventKind::ContextRefreshed),
                    RepinCause::AutoRefreshed => (PinCause::AutoRefreshed, EventKind::ContextRefreshed),
                };
                Change {
                    pin: PinChange::Move(latest, cause),
                    dirty: DirtyChange::End,
                    refresh: RefreshChange::Handled,
                    event: Some(event),
                }
            }
            Self::Unpin(UnpinCause::Cleared) => Change {
                pin: PinChange::Clear,
                dirty: DirtyChange::End,
                refresh: RefreshChange::Handled,
                event: Some(EventKind::ContextCleared),
            },
            Self::MarkDirty => Change { dirty: DirtyChange::Begin, event: Some(EventKind::ContextDrifted), ..NOTHING },
            Self::MarkClean => Change { dirty: DirtyChange::End, event: Some(EventKind::ContextConverged), ..NOTHING },
        }
    }

    /// The chat and its pin as they are once the action is done; `target` is where the new pin comes from.
    pub fn apply(self, mut chat: ChatFacts, pin: Option<Pin>, target: Target) -> (ChatFacts, Option<Pin>) {
        let change = self.change();
        let pin = match (change.pin, target) {
            (PinChange::Keep, _) => pin,
            (PinChange::Move(to, _), Target::Agent { id, .. }) => Some(Pin { snapshot: to.snapshot, agent: id, hash: to.hash }),
            (PinChange::Move(..), Target::Unbound | Target::Missing) => {
                unreachable!("a pin only moves to the latest snapshot of a target that exists")
            }
            (PinChange::Clear, _) => None,
        };
        match change.dirty {
            DirtyChange::Keep => {}
            DirtyChange::Begin => chat.dirty = true,
            DirtyChange::End => chat.dirty = false,
        }
        match change.refresh {
            RefreshChange::Keep => {}
            RefreshChange::Handled => chat.refresh_pending = false,
        }
        (chat, pin)
    }
}
