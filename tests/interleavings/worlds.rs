//! The worlds in which nothing may go wrong, explored to the end.
//!
//! Each is a few inputs that meet. In `make test` they meet two loops; `MOORLINE_TEST_MODEL=large` (`make model`) gives each another
//! crash, a reader of the log, a chat or a client more.

use super::{
    clients::{Ask, Push, push},
    config::{Config, Role},
    model::Interleavings,
    rows::{A, B, HALF, Names},
};
use stateright::{Checker as _, Model as _};
use std::time::Instant;

/// Explores everything, and says how much that was. How many states there are.
fn holds(name: &str, config: Config) -> usize {
    let began = Instant::now();
    let explored = Interleavings::new(config).checker().spawn_bfs().join();
    let (states, depth) = (explored.unique_state_count(), explored.max_depth());
    let [waits, races, busy] = explored.model().seen.counts();
    let took = began.elapsed().as_secs_f32();
    println!(
        "interleavings: {name}: {states} states, depth {depth} ({waits} waits, {races} races lost, {busy} busy laps), {took:.1} s"
    );
    if let Some((property, path)) = explored.discoveries().into_iter().next() {
        panic!("{name}: {property}\n{:?}\n{:#?}", path.clone().into_actions(), path.last_state());
    }
    assert!(explored.is_done(), "{name}: not explored to the end");
    states
}

fn large() -> bool {
    std::env::var("MOORLINE_TEST_MODEL").is_ok_and(|size| size == "large")
}

/// In the larger exploration, more takes part.
fn also(config: Config, more: impl FnOnce(Config) -> Config) -> Config {
    if large() { more(config) } else { config }
}

/// A chat that is pinned to what its agent points at.
pub(crate) fn bound() -> Config {
    Config::new().agent(0, A).chat(0, Names::Agent(0), Some((0, A)))
}

/// Two agents of one workspace, of which the second is the current one, and a chat of that workspace, pinned to what that points at.
pub(crate) fn workspace() -> Config {
    Config::new().agent(0, A).in_workspace().agent(1, A).in_workspace().chat(0, Names::Workspace, Some((1, A)))
}

/// A push of the first run of an agent.
pub(crate) fn push_of(agent: u8, seq: u8, context: u8) -> Ask {
    Ask::Push(Push { agent, run: 1, seq, context })
}

/// The same of agent 0, sent as one that may say what the last one said.
pub(crate) fn repeated(seq: u8, context: u8) -> Ask {
    Ask::Repeat(Push { agent: 0, run: 1, seq, context })
}

#[test]
fn a_push_that_says_what_the_last_one_said_is_taken_in_its_turn_or_not_at_all() {
    let world = bound().client([repeated(2, A), repeated(3, B)]).client([push(2, B), push(4, A)]).client([Ask::Refresh(0, 1)]);
    holds("push A, A, B and B, A; refresh", also(world.two_loops(), |world| world.crashes(1)));
    let runs = bound().client([repeated(2, A), repeated(3, A)]).client([Ask::Register(0), Ask::DeleteAgent(0)]);
    holds("push A, A, A; another run, delete the agent; crash", also(runs.two_loops().crashes(1), Config::reader));
}

#[test]
fn a_chat_that_is_created_while_its_agent_pushes_there_and_back_ends_pinned_and_clean() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::CreateChat(1, Names::Agent(0))]).two_loops();
    holds("push A, B, A; create", also(world, |world| world.crashes(1).reader()));
}

#[test]
fn a_chat_that_comes_while_nobody_has_to_be_told_is_told_all_the_same() {
    let nobody = || Config::new().agent(0, A).client([push(2, B), push(3, A)]);
    let world = nobody().client([Ask::CreateChat(0, Names::Agent(0))]).two_loops();
    holds("push A, B, A of nobody; create; crash", also(world.crashes(1), Config::reader));
    let world = bound().agent(1, A).client([push_of(1, 2, B), push_of(1, 3, A)]).client([Ask::Rebind(0, Names::Agent(1))]);
    holds("push A, B, A of nobody; rebind", also(world.two_loops(), |world| world.crashes(1)));
    let world = bound().with(0, |chat| chat.archived = true).client([push(2, B), push(3, A)]).client([Ask::Archive(0, false)]);
    holds("push A, B, A to an archived one; unarchive", also(world.two_loops(), |world| world.crashes(1)));
}

