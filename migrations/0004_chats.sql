-- Chats: what each asked for, what its runner reports, and the snapshot it is moored to.

CREATE TABLE chats (
    namespace           text        NOT NULL,
    id                  uuid        NOT NULL,
    name                text        NOT NULL,
    labels              jsonb       NOT NULL DEFAULT '{}',
    annotations         jsonb       NOT NULL DEFAULT '{}',
    generation          bigint      NOT NULL DEFAULT 1,
    rv                  bigint      NOT NULL,
    owner               text        NOT NULL,
    title               text        NOT NULL DEFAULT '',
    agent               text,
    workspace           text,
    refresh_policy      text        NOT NULL DEFAULT 'Manual',
    suspend             boolean     NOT NULL DEFAULT false,
    archived            boolean     NOT NULL DEFAULT false,
    inherited_archived  boolean     NOT NULL DEFAULT false,
    refresh_requested   text,
    reconcile_requested text,
    paused              boolean     NOT NULL DEFAULT false,
    parent_id           uuid,
    root_id             uuid        NOT NULL,
    deletion_policy     text        NOT NULL DEFAULT 'Delete',
    source              text        NOT NULL DEFAULT 'api',
    created_by          text        NOT NULL,
    created_at          timestamptz NOT NULL,
    updated_at          timestamptz NOT NULL,
    state               text        NOT NULL DEFAULT 'Waiting',
    last_error          text        NOT NULL DEFAULT '',
    snapshot_id         bigint,
    pin_cause           text,
    pinned_at           timestamptz,
    dirty_since         timestamptz,
    refresh_handled     text,
    reconcile_handled   text,
    event_seq           bigint      NOT NULL DEFAULT 0,
    conditions          jsonb       NOT NULL DEFAULT '{}',
    revision            bigint      NOT NULL DEFAULT 1,
    converged_revision  bigint      NOT NULL DEFAULT 0,
    observed_generation bigint      NOT NULL DEFAULT 0,
    attempts            integer     NOT NULL DEFAULT 0,
    retry_at            timestamptz,
    CONSTRAINT chats_pkey PRIMARY KEY (namespace, id),
    CONSTRAINT chats_name_key UNIQUE (namespace, name),
    CONSTRAINT chats_snapshot_fkey FOREIGN KEY (namespace, snapshot_id) REFERENCES snapshots (namespace, id),
    CONSTRAINT chats_parent_fkey FOREIGN KEY (namespace, parent_id) REFERENCES chats (namespace, id),
    CONSTRAINT chats_one_reference CHECK (agent IS NULL OR workspace IS NULL),
    CONSTRAINT chats_pin_whole CHECK ((snapshot_id IS NULL) = (pin_cause IS NULL) AND (snapshot_id IS NULL) = (pinned_at IS NULL)),
    CONSTRAINT chats_dirty_needs_pin CHECK (dirty_since IS NULL OR snapshot_id IS NOT NULL),
    CONSTRAINT chats_converged_not_ahead CHECK (converged_revision <= revision),
    CONSTRAINT chats_refresh_policy_known CHECK (refresh_policy IN ('Manual', 'OnDrift')),
    CONSTRAINT chats_deletion_policy_known CHECK (deletion_policy IN ('Delete', 'Retain')),
    CONSTRAINT chats_source_known CHECK (source IN ('api', 'manifest')),
    CONSTRAINT chats_pin_cause_known CHECK (pin_cause IN ('Hydrated', 'Refreshed', 'AutoRefreshed', 'Rebound', 'Inherited')),
    CONSTRAINT chats_state_known CHECK (state IN ('Waiting', 'Running', 'Paused', 'Pending', 'RequiresAction', 'Completed', 'Error'))
) WITH (fillfactor = 80);

