-- Agents: who reports context, what was last reported, and how far the loop has got with telling the chats.

CREATE TABLE agents (
    namespace              text        NOT NULL,
    id                     uuid        NOT NULL,
    name                   text        NOT NULL,
    labels                 jsonb       NOT NULL DEFAULT '{}',
    annotations            jsonb       NOT NULL DEFAULT '{}',
    generation             bigint      NOT NULL DEFAULT 1,
    rv                     bigint      NOT NULL,
    created_at             timestamptz NOT NULL,
    deletion_timestamp     timestamptz,
    workspace              text,
    former_workspaces      text[]      NOT NULL DEFAULT '{}',
    build                  bigint,
    service_account        text,
    suspend                boolean     NOT NULL DEFAULT false,
    revision_history_limit integer     NOT NULL DEFAULT 10,
    refresh_requested      text,
    reconcile_requested    text,
    paused                 boolean     NOT NULL DEFAULT false,
    deletion_policy        text        NOT NULL DEFAULT 'Delete',
    source                 text        NOT NULL DEFAULT 'api',
    run_id                 uuid,
    run_started_at         timestamptz,
    epoch                  bigint      NOT NULL DEFAULT 0,
    seq                    bigint      NOT NULL DEFAULT 0,
    push_digest            bytea,
    push_changed           boolean,
    phase                  text,
    latest_snapshot_id     bigint,
    latest_error           text        NOT NULL DEFAULT '',
    received_at            timestamptz,
    snapshot_revision      bigint      NOT NULL DEFAULT 0,
    live_resources         jsonb       NOT NULL DEFAULT '[]',
    live_revision          bigint      NOT NULL DEFAULT 0,
    revision               bigint      NOT NULL DEFAULT 1,
    converged_revision     bigint      NOT NULL DEFAULT 0,
    observed_generation    bigint      NOT NULL DEFAULT 0,
    refresh_handled        text,
    reconcile_handled      text,
    fanout_cursor          uuid,
    fanout_revision        bigint,
    attempts               integer     NOT NULL DEFAULT 0,
    retry_at               timestamptz,
    conditions             jsonb       NOT NULL DEFAULT '{}',
    CONSTRAINT agents_pkey PRIMARY KEY (namespace, id),
    CONSTRAINT agents_name_key UNIQUE (namespace, name),
    CONSTRAINT agents_build_range CHECK (build IS NULL OR build >= 0),
    CONSTRAINT agents_revision_history_limit_range CHECK (revision_history_limit BETWEEN 1 AND 100),
    CONSTRAINT agents_deletion_policy_known CHECK (deletion_policy IN ('Delete', 'Retain')),
    CONSTRAINT agents_source_known CHECK (source IN ('api', 'manifest')),
    CONSTRAINT agents_phase_known CHECK (phase IS NULL OR phase IN ('Pending', 'Complete')),
    CONSTRAINT agents_converged_not_ahead CHECK (converged_revision <= revision),
    CONSTRAINT agents_push_digest_length CHECK (push_digest IS NULL OR octet_length(push_digest) = 32)
) WITH (fillfactor = 80);

CREATE INDEX agents_due ON agents (namespace, id) WHERE converged_revision < revision;
CREATE INDEX agents_workspace ON agents (namespace, workspace) WHERE workspace IS NOT NULL;
CREATE INDEX agents_latest_snapshot ON agents (namespace, latest_snapshot_id) WHERE latest_snapshot_id IS NOT NULL;