#[test]
fn a_reader_has_every_event_once_and_in_order_and_a_watcher_knows_what_is_there() {
    let world = bound().client([push(2, B)]).client([Ask::Refresh(0, 1)]).two_loops().reader();
    holds("push, refresh, read", also(world, |world| world.crashes(1).client([Ask::CreateChat(1, Names::Agent(0))])));
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).client([push(2, B)]).client([Ask::Archive(1, true)]).reader();
    holds("push to two chats, archive, read", also(world.role(Role::Loop), |world| world.role(Role::Loop)));
}

#[test]
fn a_refresh_is_done_and_then_acknowledged_whatever_crashes() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::Refresh(0, 1), Ask::Refresh(0, 2)]).two_loops();
    holds("push A, B, A; refresh twice; crash", also(world.crashes(1), Config::reader));
}

#[test]
fn a_chat_that_names_another_agent_is_rebound_and_never_pinned_to_what_it_left() {
    let world =
        bound().agent(1, B).client([push(2, B)]).client([Ask::Rebind(0, Names::Agent(1)), Ask::Refresh(0, 1)]).two_loops();
    holds("push; rebind, refresh; crash", also(world.crashes(1), |world| world.client([push_of(1, 2, A)])));
    let world = bound().client([push(2, B), Ask::DeleteAgent(0)]).client([Ask::Rebind(0, Names::Nothing), Ask::Refresh(0, 1)]);
    holds("push, delete the agent; unbind, refresh", also(world.two_loops(), |world| world.crashes(1)));
    let rebound = || bound().agent(1, B).client([push(2, B)]).client([Ask::Rebind(0, Names::Agent(1))]).two_loops().crashes(1);
    let archived = rebound().client([Ask::Archive(0, true), Ask::Archive(0, false)]);
    holds("push; rebind; archive, unarchive; crash", also(archived, Config::reader));
    let ended = rebound().client([Ask::Report(0, true), Ask::Report(0, false)]);
    holds("push; rebind; end, go on; crash", also(ended, Config::reader));
}

#[test]
fn a_chat_that_is_created_while_its_agent_goes_ends_with_what_is_there() {
    let world = bound().client([push(2, B), Ask::DeleteAgent(0)]).client([Ask::CreateChat(1, Names::Agent(0))]).two_loops();
    holds("push, delete the agent; create; crash", also(world.crashes(1), Config::reader));
    let world = bound().agent(1, B).client([push(2, B)]).client([
        Ask::CreateChat(1, Names::Agent(0)),
        Ask::Rebind(1, Names::Agent(1)),
        Ask::Archive(1, true),
    ]);
    holds("push; create, rebind, archive; crash", also(world.two_loops().crashes(1), Config::reader));
}

#[test]
fn archiving_freezes_and_unarchiving_finds_the_level_as_it_is() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::Archive(0, true), Ask::Archive(0, false)]).two_loops();
    holds("push A, B, A; archive, unarchive; crash", also(world.crashes(1), Config::reader));
}

#[test]
fn a_chat_that_ends_and_goes_on_is_told_what_it_missed() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::Report(0, true), Ask::Report(0, false)]).two_loops();
    holds("push A, B, A; end, go on; crash", also(world.crashes(1), Config::reader));
}

#[test]
fn a_policy_that_follows_drift_moves_the_pin_with_every_push() {
    let world = bound().with(0, |chat| chat.on_drift = true).client([push(2, B), push(3, A)]).client([Ask::Archive(0, true)]);
    holds("push A, B, A; OnDrift; archive; crash", also(world.two_loops().crashes(1), Config::reader));
}

#[test]
fn an_agent_is_removed_when_every_chat_knows_and_every_pin_stays() {
    let world = bound().chat(1, Names::Agent(0), Some((0, B))).with(1, |chat| chat.dirty = true).page(1);
    let world = world.client([push(2, B), Ask::DeleteAgent(0)]).two_loops();
    let world = world.client([Ask::Refresh(0, 1)]);
    holds("push, delete the agent; refresh; pages of one chat", also(world, |world| world.crashes(1)));
    let again = bound().client([Ask::DeleteAgent(0), Ask::CreateAgent(0), Ask::Register(0), push_of(0, 1, B)]).two_loops();
    holds("delete the agent, create it again", also(again.crashes(1), |world| world.client([Ask::Refresh(0, 1)])));
}

#[test]
fn a_lap_that_is_overtaken_by_a_push_makes_another() {
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).page(1).client([push(2, B), push(3, A)]).two_loops();
    holds(
        "push A, B, A; two chats, pages of one chat; crash",
        also(world.crashes(1), |world| world.client([Ask::Refresh(1, 1)])),
    );
}

