//! What a batch says that it did, and what it makes of a database that refuses: one row, several, or the claim itself.

use crate::{
    poison::standing_still,
    support::{
        postgres::{TestDb, database},
        world::{World, file},
    },
};
use moorline::{
    model::condition::{ConditionType, reason},
    reconcile::Batch,
    store::{Retry, StoreError},
};
use sqlx::Executor as _;
use std::sync::atomic::{AtomicU32, Ordering};
use uuid::Uuid;

const NAMESPACE: &str = "team-a";

/// Chats of an agent that has reported once.
pub async fn chats<'a>(world: &'a World, names: &[&str]) -> crate::support::world::RunningAgent<'a> {
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for name in names {
        world.chat(name).of_agent("ws-1").create().await;
    }
    agent
}

/// From now on a write of such a row is refused with this SQLSTATE so many times; whether it is committed or not, a time has been had.
async fn refuse_when(db: &TestDb, table: &str, when: &str, code: &str, times: i64) {
    static TRIGGERS: AtomicU32 = AtomicU32::new(0);
    let refuse = format!("refuse_{}", TRIGGERS.fetch_add(1, Ordering::Relaxed));
    let sql = format!(
        "CREATE SEQUENCE {refuse};
         CREATE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF nextval('{refuse}') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END IF;
                 RETURN NEW;
             END $$;
         CREATE TRIGGER {refuse} BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {refuse}()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&db.pool).await.expect("a trigger");
}

/// The same of a chat of this name, once it is pinned.
async fn refuse_times(db: &TestDb, name: &str, code: &str, times: i64) {
    refuse_when(db, "chats", &format!("NEW.name = '{name}' AND NEW.snapshot_id IS NOT NULL"), code, times).await;
}

/// The same every time.
pub async fn refuse(db: &TestDb, name: &str, code: &str) {
    refuse_times(db, name, code, i64::MAX).await;
}

/// From now on the end of a lap is refused with this SQLSTATE.
async fn refuse_end_of_lap(db: &TestDb, code: &str) {
    refuse_when(db, "agents", "NEW.converged_revision <> OLD.converged_revision", code, i64::MAX).await;
}

/// What it did, and how many chats got their first pin and drift no more.
fn counts(batch: &Batch) -> (usize, usize, usize, usize, usize) {
    (batch.seen, batch.changed, batch.poisoned, batch.hydrated.len(), batch.drifts_ended.len())
}

async fn due(world: &World) -> Result<Batch, StoreError> {
    world.reconciler.converge_due(NAMESPACE).await
}

async fn lap(world: &World) -> Batch {
    world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect("the agents' lane").expect("an agent that is due").batch
}

/// Whether the agent has been set aside once.
async fn waits(world: &World) -> bool {
    let progress = world.look_at_agent("ws-1").await.expect("the agent").agent.progress;
    let waits = world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect("the agents' lane").is_none();
    progress.attempts == 1 && progress.retry_at.is_some() && waits
}

#[tokio::test]
async fn a_batch_says_what_it_did() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = chats(&world, &["a", "b", "c"]).await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (3, 3, 0, 3, 0));
    assert_eq!(counts(&due(&world).await.expect("a batch")), (0, 0, 0, 0, 0), "nothing is due");
    assert_eq!(counts(&lap(&world).await), (4, 0, 0, 0, 0), "the agent, and three chats that know already");
    agent.push(vec![file("AGENTS.md", "two")]).await;
    assert_eq!(counts(&lap(&world).await), (4, 3, 0, 0, 0));
    agent.push(vec![file("AGENTS.md", "one")]).await;
    assert_eq!(counts(&lap(&world).await), (4, 3, 0, 0, 3));
    assert_eq!(world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect("the agents' lane"), None);
}

#[tokio::test]
async fn an_agent_gets_its_turn_whichever_had_the_last() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &[]).await;
    let told = world.reconciler.fan_out(NAMESPACE, Uuid::max()).await.expect("the agents' lane");
    assert_eq!(counts(&told.expect("all the way around").batch), (1, 0, 0, 0, 0));
}

