//! A record that the database refuses to have written is set aside, says so, and starves nobody; when the trouble is gone it
//! converges.

use crate::support::{
    postgres::{TestDb, database},
    world::{RunningAgent, World, file},
};
use moorline::{
    clock::Source,
    model::condition::{ConditionType, Truth},
    reconcile::Reconciler,
    store,
};
use sqlx::{Executor as _, postgres::PgPoolOptions};
use std::{sync::Arc, time::Duration};

/// A world whose database's clock stands still until a test moves it: what waits half a second is not tried again by a slow machine.
pub async fn standing_still(db: &TestDb) -> World {
    let clock = "CREATE SCHEMA clock;
        CREATE TABLE clock.hands AS SELECT pg_catalog.now() AS at;
        CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM clock.hands'";
    sqlx::raw_sql(clock).execute(&db.pool).await.expect("a clock");
    // pg_catalog is looked at first, unless it is named.
    let options = store::session(db.options.clone()).options([("search_path", "clock,pg_catalog,public")]);
    let pool = PgPoolOptions::new().max_connections(10).acquire_timeout(Duration::from_mins(1));
    World::new(pool.connect_with(options).await.expect("a pool"))
}

/// The machine's clock, with a jitter that is known.
#[derive(Debug)]
struct Jitter(f64);

impl Source for Jitter {
    fn random(&self) -> f64 {
        self.0
    }
}

/// The wait of whatever is set aside is over.
async fn its_time_comes(world: &World) {
    world.pool.execute("UPDATE clock.hands SET at = at + interval '10 minutes'").await.expect("the clock");
}

#[tokio::test]
async fn a_chat_that_cannot_be_written_is_set_aside_and_the_rest_of_its_batch_goes_on() {
    let db = database().await;
    let world = standing_still(&db).await;
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
    let retrying = bad.conditions.get(ConditionType::Reconciling).expect("Reconciling").verdict.clone();
    assert_eq!((retrying.status, retrying.reason.as_str()), (Truth::True, "ProgressingWithRetry"));
    assert!(retrying.message.contains("23514"), "{}", retrying.message);
    assert!(bad.conditions.get(ConditionType::Stalled).is_none());
    assert!(bad.progress.attempts == 1 && bad.progress.retry_at.is_some());
    assert!(bad.progress.converged_revision < bad.progress.revision, "it stays due");

    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    assert!(world.look("a").await.chat.dirty_since.is_some(), "the others are told the news");

    for _ in 0..2 {
        its_time_comes(&world).await;
        world.settle().await;
    }
    let bad = world.look("bad").await.chat;
    let stalled = bad.conditions.get(ConditionType::Stalled).expect("Stalled").clone();
    assert_eq!((stalled.verdict.status, stalled.verdict.reason.as_str()), (Truth::True, "ReconcileFailed"));
    assert!(stalled.verdict.message.contains("23514"), "{}", stalled.verdict.message);
    assert!(bad.conditions.get(ConditionType::Reconciling).is_none(), "one or the other");
    assert_eq!((bad.progress.attempts, bad.progress.observed_generation), (3, bad.meta.generation));
    its_time_comes(&world).await;
    world.settle().await;
    let again = world.look("bad").await.chat;
    assert_eq!(again.conditions.get(ConditionType::Stalled).expect("Stalled").since, stalled.since, "since when it is so");
    assert_eq!(again.meta.rv, bad.meta.rv, "another failure like the last shows nothing new");

    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    its_time_comes(&world).await;
    world.settle().await;
    let mended = world.look("bad").await.chat;
    assert!(mended.pin.is_some() && mended.conditions.get(ConditionType::Stalled).is_none());
    assert_eq!((mended.progress.attempts, mended.progress.retry_at), (0, None));
}

#[tokio::test]
async fn a_chat_that_its_agents_news_cannot_be_written_to_does_not_keep_them_from_the_others() {
    let db = database().await;
    let world = standing_still(&db).await;
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
    assert!(world.look("bad").await.chat.conditions.get(ConditionType::Reconciling).is_some());
    let agent = world.look_at_agent("ws-1").await.expect("the agent").agent.progress;
    assert_eq!(agent.converged_revision, agent.revision, "the lap has ended");
    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    its_time_comes(&world).await;
    world.settle().await;
    assert!(dirty("bad").await);
}

/// An agent that has news for four chats, of which one cannot be written at all.
async fn agent_with_a_chat_that_cannot_be_written(world: &World) -> RunningAgent<'_> {
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for chat in ["a", "bad", "c", "d"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    world.settle().await;
    world.pool.execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad') NOT VALID").await.expect("a constraint");
    agent.push(vec![file("AGENTS.md", "two")]).await;
    agent
}

