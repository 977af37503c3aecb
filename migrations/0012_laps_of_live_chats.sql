-- What an agent's lap reads: the chats that its news can concern. Archived ones are frozen, and coming back they are due by themselves:
-- an agent that has a million of them and a hundred live ones has a lap of a hundred. In the place of two indexes that held them
-- all, so that a converge writes to no more indexes than before; a program before this one finds its chats by chats_agent_name
-- and chats_workspace_name meanwhile.

CREATE INDEX chats_agent_live ON chats (namespace, agent, id) WHERE agent IS NOT NULL AND NOT archived AND NOT inherited_archived;
COMMENT ON INDEX chats_agent_live IS 'The chats that a lap of an agent tells, in its order: those that name the agent.';
CREATE INDEX chats_workspace_live ON chats (namespace, workspace, id)
    WHERE workspace IS NOT NULL AND NOT archived AND NOT inherited_archived;
COMMENT ON INDEX chats_workspace_live IS 'The chats that a lap of an agent tells, in its order: those that name its workspace, or one it has left.';

DROP INDEX chats_agent;
DROP INDEX chats_workspace;
