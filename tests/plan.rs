//! The decision, case by case: every rule of DESIGN.md §4's table, and every edge that has a name.
//!
//! What is not here: all combinations (`plan_all`) and sequences of them (`plan_walk`).

use crate::support::plan_words::{A, B, Case, chat, of, pin_on, snapshot};
use moorline::{
    model::{
        chat::{PinCause, Reference},
        event::EventKind,
        target::{Candidate, Target, resolve},
    },
    plan::{Action, DirtyChange, PinChange, RefreshChange, RepinCause, UnpinCause, plan},
};
use uuid::Uuid;

const UNBOUND: Target = Target::Unbound;
const MISSING: Target = Target::Missing;

fn refreshed(agent: u8, hash: u8) -> Action {
    Action::Repin(snapshot(agent, hash), RepinCause::Refreshed)
}

fn rebound(agent: u8, hash: u8) -> Action {
    Action::Repin(snapshot(agent, hash), RepinCause::Rebound)
}

fn auto(agent: u8, hash: u8) -> Action {
    Action::Repin(snapshot(agent, hash), RepinCause::AutoRefreshed)
}

fn hydrate(agent: u8, hash: u8) -> Action {
    Action::Hydrate(snapshot(agent, hash))
}

/// Plans every case and says all that are wrong, not the first.
fn check(cases: &[(&str, Case, Target, Action)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(name, case, target, expected)| {
            let got = plan(case.facts, case.pin, *target);
            (got != *expected).then(|| format!("{name}: expected {expected:?}, got {got:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rule_1_a_frozen_chat_is_left_alone_and_an_archived_one_acknowledges_its_token() {
    check(&[
        ("archived, nothing else", chat().archived(), of(1, A), Action::Keep),
        ("archived and unpinned is not hydrated", chat().archived(), of(1, A), Action::Keep),
        ("archived and behind is not dirtied", chat().archived().pinned(1, A), of(1, B), Action::Keep),
        ("archived and dirty is not cleaned", chat().archived().pinned(1, A).dirty(), of(1, A), Action::Keep),
        ("archived and elsewhere is not rebound", chat().archived().pinned(1, A), of(2, B), Action::Keep),
        ("archived does not follow its policy", chat().archived().on_drift().pinned(1, A), of(1, B), Action::Keep),
        ("archived and asked to refresh", chat().archived().refresh().pinned(1, A), of(1, B), Action::Acknowledge),
        ("archived, asked, and its agent gone", chat().archived().refresh().pinned(1, A), MISSING, Action::Acknowledge),
        ("archived, asked, and its agent new", chat().archived().refresh().pinned(1, A), of(1, None), Action::Acknowledge),
        ("archived, asked and unbound keeps its pin", chat().archived().refresh().pinned(1, A), UNBOUND, Action::Acknowledge),
        ("archived, asked and terminal", chat().archived().refresh().terminal(), of(1, A), Action::Acknowledge),
        ("archived and suspended, asked", chat().archived().suspended().refresh(), of(1, A), Action::Acknowledge),
        ("suspended and unpinned is not hydrated", chat().suspended(), of(1, A), Action::Keep),
        ("suspended and behind is not dirtied", chat().suspended().pinned(1, A), of(1, B), Action::Keep),
        ("suspended and dirty is not cleaned", chat().suspended().pinned(1, A).dirty(), of(1, A), Action::Keep),
        ("suspended and elsewhere is not rebound", chat().suspended().pinned(1, A), of(2, B), Action::Keep),
        ("suspended does not follow its policy", chat().suspended().on_drift().pinned(1, A), of(1, B), Action::Keep),
        ("suspended and asked: the token waits", chat().suspended().refresh().pinned(1, A), of(1, B), Action::Keep),
        ("suspended, asked and unbound: the token waits", chat().suspended().refresh().pinned(1, A), UNBOUND, Action::Keep),
    ]);
}

#[test]
fn rule_2_a_pin_of_another_agent_is_rebound_once_the_target_has_something_to_put_in_its_place() {
    check(&[
        ("another agent with another context", chat().pinned(1, A), of(2, B), rebound(2, B)),
        ("equal hashes of two agents are still a rebind", chat().pinned(1, A), of(2, A), rebound(2, A)),
        ("a dirty chat is rebound, not cleaned", chat().pinned(1, A).dirty(), of(2, A), rebound(2, A)),
        ("the policy has no say", chat().on_drift().pinned(1, A), of(2, B), rebound(2, B)),
        ("refresh and rebind at once is one rebind", chat().refresh().pinned(1, A), of(2, B), rebound(2, B)),
        ("refresh and rebind at once with equal hashes", chat().refresh().pinned(1, A), of(2, A), rebound(2, A)),
        ("terminal is not rebound by itself", chat().terminal().pinned(1, A), of(2, B), Action::Keep),
        ("terminal is rebound when asked", chat().terminal().refresh().pinned(1, A), of(2, B), rebound(2, B)),
        ("a rebuilt workspace's agent without a snapshot", chat().pinned(1, A), of(2, None), Action::Keep),
        ("… with a refresh: it stays pending", chat().refresh().pinned(1, A), of(2, None), Action::Keep),
        ("… and a dirty chat: the drift has nothing to be from", chat().pinned(1, A).dirty(), of(2, None), Action::MarkClean),
    ]);
}

#[test]
fn rule_3_a_refresh_takes_the_latest_or_clears_or_is_acknowledged_or_waits() {
    check(&[
        ("onto another snapshot", chat().refresh().pinned(1, A), of(1, B), refreshed(1, B)),
        ("onto the same snapshot", chat().refresh().pinned(1, A), of(1, A), refreshed(1, A)),
        ("while dirty", chat().refresh().pinned(1, A).dirty(), of(1, B), refreshed(1, B)),
        ("while dirty, back at its pin", chat().refresh().pinned(1, A).dirty(), of(1, A), refreshed(1, A)),
        ("while unpinned", chat().refresh(), of(1, A), refreshed(1, A)),
        ("while terminal", chat().refresh().terminal().pinned(1, A), of(1, B), refreshed(1, B)),
        ("while terminal and unpinned", chat().refresh().terminal(), of(1, A), refreshed(1, A)),
        ("comes before the policy", chat().refresh().on_drift().pinned(1, A), of(1, B), refreshed(1, B)),
        ("unbound and pinned", chat().refresh().pinned(1, A), UNBOUND, Action::Unpin(UnpinCause::Cleared)),
        ("unbound, pinned and dirty", chat().refresh().pinned(1, A).dirty(), UNBOUND, Action::Unpin(UnpinCause::Cleared)),
        ("unbound, pinned, terminal", chat().refresh().terminal().pinned(1, A), UNBOUND, Action::Unpin(UnpinCause::Cleared)),
        ("unbound and unpinned", chat().refresh(), UNBOUND, Action::Acknowledge),
        ("missing agent, pinned: it stays pending", chat().refresh().pinned(1, A), MISSING, Action::Keep),
        ("missing agent, unpinned: it stays pending", chat().refresh(), MISSING, Action::Keep),
        (
            "missing agent, dirty: pending, and the table goes on",
            chat().refresh().pinned(1, A).dirty(),
            MISSING,
            Action::MarkClean,
        ),
        ("agent without snapshot, unpinned: it stays pending", chat().refresh(), of(1, None), Action::Keep),
        ("agent without snapshot, pinned: it stays pending", chat().refresh().pinned(1, A), of(1, None), Action::Keep),
    ]);
}

#[test]
fn rule_4_an_active_chat_without_a_pin_is_hydrated_as_soon_as_there_is_a_snapshot() {
    check(&[
        ("no pin, latest", chat(), of(1, A), hydrate(1, A)),
        ("whatever the policy", chat().on_drift(), of(1, A), hydrate(1, A)),
        ("no agent", chat(), UNBOUND, Action::Keep),
        ("missing agent", chat(), MISSING, Action::Keep),
        ("agent without snapshot", chat(), of(1, None), Action::Keep),
        ("terminal", chat().terminal(), of(1, A), Action::Keep),
    ]);
}

#[test]
fn rule_4_every_active_state_hydrates_and_no_terminal_one_does() {
    use moorline::model::chat::ChatState::{Completed, Error, Paused, Pending, RequiresAction, Running, Waiting};
    for state in [Waiting, Running, Paused, Pending, RequiresAction] {
        check(&[("active", chat().state(state), of(1, A), hydrate(1, A))]);
    }
    for state in [Completed, Error] {
        check(&[("terminal", chat().state(state), of(1, A), Action::Keep)]);
    }
}

#[test]
fn rule_5_a_drift_that_is_gone_is_marked_clean() {
    check(&[
        ("A→B→A", chat().pinned(1, A).dirty(), of(1, A), Action::MarkClean),
        ("A→B→A under OnDrift", chat().on_drift().pinned(1, A).dirty(), of(1, A), Action::MarkClean),
        ("A→B→A of a terminal chat", chat().terminal().pinned(1, A).dirty(), of(1, A), Action::MarkClean),
        ("the target is gone", chat().pinned(1, A).dirty(), MISSING, Action::MarkClean),
        ("the target is gone from a terminal chat", chat().terminal().pinned(1, A).dirty(), MISSING, Action::MarkClean),
        ("the chat names no agent any more", chat().pinned(1, A).dirty(), UNBOUND, Action::MarkClean),
        ("the agent has no snapshot", chat().pinned(1, A).dirty(), of(1, None), Action::MarkClean),
        ("terminal and still behind stays dirty", chat().terminal().pinned(1, A).dirty(), of(1, B), Action::Keep),
        ("terminal and another agent's stays dirty", chat().terminal().pinned(1, A).dirty(), of(2, A), Action::Keep),
    ]);
}

#[test]
fn rules_6_and_7_drift_moves_the_pin_or_marks_the_chat_as_its_policy_says() {
    check(&[
        ("6: OnDrift", chat().on_drift().pinned(1, A), of(1, B), auto(1, B)),
        ("6: OnDrift set while dirty", chat().on_drift().pinned(1, A).dirty(), of(1, B), auto(1, B)),
        ("6: OnDrift of a terminal chat", chat().on_drift().terminal().pinned(1, A), of(1, B), Action::Keep),
        ("6: OnDrift of a terminal, dirty chat", chat().on_drift().terminal().pinned(1, A).dirty(), of(1, B), Action::Keep),
        ("7: Manual", chat().pinned(1, A), of(1, B), Action::MarkDirty),
        ("7: Manual, dirty already", chat().pinned(1, A).dirty(), of(1, B), Action::Keep),
        ("7: Manual, terminal", chat().terminal().pinned(1, A), of(1, B), Action::Keep),
    ]);
}

#[test]
fn rule_8_everything_else_is_kept() {
    check(&[
        ("pinned and up to date", chat().pinned(1, A), of(1, A), Action::Keep),
        ("pinned and up to date under OnDrift", chat().on_drift().pinned(1, A), of(1, A), Action::Keep),
        ("unbound and unpinned", chat(), UNBOUND, Action::Keep),
        ("unbound keeps its pin", chat().pinned(1, A), UNBOUND, Action::Keep),
        ("missing keeps its pin", chat().pinned(1, A), MISSING, Action::Keep),
        ("missing and OnDrift keeps its pin", chat().on_drift().pinned(1, A), MISSING, Action::Keep),
        ("own agent without snapshot keeps the pin", chat().pinned(1, A), of(1, None), Action::Keep),
        ("terminal, unpinned", chat().terminal(), MISSING, Action::Keep),
    ]);
}

#[test]
fn a_report_that_is_only_pending_pins_nothing_until_it_is_complete() {
    // I9: a Pending report never becomes a latest, so an agent that has made no other has none.
    check(&[
        ("pending only", chat(), of(1, None), Action::Keep),
        ("pending only, pinned elsewhere", chat().pinned(2, A), of(1, None), Action::Keep),
        ("a new run is pending: the old latest still hydrates", chat(), of(1, A), hydrate(1, A)),
        ("a new run is pending: the old latest still drifts", chat().pinned(1, B), of(1, A), Action::MarkDirty),
    ]);
}

#[test]
fn a_child_begins_where_its_parent_is() {
    // Inherited: the parent's reference and pin. Naming another agent: neither.
    check(&[
        ("with its parent's pin, up to date", chat().pinned(1, A), of(1, A), Action::Keep),
        ("with its parent's pin, the agent ahead", chat().pinned(1, A), of(1, B), Action::MarkDirty),
        ("with its parent's pin and OnDrift, the agent ahead", chat().on_drift().pinned(1, A), of(1, B), auto(1, B)),
        ("with its parent's pin, the agent gone", chat().pinned(1, A), MISSING, Action::Keep),
        ("with its parent's pin, the workspace rebuilt", chat().pinned(1, A), of(2, A), rebound(2, A)),
        ("of an unpinned parent", chat(), of(1, A), hydrate(1, A)),
        ("that names another agent", chat(), of(2, B), hydrate(2, B)),
        ("below an archived parent", chat().archived().pinned(1, A), of(1, B), Action::Keep),
    ]);
}

#[test]
fn a_drift_episode_from_start_to_end() {
    let target = |hash| of(1, hash);
    let first = plan(chat().facts, None, target(A));
    assert_eq!(first, hydrate(1, A));
    let (facts, pin) = first.apply(chat().facts, None, target(A));
    assert_eq!((facts, pin), (chat().facts, Some(pin_on(1, A))));
    let drift = plan(facts, pin, target(B));
    assert_eq!(drift, Action::MarkDirty);
    let (facts, pin) = drift.apply(facts, pin, target(B));
    assert_eq!((facts, pin), (chat().dirty().facts, Some(pin_on(1, A))), "the chat did not change under its user's feet");
    let back = plan(facts, pin, target(A));
    assert_eq!(back, Action::MarkClean);
    assert_eq!(back.apply(facts, pin, target(A)), (chat().facts, Some(pin_on(1, A))));
}

#[test]
fn a_transition_is_told_as_such_and_what_is_shown_besides_as_an_update() {
    let (drifted, acknowledged) = (Action::MarkDirty.change(), Action::Acknowledge.change());
    assert_eq!(drifted.told(false), Some(EventKind::ContextDrifted));
    assert_eq!(drifted.told(true), Some(EventKind::ContextDrifted), "one event, not two");
    assert_eq!(acknowledged.told(true), Some(EventKind::ChatUpdated));
    assert_eq!(acknowledged.told(false), None, "nothing that it shows has changed");
}

#[test]
fn one_action_is_one_event_and_says_what_it_does_to_the_record() {
    use PinChange::{Clear, Keep, Move};
    let to = snapshot(1, A);
    let cases = [
        (Action::Hydrate(to), Move(to, PinCause::Hydrated), None, RefreshChange::Keep, Some(EventKind::ContextHydrated)),
        (
            refreshed(1, A),
            Move(to, PinCause::Refreshed),
            Some(DirtyChange::End),
            RefreshChange::Handled,
            Some(EventKind::ContextRefreshed),
        ),
        (
            auto(1, A),
            Move(to, PinCause::AutoRefreshed),
            Some(DirtyChange::End),
            RefreshChange::Handled,
            Some(EventKind::ContextRefreshed),
        ),
        (
            rebound(1, A),
            Move(to, PinCause::Rebound),
            Some(DirtyChange::End),
            RefreshChange::Handled,
            Some(EventKind::AgentRebound),
        ),
        (
            Action::Unpin(UnpinCause::Cleared),
            Clear,
            Some(DirtyChange::End),
            RefreshChange::Handled,
            Some(EventKind::ContextCleared),
        ),
        (Action::MarkDirty, Keep, Some(DirtyChange::Begin), RefreshChange::Keep, Some(EventKind::ContextDrifted)),
        (Action::MarkClean, Keep, Some(DirtyChange::End), RefreshChange::Keep, Some(EventKind::ContextConverged)),
        (Action::Acknowledge, Keep, Some(DirtyChange::Keep), RefreshChange::Handled, None),
        (Action::Keep, Keep, Some(DirtyChange::Keep), RefreshChange::Keep, None),
    ];
    for (action, pin, dirty, refresh, event) in cases {
        let change = action.change();
        assert_eq!((change.pin, change.refresh, change.event), (pin, refresh, event), "{action:?}");
        // Without a pin there is no marker, so what Hydrate does to it is nobody's business, as long as it begins none.
        match dirty {
            Some(dirty) => assert_eq!(change.dirty, dirty, "{action:?}"),
            None => assert_ne!(change.dirty, DirtyChange::Begin, "{action:?}"),
        }
    }
}

fn candidate(n: u8, build: Option<i64>, created: i64) -> Candidate {
    Candidate {
        id: Uuid::from_u128(n.into()),
        name: format!("agent-{n}"),
        workspace: Some("ws".into()),
        build,
        created_at: jiff::Timestamp::from_second(created).unwrap(),
        deleting: false,
        latest: Some(snapshot(n, A)),
    }
}

#[test]
fn the_target_is_the_agent_that_is_named_or_the_current_one_of_its_workspace() {
    let by_name = |n| Reference::Agent(format!("agent-{n}"));
    let workspace = Reference::Workspace("ws".into());
    let deleting = |agent: Candidate| Candidate { deleting: true, ..agent };
    let elsewhere = |agent: Candidate| Candidate { workspace: Some("other".into()), ..agent };
    let nowhere = |agent: Candidate| Candidate { workspace: None, ..agent };
    let cases = [
        ("names nothing", Reference::Unbound, vec![candidate(1, Some(1), 1)], UNBOUND),
        ("nobody there", by_name(1), vec![], MISSING),
        ("nobody of that name", by_name(1), vec![candidate(2, Some(9), 1)], MISSING),
        ("by name, not the current one", by_name(1), vec![candidate(1, None, 2), candidate(2, Some(9), 1)], of(1, A)),
        ("by name, whatever its workspace", by_name(1), vec![nowhere(candidate(1, None, 1))], of(1, A)),
        ("by name, being deleted", by_name(1), vec![deleting(candidate(1, Some(1), 1)), candidate(2, Some(2), 2)], MISSING),
        (
            "an empty workspace",
            workspace.clone(),
            vec![elsewhere(candidate(1, Some(1), 1)), nowhere(candidate(2, None, 2))],
            MISSING,
        ),
        ("the highest build", workspace.clone(), vec![candidate(1, Some(7), 1), candidate(2, Some(8), 2)], of(2, A)),
        ("numbers, not texts", workspace.clone(), vec![candidate(1, Some(10), 1), candidate(2, Some(9), 2)], of(1, A)),
        ("no build counts lowest", workspace.clone(), vec![candidate(1, None, 1), candidate(2, Some(0), 2)], of(2, A)),
        ("ties: the oldest", workspace.clone(), vec![candidate(1, Some(7), 5), candidate(2, Some(7), 4)], of(2, A)),
        ("ties without builds: the oldest", workspace.clone(), vec![candidate(1, None, 4), candidate(2, None, 5)], of(1, A)),
        (
            "another workspace's build",
            workspace.clone(),
            vec![candidate(1, Some(1), 1), elsewhere(candidate(2, Some(9), 2))],
            of(1, A),
        ),
        ("all being deleted", workspace, vec![deleting(candidate(1, Some(1), 1))], MISSING),
    ];
    for (name, reference, mut agents, expected) in cases {
        assert_eq!(resolve(&reference, &agents), expected, "{name}");
        agents.reverse();
        assert_eq!(resolve(&reference, &agents), expected, "{name}, found in the other order");
    }
}

#[test]
fn the_rules_have_the_numbers_of_the_table() {
    let numbers: Vec<u8> = moorline::plan::Rule::ALL.iter().map(|rule| rule.number()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
}
