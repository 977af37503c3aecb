-- What happened to one object, and what happened by one agent: read by the page, whatever the length of the log.

CREATE INDEX events_name ON events (namespace, name, rv, seq);
CREATE INDEX events_agent ON events (namespace, agent_id, rv, seq) WHERE agent_id IS NOT NULL;
COMMENT ON INDEX events_name IS 'The story of one object: kubectl describe, contextevents?chat=.';
COMMENT ON INDEX events_agent IS 'What concerned one agent: contextevents?agent=.';
