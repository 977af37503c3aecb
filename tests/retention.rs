//! Retention of snapshots: what nobody is moored to goes beyond the limit, and nothing else; whoever comes in between.

use crate::support::{
    postgres::{TestDb, database},
    serve::Replica,
    until::until,
    world::{RunningAgent, World, file},
};
use moorline::{
    model::{object::Key, push::Phase, resource::Resource},
    retention::{Prune, Pruned, Removed, Retention},
    store::{self, Retry, StoreError, Write, across::Hoard, log::TxLog, transact},
    writes::{chats::Propagation, push::AcceptPush},
};
use sqlx::{Executor as _, PgConnection, PgPool};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

fn retention(world: &World) -> Retention {
    Retention {
        pool: world.pool.clone(),
        clock: world.clock.clone(),
        wake: moorline::wake::Wake::default(),
        interval: Duration::from_mins(10),
        event_age: moorline::config::EVENT_RETENTION,
    }
}

async fn pass(world: &World) -> Removed {
    let removed = retention(world).pass(&CancellationToken::new()).await.expect("a pass");
    tidy(&world.pool).await;
    removed
}

/// What an agent keeps: the texts that it pushed, by what stands in its AGENTS.md.
async fn kept(world: &World) -> Vec<i64> {
    let rows = sqlx::query_scalar("SELECT revision FROM snapshots ORDER BY agent_name, revision").fetch_all(&world.pool).await;
    rows.expect("snapshots")
}

/// The blobs of each agent are exactly those that its manifests refer to and that carry a body; every pin has its bodies.
async fn tidy(pool: &PgPool) {
    let wrong: Vec<String> = sqlx::query_scalar(
        "WITH named AS (
             SELECT DISTINCT s.namespace, s.agent_id, decode(substr(r ->> 'contentHash', 8), 'hex') AS hash
             FROM snapshots s, jsonb_array_elements(s.manifest) r WHERE r ->> 'contentHash' IS NOT NULL)
         SELECT coalesce(b.agent_id, n.agent_id)::text || CASE WHEN b.hash IS NULL THEN ' lacks ' ELSE ' hoards ' END
                || encode(coalesce(b.hash, n.hash), 'hex')
         FROM blobs b FULL JOIN named n USING (namespace, agent_id, hash) WHERE b.hash IS NULL OR n.hash IS NULL",
    )
    .fetch_all(pool)
    .await
    .expect("looking");
    assert_eq!(wrong, Vec::<String>::new());
}

async fn limit(world: &World, agent: &str, limit: i32) {
    world.update_agent(agent, |spec, _| spec.revision_history_limit = limit).await;
}

async fn hoard(world: &World, agent: &str) -> Hoard {
    let agent = world.look_at_agent(agent).await.expect("the agent").agent.meta;
    Hoard { namespace: agent.namespace, agent: agent.id, newest: i64::MAX }
}

fn text(n: usize) -> Vec<Resource> {
    vec![file("AGENTS.md", &format!("text {n}")), file("CLAUDE.md", "the same every time")]
}

async fn push_all(agent: &mut RunningAgent<'_>, texts: impl IntoIterator<Item = usize>) {
    for n in texts {
        agent.push(text(n)).await;
    }
}

async fn somebody_waits(pool: &PgPool) {
    until("a session waits for a lock", || async {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .fetch_one(pool)
        .await
        .expect("looking at the sessions");
        waits.then_some(())
    })
    .await;
}

