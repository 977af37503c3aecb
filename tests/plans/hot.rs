//! Which statement uses which index, and which may read a table.

/// Statements that may read a large table, or all that a namespace has of it: words of theirs, the table, and why.
pub(super) const MAY_READ_A_TABLE: &[(&str, &str, &str)] = &[
    ("SELECT (SELECT count(*) FROM chats)", "chats", "counting for the metrics, at most a hundredth of a connection's time"),
    ("FROM events e ORDER BY e.rv, e.seq LIMIT 1", "events", "the first of the log, in the order of its index"),
    (
        "FROM chats WHERE source = 'manifest' AND manifest IS NOT NULL",
        "chats",
        "a look over everything, now and then, with a cluster in front",
    ),
    (
        "FROM agents WHERE source = 'manifest' AND manifest IS NOT NULL",
        "agents",
        "a look over everything, now and then, with a cluster in front",
    ),
    ("FROM agents a WHERE a.name = $1 UNION", "agents", "an agent's name, of any namespace: an entry an agent"),
];

/// Hot statements: name, words that no other statement has all of, and the indexes by which it gets at large tables, or the rows' places. Of `a|b` either
/// is as good: it finds the few snapshots of an agent.
pub(super) const HOT: &[(&str, &[&str], &[&str])] = &[
    // The loop: peek, claim, lock, read, write.
    ("db.chats.peek", &["SELECT DISTINCT namespace FROM chats"], &["chats_due"]),
    ("db.agents.peek", &["SELECT DISTINCT namespace FROM agents"], &["agents_due"]),
    ("db.chats.claim", &["FROM chats WHERE namespace = $1 AND converged_revision < revision", "LIMIT $2"], &["chats_due"]),
    (
        "db.agents.claim",
        &["SELECT id FROM agents WHERE namespace = $1 AND id > $2 AND converged_revision < revision"],
        &["agents_due"],
    ),
    (
        "db.agents.quiet",
        &["AND NOT c.archived AND NOT c.inherited_archived LIMIT 1) IS NULL", "d.fanout_revision IS NULL"],
        &["agents_due", "snapshots_pkey", "chats_agent_live"],
    ),
    ("db.agents.end_quiet", &["UPDATE agents a SET converged_revision = free.revision"], &["agents_due", "agents_pkey"]),
    (
        "db.chats.lock_all",
        &["AS \"place!\" FROM chats WHERE namespace = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE"],
        &["chats_pkey"],
    ),
    (
        "db.chats.load",
        &["WITH page AS MATERIALIZED", "c.id = ANY($2)"],
        &["chats_pkey", "agents_name_key", "agents_workspace_name", "snapshots_pkey"],
    ),
    (
        "db.chats.load_locked",
        &["WITH page AS MATERIALIZED", "c.ctid = ANY($2"],
        &["ctid of chats", "agents_name_key", "agents_workspace_name", "snapshots_pkey"],
    ),
    (
        "db.chats.concerned",
        &["WITH page AS MATERIALIZED", "n.agent = $2"],
        &[
            "chats_agent_live",
            "chats_workspace_live",
            "ctid of chats",
            "agents_name_key",
            "agents_workspace_name",
            "snapshots_pkey",
        ],
    ),
    ("db.chats.record", &["UPDATE chats AS c SET snapshot_id = CASE k.pin"], &["ctid of chats"]),
    ("db.agents.load", &["SELECT a.name, a.workspace, a.former_workspaces"], &["agents_pkey", "snapshots_pkey"]),
    ("db.agents.advance", &["UPDATE agents SET fanout_revision = $3, fanout_cursor = $4"], &["agents_pkey"]),
    ("db.agents.end_lap", &["UPDATE agents SET converged_revision = $3, fanout_revision = NULL"], &["agents_pkey"]),
    // What people do with a chat.
    (
        "db.chats.get",
        &["c.namespace = $1 AND c.name = $2", "c.labels"],
        &["chats_name_key", "chats_pkey", "snapshots_pkey", "agents_name_key", "agents_workspace_name"],
    ),
    ("db.chats.lock", &["SELECT id FROM chats WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE"], &["chats_name_key"]),
    ("db.chats.update", &["UPDATE chats SET labels = $3, annotations = $4, generation = $5, rv = $6, title"], &["chats_pkey"]),
    ("db.chats.request_refresh", &["UPDATE chats SET refresh_requested = $3, revision = revision + 1"], &["chats_pkey"]),
    (
        "db.diff.ends",
        &["s.context_hash <> l.context_hash"],
        &["chats_name_key", "snapshots_pkey", "agents_name_key", "agents_workspace_name"],
    ),
    // A push.
    ("db.agents.get", &["WHERE a.namespace = $1 AND a.name = $2", "a.labels"], &["agents_name_key", "snapshots_pkey"]),
    (
        "db.agents.current",
        &["a.namespace = $1 AND a.workspace = $2 AND a.deletion_timestamp IS NULL", "a.labels"],
        &["agents_workspace_name", "snapshots_pkey"],
    ),
    (
        "db.agents.accept_repeated",
        &["UPDATE agents a SET seq = $5, push_changed = false"],
        &["agents_name_key", "snapshots_pkey"],
    ),
    ("db.agents.lock", &["SELECT id FROM agents WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE"], &["agents_name_key"]),
    (
        "db.agents.push_state",
        &["AND b.hash = u.hash) IS NULL"],
        &["agents_pkey", "snapshots_pkey", "snapshots_hash_key|snapshots_revision_key", "blobs_pkey", "chats_agent_live"],
    ),
    ("db.snapshots.insert", &["INSERT INTO blobs", "INSERT INTO snapshots"], &["agents_pkey"]),
    ("db.agents.accept", &["UPDATE agents SET seq = $3, push_digest = $4"], &["agents_pkey", "events_name"]),
    // Reading a context.
    ("db.context.moorings", &["c.name = ANY($2)"], &["chats_name_key", "snapshots_pkey", "agents_pkey"]),
    ("db.chats.context", &["array_agg(b.bytes) AS bodies"], &["chats_name_key", "snapshots_pkey", "agents_pkey", "blobs_pkey"]),
    // The tail of the log, and what became of what it speaks of.
    ("db.log.list_version", &["SELECT greatest(s.floor"], &["events_version"]),
    ("db.log.lag", &["clock_timestamp() - e.created_at"], &["events_version"]),
    (
        "db.across.chats",
        &["(c.namespace, c.id) IN (SELECT u.namespace, u.id"],
        &["chats_pkey", "snapshots_pkey", "agents_name_key", "agents_workspace_name"],
    ),
    (
        "db.across.chats_named",
        &["(c.namespace, c.name) IN (SELECT u.namespace, u.name"],
        &["chats_name_key", "chats_pkey", "snapshots_pkey", "agents_name_key", "agents_workspace_name"],
    ),
    ("db.across.agents", &["(a.namespace, a.id) IN (SELECT u.namespace, u.id"], &["agents_pkey", "snapshots_pkey"]),
    ("db.across.owners", &["d.subject = u.chat_id", "'service_account'"], &["chats_pkey", "agents_pkey", "events_deletion"]),
    ("db.events.read_deletions", &["d.subject = u.id AND d.kind"], &["events_deletion"]),
    ("db.events.read_befores", &["l.payload -> 'before'"], &["events_name"]),
    // Retention.
    (
        "db.snapshots.hoards",
        &["HAVING count(*) > coalesce(a.revision_history_limit"],
        &["snapshots_hash_key|snapshots_revision_key", "agents_pkey"],
    ),
    (
        "db.snapshots.superfluous",
        &["row_number() OVER (ORDER BY s.revision DESC)"],
        &["snapshots_hash_key|snapshots_revision_key", "agents_pkey", "chats_snapshot"],
    ),
    (
        "db.snapshots.lock",
        &["SELECT id FROM snapshots WHERE namespace = $1 AND id = ANY($2) ORDER BY id FOR UPDATE"],
        &["snapshots_pkey"],
    ),
    ("db.snapshots.delete", &["DELETE FROM snapshots"], &["snapshots_pkey"]),
    ("db.blobs.delete_unused", &["DELETE FROM blobs"], &["blobs_pkey", "snapshots_hash_key|snapshots_revision_key"]),
];