#[tokio::test]
async fn a_chat_that_cannot_be_written_at_all_does_not_keep_its_agents_news_from_the_others_on_any_page() {
    for page in [1, 2, 1_000] {
        let db = database().await;
        let mut world = standing_still(&db).await;
        world.reconciler = world.reconciler.clone().with_batch(page);
        let mut agent = agent_with_a_chat_that_cannot_be_written(&world).await;
        world.settle().await;
        let dirty = async |chat| world.look(chat).await.chat.dirty_since.is_some();
        // The lap goes on with its next page when the agent is tried again.
        for _ in 0..3 {
            its_time_comes(&world).await;
            world.settle().await;
        }
        let told = (dirty("a").await, dirty("bad").await, dirty("c").await, dirty("d").await);
        assert_eq!(told, (true, false, true, true), "pages of {page}");
        let stuck = world.look_at_agent("ws-1").await.expect("the agent").agent;
        assert!(stuck.progress.converged_revision < stuck.progress.revision && stuck.progress.retry_at.is_some());
        let says = stuck.conditions.get(ConditionType::Stalled).or(stuck.conditions.get(ConditionType::Reconciling));
        assert!(says.expect("it says so").verdict.message.contains("23514"), "pages of {page}");
        // News that come meanwhile are told at once.
        agent.push(vec![file("AGENTS.md", "one")]).await;
        for _ in 0..3 {
            world.settle().await;
            its_time_comes(&world).await;
        }
        assert_eq!((dirty("a").await, dirty("c").await, dirty("d").await), (false, false, false), "pages of {page}");
        agent.push(vec![file("AGENTS.md", "two")]).await;
        world.settle().await;
        db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
        for _ in 0..3 {
            its_time_comes(&world).await;
            world.settle().await;
        }
        assert!(dirty("bad").await, "pages of {page}");
        let agent = world.look_at_agent("ws-1").await.expect("the agent").agent;
        assert_eq!(agent.progress.converged_revision, agent.progress.revision, "the lap has ended");
        assert!(
            agent.conditions.get(ConditionType::Stalled).is_none() && agent.conditions.get(ConditionType::Reconciling).is_none()
        );
    }
}

#[tokio::test]
async fn an_agent_that_cannot_tell_every_chat_says_so_until_it_can_and_not_by_turns() {
    for page in [1, 2] {
        let db = database().await;
        let mut world = standing_still(&db).await;
        world.reconciler = world.reconciler.clone().with_batch(page);
        let mut agent = agent_with_a_chat_that_cannot_be_written(&world).await;
        let laps = async |laps: usize| {
            let mut said = Vec::new();
            for _ in 0..laps {
                its_time_comes(&world).await;
                world.settle().await;
                let agent = world.look_at_agent("ws-1").await.expect("the agent").agent;
                let stalled = agent.conditions.get(ConditionType::Stalled).map(|stalled| stalled.since);
                said.push((stalled, agent.conditions.get(ConditionType::Reconciling).is_some(), agent.meta.rv));
            }
            said
        };
        let first = laps(6).await;
        let (stalled, reconciling, version) = *first.last().expect("some laps");
        assert!(stalled.is_some() && !reconciling, "pages of {page}: {first:?}");
        let later = laps(6).await;
        assert_eq!(later, vec![(stalled, false, version); 6], "pages of {page}: what does not change is not written again");
        // Of a push in between too, which makes the agent try at once.
        agent.push(vec![file("AGENTS.md", "three")]).await;
        let news = laps(1).await;
        assert_eq!((news[0].0, news[0].1), (stalled, false), "pages of {page}");
        let failures = world.look_at_agent("ws-1").await.expect("the agent").agent.progress.attempts;
        laps(3).await;
        let more = world.look_at_agent("ws-1").await.expect("the agent").agent.progress.attempts;
        assert!(more > failures && failures > 0, "pages of {page}: {failures}, then {more}: it waits longer each time");

        db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
        let mended = laps(2).await;
        assert_eq!((mended[1].0, mended[1].1), (None, false), "pages of {page}");
        let agent = world.look_at_agent("ws-1").await.expect("the agent").agent.progress;
        assert_eq!((agent.attempts, agent.converged_revision), (0, agent.revision), "pages of {page}");
        for chat in ["a", "bad", "c", "d"] {
            assert!(world.look(chat).await.chat.dirty_since.is_some(), "pages of {page}: {chat}");
        }
    }
}

