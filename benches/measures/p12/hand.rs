//! The least statements that record the history: by somebody who knows what each step will change.

use super::{CHATS, FOLLOW, NAMESPACE, history};
use crate::measures::p12::history::History;
use anyhow::ensure;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use moorline::model::hash::{ContentHash, ContextHash};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Agents that are written by hand.
pub struct Hand {
    pool: PgPool,
    agents: Vec<(Uuid, String)>,
    /// Snapshots by agent and hash.
    snapshots: Vec<HashMap<ContextHash, i64>>,
    /// Bodies that each of them has.
    kept: HashSet<ContentHash>,
    conditions: Value,
}

impl Hand {
    /// Moored to the first step.
    pub async fn new(pool: &PgPool, names: &[String], history: &History) -> anyhow::Result<Self> {
        let mut agents = Vec::new();
        for name in names {
            let id: Uuid = sqlx::query_scalar(
                "INSERT INTO agents (namespace, id, name, rv, created_at, epoch, run_id, run_started_at, phase)
                 VALUES ($1, gen_random_uuid(), $2, log_rv(), now(), 1, gen_random_uuid(), now(), 'Complete') RETURNING id",
            )
            .bind(NAMESPACE)
            .bind(name)
            .fetch_one(pool)
            .await?;
            history::chats(pool, name).await?;
            agents.push((id, name.clone()));
        }
        let conditions = json!({
            "Ready": {"status": "True", "reason": "Pinned", "message": "pinned to its agent's latest snapshot"},
            "Ready@": "2026-11-21T00:00:00.000000Z",
            "Drifted": {"status": "False", "reason": "InSync", "message": "its pin is its agent's latest snapshot"},
            "Drifted@": "2026-11-21T00:00:00.000000Z",
        });
        let snapshots = vec![HashMap::new(); agents.len()];
        let mut hand = Self { pool: pool.clone(), agents, snapshots, kept: HashSet::new(), conditions };
        hand.step(history, 0, 1).await?;
        sqlx::query(
            "UPDATE chats c SET snapshot_id = a.latest_snapshot_id, pin_cause = 'Hydrated', pinned_at = now(), conditions = $2,
                                converged_revision = c.revision, observed_generation = c.generation
             FROM agents a WHERE a.namespace = $1 AND c.namespace = $1 AND a.name = c.agent AND c.snapshot_id IS NULL",
        )
        .bind(NAMESPACE)
        .bind(&hand.conditions)
        .execute(pool)
        .await?;
        Ok(hand)
    }

    /// A step of all of them.
    pub async fn step(&mut self, history: &History, step: usize, at_once: usize) -> anyhow::Result<()> {
        let now = Now::at(history, step, &self.kept);
        let work = self.agents.iter().zip(&mut self.snapshots).map(|((id, name), snapshots)| {
            let agent = One { pool: &self.pool, id: *id, name, conditions: &self.conditions };
            agent.step(&now, snapshots)
        });
        stream::iter(work).buffer_unordered(at_once).try_collect::<()>().await?;
        self.kept.extend(now.new.iter().map(|(hash, _)| *hash));
        Ok(())
    }
}

/// What happens in a step.
struct Now<'a> {
    hash: ContextHash,
    number: i64,
    manifest: Value,
    /// Bodies that nobody has yet.
    new: Vec<(ContentHash, &'a [u8])>,
    /// The context is another one than before.
    changed: bool,
    /// What becomes of the chats that are moored: they begin to drift, or end it, or stay as they are.
    moored: Option<bool>,
    first: bool,
}

impl<'a> Now<'a> {
    fn at(history: &'a History, step: usize, kept: &HashSet<ContentHash>) -> Self {
        let resources = &history.steps[step];
        let hash = history.hashes[step];
        let before = step.checked_sub(1).map(|before| history.hashes[before]);
        let dirty = |hash: ContextHash| hash != history.hashes[0];
        let mut seen = HashSet::new();
        let new = resources.iter().filter_map(|resource| Some((resource.meta.content_hash?, resource.body.as_deref()?)));
        let new = new.filter(|(hash, _)| !kept.contains(hash) && seen.insert(*hash)).collect();
        let metas: Vec<_> = resources.iter().map(|resource| &resource.meta).collect();
        Self {
            hash,
            number: i64::try_from(step).unwrap_or(i64::MAX),
            manifest: json!(metas),
            new,
            changed: before != Some(hash),
            moored: before.filter(|before| dirty(*before) != dirty(hash)).map(|_| dirty(hash)),
            first: before.is_none(),
        }
    }
}

struct One<'a> {
    pool: &'a PgPool,
    id: Uuid,
    name: &'a str,
    conditions: &'a Value,
}

