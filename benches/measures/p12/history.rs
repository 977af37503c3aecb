//! The history, and the chats to whom it happens.

use super::{CHATS, FOLLOW, NAMESPACE};
use crate::measures::agent::noise;
use anyhow::ensure;
use moorline::model::{
    hash::ContextHash,
    resource::{Resource, ResourceKind, ResourceMeta},
};
use serde::Deserialize;
use sqlx::PgPool;
use std::path::Path;

/// What a workspace held, step by step.
pub struct History {
    /// Of each step.
    pub steps: Vec<Vec<Resource>>,
    /// Of each step.
    pub hashes: Vec<ContextHash>,
}

#[derive(Deserialize)]
struct Step {
    resources: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    kind: ResourceKind,
    source: String,
    source_path: String,
    size_bytes: usize,
    content_hash: String,
}

impl History {
    /// The first so many steps. A body is generated from its hash: of the same size, and as new as it was.
    pub fn read(steps: usize) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/superpowers.trace.jsonl"))?;
        let mut all = Vec::new();
        for line in text.lines().take(steps) {
            let Step { resources } = serde_json::from_str(line)?;
            let resource = |item: Item| {
                let seed =
                    item.content_hash.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
                // Text, as people write it: half as long when compressed.
                let mut body = hex::encode(noise(item.size_bytes / 2 + 1, seed)).into_bytes();
                body.truncate(item.size_bytes);
                Resource::ok(item.kind, item.source, item.source_path, body)
            };
            all.push(resources.into_iter().map(resource).collect::<Vec<_>>());
        }
        ensure!(all.len() == steps, "the history has {} steps", all.len());
        let hash = |resources: &Vec<Resource>| {
            let metas: Vec<ResourceMeta> = resources.iter().map(|resource| resource.meta.clone()).collect();
            ContextHash::of(&metas)
        };
        let hashes = all.iter().map(hash).collect();
        Ok(Self { steps: all, hashes })
    }
}

/// Chats of an agent, as the API makes them; the last ones follow.
pub async fn chats(pool: &PgPool, agent: &str) -> anyhow::Result<()> {
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at, refresh_policy)
         SELECT $1, id, $2 || '-chat-' || n, log_rv(), 'user-' || n, $2, id, 'bench', now(), now(),
                CASE WHEN n > $3 - $4 THEN 'OnDrift' ELSE 'Manual' END
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, $3) n) x",
    )
    .bind(NAMESPACE)
    .bind(agent)
    .bind(i32::try_from(CHATS)?)
    .bind(i32::try_from(FOLLOW)?)
    .execute(pool)
    .await?;
    Ok(())
}

/// Both sides have come to the same: as many snapshots, bodies, dirty chats, and events of the chats after they were moored.
pub async fn same(ours: &PgPool, theirs: &PgPool) -> anyhow::Result<()> {
    let sql = "SELECT (SELECT count(*) FROM snapshots), (SELECT count(*) FROM blobs),
                      (SELECT count(*) FROM chats WHERE dirty_since IS NOT NULL),
                      (SELECT count(*) FROM events WHERE chat_id IS NOT NULL AND kind <> 'ContextHydrated' AND kind <> 'ChatUpdated'),
                      (SELECT count(*) FROM chats c JOIN agents a ON a.namespace = c.namespace AND a.name = c.agent
                       WHERE c.snapshot_id = a.latest_snapshot_id)";
    let ours: (i64, i64, i64, i64, i64) = sqlx::query_as(sql).fetch_one(ours).await?;
    let theirs: (i64, i64, i64, i64, i64) = sqlx::query_as(sql).fetch_one(theirs).await?;
    ensure!(
        ours == theirs,
        "snapshots, bodies, dirty chats, events, chats at the latest: {ours:?} of the loop, {theirs:?} by hand"
    );
    Ok(())
}
