//! The rows as they stand when everything is quiet.

use moorline::model::{
    hash::{ContentHash, ContextHash},
    resource::ResourceMeta,
};
use serde_json::Value;
use sqlx::{PgConnection, Row as _, types::Json};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// A chat.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a row as it stands, column by column")]
pub struct Chat {
    pub namespace: String,
    pub name: String,
    pub id: Uuid,
    pub rv: i64,
    pub mark: Option<String>,
    pub agent: Option<String>,
    pub workspace: Option<String>,
    pub follows: bool,
    pub suspend: bool,
    pub archived: bool,
    pub inherited_archived: bool,
    pub parent: Option<Uuid>,
    pub root: Uuid,
    pub state: String,
    pub refresh_requested: Option<String>,
    pub refresh_handled: Option<String>,
    pub snapshot: Option<i64>,
    pub dirty: bool,
    pub events: i64,
    pub due: bool,
    pub attempts: i32,
}

impl Chat {
    /// The loop looks after it.
    pub fn is_live(&self) -> bool {
        !self.archived && !self.inherited_archived && !self.suspend && !["Completed", "Error"].contains(&self.state.as_str())
    }
}

/// An agent.
#[derive(Clone, Debug, Default)]
pub struct Agent {
    pub namespace: String,
    pub name: String,
    pub id: Uuid,
    pub rv: i64,
    pub mark: Option<String>,
    pub workspace: Option<String>,
    pub build: Option<i64>,
    /// Microseconds.
    pub created: i64,
    pub epoch: i64,
    pub deleting: bool,
    pub latest: Option<i64>,
    pub due: bool,
    pub attempts: i32,
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub namespace: String,
    pub name: String,
    pub agent: Uuid,
    pub agent_name: String,
    pub hash: String,
    /// Of its manifest, computed here.
    pub computed: String,
    /// What its manifest names and no blob holds, or a blob of other bytes.
    pub lacks: Vec<String>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub chats: BTreeMap<Uuid, Chat>,
    pub agents: BTreeMap<Uuid, Agent>,
    pub snapshots: HashMap<i64, Snapshot>,
}

fn mark(labels: &Value) -> Option<String> {
    labels.get("op").and_then(Value::as_str).map(ToOwned::to_owned)
}

impl State {
    /// Reads it.
    pub async fn read(moment: &mut PgConnection) -> Self {
        Self { chats: chats(moment).await, agents: agents(moment).await, snapshots: snapshots(moment).await }
    }

    /// The context hash that a chat is pinned to.
    pub fn pinned(&self, chat: &Chat) -> Option<&Snapshot> {
        chat.snapshot.and_then(|id| self.snapshots.get(&id))
    }

    /// The agent that a chat names now.
    pub fn target(&self, chat: &Chat) -> Option<&Agent> {
        let mut named: Vec<&Agent> =
            self.agents.values().filter(|agent| agent.namespace == chat.namespace && !agent.deleting).collect();
        match (&chat.agent, &chat.workspace) {
            (Some(name), _) => named.into_iter().find(|agent| agent.name == *name),
            (None, Some(_)) => {
                named.retain(|agent| agent.workspace == chat.workspace);
                // The highest build; no build counts lowest; ties: the oldest.
                named.sort_by_key(|agent| (agent.build.is_none(), std::cmp::Reverse(agent.build), agent.created, agent.id));
                named.into_iter().next()
            }
            (None, None) => None,
        }
    }
}

async fn chats(moment: &mut PgConnection) -> BTreeMap<Uuid, Chat> {
    let rows = sqlx::query("SELECT *, dirty_since IS NOT NULL AS dirty, converged_revision < revision AS due FROM chats");
    let chat = |row: &sqlx::postgres::PgRow| Chat {
        namespace: row.get("namespace"),
        name: row.get("name"),
        id: row.get("id"),
        rv: row.get("rv"),
        mark: mark(&row.get("labels")),
        agent: row.get("agent"),
        workspace: row.get("workspace"),
        follows: row.get::<&str, _>("refresh_policy") == "OnDrift",
        suspend: row.get("suspend"),
        archived: row.get("archived"),
        inherited_archived: row.get("inherited_archived"),
        parent: row.get("parent_id"),
        root: row.get("root_id"),
        state: row.get("state"),
        refresh_requested: row.get("refresh_requested"),
        refresh_handled: row.get("refresh_handled"),
        snapshot: row.get("snapshot_id"),
        dirty: row.get("dirty"),
        events: row.get("event_seq"),
        due: row.get("due"),
        attempts: row.get("attempts"),
    };
    rows.fetch_all(moment).await.unwrap().iter().map(chat).map(|chat| (chat.id, chat)).collect()
}

async fn agents(moment: &mut PgConnection) -> BTreeMap<Uuid, Agent> {
    let rows = sqlx::query(
        "SELECT *, deletion_timestamp IS NOT NULL AS deleting, converged_revision < revision AS due,
                (extract(epoch FROM created_at) * 1000000)::bigint AS created FROM agents",
    );
    let agent = |row: &sqlx::postgres::PgRow| Agent {
        namespace: row.get("namespace"),
        name: row.get("name"),
        id: row.get("id"),
        rv: row.get("rv"),
        mark: mark(&row.get("labels")),
        workspace: row.get("workspace"),
        build: row.get("build"),
        created: row.get("created"),
        epoch: row.get("epoch"),
        deleting: row.get("deleting"),
        latest: row.get("latest_snapshot_id"),
        due: row.get("due"),
        attempts: row.get("attempts"),
    };
    rows.fetch_all(moment).await.unwrap().iter().map(agent).map(|agent| (agent.id, agent)).collect()
}

/// With what their bodies come to, hashed here.
async fn snapshots(moment: &mut PgConnection) -> HashMap<i64, Snapshot> {
    let blobs = sqlx::query("SELECT agent_id, hash, bytes FROM blobs").fetch_all(&mut *moment).await.unwrap();
    let whole = |row: &sqlx::postgres::PgRow| {
        let hash = ContentHash::from_slice(row.get("hash"))?;
        (ContentHash::of(row.get("bytes")) == hash).then_some((row.get::<Uuid, _>("agent_id"), hash))
    };
    let blobs: HashSet<(Uuid, ContentHash)> = blobs.iter().filter_map(whole).collect();
    let snapshot = |row: &sqlx::postgres::PgRow| {
        let agent: Uuid = row.get("agent_id");
        let Json(manifest): Json<Vec<ResourceMeta>> = row.get("manifest");
        let lacks = |meta: &&ResourceMeta| meta.content_hash.is_some_and(|hash| !blobs.contains(&(agent, hash)));
        let snapshot = Snapshot {
            namespace: row.get("namespace"),
            name: row.get("name"),
            agent,
            agent_name: row.get("agent_name"),
            hash: ContextHash::from_slice(row.get("context_hash")).unwrap().to_string(),
            computed: ContextHash::of(&manifest).to_string(),
            lacks: manifest.iter().filter(lacks).map(|meta| meta.source.clone()).collect(),
        };
        (row.get("id"), snapshot)
    };
    sqlx::query("SELECT * FROM snapshots").fetch_all(moment).await.unwrap().iter().map(snapshot).collect()
}
