-- How an object ended, by its uid: whoever reads old events asks it of each whose object is gone, to learn whose it was and what it looked
-- like at last. Events of these kinds are few. Without it the question read all events of the object's name, or of the agent.

CREATE INDEX events_deletion ON events (namespace, subject) WHERE kind IN ('ChatDeleted', 'AgentDeleted');
COMMENT ON INDEX events_deletion IS 'The event of an object''s deletion, by its uid.';