#[tokio::test]
async fn of_a_batch_with_chats_that_are_refused_the_others_are_done_and_each_counts_once() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = chats(&world, &["a", "bad", "c", "worse"]).await;
    refuse(&db, "bad", "23514").await;
    refuse(&db, "worse", "22012").await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (4, 2, 2, 2, 0));
    assert_eq!(world.story("bad").await, ["ChatCreated", "ChatUpdated"], "what it shows of that is told");
    let bad = world.look("bad").await.chat;
    assert_eq!((bad.progress.observed_generation, bad.meta.generation), (0, 1), "it is tried again: nothing is settled yet");
    // Both wait now. A drift that ends in such a batch counts, too.
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    for chat in ["a", "c"] {
        world.refresh(chat, "now").await.expect("a refresh");
    }
    world.retry_in(-1.0).await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (4, 2, 2, 0, 2));
}

#[tokio::test]
async fn a_chat_that_cannot_be_read_counts_as_set_aside() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &["a", "garbled", "worse"]).await;
    db.pool.execute("UPDATE chats SET conditions = '{\"Ready\": 7}' WHERE name <> 'a'").await.expect("garbage");
    assert_eq!(counts(&due(&world).await.expect("a batch")), (3, 1, 2, 1, 0));
}

#[tokio::test]
async fn chats_that_nobody_can_write_just_now_stay_due_and_keep_nobody_waiting() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &["busy", "c"]).await;
    refuse(&db, "busy", "40001").await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (1, 1, 0, 1, 0), "the other one");
    let error = due(&world).await.expect_err("it alone is left");
    assert_eq!(error.retry(), Retry::Transaction);
    world.chat("busier").of_agent("ws-1").create().await;
    refuse(&db, "busier", "40P01").await;
    assert_eq!(due(&world).await.expect_err("none of both goes").retry(), Retry::Transaction);
    let busy = world.look("busy").await.chat;
    assert_eq!((busy.progress.attempts, busy.progress.retry_at), (0, None), "nothing is wrong with it");
}

#[tokio::test]
async fn a_chat_that_others_are_at_is_tried_again_until_it_can_be_written() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &["busy"]).await;
    refuse_times(&db, "busy", "40001", 5).await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (1, 1, 0, 1, 0));
}

#[tokio::test]
async fn setting_a_chat_aside_is_tried_again_when_others_are_at_it() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &["bad"]).await;
    refuse(&db, "bad", "23514").await;
    refuse_when(&db, "chats", "NEW.attempts > OLD.attempts", "40001", 5).await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (1, 0, 1, 0, 0));
    assert_eq!(world.look("bad").await.chat.progress.attempts, 1);
}

#[tokio::test]
async fn a_chat_that_is_to_be_tried_again_says_so_while_it_is_told_its_agents_news() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = chats(&world, &["bad"]).await;
    world.settle().await;
    world.update_chat("bad", |spec, _| spec.title = "another".into()).await.expect("an update");
    refuse_times(&db, "bad", "23514", 2).await;
    assert_eq!(counts(&due(&world).await.expect("a batch")), (1, 0, 1, 0, 0));
    agent.push(vec![file("AGENTS.md", "two")]).await;
    assert_eq!(counts(&lap(&world).await), (2, 1, 0, 0, 0));
    let bad = world.look("bad").await.chat;
    let reconciling = bad.conditions.get(ConditionType::Reconciling).expect("Reconciling");
    assert_eq!(reconciling.verdict.reason, reason::PROGRESSING_WITH_RETRY);
    assert!(bad.dirty_since.is_some());
}

#[tokio::test]
async fn a_database_that_goes_away_in_the_middle_of_a_batch_is_no_fault_of_a_chat() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &["bad", "cut"]).await;
    refuse(&db, "bad", "23514").await;
    refuse(&db, "cut", "57014").await;
    assert_eq!(due(&world).await.expect_err("the second one").retry(), Retry::Later);
    let cut = world.look("cut").await.chat;
    assert_eq!((cut.progress.attempts, cut.progress.retry_at), (0, None), "it is not set aside");
    assert_eq!(world.look("bad").await.chat.progress.attempts, 1, "the first one is");
}

