//! Three real processes on one database, under a stream of pushes, one of them killed without warning: they share the work,
//! and what DESIGN.md §2 promises holds when it is quiet again, and where it is a level, all the time.

use crate::support::{
    postgres::{TestDb, database},
    serve::{Client, Replica, push_of},
    until::until,
};
use serde_json::{Value, json};
use std::time::Duration;

const AGENTS: usize = 3;
const CHATS: usize = 45;
const ROUNDS: i64 = 60;

/// Counts rows; every invariant is the absence of some.
async fn none(db: &TestDb, what: &str, sql: &'static str) {
    let found: i64 = sqlx::query_scalar(sql).fetch_one(&db.pool).await.expect(what);
    assert_eq!(found, 0, "{what}");
}

async fn quiet(db: &TestDb) {
    until("nothing is due", || async {
        let due: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM chats WHERE converged_revision < revision)
                  + (SELECT count(*) FROM agents WHERE converged_revision < revision)",
        )
        .fetch_one(&db.pool)
        .await
        .expect("what is due");
        (due == 0).then_some(())
    })
    .await;
}

/// What a reader must never see otherwise: the resources shown are those of the hash shown, all of one agent (I1, I5).
fn is_whole(context: &Value) {
    let agent = context["pinned"]["agent"]["name"].as_str().expect("an agent");
    assert!(context["pinned"]["snapshot"].as_str().expect("a snapshot").starts_with(agent), "{context}");
    for resource in context["resources"].as_array().expect("resources") {
        let body = resource["body"].as_str().expect("a body");
        let hash = moorline::model::hash::ContentHash::of(body.as_bytes()).to_string();
        assert_eq!(resource["contentHash"], hash.as_str());
        assert!(body.starts_with(agent), "a chat of {agent} shows {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_under_a_stream_of_pushes_and_a_kill_keep_every_invariant() {
    let db = database().await;
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Replica::start(&db, &[]).await);
    }
    let client = Client::new();
    let urls: Vec<String> = replicas.iter().map(|replica| replica.url.clone()).collect();
    let mut runs = Vec::new();
    for n in 0..AGENTS {
        let agent = json!({"metadata": {"name": format!("agent-{n}")}, "spec": {"workspace": "ws", "build": n}});
        assert_eq!(client.post(&urls[n % 3], "agents", agent).await.0, 201);
        let (code, run) = client.post(&urls[n % 3], &format!("agents/agent-{n}/runs"), json!({})).await;
        assert_eq!(code, 201);
        runs.push(run);
    }
    let stale = runs[0].clone();
    runs[0] = client.post(&urls[0], "agents/agent-0/runs", json!({})).await.1;
    for n in 0..CHATS {
        let reference = match n % 4 {
            3 => json!({"workspaceRef": {"name": "ws"}}),
            agent => json!({"agentRef": {"name": format!("agent-{agent}")}}),
        };
        let mut spec = reference;
        spec["refreshPolicy"] = json!(if n % 5 == 0 { "OnDrift" } else { "Manual" });
        let chat = json!({"metadata": {"name": format!("chat-{n}")}, "spec": spec});
        let request = client.http.post(format!("{}/apis/moorline.dev/v1alpha1/namespaces/default/chats", urls[n % 3]));
        let request = request.header("content-type", "application/json").header("prefer", "respond-async").body(chat.to_string());
        assert_eq!(request.send().await.expect("an answer").status().as_u16(), 201);
    }

    let mut alive = [true; 3];
    for round in 1..=ROUNDS {
        if round == ROUNDS / 3 {
            replicas[2].kill();
            alive[2] = false;
        }
        if round == 2 * ROUNDS / 3 {
            replicas[2] = Replica::start(&db, &[]).await;
            alive[2] = true;
        }
        let urls: Vec<&str> =
            replicas.iter().zip(alive).filter(|(_, alive)| *alive).map(|(replica, _)| replica.url.as_str()).collect();
        let url = urls[usize::try_from(round).expect("a round") % urls.len()];
        for (n, run) in runs.iter().enumerate() {
            let phase = if round % 11 == 0 { "Pending" } else { "Complete" };
            // Every seventh content comes back: A→B→A.
            let body = format!("agent-{n} says {}", if round % 7 == 0 { 0 } else { round });
            let push = push_of(run, round, phase, &body);
            let path = format!("agents/agent-{n}/snapshot");
            let (code, answer) = client.send(url, "PUT", &path, Some(push.clone())).await;
            assert_eq!(code, 200, "{answer}");
            if round % 9 == 0 {
                assert_eq!(client.send(url, "PUT", &path, Some(push)).await, (200, answer), "a repeated push, the same answer");
            }
        }
        let (code, refused) =
            client.send(url, "PUT", "agents/agent-0/snapshot", Some(push_of(&stale, 9_999, "Complete", "stale"))).await;
        assert_eq!((code, &refused["details"]["causes"][0]["reason"]), (409, &json!("StaleRun")));
        let chat = format!("chats/chat-{}", (round * 7) % 45);
        match round % 4 {
            0 => drop(client.send(url, "PUT", &format!("{chat}/context"), Some(json!({}))).await),
            1 => {
                let archived = json!({"spec": {"archived": round % 8 == 1}});
                assert_eq!(client.send(url, "PATCH", &chat, Some(archived)).await.0, 200);
            }
            2 => {
                let reported = if round % 8 == 2 { "Completed" } else { "Running" };
                let report = json!({"status": {"state": reported}});
                assert_eq!(client.send(url, "PATCH", &format!("{chat}/status"), Some(report)).await.0, 200);
            }
            _ => {
                let other = format!("agent-{}", round % 3);
                let rebind = json!({"spec": {"agentRef": {"name": other}, "workspaceRef": null}});
                assert_eq!(client.send(url, "PATCH", &chat, Some(rebind)).await.0, 200);
            }
        }
        let (code, context) = client.get(url, &format!("chats/chat-{}/context", round % 45)).await;
        if code == 200 {
            is_whole(&context);
        }
    }
    quiet(&db).await;

    none(
        &db,
        "I3: a live chat is dirty exactly when its target is its pin's agent and points elsewhere",
        "SELECT count(*) FROM chats c JOIN snapshots s ON s.id = c.snapshot_id
         LEFT JOIN LATERAL (SELECT a.* FROM agents a WHERE a.name = c.agent OR a.workspace = c.workspace
                            ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1) t ON true
         LEFT JOIN snapshots l ON l.id = t.latest_snapshot_id
         WHERE NOT c.archived AND NOT c.inherited_archived AND c.state NOT IN ('Completed', 'Error')
           AND (c.dirty_since IS NOT NULL) <> (t.id = s.agent_id AND l.context_hash <> s.context_hash)",
    )
    .await;
    none(
        &db,
        "I4, I6: a live chat whose agent has a snapshot is pinned to that agent",
        "SELECT count(*) FROM chats c LEFT JOIN snapshots s ON s.id = c.snapshot_id
         JOIN LATERAL (SELECT a.* FROM agents a WHERE a.name = c.agent OR a.workspace = c.workspace
                       ORDER BY a.build DESC NULLS LAST, a.created_at, a.id LIMIT 1) t ON true
         WHERE NOT c.archived AND NOT c.inherited_archived AND c.state NOT IN ('Completed', 'Error')
           AND t.latest_snapshot_id IS NOT NULL AND s.agent_id IS DISTINCT FROM t.id",
    )
    .await;
    none(
        &db,
        "I6: a chat that follows has its agent's latest",
        "SELECT count(*) FROM chats WHERE refresh_policy = 'OnDrift' AND dirty_since IS NOT NULL
           AND NOT archived AND state NOT IN ('Completed', 'Error')",
    )
    .await;
    none(
        &db,
        "I7: events of a chat are numbered without a gap, in the order of the log",
        "SELECT count(*) FROM (SELECT chat_seq, row_number() OVER (PARTITION BY chat_id ORDER BY rv, seq) AS n
                               FROM events WHERE chat_id IS NOT NULL) e WHERE chat_seq <> n",
    )
    .await;
    none(
        &db,
        "I7: as many events as the chat has counted",
        "SELECT count(*) FROM chats c WHERE c.event_seq <> (SELECT count(*) FROM events e WHERE e.chat_id = c.id)",
    )
    .await;
    none(
        &db,
        "every version that an object shows is in the log",
        "SELECT count(*) FROM chats c WHERE NOT EXISTS (SELECT FROM events e WHERE e.chat_id = c.id AND e.rv = c.rv)",
    )
    .await;
    none(&db, "I8: nothing of a stale run was taken", "SELECT count(*) FROM blobs WHERE convert_from(bytes, 'UTF8') = 'stale'")
        .await;
    none(
        &db,
        "I9: nothing half-finished became a snapshot",
        "SELECT count(*) FROM blobs WHERE convert_from(bytes, 'UTF8') ~ ' (11|22|33|44|55)$'",
    )
    .await;
    none(&db, "nothing is poisoned", "SELECT count(*) FROM chats WHERE attempts > 0 OR conditions ? 'Stalled'").await;

    for (n, replica) in replicas.iter().enumerate() {
        let text = client.http.get(format!("{}/metrics", replica.url)).send().await.expect("metrics").text().await.expect("text");
        let done =
            text.lines().filter(|line| line.starts_with("controller_runtime_reconcile_total{") && line.contains("success"));
        let done: u64 = done.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum();
        assert!(done > 0, "replica {n} has done nothing");
    }
    // I10: when nothing is asked, nothing is written.
    let events = "SELECT count(*) FROM events";
    let before: i64 = sqlx::query_scalar(events).fetch_one(&db.pool).await.expect("the log");
    let mut polls = tokio::time::interval(Duration::from_millis(500));
    for _ in 0..3 {
        polls.tick().await; // several polls of each replica
    }
    assert_eq!(sqlx::query_scalar::<_, i64>(events).fetch_one(&db.pool).await.expect("the log"), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_notifications_a_replica_converges_by_looking_and_ends_when_it_is_told_to() {
    let db = database().await;
    let (writer, looker) =
        (Replica::start(&db, &["--listen-notify", "off"]).await, Replica::start(&db, &["--listen-notify", "off"]).await);
    let client = Client::new();
    assert_eq!(client.post(&writer.url, "agents", json!({"metadata": {"name": "quiet"}})).await.0, 201);
    let run = client.post(&writer.url, "agents/quiet/runs", json!({})).await.1;
    assert_eq!(
        client.send(&writer.url, "PUT", "agents/quiet/snapshot", Some(push_of(&run, 1, "Complete", "quiet"))).await.0,
        200
    );
    let (code, chat) =
        client.post(&looker.url, "chats", json!({"metadata": {"name": "c"}, "spec": {"agentRef": {"name": "quiet"}}})).await;
    assert_eq!((code, &chat["status"]["pinned"]["cause"]), (201, &json!("Hydrated")), "whoever creates a chat sees it pinned");
    quiet(&db).await;
    assert_eq!(writer.terminate().await, Some(0));
    assert_eq!(looker.terminate().await, Some(0));
}