#[tokio::test]
async fn beyond_the_limit_the_oldest_go_and_neither_pins_nor_the_latest_are_counted() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 3).await;
    push_all(&mut agent, 1..=2).await;
    world.chat("moored").of_agent("ws-1").create().await;
    world.settle().await;
    push_all(&mut agent, 3..=10).await;
    assert_eq!(kept(&world).await, (1..=10).collect::<Vec<i64>>());

    let removed = pass(&world).await;
    assert_eq!(kept(&world).await, [2, 7, 8, 9, 10], "the pin, the three newest that nobody is moored to, the latest");
    assert_eq!((removed.snapshots, removed.blobs), (5, 5), "what CLAUDE.md says is still referred to");
    assert_eq!(world.bodies("moored").await[0].1, b"text 2");
    assert_eq!(pass(&world).await, Removed::default());

    // An old context comes back: it is the latest, and what was the latest is counted.
    agent.push(text(7)).await;
    assert_eq!(pass(&world).await, Removed::default());
    agent.push(text(1)).await;
    assert_eq!(kept(&world).await, [2, 7, 8, 9, 10, 11], "what retention took is made anew");
    pass(&world).await;
    assert_eq!(kept(&world).await, [2, 8, 9, 10, 11]);
}

#[tokio::test]
async fn each_removal_is_an_event_that_holds_the_object_and_never_a_body() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=3).await;
    let first: (String, i64) =
        sqlx::query_as("SELECT name, rv FROM snapshots WHERE revision = 1").fetch_one(&db.pool).await.unwrap();
    pass(&world).await;
    let events: Vec<(String, serde_json::Value, i64, Option<uuid::Uuid>)> =
        sqlx::query_as("SELECT name, payload, rv, agent_id FROM events WHERE kind = 'SnapshotDeleted'")
            .fetch_all(&db.pool)
            .await
            .expect("events");
    let [(name, payload, rv, by)] = events.as_slice() else { panic!("one event, got {events:?}") };
    assert_eq!((name, *by), (&first.0, Some(hoard(&world, "ws-1").await.agent)));
    assert!(*rv > first.1, "the version goes on");
    assert_eq!(payload["snapshot"]["name"], first.0.as_str());
    assert_eq!(payload["snapshot"]["manifest"][0]["source"], "AGENTS.md");
    assert!(!payload.to_string().contains("text 1"), "{payload}");
}

#[tokio::test]
async fn the_event_of_a_removal_says_whose_the_snapshot_was_also_when_its_agent_is_gone() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    world
        .update_agent("ws-1", |spec, _| {
            spec.service_account = Some("robot".into());
            spec.revision_history_limit = 1;
        })
        .await;
    push_all(&mut agent, 1..=3).await;
    let whose = async || -> Vec<Option<String>> {
        sqlx::query_scalar("SELECT payload ->> 'serviceAccount' FROM events WHERE kind = 'SnapshotDeleted' ORDER BY rv, seq")
            .fetch_all(&db.pool)
            .await
            .expect("events")
    };
    pass(&world).await;
    assert_eq!(whose().await, [Some("robot".to_owned())]);
    world.delete_agent("ws-1").await;
    world.settle().await;
    pass(&world).await;
    assert_eq!(whose().await, vec![Some("robot".to_owned()); 3]);
}

#[tokio::test]
async fn of_an_agent_that_is_gone_only_what_somebody_is_moored_to_stays() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    push_all(&mut agent, 1..=2).await;
    world.chat("moored").of_agent("ws-1").create().await;
    world.settle().await;
    push_all(&mut agent, 3..=4).await;
    world.delete_agent("ws-1").await;
    assert_eq!(pass(&world).await, Removed::default(), "an agent that is being deleted is still there");
    world.settle().await;
    assert!(world.look_at_agent("ws-1").await.is_none());
    pass(&world).await;
    assert_eq!(kept(&world).await, [2]);
    assert_eq!(world.bodies("moored").await[0].1, b"text 2", "a pin survives its agent and retention");

    world.delete_chat("moored", Propagation::Background).await.expect("deleting");
    pass(&world).await;
    assert_eq!(kept(&world).await, Vec::<i64>::new());
    let blobs: i64 = sqlx::query_scalar("SELECT count(*) FROM blobs").fetch_one(&db.pool).await.expect("blobs");
    assert_eq!(blobs, 0);
}

