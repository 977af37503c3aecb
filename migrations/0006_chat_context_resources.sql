-- A chat's pinned resources as rows, for people with psql. Nothing is copied: it reads through the pin.

CREATE VIEW chat_context_resources AS
SELECT c.namespace,
       c.id AS chat_id,
       c.name AS chat,
       s.agent_id,
       s.name AS snapshot,
       r.ordinal,
       r.item ->> 'kind' AS kind,
       r.item ->> 'source' AS source,
       r.item ->> 'sourcePath' AS source_path,
       r.item ->> 'contentHash' AS content_hash,
       (r.item ->> 'sizeBytes')::bigint AS size_bytes,
       r.item ->> 'status' AS status,
       r.item ->> 'error' AS error,
       b.bytes AS body
FROM chats c
JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
CROSS JOIN LATERAL jsonb_array_elements(s.manifest) WITH ORDINALITY AS r (item, ordinal)
LEFT JOIN blobs b ON b.namespace = s.namespace AND b.agent_id = s.agent_id
                 AND b.hash = decode(substr(r.item ->> 'contentHash', 8), 'hex');

COMMENT ON VIEW chat_context_resources IS 'A chat''s pinned resources as rows.';
COMMENT ON COLUMN chat_context_resources.namespace IS 'Of the chat.';
COMMENT ON COLUMN chat_context_resources.chat_id IS 'The chat''s uid.';
COMMENT ON COLUMN chat_context_resources.chat IS 'The chat''s name.';
COMMENT ON COLUMN chat_context_resources.agent_id IS 'The bound agent''s uid.';
COMMENT ON COLUMN chat_context_resources.snapshot IS 'Name of the snapshot it is pinned to.';
COMMENT ON COLUMN chat_context_resources.ordinal IS 'Place in (kind, source) order, from 1.';
COMMENT ON COLUMN chat_context_resources.kind IS 'Kind of resource.';
COMMENT ON COLUMN chat_context_resources.source IS 'Identity within the kind.';
COMMENT ON COLUMN chat_context_resources.source_path IS 'Where it was found.';
COMMENT ON COLUMN chat_context_resources.content_hash IS 'sha256 of the content, none without content.';
COMMENT ON COLUMN chat_context_resources.size_bytes IS 'Size of the content in bytes.';
COMMENT ON COLUMN chat_context_resources.status IS 'How the agent fared with it.';
COMMENT ON COLUMN chat_context_resources.error IS 'Why, when not Ok.';
COMMENT ON COLUMN chat_context_resources.body IS 'The content; none when it is not carried.';