#[test]
fn laps_of_two_agents_of_one_workspace_do_not_undo_each_other() {
    let world = workspace().client([push_of(0, 2, B)]).client([push_of(1, 2, B), push_of(1, 3, A)]).two_loops();
    holds("two agents of a workspace push; crash", also(world.crashes(1), Config::reader));
    let world = workspace().client([Ask::DeleteAgent(1)]).client([push_of(1, 2, B)]).client([Ask::Refresh(0, 1)]).two_loops();
    holds("the current agent of a workspace pushes and is deleted; refresh", also(world, |world| world.crashes(1)));
}

#[test]
fn an_agent_that_leaves_its_workspace_lets_its_chats_go() {
    let world = workspace().chat(1, Names::Workspace, Some((1, A))).page(1).client([push_of(1, 2, B), Ask::Leave(1)]);
    let world = world.client([push_of(0, 2, B)]).two_loops();
    holds("the current agent pushes and leaves its workspace; another pushes", also(world, |world| world.crashes(1)));
}

/// Everything that may happen to a chat, at once: by three clients, each of which does one thing after another.
#[test]
fn all_that_can_happen_to_a_chat_happens_at_once() {
    let reports = [Ask::Archive(0, true), Ask::Archive(0, false), Ask::Report(0, true), Ask::Report(0, false)];
    let world = || bound().client([push(2, B), Ask::DeleteAgent(0)]).two_loops();
    holds("push, delete the agent; refresh; archive, unarchive", world().client([Ask::Refresh(0, 1)]).client(&reports[..2]));
    if large() {
        let asks = [Ask::CreateChat(1, Names::Agent(0)), Ask::Refresh(0, 1), Ask::Rebind(0, Names::Agent(1))];
        for (name, reports) in [("archive, unarchive", &reports[..2]), ("end, go on", &reports[2..])] {
            let world = world().agent(1, B).client(asks).client(reports).crashes(1);
            holds(&format!("push, delete the agent; create, refresh, rebind; {name}; crash"), world);
        }
    }
}

#[test]
fn a_rebuilt_workspace_keeps_its_pin_until_there_is_another() {
    let rebuilt = [Ask::CreateAgent(1), Ask::Register(1), push_of(1, 1, HALF), push_of(1, 2, B)];
    let world = Config::new().agent(0, A).in_workspace().chat(0, Names::Workspace, Some((0, A)));
    let world = world.client(rebuilt).client([push_of(0, 2, B)]).two_loops();
    holds("a new agent in the workspace; push; crash", also(world.crashes(1), Config::reader));
}

#[test]
fn a_superseded_run_changes_nothing() {
    let old = [push(2, B), push(3, A)];
    let new = [Ask::Register(0), Ask::Push(Push { agent: 0, run: 2, seq: 1, context: HALF })];
    let world = bound().client(old).client(new).client([push(3, B)]).two_loops();
    holds("two runs push, two pushes have one number; crash", also(world.crashes(1), Config::reader));
}

#[test]
fn retention_takes_nothing_that_is_pinned_or_pointed_at() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::Prune(0)]).client([Ask::Refresh(0, 1)]);
    holds("push A, B, A; refresh; prune; crash", also(world.two_loops().crashes(1), |world| world.client([Ask::Prune(0)])));
}

#[test]
fn hints_alone_are_enough_while_nothing_crashes() {
    let lanes = |world: Config| world.role(Role::ChatsLane).role(Role::AgentsLane).hints_only();
    let world = lanes(bound().client([push(2, B), push(3, A)]).client([Ask::Refresh(0, 1)]));
    holds("push A, B, A; refresh; no poll", also(world, |world| world.role(Role::ChatsLane)));
    let replicas = lanes(workspace().client([push_of(0, 2, B)]).client([push_of(1, 2, B)]).client([Ask::Refresh(0, 1)]));
    holds("two agents of a workspace push; refresh; two replicas, no poll", replicas.role(Role::AgentsLane));
}

#[test]
fn statements_that_nobody_can_see_change_nothing() {
    let world = || bound().client([push(2, B)]).client([Ask::Refresh(0, 1)]).two_loops().crashes(1);
    let fewer = holds("push, refresh, crash", world());
    let all = holds("push, refresh, crash; every statement a step", world().every_statement());
    assert!(fewer < all, "leaving out what nobody can see leaves out states: {fewer} of {all}");
}
