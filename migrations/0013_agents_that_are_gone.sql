-- Which agents of a name there were: read when events are asked for by the name of an agent, of all namespaces. Events of this kind
-- are few, so are the entries. Without it that question reads the whole log.

CREATE INDEX events_agent_deleted ON events (name, namespace) WHERE kind = 'AgentDeleted';
COMMENT ON INDEX events_agent_deleted IS 'Events by the name of an agent that is gone.';
