-- What lists by selector and by time of change read, so that a page of them costs the page. Equality first, then the order of
-- the list, so that the page is one range of the index.

CREATE INDEX chats_agent_name ON chats (agent, namespace, name) WHERE agent IS NOT NULL;
COMMENT ON INDEX chats_agent_name IS 'Lists with fieldSelector spec.agentRef.name, of one namespace and of all.';
CREATE INDEX chats_workspace_name ON chats (workspace, namespace, name) WHERE workspace IS NOT NULL;
COMMENT ON INDEX chats_workspace_name IS 'Lists with fieldSelector spec.workspaceRef.name, of one namespace and of all.';

-- None of these columns changes when a chat converges: what they cost is paid by what a person or a runner does.
CREATE INDEX chats_state_name ON chats (state, namespace, name);
COMMENT ON INDEX chats_state_name IS 'Lists with fieldSelector status.state, of one namespace and of all.';
CREATE INDEX chats_archived_name ON chats (archived, namespace, name);
COMMENT ON INDEX chats_archived_name IS 'Lists with fieldSelector spec.archived, of one namespace and of all: either side may be the rare one.';
CREATE INDEX chats_updated ON chats (updated_at, id);
COMMENT ON INDEX chats_updated IS 'Lists by orderBy=-updated: everything.';
CREATE INDEX chats_namespace_updated ON chats (namespace, updated_at, id);
COMMENT ON INDEX chats_namespace_updated IS 'Lists by orderBy=-updated: of one namespace.';
CREATE INDEX chats_owner_updated ON chats (owner, updated_at, id);
COMMENT ON INDEX chats_owner_updated IS 'Lists by orderBy=-updated: of one owner, which is what a person asks for.';

-- The one that costs the loop: beginning and ending an episode is no HOT update any more (measured: 100,000 chats in batches of
-- 1,000 take 1.3 to 2 times as long). Without it the question that Moorline is asked most, what drifted, reads every chat.
CREATE INDEX chats_dirty_name ON chats (namespace, name) WHERE dirty_since IS NOT NULL;
COMMENT ON INDEX chats_dirty_name IS 'Lists with fieldSelector status.dirty=true, of one namespace and of all.';

CREATE INDEX agents_service_account ON agents (service_account, namespace, name) WHERE service_account IS NOT NULL;
COMMENT ON INDEX agents_service_account IS 'Lists of agents, and of their snapshots, for a user who may push as few of them.';
CREATE INDEX agents_workspace_name ON agents (workspace, namespace, name) WHERE workspace IS NOT NULL;
COMMENT ON INDEX agents_workspace_name IS 'Lists with fieldSelector spec.workspace, of one namespace and of all.';
CREATE INDEX snapshots_agent_name ON snapshots (agent_name, namespace, name);
COMMENT ON INDEX snapshots_agent_name IS 'Lists of snapshots with fieldSelector spec.agentRef.name, or with the label that says the same.';