/// Nine contexts of 300 files, of which the first so many are others in each.
async fn push_large(agent: &mut RunningAgent<'_>, changing: usize) {
    for n in 0..9 {
        let body = |f| format!("{} {f}", if f < changing { n } else { 0 });
        agent.push((0..300).map(|f| file(&format!("f/{f}"), &body(f))).collect()).await;
    }
}

#[tokio::test]
async fn a_batch_is_at_most_a_thousand_rows_in_one_transaction() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_large(&mut agent, 300).await;
    // Many small ones, older than those.
    sqlx::query(
        "INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                degraded_count, size_bytes, created_at, rv)
         SELECT a.namespace, a.id, a.name, 'small-' || n, -n, sha256(n::text::bytea), '[]', 0, 0, 0, now(), log_rv()
         FROM agents a, generate_series(1, 2500) n",
    )
    .execute(&db.pool)
    .await
    .expect("snapshots");
    let removed = pass(&world).await;
    assert_eq!((removed.snapshots, removed.blobs), (2_507, 7 * 300));
    let batches: Vec<i64> = sqlx::query_scalar(
        "SELECT sum(1 + (payload -> 'snapshot' ->> 'resource_count')::bigint)::bigint FROM events
         WHERE kind = 'SnapshotDeleted' GROUP BY rv ORDER BY rv",
    )
    .fetch_all(&db.pool)
    .await
    .expect("events");
    assert!(batches.len() >= 5 && batches.iter().all(|rows| *rows <= 1_000), "{batches:?}");
    let numbers: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT rv, min(seq)::bigint, (max(seq) - count(*))::bigint FROM events WHERE kind = 'SnapshotDeleted' GROUP BY rv",
    )
    .fetch_all(&db.pool)
    .await
    .expect("events");
    assert!(numbers.iter().all(|(_, first, gap)| (*first, *gap) == (1, 0)), "numbered within each transaction: {numbers:?}");
}

#[tokio::test]
async fn bodies_go_with_the_last_batch_of_an_agents_snapshots_and_a_crash_before_it_leaves_them_to_the_next_pass() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_large(&mut agent, 200).await;
    let counted = async |what| sqlx::query_scalar::<_, i64>(what).fetch_one(&db.pool).await.expect("a count");
    let blobs = async || counted("SELECT count(*) FROM blobs").await;
    assert_eq!(blobs().await, 9 * 200 + 100);
    let hoard = hoard(&world, "ws-1").await;
    let prune = async || transact(&world.pool, &world.clock, &Prune { hoard: &hoard }).await.expect("a batch");
    assert_eq!(prune().await, Pruned { snapshots: 3, blobs: 0 }, "three of seven have at most a thousand rows");
    assert_eq!(prune().await, Pruned { snapshots: 3, blobs: 0 });
    // The process dies here. Another one goes on: with what is left of those, then with the last.
    assert_eq!(prune().await, Pruned { snapshots: 0, blobs: 1_000 });
    assert_eq!(prune().await, Pruned { snapshots: 0, blobs: 200 });
    assert_eq!(prune().await, Pruned { snapshots: 1, blobs: 200 });
    assert_eq!(blobs().await, 2 * 200 + 100, "what the two that stay refer to");
    assert_eq!(pass(&world).await, Removed::default());
    tidy(&db.pool).await;
}

#[tokio::test]
async fn bodies_go_also_when_what_would_have_been_the_last_batch_is_wanted_again_meanwhile() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_large(&mut agent, 300).await;
    let trigger = "CREATE FUNCTION keep_the_rest() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE agents SET revision_history_limit = 100; RETURN NULL; END $$;
        CREATE TRIGGER keep_the_rest AFTER DELETE ON snapshots FOR EACH STATEMENT EXECUTE FUNCTION keep_the_rest()";
    sqlx::raw_sql(trigger).execute(&db.pool).await.unwrap();
    let removed = pass(&world).await;
    assert_eq!((removed.snapshots, removed.blobs), (3, 3 * 300));
    assert_eq!(kept(&world).await, (4..=9).collect::<Vec<_>>());
    tidy(&db.pool).await;
}

