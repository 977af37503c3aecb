//! What happened: the kinds of the event log.

use super::word::word_enum;

word_enum! {
    /// The kind of an event (DESIGN.md §6).
    EventKind {
        /// A chat was created.
        ChatCreated,
        /// What a chat shows changed in a way that no other kind names.
        ChatUpdated,
        /// A chat was deleted.
        ChatDeleted,
        /// A chat got its first pin.
        ContextHydrated,
        /// A chat's agent moved away from its pin.
        ContextDrifted,
        /// The drift is gone by itself.
        ContextConverged,
        /// A chat's pin moved because somebody, or the policy, asked.
        ContextRefreshed,
        /// A chat's pin moved because its target is another agent.
        AgentRebound,
        /// A chat's pin went, because a person refreshed a chat that names no agent.
        ContextCleared,
        /// An agent was created.
        AgentCreated,
        /// What an agent shows changed.
        AgentUpdated,
        /// An agent was deleted, and its chats let go.
        AgentDeleted,
        /// A snapshot was made.
        SnapshotAccepted,
        /// A snapshot was removed by retention.
        SnapshotDeleted,
    }
}