CREATE INDEX chats_due ON chats (namespace, id) WHERE converged_revision < revision;
CREATE INDEX chats_agent ON chats (namespace, agent, id) WHERE agent IS NOT NULL;
CREATE INDEX chats_workspace ON chats (namespace, workspace, id) WHERE workspace IS NOT NULL;
CREATE INDEX chats_parent ON chats (namespace, parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX chats_owner ON chats (owner, namespace, name);
CREATE INDEX chats_snapshot ON chats (namespace, snapshot_id) WHERE snapshot_id IS NOT NULL;

COMMENT ON TABLE chats IS 'Conversations. Desired columns: the API. Reported columns: whoever runs the chat. Observed and converge columns: the loop (but for the pin that a child is created with).';
COMMENT ON INDEX chats_due IS 'The queue of chats: exactly the records that are due.';
COMMENT ON COLUMN chats.namespace IS 'Identity: the tenant and the shard.';
COMMENT ON COLUMN chats.id IS 'Identity: metadata.uid, a time-ordered UUID.';
COMMENT ON COLUMN chats.name IS 'Identity: metadata.name, a DNS subdomain.';
COMMENT ON COLUMN chats.labels IS 'Desired: metadata.labels.';
COMMENT ON COLUMN chats.annotations IS 'Desired: metadata.annotations.';
COMMENT ON COLUMN chats.generation IS 'Counts changes of spec.';
COMMENT ON COLUMN chats.rv IS 'Version of what the object shows: epoch << 44 | xid of the transaction that last changed it.';
COMMENT ON COLUMN chats.owner IS 'Desired: whose chat it is. Immutable.';
COMMENT ON COLUMN chats.title IS 'Desired: for people.';
COMMENT ON COLUMN chats.agent IS 'Desired: the agent it names. At most one of agent and workspace.';
COMMENT ON COLUMN chats.workspace IS 'Desired: the workspace it names, whose current agent is the target.';
COMMENT ON COLUMN chats.refresh_policy IS 'Desired: Manual, or OnDrift: move by itself as soon as it drifts.';
COMMENT ON COLUMN chats.suspend IS 'Desired: leave it alone.';
COMMENT ON COLUMN chats.archived IS 'Desired: its own wish to be archived.';
COMMENT ON COLUMN chats.inherited_archived IS 'Desired: an ancestor is archived.';
COMMENT ON COLUMN chats.refresh_requested IS 'Desired: the last token that asked for a refresh.';
COMMENT ON COLUMN chats.reconcile_requested IS 'Desired: the last token that asked to look again.';
COMMENT ON COLUMN chats.paused IS 'Desired: the paused annotation.';
COMMENT ON COLUMN chats.parent_id IS 'Desired: the chat it branched off. Immutable but for orphaning.';
COMMENT ON COLUMN chats.root_id IS 'Desired: the first chat of the tree; its own id when it has no parent.';
COMMENT ON COLUMN chats.deletion_policy IS 'Desired: what deleting a manifest does to the record.';
COMMENT ON COLUMN chats.source IS 'Desired: who owns the spec, the API or a manifest.';
COMMENT ON COLUMN chats.created_by IS 'The user who created it.';
COMMENT ON COLUMN chats.created_at IS 'metadata.creationTimestamp.';
COMMENT ON COLUMN chats.updated_at IS 'When a person or a runner last changed it. Converging never touches it.';
COMMENT ON COLUMN chats.state IS 'Reported: by whoever runs the chat. Completed and Error are terminal, the others active.';
COMMENT ON COLUMN chats.last_error IS 'Reported: why the state is Error. Cleared by leaving it.';
COMMENT ON COLUMN chats.snapshot_id IS 'Observed: the pin. The bound agent of a pinned chat is this snapshot''s agent; there is no second column.';
COMMENT ON COLUMN chats.pin_cause IS 'Observed: why the pin is where it is.';
COMMENT ON COLUMN chats.pinned_at IS 'Observed: since when.';
COMMENT ON COLUMN chats.dirty_since IS 'Observed: the start of the current drift episode; none when clean or unpinned.';
COMMENT ON COLUMN chats.refresh_handled IS 'Observed: echo of the refresh token that was last handled.';
COMMENT ON COLUMN chats.reconcile_handled IS 'Observed: echo of the reconcile token that was last handled.';
COMMENT ON COLUMN chats.event_seq IS 'Observed: counts this chat''s events.';
COMMENT ON COLUMN chats.conditions IS 'Observed: status.conditions by type, and "<type>@" for the time of its last transition.';
COMMENT ON COLUMN chats.revision IS 'Converge: counts changes of inputs. The loop chases it.';
COMMENT ON COLUMN chats.converged_revision IS 'Converge: the revision the loop has seen. Due while behind.';
COMMENT ON COLUMN chats.observed_generation IS 'Converge: the generation that the conditions speak of.';
COMMENT ON COLUMN chats.attempts IS 'Converge: failures in a row.';
COMMENT ON COLUMN chats.retry_at IS 'Converge: not before then.';