impl One<'_> {
    async fn step(self, now: &Now<'_>, snapshots: &mut HashMap<ContextHash, i64>) -> anyhow::Result<()> {
        let mut tx = self.pool.begin().await?;
        if !now.changed {
            self.seen(&mut tx).await?;
            tx.commit().await?;
            return Ok(());
        }
        sqlx::query("SELECT seq, push_digest FROM agents WHERE namespace = $1 AND id = $2 FOR NO KEY UPDATE")
            .bind(NAMESPACE)
            .bind(self.id)
            .execute(&mut *tx)
            .await?;
        let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *tx).await?;
        let known = snapshots.get(&now.hash).copied();
        let snapshot = match known {
            Some(snapshot) => snapshot,
            None => self.make(&mut tx, now, rv).await?,
        };
        snapshots.insert(now.hash, snapshot);
        // With the one or two events of a push.
        let payload = json!({"from": now.hash, "to": now.hash, "phase": "Complete"});
        let events = if known.is_some() { 1 } else { 2 };
        sqlx::query(
            "WITH told AS (
                 INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
                 SELECT $1, $5, n, CASE n WHEN 1 THEN 'AgentUpdated' ELSE 'SnapshotAccepted' END, CASE n WHEN 1 THEN $2 END, $6, $2, $7
                 FROM generate_series(1, $8) n
             )
             UPDATE agents SET seq = seq + 1, push_digest = $4, push_changed = true, received_at = now(), latest_snapshot_id = $3, rv = $5
             WHERE namespace = $1 AND id = $2",
        )
        .bind(NAMESPACE)
        .bind(self.id)
        .bind(snapshot)
        .bind(&now.hash.as_bytes()[..])
        .bind(rv)
        .bind(self.name)
        .bind(&payload)
        .bind(events)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        if now.first { Ok(()) } else { self.converge(now, snapshot).await }
    }

    async fn seen(&self, tx: &mut PgConnection) -> anyhow::Result<()> {
        sqlx::query("UPDATE agents SET seq = seq + 1, received_at = now() WHERE namespace = $1 AND id = $2")
            .bind(NAMESPACE)
            .bind(self.id)
            .execute(tx)
            .await?;
        Ok(())
    }

    /// The bodies that are new, and the snapshot.
    async fn make(&self, tx: &mut PgConnection, now: &Now<'_>, rv: i64) -> anyhow::Result<i64> {
        let (hashes, bytes): (Vec<Vec<u8>>, Vec<&[u8]>) =
            now.new.iter().map(|(hash, body)| (hash.as_bytes().to_vec(), *body)).unzip();
        let insert = sqlx::query_scalar(
            "WITH kept AS (
                 INSERT INTO blobs (namespace, agent_id, hash, bytes) SELECT $1, $2, * FROM unnest($9::bytea[], $10::bytea[])
             )
             INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, error, resource_count,
                                    degraded_count, size_bytes, created_at, rv)
             VALUES ($1, $2, $3, $4, $5, $6, $7, '', 0, 0, 0, now(), $8) RETURNING id",
        );
        let name = format!("{}-{}", self.name, now.hash.short());
        let insert = insert.bind(NAMESPACE).bind(self.id).bind(self.name).bind(name).bind(now.number + 1);
        let insert = insert.bind(&now.hash.as_bytes()[..]).bind(&now.manifest).bind(rv).bind(hashes).bind(bytes);
        Ok(insert.fetch_one(&mut *tx).await?)
    }

    /// The chats that change, and their events.
    async fn converge(&self, now: &Now<'_>, snapshot: i64) -> anyhow::Result<()> {
        let mut tx = self.pool.begin().await?;
        let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *tx).await?;
        // They all move in one statement: those that follow to the snapshot, and the others to whether they are dirty, if that changes.
        let (dirty, which, expected) = match now.moored {
            Some(true) => ("now()", "", CHATS),
            Some(false) => ("NULL", "", CHATS),
            None => ("dirty_since", "AND refresh_policy = 'OnDrift'", FOLLOW),
        };
        let sql = format!(
            "WITH moved AS (
                 UPDATE chats SET snapshot_id = CASE WHEN refresh_policy = 'OnDrift' THEN $5 ELSE snapshot_id END,
                        pin_cause = CASE WHEN refresh_policy = 'OnDrift' THEN 'AutoRefreshed' ELSE pin_cause END,
                        pinned_at = CASE WHEN refresh_policy = 'OnDrift' THEN now() ELSE pinned_at END,
                        dirty_since = CASE WHEN refresh_policy = 'OnDrift' THEN dirty_since ELSE {dirty} END,
                        conditions = $4, rv = $3, event_seq = event_seq + 1
                 WHERE namespace = $1 AND agent = $2 {which}
                 RETURNING id, name, event_seq, refresh_policy, dirty_since
             )
             INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
             SELECT $1, $3, row_number() OVER (),
                    CASE WHEN c.refresh_policy = 'OnDrift' THEN 'ContextRefreshed' WHEN c.dirty_since IS NULL THEN 'ContextConverged'
                         ELSE 'ContextDrifted' END,
                    c.id, c.name, c.id, $6, c.event_seq, $7
             FROM moved c"
        );
        let drift = json!({"added": 0, "changed": 1, "removed": 0, "truncated": false,
                           "resources": [{"kind": "Skill", "source": "skills/getting-started", "change": "Changed"}]});
        let payload = json!({"from": now.hash, "to": now.hash, "fromSnapshot": self.name, "toSnapshot": self.name, "agent": self.name,
                             "drift": drift, "cause": "AutoRefreshed"});
        let told = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(NAMESPACE)
            .bind(self.name)
            .bind(rv)
            .bind(self.conditions)
            .bind(snapshot)
            .bind(self.id)
            .bind(payload)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        ensure!(told == expected as u64, "{told} chats changed, not {expected}");
        tx.commit().await?;
        Ok(())
    }
}