#[tokio::test]
async fn a_pass_ends_although_an_agent_pushes_as_fast_as_it_is_pruned() {
    // Of what is removed, one batch takes everything, or one snapshot.
    for resources in [1, 600] {
        let db = database().await;
        let world = World::new(db.pool.clone());
        let mut agent = world.agent("ws-1").running().await;
        limit(&world, "ws-1", 2).await;
        push_all(&mut agent, 1..=6).await;
        // Whatever is removed is followed by as much that is new.
        let trigger = "CREATE FUNCTION one_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                       degraded_count, size_bytes, created_at, rv)
                SELECT OLD.namespace, OLD.agent_id, OLD.agent_name, OLD.name || '-', max(revision) + 1, sha256(OLD.context_hash), '[]',
                       OLD.resource_count, 0, 0, OLD.created_at, OLD.rv FROM snapshots WHERE agent_id = OLD.agent_id;
                RETURN NULL; END $$;
            CREATE TRIGGER one_more AFTER DELETE ON snapshots FOR EACH ROW EXECUTE FUNCTION one_more()";
        sqlx::raw_sql(trigger).execute(&db.pool).await.unwrap();
        sqlx::query("UPDATE snapshots SET resource_count = $1").bind(resources).execute(&db.pool).await.unwrap();
        let stop = CancellationToken::new();
        let _end = stop.clone().drop_guard();
        let removed =
            tokio::time::timeout(Duration::from_mins(1), retention(&world).pass(&stop)).await.expect("it ends").unwrap();
        assert_eq!(removed.snapshots, 5, "those that were there when it came by, but the latest");
        assert_eq!(kept(&world).await, (6..=11).collect::<Vec<_>>(), "the next pass has what came meanwhile");
    }
}

#[tokio::test]
async fn an_agent_whose_snapshots_cannot_be_removed_keeps_nothing_from_the_others() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    for name in ["ws-1", "ws-2", "ws-3"] {
        let mut agent = world.agent(name).running().await;
        limit(&world, name, 1).await;
        push_all(&mut agent, 1..=4).await;
    }
    let refusal = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
        CREATE TRIGGER refuse BEFORE DELETE ON snapshots FOR EACH ROW WHEN (OLD.agent_name = 'ws-2') EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refusal).execute(&db.pool).await.unwrap();
    let refused = retention(&world).pass(&CancellationToken::new()).await.expect_err("one could not be removed");
    assert_eq!(refused.sqlstate().as_deref(), Some("P0001"));
    assert_eq!(kept(&world).await, [3, 4, 1, 2, 3, 4, 3, 4], "those of ws-1, ws-2 and ws-3");
}

#[tokio::test]
async fn a_push_that_returns_to_a_snapshot_waits_for_its_removal_and_makes_it_anew() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=4).await;
    let hoard = hoard(&world, "ws-1").await;
    let mut removing = db.pool.begin().await.expect("a session");
    assert_eq!(Prune { hoard: &hoard }.run(&mut removing).await.expect("a batch"), Pruned { snapshots: 2, blobs: 2 });
    let push = agent.next_push(Phase::Complete, text(1));
    let returning = tokio::spawn({
        let (world, key) = (world.clone(), agent.key.clone());
        async move {
            let write = AcceptPush { clock: &world.clock, key: &key, push: &push };
            transact(&world.pool, &world.clock, &write).await.expect("a push")
        }
    });
    somebody_waits(&db.pool).await;
    removing.commit().await.expect("removed");
    let answer = returning.await.expect("the push");
    assert!(answer.changed && answer.snapshot.expect("a snapshot").revision == 5, "made anew, not returned to what is gone");
    tidy(&db.pool).await;
    world.chat("after").of_agent("ws-1").create().await;
    world.settle().await;
    assert_eq!(world.bodies("after").await[0].1, b"text 1");
    let versions: Vec<bool> =
        sqlx::query_scalar("SELECT s.rv > e.rv FROM snapshots s JOIN events e ON e.name = s.name AND e.kind = 'SnapshotDeleted'")
            .fetch_all(&db.pool)
            .await
            .expect("versions");
    assert_eq!(versions, [true], "a name that comes again comes with a later version");
}