#[tokio::test]
async fn a_chat_that_is_stalled_stays_so_while_its_agents_news_are_told_to_it() {
    let db = database().await;
    let world = standing_still(&db).await;
    let mut agent = world.agent("ws-1").running().await;
    // What tells it the news can be written; what converges it cannot.
    db.pool.execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (converged_revision = 0)").await.expect("a constraint");
    world.chat("bad").of_agent("ws-1").create().await;
    for _ in 0..4 {
        its_time_comes(&world).await;
        world.settle().await;
    }
    let stalled = world.look("bad").await.chat.conditions.get(ConditionType::Stalled).expect("Stalled").since;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.settle().await;
    let told = world.look("bad").await.chat;
    assert!(told.pin.is_some(), "the news are told");
    assert_eq!(told.conditions.get(ConditionType::Stalled).expect("Stalled").since, stalled, "and it is as stuck as before");
    assert!(told.conditions.get(ConditionType::Reconciling).is_none());
    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    its_time_comes(&world).await;
    world.settle().await;
    assert!(world.look("bad").await.chat.conditions.get(ConditionType::Stalled).is_none());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_alone() {
    let db = database().await;
    let world = standing_still(&db).await;
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("a").of_agent("ws-1").create().await;
    world.chat("garbled").of_agent("ws-1").create().await;
    db.pool.execute("UPDATE chats SET conditions = '{\"Ready\": 7}' WHERE name = 'garbled'").await.expect("garbage");
    world.settle().await;
    assert!(world.look("a").await.chat.pin.is_some());
    let (attempts, waits): (i32, bool) = sqlx::query_as("SELECT attempts, retry_at > now() FROM chats WHERE name = 'garbled'")
        .fetch_one(&world.pool)
        .await
        .expect("the row");
    assert_eq!((attempts, waits), (1, true));
}

#[tokio::test]
async fn conditions_that_cannot_be_read_say_only_that_and_are_written_anew_by_the_next_try() {
    let db = database().await;
    let world = standing_still(&db).await;
    world.chat("garbled").create().await;
    db.pool.execute("UPDATE chats SET conditions = '{\"Ready\": 7}'").await.expect("garbage");
    world.settle().await;
    let types = |chat: moorline::model::chat::ChatView| chat.chat.conditions.0.into_keys().collect::<Vec<_>>();
    assert_eq!(types(world.look("garbled").await), [ConditionType::Stalled]);
    its_time_comes(&world).await;
    world.settle().await;
    assert_eq!(types(world.look("garbled").await), [ConditionType::Ready]);
}

#[tokio::test]
async fn mending_a_record_that_was_set_aside_does_not_wait_for_its_retry() {
    let db = database().await;
    let world = standing_still(&db).await;
    db.pool
        .execute(
            "ALTER TABLE chats ADD CONSTRAINT refused CHECK (title = 'mended' OR conditions = '{}' OR NOT conditions ? 'Ready')",
        )
        .await
        .expect("a constraint");
    for chat in ["spec", "refresh", "state", "archived", "child"] {
        let new = world.chat(chat);
        let new = if chat == "child" { new.child_of("archived") } else { new };
        new.create().await;
    }
    let aside = async || -> Vec<String> {
        sqlx::query_scalar("SELECT name FROM chats WHERE retry_at > now() AND attempts > 0 ORDER BY name")
            .fetch_all(&world.pool)
            .await
            .expect("looking")
    };
    let tried = async || {
        // One claim at a time: what was set aside is not claimed again.
        while world.reconciler.converge_due("team-a").await.expect("the lane").seen > 0 {}
    };
    tried().await;
    assert_eq!(aside().await, ["archived", "child", "refresh", "spec", "state"]);
    db.pool.execute("ALTER TABLE chats DROP CONSTRAINT refused").await.expect("no constraint");
    world.update_chat("spec", |spec, _| spec.title = "new".into()).await.expect("an update");
    world.refresh("refresh", "now").await.expect("a refresh");
    world.report("state", moorline::model::chat::ChatState::Completed).await;
    world.update_chat("archived", |spec, _| spec.archived = true).await.expect("archiving");
    tried().await;
    assert_eq!(aside().await, Vec::<String>::new());
    for chat in ["spec", "refresh", "state", "archived", "child"] {
        let chat = world.look(chat).await.chat;
        assert_eq!(chat.progress.converged_revision, chat.progress.revision, "{}", chat.meta.name);
    }
}

#[tokio::test]
async fn what_is_set_aside_waits_half_of_its_time_at_least_and_twice_as_long_after_each_failure() {
    let db = database().await;
    let world = standing_still(&db).await;
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("bad").of_agent("ws-1").create().await;
    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR snapshot_id IS NULL)")
        .await
        .expect("a constraint");
    let mut waits = Vec::new();
    for jitter in [0.0, 0.5, 0.0] {
        let reconciler = Reconciler::new(world.pool.clone(), Arc::new(Jitter(jitter)));
        reconciler.converge_due("team-a").await.expect("a batch");
        let wait = "SELECT extract(epoch FROM retry_at - at)::float8 FROM chats, clock.hands WHERE name = 'bad'";
        waits.push(sqlx::query_scalar::<_, f64>(wait).fetch_one(&world.pool).await.expect("its retry"));
        its_time_comes(&world).await;
    }
    assert_eq!(waits, [0.5, 1.5, 2.0], "of 1, 2 and 4 seconds");
}