COMMENT ON TABLE agents IS 'Who reports context for one workspace build. Desired columns: the API. Reported columns: the agent''s pushes. Converge columns: the loop.';
COMMENT ON INDEX agents_due IS 'The queue of agents: exactly the records that are due.';
COMMENT ON COLUMN agents.namespace IS 'Identity: the tenant and the shard.';
COMMENT ON COLUMN agents.id IS 'Identity: metadata.uid. A new one when an agent of the same name is created again.';
COMMENT ON COLUMN agents.name IS 'Identity: metadata.name, a DNS label.';
COMMENT ON COLUMN agents.labels IS 'Desired: metadata.labels.';
COMMENT ON COLUMN agents.annotations IS 'Desired: metadata.annotations.';
COMMENT ON COLUMN agents.generation IS 'Counts changes of spec.';
COMMENT ON COLUMN agents.rv IS 'Version of what the object shows: epoch << 44 | xid of the transaction that last changed it.';
COMMENT ON COLUMN agents.created_at IS 'metadata.creationTimestamp. Decides between two agents of one workspace with equal builds: the oldest.';
COMMENT ON COLUMN agents.deletion_timestamp IS 'Desired: when deletion was asked for. The loop lets the chats go, then removes the row.';
COMMENT ON COLUMN agents.workspace IS 'Desired: the workspace this agent belongs to, if any.';
COMMENT ON COLUMN agents.former_workspaces IS 'Desired: workspaces this agent left since its last whole lap; their chats are told too. Emptied at the end of a lap.';
COMMENT ON COLUMN agents.build IS 'Desired: the highest build is the workspace''s current agent; none counts lowest.';
COMMENT ON COLUMN agents.service_account IS 'Desired: the user name that may push as this agent.';
COMMENT ON COLUMN agents.suspend IS 'Desired: pushes are refused.';
COMMENT ON COLUMN agents.revision_history_limit IS 'Desired: how many snapshots nobody is pinned to are kept, 1 to 100.';
COMMENT ON COLUMN agents.refresh_requested IS 'Desired: the last token that asked to refresh all chats of this agent.';
COMMENT ON COLUMN agents.reconcile_requested IS 'Desired: the last token that asked to look again.';
COMMENT ON COLUMN agents.paused IS 'Desired: the paused annotation.';
COMMENT ON COLUMN agents.deletion_policy IS 'Desired: what deleting a manifest does to the record.';
COMMENT ON COLUMN agents.source IS 'Desired: who owns the spec, the API or a manifest.';
COMMENT ON COLUMN agents.run_id IS 'Reported: the process lifetime that may push.';
COMMENT ON COLUMN agents.run_started_at IS 'Reported: when that run was registered.';
COMMENT ON COLUMN agents.epoch IS 'Reported: the fencing number of that run; counted up by every registration.';
COMMENT ON COLUMN agents.seq IS 'Reported: the last accepted push of that run.';
COMMENT ON COLUMN agents.push_digest IS 'Reported: sha256 of the last accepted push, to tell a repeated push from another one with its number.';
COMMENT ON COLUMN agents.push_changed IS 'Reported: what the last accepted push was answered, for its replay.';
COMMENT ON COLUMN agents.phase IS 'Reported: Pending while the run has not yet reported everything it knows of.';
COMMENT ON COLUMN agents.latest_snapshot_id IS 'Reported: the snapshot this agent currently points at.';
COMMENT ON COLUMN agents.latest_error IS 'Reported: what the agent said was wrong with its own scan.';
COMMENT ON COLUMN agents.received_at IS 'Reported: when a push was last accepted. Never shown: it would change with every push.';
COMMENT ON COLUMN agents.snapshot_revision IS 'Reported: the highest snapshot revision given out, so that retention never makes one come back.';
COMMENT ON COLUMN agents.live_resources IS 'Reported: the live class, with bodies in base64. Followed by reference, never pinned.';
COMMENT ON COLUMN agents.live_revision IS 'Reported: counts changes of the live class.';
COMMENT ON COLUMN agents.revision IS 'Converge: counts changes of inputs. The loop chases it.';
COMMENT ON COLUMN agents.converged_revision IS 'Converge: the revision whose lap over the chats has ended. Due while behind.';
COMMENT ON COLUMN agents.observed_generation IS 'Converge: the generation that the conditions speak of.';
COMMENT ON COLUMN agents.refresh_handled IS 'Converge: echo of the refresh token whose lap has ended.';
COMMENT ON COLUMN agents.reconcile_handled IS 'Converge: echo of the reconcile token whose lap has ended.';
COMMENT ON COLUMN agents.fanout_cursor IS 'Converge: the last chat of the running lap that has been told.';
COMMENT ON COLUMN agents.fanout_revision IS 'Converge: the revision that the running lap began with; none between laps.';
COMMENT ON COLUMN agents.attempts IS 'Converge: failures in a row.';
COMMENT ON COLUMN agents.retry_at IS 'Converge: not before then.';
COMMENT ON COLUMN agents.conditions IS 'Converge: status.conditions by type, and "<type>@" for the time of its last transition.';