#[tokio::test]
async fn a_database_that_goes_away_in_the_middle_of_a_lap_makes_no_chat_due() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = chats(&world, &["cut"]).await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    refuse_times(&db, "cut", "57014", 1).await;
    let error = world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect_err("the page");
    assert_eq!(error.error.retry(), Retry::Later);
    assert_eq!(counts(&due(&world).await.expect("a batch")), (0, 0, 0, 0, 0), "it is the lap's to tell, when it comes again");
    assert_eq!(counts(&lap(&world).await), (2, 1, 0, 0, 0));
}

#[tokio::test]
async fn chats_that_cannot_even_be_made_due_count_as_set_aside_and_their_agent_waits() {
    let db = database().await;
    let world = standing_still(&db).await;
    let mut agent = chats(&world, &["a", "bad", "worse"]).await;
    world.settle().await;
    refuse(&db, "bad", "23514").await;
    refuse(&db, "worse", "22012").await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    assert_eq!(counts(&lap(&world).await), (4, 0, 2, 0, 0));
    assert!(waits(&world).await);
    assert_eq!(counts(&due(&world).await.expect("a batch")), (1, 1, 0, 0, 0), "the other one");
}

#[tokio::test]
async fn an_agent_whose_lap_is_refused_as_a_whole_is_set_aside_and_counts_once() {
    let db = database().await;
    let world = standing_still(&db).await;
    let mut agent = chats(&world, &["a"]).await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.update_agent("ws-1", |spec, _| spec.revision_history_limit = 7).await;
    refuse_end_of_lap(&db, "23514").await;
    assert_eq!(counts(&lap(&world).await), (1, 0, 1, 0, 0));
    assert!(waits(&world).await);
    let agent = world.look_at_agent("ws-1").await.expect("the agent").agent;
    assert_eq!((agent.progress.observed_generation, agent.meta.generation), (1, 2), "it is tried again: nothing is settled yet");
    for _ in 0..2 {
        world.retry_in(-1.0).await;
        assert_eq!(counts(&lap(&world).await), (1, 0, 1, 0, 0));
    }
    let agent = world.look_at_agent("ws-1").await.expect("the agent").agent;
    assert_eq!((agent.progress.observed_generation, agent.meta.generation), (2, 2), "it has been looked at, and is stalled");
}

#[tokio::test]
async fn a_database_that_goes_away_while_a_page_is_tried_again_is_no_fault_of_the_agent() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = chats(&world, &["a"]).await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    db.pool.execute("ALTER TABLE chats ADD CONSTRAINT moored CHECK (dirty_since IS NULL)").await.expect("a constraint");
    refuse_end_of_lap(&db, "57014").await; // which the page comes to when it makes its chat due, and not before
    let error = world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect_err("the page");
    assert_eq!(error.error.retry(), Retry::Later);
    let progress = world.look_at_agent("ws-1").await.expect("the agent").agent.progress;
    assert_eq!((progress.attempts, progress.retry_at), (0, None));
}

#[tokio::test]
async fn a_claim_that_is_refused_is_an_error_and_not_an_empty_batch() {
    let db = database().await;
    let world = standing_still(&db).await;
    let _agent = chats(&world, &["a"]).await;
    for sql in ["UPDATE chats SET retry_at = 'epoch'", "UPDATE agents SET retry_at = 'epoch'"] {
        db.pool.execute(sql).await.expect("each has been set aside");
    }
    let broken = "CREATE OR REPLACE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT now() + interval ''1 s'' / (extract(epoch from at) * 0) FROM clock.hands'";
    sqlx::raw_sql(broken).execute(&db.pool).await.expect("another clock");
    assert_eq!(due(&world).await.expect_err("nothing can be claimed").retry(), Retry::Poison);
    let error = world.reconciler.fan_out(NAMESPACE, Uuid::nil()).await.expect_err("nothing can be claimed");
    assert_eq!((error.agent, error.error.retry()), (None, Retry::Poison));
}
