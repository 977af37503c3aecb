//! Each agent's story: its contexts and its epochs go on from one another, and lead to the last state.

use super::Findings;
use crate::histories::{contents, history::Target, log::Event, state::State};
use moorline::model::event::EventKind;
use std::collections::HashMap;
use uuid::Uuid;

const CHAIN: &str = "an agent's contexts go on from one another";

/// Follows every agent.
pub fn check(stories: &HashMap<Uuid, Vec<&Event>>, state: &State, findings: &mut Findings) {
    let mut known = 0;
    for (id, story) in stories {
        if matches!(story[0].kind, EventKind::AgentCreated | EventKind::AgentUpdated | EventKind::AgentDeleted) {
            follow(*id, story, state, findings);
            known += usize::from(state.agents.contains_key(id));
        }
    }
    findings.unless(known == state.agents.len(), "every change is in the log", || {
        format!("{} agents are there, and the log has events of {known}", state.agents.len())
    });
}

fn follow(id: Uuid, story: &[&Event], state: &State, findings: &mut Findings) {
    let target = Target { namespace: story[0].namespace.to_string(), name: story[0].name.to_string() };
    let who = format!("agent {target} ({id})");
    let (mut latest, mut epoch, mut over) = (None, 0, None);
    for (n, event) in story.iter().enumerate() {
        let first = event.kind == EventKind::AgentCreated;
        findings.unless(first == (n == 0), "an agent begins once, with AgentCreated", || {
            format!("{who}: {event} is number {n} of its events")
        });
        if let Some(over) = over {
            findings.add("nothing comes after a deletion", format!("{who}: {event} comes after {over}"));
        }
        if event.tells_contexts {
            findings.unless(event.from == latest, CHAIN, || {
                format!("{who}: {event} goes from {:?}, and the one before it led to {latest:?}", event.from)
            });
            latest.clone_from(&event.to);
            if let Some(to) = &event.to {
                findings.unless(contents::is_of(&target, to), CHAIN, || {
                    format!("{who}: {event} leads to {to}, which it never reported")
                });
            }
        }
        if let Some(given) = event.epoch {
            findings.unless(given == epoch + 1, "every run gets the next epoch", || {
                format!("{who}: {event} gives epoch {given}, and the one before was {epoch}")
            });
            epoch = given;
        }
        if event.kind == EventKind::AgentDeleted {
            over = Some(*event);
        }
    }
    let last = story[story.len() - 1];
    match (over, state.agents.get(&id)) {
        (Some(_), None) => {}
        (Some(event), Some(_)) => findings.add("what is deleted is gone", format!("{who}: {event}, and it is there still")),
        (None, None) => findings.add("what is gone was deleted", format!("{who}: is gone, and its last event is {last}")),
        (None, Some(agent)) => {
            let shown = agent.latest.and_then(|id| state.snapshots.get(&id)).map(|snapshot| snapshot.hash.as_str());
            findings.unless(shown == latest.as_deref() && agent.latest.is_some() == latest.is_some(), CHAIN, || {
                format!("{who}: points at {shown:?}, and the log leads to {latest:?} by {last}")
            });
            findings.unless(agent.epoch == epoch, "every run gets the next epoch", || {
                format!("{who}: has epoch {}, and the log leads to {epoch}", agent.epoch)
            });
            findings.unless(agent.rv == last.place.0, "an object shows the version of its last event", || {
                format!("{who}: shows {}, and its last event is {last}", agent.rv)
            });
        }
    }
}
