//! P1: hydrating the chats of one agent with 50 resources of 4 KiB through the loop, against the per-chat copy of rows that a design
//! without immutable snapshots needs. And against the floor of what we do: one `UPDATE` and one `INSERT` of the same pins and events.
//!
//! What is compared in size is what a context takes: snapshots and bodies against copied rows. The event and the new version of a chat, which
//! either design writes, are not in it; with them it is `hydrate-disk-in-all`.
//!
//! The loop's time includes the push that brings the context. The copy is `INSERT … SELECT` of 50 rows with bodies, a statement a
//! chat, of a tenth of the chats: what is told is ten times that.

use super::{
    agent::{Agent, NAMESPACE, all_on_disk, on_disk, statements, statements_since, timed, wal},
    hand::{Outcome, copy},
    plot::Bars,
    report::Report,
    setting::Setting,
    stats::ratios,
};
use anyhow::ensure;
use sqlx::{Executor as _, PgPool};

const COPY: &str = "INSERT INTO copied
    SELECT r.chat_id, r.kind, r.source, r.source_path, r.body, decode(substr(r.content_hash, 8), 'hex'), r.size_bytes, r.status
    FROM chat_context_resources r WHERE r.namespace = $1 AND r.chat_id = $2";

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (count, rounds) = (setting.of(10_000, 4_000, 200), setting.of(5, 3, 2));
    let mut report = Report::default();
    let agent = Agent::new(setting.database("p1").await?, "agent").await?;
    agent.chats(count).await?;
    agent.settle().await?;
    agent.pool.close().await;
    let before = statements();
    let [mut pushes, mut fans, mut copies, mut hands] = [const { Vec::new() }; 4];
    let [mut disk, mut disk_in_all, mut logs, mut floor_logs] = [const { Vec::new() }; 4];
    for _ in 0..rounds {
        let mut ours = agent.in_copy(copy(setting, "p1", "p1_loop").await?);
        let (size, log) = (on_disk(&ours.pool, "snapshots,blobs").await?, wal(&ours.pool).await?);
        let size_in_all = all_on_disk(&ours.pool).await?;
        pushes.push(Box::pin(timed(ours.push(1, 50, 4096))).await?);
        fans.push(Box::pin(timed(ours.settle())).await?);
        let (grew, logged) = (on_disk(&ours.pool, "snapshots,blobs").await? - size, wal(&ours.pool).await? - log);
        let grew_in_all = all_on_disk(&ours.pool).await? - size_in_all;
        let outcome = Outcome::of(&ours.pool, "agent", "ContextHydrated", count).await?;

        let mut floor = agent.in_copy(copy(setting, "p1", "p1_hand").await?);
        floor.push(1, 50, 4096).await?;
        let log = wal(&floor.pool).await?;
        let by_hand = outcome.by_hand(&floor.pool, "agent", "snapshot_id = $4, pin_cause = 'Hydrated', pinned_at = now()");
        hands.push(timed(by_hand).await?);
        floor_logs.push(logged / (wal(&floor.pool).await? - log));
        floor.pool.close().await;

        let (took, copied, copy_logged) = copied(&ours.pool, count / 10).await?;
        copies.push(took * 10.0);
        disk.push(copied * 10.0 / grew);
        disk_in_all.push((copied * 10.0 + grew_in_all - grew) / grew_in_all);
        logs.push(copy_logged * 10.0 / logged);
        ours.pool.close().await;
    }
    let whole: Vec<f64> = pushes.iter().zip(&fans).map(|(push, fan)| push + fan).collect();
    report.fact("chats", count);
    report.figure("the push", "s", &pushes);
    report.figure("the loop", "s", &fans);
    report.figure("a copy a chat (ten times a tenth)", "s", &copies);
    report.figure("the floor: UPDATE + INSERT by hand", "s", &hands);
    report.fact("statements of the loop, all rounds", statements_since(&before));
    report.at_least("hydrate-time", "ratio", &ratios(&copies, &whole), 200.0);
    report.at_least("hydrate-disk", "ratio", &disk, 1_000.0);
    report.told("hydrate-disk-in-all", "ratio", &disk_in_all);
    report.told("hydrate-wal", "ratio", &logs);
    report.told("hydrate-floor-time-of-copy", "ratio", &ratios(&copies, &hands));
    report.told("hydrate-loop-by-floor", "ratio", &ratios(&fans, &hands));
    report.told("hydrate-loop-by-floor-wal", "ratio", &floor_logs);
    report.plots.push(Bars {
        file: "p1-hydrate",
        title: format!("Hydrating {count} chats with 50 resources of 4 KiB"),
        unit: "seconds",
        rows: vec![
            ("UPDATE + INSERT by hand".to_owned(), hands),
            ("push and loop".to_owned(), whole),
            ("copy a chat".to_owned(), copies),
        ],
    });
    setting.drop_database("p1_loop").await?;
    setting.drop_database("p1_hand").await?;
    Ok(report)
}

/// Copies the resources of so many chats, a statement each: seconds, bytes on disk, bytes of log.
async fn copied(pool: &PgPool, count: i64) -> anyhow::Result<(f64, f64, f64)> {
    pool.execute(
        "CREATE TABLE copied (chat_id uuid NOT NULL, kind text NOT NULL, source text NOT NULL, source_path text NOT NULL,
                              body bytea NOT NULL, content_hash bytea NOT NULL, size_bytes bigint NOT NULL, status text NOT NULL,
                              PRIMARY KEY (chat_id, kind, source))",
    )
    .await?;
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM chats WHERE namespace = $1 ORDER BY id LIMIT $2")
        .bind(NAMESPACE)
        .bind(count)
        .fetch_all(pool)
        .await?;
    let log = wal(pool).await?;
    let took = timed(async {
        for id in &ids {
            let rows = sqlx::query(COPY).bind(NAMESPACE).bind(id).execute(pool).await?.rows_affected();
            ensure!(rows == 50, "{rows} resources of a chat");
        }
        Ok(())
    })
    .await?;
    Ok((took, on_disk(pool, "copied").await?, wal(pool).await? - log))
}
