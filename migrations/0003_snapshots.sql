-- Snapshots: immutable, content-addressed revisions of an agent's pinned-class resources, and the bodies they name.

CREATE TABLE snapshots (
    namespace      text        NOT NULL,
    id             bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    agent_id       uuid        NOT NULL,
    agent_name     text        NOT NULL,
    name           text        NOT NULL,
    revision       bigint      NOT NULL,
    context_hash   bytea       NOT NULL,
    manifest       jsonb       NOT NULL,
    error          text        NOT NULL DEFAULT '',
    resource_count integer     NOT NULL,
    degraded_count integer     NOT NULL,
    size_bytes     bigint      NOT NULL,
    created_at     timestamptz NOT NULL,
    rv             bigint      NOT NULL,
    CONSTRAINT snapshots_pkey PRIMARY KEY (namespace, id),
    CONSTRAINT snapshots_name_key UNIQUE (namespace, name),
    CONSTRAINT snapshots_hash_key UNIQUE (namespace, agent_id, context_hash),
    CONSTRAINT snapshots_revision_key UNIQUE (namespace, agent_id, revision),
    CONSTRAINT snapshots_hash_length CHECK (octet_length(context_hash) = 32),
    CONSTRAINT snapshots_counts_range CHECK (degraded_count BETWEEN 0 AND resource_count AND size_bytes >= 0)
);
COMMENT ON TABLE snapshots IS 'Immutable revisions of an agent''s pinned-class resources. A pin is a foreign key to one row of this table. No foreign key to the agent: a pin outlives it.';
COMMENT ON COLUMN snapshots.namespace IS 'Identity: the tenant and the shard.';
COMMENT ON COLUMN snapshots.id IS 'Identity: what pins refer to.';
COMMENT ON COLUMN snapshots.agent_id IS 'The agent that reported it, which may be gone.';
COMMENT ON COLUMN snapshots.agent_name IS 'That agent''s name.';
COMMENT ON COLUMN snapshots.name IS 'metadata.name: <agent>-<first 12 digits of the hash>, with -2 and so on when that is taken.';
COMMENT ON COLUMN snapshots.revision IS 'Counts the distinct contexts of the agent, from 1.';
COMMENT ON COLUMN snapshots.context_hash IS 'sha256 over the canonical encoding: docs/context-hash.md.';
COMMENT ON COLUMN snapshots.manifest IS 'The resources in (kind, source) order, without bodies.';
COMMENT ON COLUMN snapshots.error IS 'What the agent said was wrong with its scan when this context first appeared.';
COMMENT ON COLUMN snapshots.resource_count IS 'How many resources the manifest lists.';
COMMENT ON COLUMN snapshots.degraded_count IS 'How many of them are not Ok.';
COMMENT ON COLUMN snapshots.size_bytes IS 'Sum of their sizes in bytes.';
COMMENT ON COLUMN snapshots.created_at IS 'When it was first reported.';
COMMENT ON COLUMN snapshots.rv IS 'Version: epoch << 44 | xid of the transaction that made it.';

CREATE TABLE blobs (
    namespace text  NOT NULL,
    agent_id  uuid  NOT NULL,
    hash      bytea NOT NULL,
    bytes     bytea NOT NULL,
    CONSTRAINT blobs_pkey PRIMARY KEY (namespace, agent_id, hash),
    CONSTRAINT blobs_hash_length CHECK (octet_length(hash) = 32)
);
COMMENT ON TABLE blobs IS 'Bodies of pinned-class resources, each kept once per agent. bytea, not text: NUL bytes and invalid UTF-8 occur in real files.';
COMMENT ON COLUMN blobs.namespace IS 'Identity: the tenant and the shard.';
COMMENT ON COLUMN blobs.agent_id IS 'The agent that reported it.';
COMMENT ON COLUMN blobs.hash IS 'sha256 of the bytes.';
COMMENT ON COLUMN blobs.bytes IS 'The content.';

ALTER TABLE agents ADD CONSTRAINT agents_latest_snapshot_fkey
    FOREIGN KEY (namespace, latest_snapshot_id) REFERENCES snapshots (namespace, id);
