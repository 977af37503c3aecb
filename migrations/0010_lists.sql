-- What lists by selector and by time of change read, so that a page of them costs the page.

CREATE INDEX chats_agent_name ON chats (agent, namespace, name) WHERE agent IS NOT NULL;
COMMENT ON INDEX chats_agent_name IS 'Lists with fieldSelector spec.agentRef.name, of one namespace and of all.';
CREATE INDEX chats_workspace_name ON chats (workspace, namespace, name) WHERE workspace IS NOT NULL;
COMMENT ON INDEX chats_workspace_name IS 'Lists with fieldSelector spec.workspaceRef.name, of one namespace and of all.';

-- updated_at never changes when a chat converges: what these cost is paid by what a person or a runner does.
CREATE INDEX chats_updated ON chats (updated_at, id);
COMMENT ON INDEX chats_updated IS 'Lists by orderBy=-updated: everything.';
CREATE INDEX chats_namespace_updated ON chats (namespace, updated_at, id);
COMMENT ON INDEX chats_namespace_updated IS 'Lists by orderBy=-updated: of one namespace.';
CREATE INDEX chats_owner_updated ON chats (owner, updated_at, id);
COMMENT ON INDEX chats_owner_updated IS 'Lists by orderBy=-updated: of one owner, which is what a person asks for.';

CREATE INDEX agents_service_account ON agents (service_account, namespace, name) WHERE service_account IS NOT NULL;
COMMENT ON INDEX agents_service_account IS 'Lists of agents, and of their snapshots, for a user who may push as few of them.';