/// Lists: the field selector, the namespace, whether by time of change, and the indexes of chats that may serve it.
pub(super) const LISTS: &[(&str, Option<&str>, bool, &[&str])] = &[
    ("", None, false, &["chats_name_key"]),
    ("", Some("team-07"), false, &["chats_name_key"]),
    // No index begins with names: all entries of one are looked at, whichever is the smallest.
    ("metadata.name=chat-77", None, false, &["chats_name_key", "chats_archived_name", "chats_state_name"]),
    ("metadata.name=chat-7", Some("team-07"), false, &["chats_name_key"]),
    ("spec.owner=user-7", None, false, &["chats_owner"]),
    ("spec.owner=user-7", Some("team-07"), false, &["chats_owner"]),
    ("spec.agentRef.name=agent-7", None, false, &["chats_agent_name"]),
    ("spec.agentRef.name=agent-7", Some("team-07"), false, &["chats_agent_name"]),
    ("spec.workspaceRef.name=ws-7", None, false, &["chats_workspace_name"]),
    ("spec.workspaceRef.name=ws-7", Some("team-07"), false, &["chats_workspace_name"]),
    // Where many are selected, the order of names finds a page of them as soon.
    ("status.state=Error", None, false, &["chats_state_name"]),
    ("status.state=Error", Some("team-07"), false, &["chats_state_name"]),
    ("status.state=Waiting", None, false, &["chats_state_name", "chats_name_key"]),
    ("spec.archived=true", None, false, &["chats_archived_name", "chats_name_key"]),
    ("spec.archived=false", Some("team-07"), false, &["chats_archived_name", "chats_name_key"]),
    ("status.dirty=true", None, false, &["chats_dirty_name"]),
    ("status.dirty=true", Some("team-07"), false, &["chats_dirty_name"]),
    ("status.dirty=false", None, false, &["chats_name_key"]),
    ("", None, true, &["chats_updated"]),
    ("", Some("team-07"), true, &["chats_namespace_updated"]),
    ("spec.owner=user-7", None, true, &["chats_owner_updated"]),
];