#[tokio::test]
async fn a_push_whose_version_is_older_than_the_removal_of_its_snapshots_name_comes_again_with_a_later_one() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=4).await;
    let mut early = db.pool.begin().await.expect("a session");
    early.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    let before = TxLog::open(&mut early).await.expect("a version").rv;
    let hoard = hoard(&world, "ws-1").await;
    let removed = transact(&world.pool, &world.clock, &Prune { hoard: &hoard }).await.expect("a batch");
    assert_eq!(removed, Pruned { snapshots: 2, blobs: 2 });
    let push = agent.next_push(Phase::Complete, text(1));
    let write = AcceptPush { clock: &world.clock, key: &agent.key, push: &push };
    let refused = write.run(&mut early).await.expect_err("whoever watches would see the name come before it goes");
    assert!(matches!(refused.store(), Some(StoreError::Guard { query: "db.agents.accept", .. })), "{refused}");
    early.rollback().await.expect("rolling back");
    assert!(transact(&world.pool, &world.clock, &write).await.expect("a push").changed);
    let (made, gone): (i64, i64) =
        sqlx::query_as("SELECT s.rv, e.rv FROM snapshots s JOIN events e ON e.name = s.name AND e.kind = 'SnapshotDeleted'")
            .fetch_one(&db.pool)
            .await
            .expect("versions");
    assert!(before < gone && gone < made, "{before} {gone} {made}");
}

#[tokio::test]
async fn a_removal_waits_for_a_push_and_leaves_what_that_returned_to() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=4).await;
    let push = agent.next_push(Phase::Complete, text(1));
    let mut returning = db.pool.begin().await.expect("a session");
    let write = AcceptPush { clock: &world.clock, key: &agent.key, push: &push };
    assert!(write.run(&mut returning).await.expect("a push").changed);
    let removing = tokio::spawn({
        let world = world.clone();
        async move { retention(&world).pass(&CancellationToken::new()).await.expect("a pass") }
    });
    somebody_waits(&db.pool).await;
    returning.commit().await.expect("returned");
    assert_eq!(removing.await.expect("the pass").snapshots, 2);
    assert_eq!(kept(&world).await, [1, 4], "the latest again, and one that nobody is moored to");
    tidy(&db.pool).await;
}

#[tokio::test]
async fn a_snapshot_that_is_being_pinned_is_left_and_nobody_waits() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=4).await;
    let chat = world.chat("slow").create().await.chat.meta.id;
    // A converge that has read snapshot 1 as its agent's latest, and is about to commit.
    let pinning = "UPDATE chats SET snapshot_id = (SELECT id FROM snapshots WHERE revision = 1), pin_cause = 'Refreshed',
                          pinned_at = now() WHERE id = $1";
    let mut tx = db.pool.begin().await.expect("a session");
    sqlx::query(pinning).bind(chat).execute(&mut *tx).await.expect("a pin");
    let removed = retention(&world).pass(&CancellationToken::new()).await.expect("a pass that does not wait");
    assert_eq!((removed.snapshots, kept(&world).await), (1, vec![1, 3, 4]));
    tx.commit().await.expect("pinned");
    assert_eq!(pass(&world).await, Removed::default());
    assert_eq!(world.bodies("slow").await[0].1, b"text 1");
}

/// Pins a chat to the oldest snapshot that is there, as a converge does that has read it just before.
struct PinOldest<'a> {
    namespace: &'a str,
    seen: i64,
    tries: AtomicUsize,
}

