//! What a push over HTTP costs a server that decides nothing: it reads the body as ours does, computes the hashes, and runs the
//! statements that pgbench runs, on a connection of each client's own. It looks at no run, number, suspension or limit of a database,
//! knows beforehand what is new, and wakes nobody.
//!
//! `bare ADDRESS DATABASE_URL CLIENTS`: takes `PUT /{client}` until it is killed, as agents of the namespace `bare`.

use anyhow::{Context as _, bail};
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    routing::put,
};
use moorline::{model::push::Push, v1alpha1::push::PushRequest};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use std::sync::Arc;
use tokio::sync::Mutex;
use uuid::Uuid;

/// The process.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let [address, url, clients] = args else { bail!("bare ADDRESS DATABASE_URL CLIENTS") };
    let clients: usize = clients.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connections = Vec::new();
        for _ in 0..clients {
            connections.push(Mutex::new(PgConnection::connect(url).await?));
        }
        let routes = Router::new().route("/{client}", put(take)).with_state(Arc::new(connections));
        axum::serve(tokio::net::TcpListener::bind(address).await?, routes).await?;
        Ok(())
    })
}

async fn take(State(connections): State<Arc<Vec<Mutex<PgConnection>>>>, Path(client): Path<usize>, body: Bytes) -> String {
    // Whatever goes wrong, the client sees that it was not taken.
    record(&connections, client, &body).await.map_or_else(|error| format!("{error:#}"), |answer| answer.to_string())
}

async fn record(connections: &[Mutex<PgConnection>], client: usize, body: &[u8]) -> anyhow::Result<Value> {
    let request: PushRequest = serde_json::from_slice(body)?;
    let push = Push::try_from(request).ok().context("a push within its limits")?;
    let (hash, digest) = (push.context_hash(), push.digest());
    let name = format!("agent-{client}");
    let mut connection = connections.get(client).context("a client")?.lock().await;
    let mut tx = connection.begin().await?;
    let agent: Uuid = sqlx::query_scalar("SELECT id FROM agents WHERE namespace = 'bare' AND name = $1 FOR NO KEY UPDATE")
        .bind(&name)
        .fetch_one(&mut *tx)
        .await?;
    let (revision, _, _): (i64, Option<Vec<u8>>, Option<Vec<u8>>) = sqlx::query_as(
        "SELECT a.snapshot_revision + 1, a.push_digest, s.context_hash FROM agents a LEFT JOIN snapshots s ON s.namespace = a.namespace
         AND s.id = a.latest_snapshot_id WHERE a.namespace = 'bare' AND a.name = $1",
    )
    .bind(&name)
    .fetch_one(&mut *tx)
    .await?;
    let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *tx).await?;
    // What changes is one of them, by content; which one, it knows.
    let new = push.pinned.iter().find(|resource| resource.meta.source.ends_with("-00")).context("the one that changes")?;
    let manifest: Vec<_> = push.pinned.iter().map(|resource| &resource.meta).collect();
    let snapshot: i64 = sqlx::query_scalar(
        "WITH kept AS (INSERT INTO blobs (namespace, agent_id, hash, bytes) VALUES ('bare', $1, $9, $10))
         INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, error, resource_count,
                                degraded_count, size_bytes, created_at, rv)
         VALUES ('bare', $1, $2, $3, $4, $5, $6, '', $7, 0, 204800, now(), $8) RETURNING id",
    )
    .bind(agent)
    .bind(&name)
    .bind(format!("{name}-{}", hex::encode(hash.as_bytes())))
    .bind(revision)
    .bind(hash.as_bytes().as_slice())
    .bind(serde_json::to_value(&manifest)?)
    .bind(i32::try_from(manifest.len())?)
    .bind(rv)
    .bind(new.meta.content_hash.context("its hash")?.as_bytes().as_slice())
    .bind(new.body.as_deref())
    .fetch_one(&mut *tx)
    .await?;
    sqlx::query(
        "WITH told AS (
             INSERT INTO events (namespace, rv, seq, kind, subject, name, agent_id, payload)
             VALUES ('bare', $4, 1, 'SnapshotAccepted', NULL, $5, $1, $6), ('bare', $4, 2, 'AgentUpdated', $1, $5, $1, $7)
         )
         UPDATE agents SET seq = seq + 1, push_digest = $2, push_changed = true, received_at = now(), phase = 'Complete',
                latest_snapshot_id = $3, snapshot_revision = snapshot_revision + 1, rv = $4 WHERE namespace = 'bare' AND id = $1",
    )
    .bind(agent)
    .bind(digest.as_slice())
    .bind(snapshot)
    .bind(rv)
    .bind(&name)
    .bind(json!({"agent": name, "hash": hash, "revision": revision, "resources": manifest.len()}))
    .bind(json!({"from": hash, "to": hash, "phase": push.phase}))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(json!({"changed": true}))
}
