//! Which events tell a watcher anything: those of its objects, and those that change what it may see without telling it.

use crate::{
    http::status::Resource,
    model::{
        access::Reach,
        event::EventKind::{
            self, AgentCreated, AgentDeleted, AgentRebound, AgentUpdated, ChatCreated, ChatDeleted, ChatUpdated, ContextCleared,
            ContextConverged, ContextDrifted, ContextHydrated, ContextRefreshed, SnapshotAccepted, SnapshotDeleted,
        },
    },
    store::events::Logged,
};

const CHATS: &[EventKind] = &[
    ChatCreated,
    ChatUpdated,
    ChatDeleted,
    ContextHydrated,
    ContextDrifted,
    ContextConverged,
    ContextRefreshed,
    AgentRebound,
    ContextCleared,
];
const AGENTS: &[EventKind] = &[AgentCreated, AgentUpdated, AgentDeleted];
const SNAPSHOTS: &[EventKind] = &[SnapshotAccepted, SnapshotDeleted];
/// Whose a snapshot is depends on its agent.
const SNAPSHOTS_OF_ONES_OWN: &[EventKind] = &[SnapshotAccepted, SnapshotDeleted, AgentUpdated, AgentDeleted];

/// The kinds of events that a watcher of this much has to read.
pub fn kinds(resource: Resource, reach: &Reach) -> &'static [EventKind] {
    match (resource, reach) {
        (Resource::Chats, _) => CHATS,
        (Resource::Agents, _) => AGENTS,
        (Resource::AgentSnapshots, Reach::Everything) => SNAPSHOTS,
        (Resource::AgentSnapshots, Reach::Own(_) | Reach::OwnChats(_)) => SNAPSHOTS_OF_ONES_OWN,
    }
}

/// Whether an event changes which objects a watcher may see, of which no event of theirs tells: an agent that is handed on, or
/// deleted, takes its snapshots with it. `owner` is whose the agent is now, or was at last. Then the watcher has to list again.
pub fn changes_the_list(resource: Resource, reach: &Reach, event: &Logged, owner: Option<&str>) -> bool {
    if resource != Resource::AgentSnapshots || *reach == Reach::Everything {
        return false;
    }
    let handed_on = || event.payload.pointer("/before/serviceAccount").map(|before| before.as_str());
    (event.kind == AgentDeleted && reach.covers(owner))
        || (event.kind == AgentUpdated && handed_on().is_some_and(|before| reach.covers(before) || reach.covers(owner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_event_tells_the_watchers_of_one_kind_of_object() {
        for kind in EventKind::ALL {
            let resources = [Resource::Chats, Resource::Agents, Resource::AgentSnapshots];
            let told = resources.into_iter().filter(|resource| kinds(*resource, &Reach::Everything).contains(kind));
            assert_eq!(told.count(), 1, "{kind}");
        }
    }
}