impl Write for PinOldest<'_> {
    type Output = i64;
    type Error = StoreError;

    async fn run(&self, tx: &mut PgConnection) -> Result<i64, StoreError> {
        let first = self.tries.fetch_add(1, Ordering::SeqCst) == 0;
        let raw = |source| StoreError::Database { query: "test.pin", source };
        let oldest: i64 = sqlx::query_scalar("SELECT min(id) FROM snapshots").fetch_one(&mut *tx).await.map_err(raw)?;
        let snapshot = if first { self.seen } else { oldest };
        sqlx::query("UPDATE chats SET snapshot_id = $2, pin_cause = 'Refreshed', pinned_at = now() WHERE namespace = $1")
            .bind(self.namespace)
            .bind(snapshot)
            .execute(tx)
            .await
            .map_err(raw)?;
        Ok(snapshot)
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

#[tokio::test]
async fn a_pin_to_what_was_just_removed_is_tried_again_from_the_start() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=3).await;
    world.chat("late").create().await;
    world.settle().await;
    let seen: i64 = sqlx::query_scalar("SELECT min(id) FROM snapshots").fetch_one(&db.pool).await.expect("a snapshot");
    let hoard = hoard(&world, "ws-1").await;
    let mut removing = db.pool.begin().await.expect("a session");
    assert_eq!(Prune { hoard: &hoard }.run(&mut removing).await.expect("a batch").snapshots, 1);
    let late = tokio::spawn({
        let world = world.clone();
        async move {
            let pin = PinOldest { namespace: "team-a", seen, tries: AtomicUsize::new(0) };
            let pinned = transact(&world.pool, &world.clock, &pin).await.expect("a pin in the end");
            (pinned, pin.tries.into_inner())
        }
    });
    somebody_waits(&db.pool).await;
    removing.commit().await.expect("removed");
    let (pinned, tries) = late.await.expect("the pin");
    assert!(pinned > seen && tries == 2, "pinned to {pinned} after {tries} tries");
    tidy(&db.pool).await;
}

#[tokio::test]
async fn the_foreign_keys_refuse_what_the_locks_should_have_kept_away() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    push_all(&mut agent, 1..=1).await;
    world.chat("moored").of_agent("ws-1").create().await;
    world.settle().await;
    push_all(&mut agent, 2..=2).await;
    let hoard = hoard(&world, "ws-1").await;
    for revision in [1, 2] {
        let id: i64 =
            sqlx::query_scalar("SELECT id FROM snapshots WHERE revision = $1").bind(revision).fetch_one(&db.pool).await.unwrap();
        let mut tx = db.pool.begin().await.expect("a session");
        let mut log = store::log::TxLog::open(&mut tx).await.expect("a version");
        let ids = [moorline::model::snapshot::SnapshotId(id)];
        let error = store::retention::delete(&mut tx, &hoard.namespace, &ids, &mut log).await.expect_err("in use");
        assert_eq!((error.sqlstate().as_deref(), error.retry()), (Some("23503"), Retry::Transaction));
    }
}

#[tokio::test]
async fn two_replicas_that_remove_at_once_leave_no_blob_behind() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    push_all(&mut agent, 1..=20).await;
    world.delete_agent("ws-1").await;
    let gone = hoard(&world, "ws-1").await;
    world.settle().await;
    // One has taken its batch, and not yet committed; the other comes to the same agent.
    let mut one = db.pool.begin().await.expect("a session");
    Prune { hoard: &gone }.run(&mut one).await.expect("a batch");
    let other = tokio::spawn({
        let world = world.clone();
        async move { retention(&world).pass(&CancellationToken::new()).await.expect("a pass") }
    });
    somebody_waits(&db.pool).await;
    one.commit().await.expect("removed");
    other.await.expect("the pass");
    assert_eq!(kept(&world).await, Vec::<i64>::new());
    tidy(&db.pool).await;
}

