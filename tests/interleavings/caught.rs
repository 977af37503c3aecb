//! The product's rules, broken one by one: each must be caught by the property that is named for it. What is left here after a rule
//! has been broken is what the rule is for.

use super::{
    clients::{Ask, Push, push},
    config::{Config, Defect, Role},
    invariants,
    model::Interleavings,
    rows::{A, B, HALF, Names},
    worlds::{bound, push_of, repeated, workspace},
};
use stateright::{Checker as _, HasDiscoveries, Model as _};

/// Explores until the property fails. The way there is the shortest.
fn caught(defect: Defect, config: Config, property: &'static str) {
    let found = HasDiscoveries::AllOf([property].into());
    let explored = Interleavings::new(config.broken(defect)).checker().finish_when(found).spawn_bfs().join();
    let path = explored.discovery(property).unwrap_or_else(|| panic!("{defect:?} is not caught by {property:?}"));
    println!("interleavings: {defect:?}: caught by {property:?} after {} steps", path.into_actions().len());
}

#[test]
fn writing_what_was_decided_before_a_wait_for_locks() {
    // A change whose version is later than the lap's is kept out by the guard, re-read or not; this one began before the lap.
    let world = bound().client([push(2, B)]).client([Ask::Archive(0, true)]).two_loops();
    caught(Defect::NoReread, world, invariants::FROZEN);
}

#[test]
fn deciding_a_clients_write_from_what_was_read_before_its_lock() {
    let world = bound().client([Ask::Archive(0, true)]).client([Ask::Report(0, true)]).role(Role::Loop);
    caught(Defect::ReadBeforeLock, world.client([push(2, B)]), invariants::ONE_EVENT);
    let runs = bound().client([push(2, B)]).client([Ask::Register(0)]);
    caught(Defect::ReadBeforeLock, runs, invariants::PUSHES_ARE_FENCED);
}

#[test]
fn taking_a_repeated_push_by_what_was_there_before_it_waited() {
    let world = bound().client([repeated(2, A)]).client([push(3, B)]);
    caught(Defect::RepeatFromBefore, world, invariants::PUSHES_ARE_FENCED);
}

#[test]
fn removing_an_agent_whose_deletion_came_in_the_middle_of_a_lap() {
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).page(1).client([push(2, B), Ask::DeleteAgent(0)]);
    caught(Defect::NoRevisionCheck, world.role(Role::Loop), invariants::CONVERGES);
}

#[test]
fn marking_the_newest_revision_as_converged() {
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).page(1).client([push(2, B), push(3, A)]).role(Role::Loop);
    caught(Defect::ConvergedTooEarly, world, invariants::DIRTY_IS_THE_LEVEL);
}

#[test]
fn passing_over_chats_that_are_due_and_look_fine() {
    let world = bound().client([push(2, B), push(3, A)]).client([Ask::Report(0, true), Ask::Report(0, false)]).two_loops();
    caught(Defect::DueIgnored, world, invariants::DIRTY_IS_THE_LEVEL);
}

#[test]
fn converging_an_agent_that_nobody_followed_by_what_it_was_before_another_push() {
    let world = Config::new().agent(0, A).client([push(2, B), push(3, A)]).client([Ask::CreateChat(0, Names::Agent(0))]);
    caught(Defect::QuietWithoutRevision, world.two_loops(), invariants::DIRTY_IS_THE_LEVEL);
}

#[test]
fn converging_an_agent_without_a_look_for_who_follows_it() {
    caught(Defect::QuietIsGuessed, bound().client([push(2, B)]).role(Role::Loop), invariants::DIRTY_IS_THE_LEVEL);
}

#[test]
fn running_laps_of_two_agents_over_one_workspace_at_once() {
    let world = workspace().client([push_of(0, 2, B)]).client([push_of(1, 2, B), push_of(1, 3, A)]).two_loops();
    caught(Defect::NotAlone, world, invariants::CONVERGES);
}

#[test]
fn taking_chats_that_were_skipped_for_told() {
    let world = bound().client([push(2, B)]).client([Ask::Refresh(0, 1)]).two_loops();
    caught(Defect::SkippedIsDone, world.client([Ask::Rebind(0, Names::Agent(0))]), invariants::CONVERGES);
}

#[test]
fn acknowledging_a_refresh_before_it_is_done() {
    let world = bound().client([push(2, B)]).client([Ask::Refresh(0, 1)]).role(Role::Loop).crashes(1);
    caught(Defect::TokenBeforeRefresh, world, invariants::TOKENS);
}

#[test]
fn telling_the_lanes_before_the_commit() {
    let world = bound().client([push(2, B)]).role(Role::ChatsLane).role(Role::AgentsLane).hints_only();
    caught(Defect::HintBeforeCommit, world, invariants::CONVERGES);
}

#[test]
fn forgetting_what_others_held() {
    let world = bound().client([push(2, B)]).client([Ask::Refresh(0, 1)]).role(Role::ChatsLane).role(Role::AgentsLane);
    caught(Defect::HeldIsForgotten, world.hints_only(), invariants::CONVERGES);
}

#[test]
fn writing_versions_without_their_guard() {
    let world = || bound().client([push(2, B)]).client([Ask::Archive(0, true)]).role(Role::Loop).reader();
    caught(Defect::NoGuard, world(), invariants::VERSIONS_RISE);
}

#[test]
fn fetching_the_horizon_after_the_rows() {
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).client([Ask::Archive(0, true)]).client([Ask::Archive(1, true)]);
    caught(Defect::HorizonAfterRows, world.reader(), invariants::READER_MISSES_NOTHING);
}

#[test]
fn reading_the_log_without_a_horizon() {
    let world = bound().chat(1, Names::Agent(0), Some((0, A))).client([Ask::Archive(0, true)]).client([Ask::Archive(1, true)]);
    caught(Defect::NoHorizon, world.reader(), invariants::READER_MISSES_NOTHING);
}

#[test]
fn forgetting_the_event_of_a_converge() {
    caught(Defect::EventForgotten, bound().client([push(2, B)]).role(Role::Loop), invariants::ONE_EVENT);
}

#[test]
fn pruning_snapshots_without_the_agents_lock() {
    let world = bound().client([push(2, B), push(3, A), push(4, B)]).client([Ask::Prune(0)]);
    caught(Defect::PruneWithoutAgent, world, invariants::PINS_LAST);
}

#[test]
fn taking_a_half_finished_report_for_a_snapshot() {
    let world = Config::new().agent(0, A).chat(0, Names::Agent(0), None).client([
        Ask::Register(0),
        Ask::Push(Push { agent: 0, run: 2, seq: 1, context: HALF }),
        Ask::Refresh(0, 1),
    ]);
    caught(Defect::HalfIsWhole, world.role(Role::Loop), invariants::NOTHING_HALF);
}
