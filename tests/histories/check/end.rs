//! The last state in itself: what DESIGN §2 promises of it, once everything has converged.

use super::Findings;
use crate::histories::{
    contents,
    history::Target,
    log::Event,
    state::{Chat, State},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Looks at every row.
pub fn check(stories: &HashMap<Uuid, Vec<&Event>>, state: &State, findings: &mut Findings) {
    for snapshot in state.snapshots.values() {
        let who = format!("snapshot {}/{}", snapshot.namespace, snapshot.name);
        findings.unless(snapshot.hash == snapshot.computed, "a snapshot is what its hash says", || {
            format!("{who}: shows {}, and its resources have {}", snapshot.hash, snapshot.computed)
        });
        findings.unless(snapshot.lacks.is_empty(), "a snapshot is what its hash says", || {
            format!("{who}: the bodies of {:?} are not what its manifest names", snapshot.lacks)
        });
        let of = Target { namespace: snapshot.namespace.clone(), name: snapshot.agent_name.clone() };
        findings.unless(contents::is_of(&of, &snapshot.hash), "a pin is a context of its agent", || {
            format!("{who}: agent {of} never reported {}", snapshot.hash)
        });
    }
    for chat in state.chats.values() {
        let last = stories.get(&chat.id).and_then(|story| story.last()).map_or("none".to_owned(), ToString::to_string);
        let who = format!("chat {}/{} ({}), last event {last}", chat.namespace, chat.name, chat.id);
        findings.unless(!chat.due && chat.attempts == 0, "it converges", || {
            format!("{who}: is due, after {} failures", chat.attempts)
        });
        findings.unless(chat.snapshot.is_none() || state.pinned(chat).is_some(), "a pin is a snapshot", || {
            format!("{who}: is pinned to {:?}, which is not there", chat.snapshot)
        });
        let above = chat.parent.and_then(|parent| state.chats.get(&parent));
        let inherits = above.is_some_and(|above| above.archived || above.inherited_archived);
        findings.unless(chat.inherited_archived == inherits, "archiving covers the subtree", || {
            format!("{who}: inherited_archived is {}, and its parent says {inherits}", chat.inherited_archived)
        });
        findings.unless(chat.root == above.map_or(chat.id, |above| above.root), "a chat knows its root", || {
            format!("{who}: has the root {}, and its parent {:?}", chat.root, above.map(|above| above.root))
        });
        if chat.is_live() {
            live(&who, chat, state, findings);
        }
    }
    for agent in state.agents.values() {
        let who = format!("agent {}/{} ({})", agent.namespace, agent.name, agent.id);
        findings.unless(!agent.due && agent.attempts == 0, "it converges", || {
            format!("{who}: is due, after {} failures", agent.attempts)
        });
        findings.unless(!agent.deleting, "what is deleted is gone", || format!("{who}: is being deleted still"));
    }
}

/// I3 and I4, of a chat that the loop looks after.
fn live(who: &str, chat: &Chat, state: &State, findings: &mut Findings) {
    let (target, pin) = (state.target(chat), state.pinned(chat));
    let latest = target.and_then(|agent| agent.latest).and_then(|id| state.snapshots.get(&id));
    let own = pin.filter(|pin| target.is_some_and(|agent| agent.id == pin.agent));
    let drifts = own.zip(latest).is_some_and(|(pin, latest)| pin.hash != latest.hash);
    findings.unless(chat.dirty == drifts, "dirty is what DESIGN says", || {
        let hash = |of: Option<&crate::histories::state::Snapshot>| of.map(|snapshot| snapshot.hash.clone());
        format!("{who}: dirty is {}, pinned to {:?}, latest of its target {:?}", chat.dirty, hash(own), hash(latest))
    });
    findings.unless(!chat.dirty || !chat.follows, "whoever follows has the latest", || format!("{who}: follows, and is dirty"));
    if let Some(agent) = target.filter(|_| latest.is_some()) {
        findings.unless(own.is_some(), "a live chat is pinned to its target", || {
            format!("{who}: names agent {}, which has a snapshot, and is pinned to {:?}", agent.name, pin.map(|pin| &pin.name))
        });
        findings.unless(chat.refresh_requested == chat.refresh_handled, "a refresh that can be done is done", || {
            format!("{who}: asks for {:?}, and has handled {:?}", chat.refresh_requested, chat.refresh_handled)
        });
    }
}