#[tokio::test]
async fn whatever_goes_on_meanwhile_every_pin_keeps_its_snapshot_and_every_snapshot_its_blobs() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=1).await;
    for n in 0..6 {
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
    }
    let done = CancellationToken::new();
    let background = |mut step: Box<dyn FnMut() -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> + Send>| {
        let done = done.clone();
        tokio::spawn(async move {
            while !done.is_cancelled() {
                step().await;
            }
        })
    };
    let (a, b, c) = (world.clone(), world.clone(), world.clone());
    let lanes = [
        background(Box::new(move || {
            let world = a.clone();
            Box::pin(async move {
                retention(&world).pass(&CancellationToken::new()).await.expect("a pass");
            })
        })),
        background(Box::new(move || {
            let world = b.clone();
            Box::pin(async move {
                world.reconciler.converge_due("team-a").await.expect("the chats' lane");
                world.reconciler.fan_out("team-a", uuid::Uuid::nil()).await.expect("the agents' lane");
            })
        })),
        background(Box::new(move || {
            let world = c.clone();
            Box::pin(async move {
                for n in 0..6 {
                    let token = world.clock.new_id().to_string();
                    world.refresh(&format!("chat-{n}"), &token).await.expect("a refresh");
                }
            })
        })),
    ];
    for n in 0..150 {
        agent.push(text(n % 7)).await;
    }
    done.cancel();
    for lane in lanes {
        lane.await.expect("a lane");
    }
    world.settle().await;
    pass(&world).await;
    for n in 0..6 {
        assert_eq!(world.bodies(&format!("chat-{n}")).await[1].1, b"the same every time");
    }
    let versions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'SnapshotDeleted'").fetch_one(&db.pool).await.unwrap();
    assert!(versions > 0, "something was removed");
    assert!(kept(&world).await.len() <= 8, "{:?}", kept(&world).await);
}

/// Names of one agent's snapshots.
async fn names(db: &TestDb) -> BTreeSet<String> {
    sqlx::query_scalar("SELECT name FROM snapshots").fetch_all(&db.pool).await.expect("names").into_iter().collect()
}

#[tokio::test]
async fn an_agent_created_again_and_again_never_runs_out_of_names_for_the_same_context() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    for n in 0..66 {
        let mut agent = world.agent("ws-1").running().await;
        agent.push(vec![file("AGENTS.md", "one")]).await;
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
        world.settle().await;
        world.delete_agent("ws-1").await;
        world.settle().await;
    }
    let names = names(&db).await;
    assert_eq!(names.len(), 66);
    for chat in ["chat-0", "chat-1", "chat-65"] {
        assert_eq!(
            world.bodies(chat).await,
            [("AGENTS.md".to_owned(), b"one".to_vec())],
            "{chat}: each agent has its own bodies"
        );
    }
    assert!(names.iter().any(|name| name.ends_with("-64")) && !names.iter().any(|name| name.ends_with("-65")));
    assert!(names.iter().all(|name| moorline::model::name::dns_subdomain("metadata.name", name).is_none()));
}

#[tokio::test]
async fn serve_runs_retention_in_the_background() {
    let db = database().await;
    let mut world = World::new(db.pool.clone());
    world.namespace = "default".into();
    let mut agent = world.agent("ws-1").running().await;
    limit(&world, "ws-1", 1).await;
    push_all(&mut agent, 1..=5).await;
    let replica = Replica::start(&db, &["--retention-interval", "1s", "--event-retention", "30d"]).await;
    until("the superfluous are gone", || async { (kept(&world).await == [4, 5]).then_some(()) }).await;
    until("the metrics say so", || async {
        let text = reqwest::get(format!("{}/metrics", replica.url)).await.ok()?.text().await.ok()?;
        let said = text.contains("moorline_retention_removed_total{what=\"snapshots\"} 3")
            && text.contains("moorline_retention_passes_total{result=\"ok\"}")
            && text.lines().any(|line| line.starts_with("moorline_events_oldest_timestamp_seconds 1"));
        said.then_some(())
    })
    .await;
    assert_eq!(Key::new("default", "ws-1"), agent.key);
}
