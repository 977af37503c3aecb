-- Manifests of a cluster: what was last taken over of each, so that only what a manifest says is touched, and once.

ALTER TABLE chats ADD COLUMN manifest jsonb;
ALTER TABLE agents ADD COLUMN manifest jsonb;
COMMENT ON COLUMN chats.manifest IS 'Desired: what was last taken over of the manifest that this chat was made from: its uid, resourceVersion, generation, labels, annotations, and whether it names an agent or a workspace. With source api: that manifest is gone, and one of the same name takes the chat up again.';
COMMENT ON COLUMN agents.manifest IS 'Desired: what was last taken over of the manifest that this agent was made from, as chats.manifest. With source api: that manifest is gone, and one of the same name takes the agent up again.';
