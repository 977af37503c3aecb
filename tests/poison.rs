//! A record that the database refuses to have written is set aside, says so, and starves nobody; when the trouble is gone it
//! converges.

use crate::support::{
    postgres::database,
    world::{World, file},
};
use moorline::{
    clock::{Clock, Source, SystemClock},
    model::condition::{ConditionType, Truth},
    reconcile::Reconciler,
};
use sqlx::Executor as _;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

/// The machine's clock, ahead by as much as the test says.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

impl Source for Ahead {
    fn now(&self) -> jiff::Timestamp {
        SystemClock.now() + jiff::SignedDuration::from_secs(self.0.load(Ordering::SeqCst))
    }

    fn new_id(&self) -> uuid::Uuid {
        SystemClock.new_id()
    }

    fn random(&self) -> f64 {
        0.5
    }
}

fn with_clock(world: &mut World) -> Arc<Ahead> {
    let ahead = Arc::new(Ahead::default());
    world.clock = Arc::clone(&ahead) as Clock;
    world.reconciler = Reconciler::new(world.pool.clone(), world.clock.clone());
    ahead
}

#[tokio::test]
async fn a_chat_that_cannot_be_written_is_set_aside_and_the_rest_of_its_batch_goes_on() {
    let db = database().await;
    let mut world = World::new(db.pool.clone());
    let ahead = with_clock(&mut world);
    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR snapshot_id IS NULL)")
        .await
        .expect("a constraint");
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for chat in ["a", "bad", "c"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    world.settle().await;
    assert!(world.look("a").await.chat.pin.is_some() && world.look("c").await.chat.pin.is_some());
    let bad = world.look("bad").await.chat;
    assert_eq!(bad.pin, None);
    let stalled = bad.conditions.get(ConditionType::Stalled).expect("Stalled").verdict.clone();
    assert_eq!((stalled.status, stalled.reason.as_str()), (Truth::True, "ReconcileFailed"));
    assert!(stalled.message.contains("23514"), "{}", stalled.message);
    assert!(bad.progress.attempts == 1 && bad.progress.retry_at.expect("a time") > world.clock.now());
    assert!(bad.progress.converged_revision < bad.progress.revision, "it stays due");

    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    assert!(world.look("a").await.chat.dirty_since.is_some(), "the others are told the news");

    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    ahead.0.store(3_600, Ordering::SeqCst);
    world.settle().await;
    let mended = world.look("bad").await.chat;
    assert!(mended.pin.is_some() && mended.conditions.get(ConditionType::Stalled).is_none());
    assert_eq!((mended.progress.attempts, mended.progress.retry_at), (0, None));
}

#[tokio::test]
async fn a_chat_that_its_agents_news_cannot_be_written_to_does_not_keep_them_from_the_others() {
    let db = database().await;
    let mut world = World::new(db.pool.clone());
    let ahead = with_clock(&mut world);
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for chat in ["a", "bad", "c"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    world.settle().await;
    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR dirty_since IS NULL)")
        .await
        .expect("a constraint");
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    let dirty = async |chat| world.look(chat).await.chat.dirty_since.is_some();
    assert_eq!((dirty("a").await, dirty("bad").await, dirty("c").await), (true, false, true));
    assert!(world.look("bad").await.chat.conditions.get(ConditionType::Stalled).is_some());
    let agent = world.look_at_agent("ws-1").await.expect("the agent").agent.progress;
    assert_eq!(agent.converged_revision, agent.revision, "the lap has ended");
    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    ahead.0.store(3_600, Ordering::SeqCst);
    world.settle().await;
    assert!(dirty("bad").await);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_alone() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("a").of_agent("ws-1").create().await;
    world.chat("garbled").of_agent("ws-1").create().await;
    db.pool.execute("UPDATE chats SET conditions = '{\"Ready\": 7}' WHERE name = 'garbled'").await.expect("garbage");
    world.settle().await;
    assert!(world.look("a").await.chat.pin.is_some());
    let (attempts, waits): (i32, bool) = sqlx::query_as("SELECT attempts, retry_at > now() FROM chats WHERE name = 'garbled'")
        .fetch_one(&db.pool)
        .await
        .expect("the row");
    assert_eq!((attempts, waits), (1, true));
}
