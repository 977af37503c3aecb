//! Laps of agents over their chats, and the lanes that run them: who waits for whom, who takes turns, and what a lap has handled
//! when it ends.

use crate::support::{
    postgres::{TestDb, database},
    until::until,
    world::{RunningAgent, World, file},
};
use moorline::{
    clock::{self, Clock, Source, SystemClock},
    model::{
        condition::ConditionType,
        object::{Progress, REFRESH_ANNOTATION},
        push::Audience,
    },
    reconcile::{NotTold, Reconciler, Told},
    store::log,
    wake::Wake,
    worker::{LaneFailed, Worker},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A reconciler whose sessions stop before they write a chat, for as long as `gate` is held.
struct Slow {
    reconciler: Reconciler,
    gate: PgConnection,
}

impl Slow {
    async fn new(db: &TestDb) -> Self {
        db.pool
            .execute(
                "CREATE FUNCTION stop_the_slow() RETURNS trigger LANGUAGE plpgsql AS $$
                 BEGIN
                     IF current_setting('application_name') = 'slow' THEN PERFORM pg_advisory_xact_lock(42); END IF;
                     RETURN NEW;
                 END $$;
                 CREATE TRIGGER stop_the_slow BEFORE UPDATE ON chats FOR EACH ROW EXECUTE FUNCTION stop_the_slow()",
            )
            .await
            .expect("a trigger");
        let mut gate = PgConnection::connect_with(&db.options).await.expect("a session");
        gate.execute("SELECT pg_advisory_lock(42)").await.expect("holding the gate");
        let pool = PgPoolOptions::new().connect_lazy_with(db.options.clone().application_name("slow"));
        Self { reconciler: Reconciler::new(pool, clock::system()), gate }
    }

    /// Begins a lap, and waits until it is about to write.
    async fn lap(&self, db: &TestDb) -> JoinHandle<Result<Option<Told>, NotTold>> {
        let reconciler = self.reconciler.clone();
        let lap = tokio::spawn(async move { reconciler.fan_out("team-a", Uuid::nil()).await });
        until_waiting(&db.pool, 1).await;
        lap
    }

    async fn let_go(&mut self) {
        self.gate.execute("SELECT pg_advisory_unlock(42)").await.expect("opening the gate");
    }
}

/// Two agents of a workspace, of which the second took over, and its chat.
async fn rebuilt_workspace(world: &World) -> (RunningAgent<'_>, RunningAgent<'_>) {
    let mut old = world.agent("ws-1").of_workspace("ws", 1).running().await;
    old.push(vec![file("AGENTS.md", "old")]).await;
    let mut new = world.agent("ws-2").of_workspace("ws", 2).running().await;
    new.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_workspace("ws").create().await;
    world.settle().await;
    (old, new)
}

/// The lanes of a process.
struct Lanes {
    stop: CancellationToken,
    running: JoinHandle<Result<(), LaneFailed>>,
}

impl Lanes {
    fn begin(db: &TestDb, reconciler: &Reconciler, clock: &Clock, wake: &Wake, poll: Duration) -> Self {
        let (reconciler, pool, clock, wake) = (reconciler.clone(), db.pool.clone(), clock.clone(), wake.clone());
        let stop = CancellationToken::new();
        let running = tokio::spawn(Worker { reconciler, pool, clock, wake, poll }.run(stop.clone()));
        Self { stop, running }
    }

    async fn end(self) {
        self.stop.cancel();
        self.running.await.expect("the task").expect("the lanes end well");
    }
}

fn converged(progress: &Progress) -> Option<()> {
    (progress.converged_revision == progress.revision).then_some(())
}

async fn waiting(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
        .fetch_one(pool)
        .await
        .expect("looking at the sessions")
}

async fn until_waiting(pool: &PgPool, sessions: i64) {
    until("sessions wait", || async { (waiting(pool).await >= sessions).then_some(()) }).await;
}

#[tokio::test]
async fn a_session_that_read_a_chat_before_the_news_does_not_undo_them() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_agent("ws-1").create().await;
    world.settle().await;
    let mut slow = Slow::new(&db).await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    db.pool.execute("UPDATE chats SET revision = revision + 1").await.expect("something to look at");
    // It has read that the latest is "two" and is about to mark the chat dirty.
    let converging = tokio::spawn({
        let reconciler = slow.reconciler.clone();
        async move { reconciler.converge_due("team-a").await }
    });
    until_waiting(&db.pool, 1).await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    until("the lap has looked at the chat", || async { (telling.is_finished() || waiting(&db.pool).await >= 2).then_some(()) })
        .await;
    slow.let_go().await;
    converging.await.expect("the task").expect("converging");
    telling.await.expect("the task").expect("telling");
    world.settle().await;
    assert_eq!(world.look("fix").await.chat.dirty_since, None, "the agent is back at what the chat is moored to");
}

#[tokio::test]
async fn two_agents_of_a_workspace_do_not_tell_its_chats_at_once() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let (mut old, mut new) = rebuilt_workspace(&world).await;
    let mut slow = Slow::new(&db).await;
    old.push(vec![file("AGENTS.md", "older")]).await;
    new.push(vec![file("AGENTS.md", "two")]).await;
    // The lap of the old agent finds that the chat has drifted from the new one, and is about to say so.
    let first = slow.lap(&db).await;
    new.push(vec![file("AGENTS.md", "one")]).await;
    let second = world.reconciler.fan_out("team-a", Uuid::nil()).await.expect("telling");
    slow.let_go().await;
    first.await.expect("the task").expect("telling");
    world.settle().await;
    assert_eq!(world.look("fix").await.chat.dirty_since, None, "the agent is back at what the chat is moored to");
    assert_eq!(second, None, "the new agent's lap waited for the old one's page");
}

#[tokio::test]
async fn an_agent_whose_workspace_is_in_hand_is_passed_over_once_and_the_others_get_their_turn() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut free = world.agent("free").running().await;
    let (mut old, mut new) = rebuilt_workspace(&world).await;
    let mut slow = Slow::new(&db).await;
    new.push(vec![file("AGENTS.md", "two")]).await;
    let first = slow.lap(&db).await; // the lap of the new agent has the workspace's chats in hand
    old.push(vec![file("AGENTS.md", "older")]).await;
    let mut ids = Vec::new();
    for name in ["free", "ws-1"] {
        ids.push(world.look_at_agent(name).await.expect("the agent").agent.meta.id);
    }
    let after = async |id| world.reconciler.fan_out("team-a", id).await.expect("telling").map(|told| told.agent);
    for last in [ids[1], ids[0], Uuid::nil()] {
        assert_eq!(after(last).await, None, "it has to wait, whoever had the last turn: {last}");
    }
    free.push(vec![file("AGENTS.md", "one")]).await;
    assert_eq!(after(ids[0]).await, Some(ids[0]), "the one after it waits, and it is all the way around");
    slow.let_go().await;
    first.await.expect("the task").expect("telling");
    world.settle().await;
    assert!(world.look("fix").await.chat.dirty_since.is_some());
}

#[tokio::test]
async fn agents_take_turns_page_by_page() {
    let db = database().await;
    let world = World::new(db.pool.clone()).with_batch(1);
    let mut ids = Vec::new();
    for name in ["ws-1", "ws-2", "ws-3"] {
        let mut agent = world.agent(name).running().await;
        agent.push(vec![file("AGENTS.md", "one")]).await;
        for chat in 0..2 {
            world.chat(&format!("{name}-{chat}")).of_agent(name).create().await;
        }
        ids.push(world.look_at_agent(name).await.expect("the agent").agent.meta.id);
    }
    let mut turns = Vec::new();
    let mut last = Uuid::nil();
    while let Some(told) = world.reconciler.fan_out("team-a", last).await.expect("telling") {
        last = told.agent;
        turns.push(told.agent);
    }
    assert_eq!(turns[..6], [&ids[..], &ids[..]].concat(), "the first does not finish before the others begin");
}

#[tokio::test]
async fn a_refresh_of_all_chats_is_handled_although_the_agent_never_stands_still() {
    let db = database().await;
    let world = World::new(db.pool.clone()).with_batch(2);
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for n in 0..5 {
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
    }
    world.settle().await;
    world
        .update_agent("ws-1", |_, annotations| {
            annotations.insert(REFRESH_ANNOTATION.into(), "token-1".into());
        })
        .await;
    for page in 0..3 {
        world.reconciler.fan_out("team-a", Uuid::nil()).await.expect("telling").expect("a page");
        agent.push(vec![file("AGENTS.md", &format!("then {page}"))]).await;
    }
    let seen = world.look_at_agent("ws-1").await.expect("the agent").agent;
    assert_eq!(seen.refresh_handled.as_deref(), Some("token-1"), "one lap is over, and it began with the token");
    assert!(seen.progress.converged_revision < seen.progress.revision, "what came in the meantime makes another lap");
    world.settle().await;
    for n in 0..5 {
        let story = world.story(&format!("chat-{n}")).await;
        assert_eq!(story.iter().filter(|kind| *kind == "ContextRefreshed").count(), 1, "chat-{n}: {story:?}");
    }
}

#[tokio::test]
async fn a_refresh_of_all_chats_reaches_the_neighbours_of_a_chat_that_cannot_be_written() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for chat in ["a", "bad", "c"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    world.settle().await;
    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR refresh_handled IS NULL)")
        .await
        .expect("a constraint");
    world
        .update_agent("ws-1", |_, annotations| {
            annotations.insert(REFRESH_ANNOTATION.into(), "token-1".into());
        })
        .await;
    world.settle().await;
    for chat in ["a", "c"] {
        assert_eq!(world.look(chat).await.chat.refresh_handled.as_deref(), Some("token-1"), "{chat}");
    }
    let bad = world.look("bad").await.chat;
    assert_eq!((bad.refresh_requested.as_deref(), bad.refresh_handled), (Some("token-1"), None), "it is asked, and tried again");
}

#[tokio::test]
async fn namespaces_that_fail_do_not_keep_the_others_from_their_turn() {
    let db = database().await;
    let mut world = World::new(db.pool.clone());
    db.pool
        .execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER no_room BEFORE UPDATE ON chats FOR EACH ROW WHEN (NEW.namespace LIKE 'bad-%')
                 EXECUTE FUNCTION no_room()",
        )
        .await
        .expect("a trigger");
    // More than one peek finds, and all of them before the good one.
    for n in 0..70 {
        world.namespace = format!("bad-{n:02}");
        world.chat("fix").create().await;
    }
    world.namespace = "good".into();
    world.chat("fix").create().await;
    let lanes = Lanes::begin(&db, &world.reconciler, &world.clock, &Wake::default(), Duration::from_millis(20));
    until("the good namespace has converged", || async { converged(&world.look("fix").await.chat.progress) }).await;
    lanes.end().await;
}

#[tokio::test]
async fn news_reach_every_agent_without_a_poll_also_of_more_namespaces_than_are_kept_in_mind() {
    let db = database().await;
    let mut world = World::new(db.pool.clone());
    let wake = Wake::default();
    let lanes = Lanes::begin(&db, &world.reconciler, &world.clock, &wake, Duration::from_hours(1));
    // Its first look is over when it has done this.
    world.chat("first").create().await;
    wake.work();
    until("the first look", || async { converged(&world.look("first").await.chat.progress) }).await;
    for audience in [Audience::Chats, Audience::Nobody] {
        let namespaces: Vec<String> = (0..70).map(|n| format!("team-{audience:?}-{n:02}").to_lowercase()).collect();
        for namespace in &namespaces {
            world.namespace.clone_from(namespace);
            let mut agent = world.agent("ws").running().await;
            agent.push(vec![file("AGENTS.md", "one")]).await;
            world.chat("fix").of_agent("ws").create().await;
        }
        for namespace in &namespaces {
            wake.news(namespace, audience);
        }
        for namespace in namespaces {
            world.namespace = namespace;
            until("it is told", || async { world.look("fix").await.chat.pin.map(drop) }).await;
        }
    }
    lanes.end().await;
}

#[tokio::test]
async fn those_who_nobody_follows_are_converged_without_a_poll_and_keep_nobody_else_waiting() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let wake = Wake::default();
    let lanes = Lanes::begin(&db, &world.reconciler, &world.clock, &wake, Duration::from_hours(1));
    world.chat("first").create().await;
    wake.work();
    until("the first look", || async { converged(&world.look("first").await.chat.progress) }).await;
    // One whose news nobody has to be told, one that has something to show, and one with a chat of which the push did not know.
    for name in ["quiet", "followed"] {
        world.agent(name).running().await.push(vec![file("AGENTS.md", "one")]).await;
    }
    world.settle().await;
    world.chat("fix").of_agent("followed").create().await;
    world.settle().await;
    db.pool.execute("UPDATE agents SET revision = revision + 1").await.expect("news");
    world.agent("shown").running().await.push(vec![file("AGENTS.md", "one")]).await;
    wake.news(&world.namespace, Audience::Nobody);
    for name in ["quiet", "shown", "followed"] {
        until(name, || async { converged(&world.look_at_agent(name).await.expect("the agent").agent.progress) }).await;
    }
    let shown = world.look_at_agent("shown").await.expect("the agent").agent;
    assert!(shown.conditions.get(ConditionType::Ready).is_some());
    lanes.end().await;
}

#[tokio::test]
async fn where_nobody_is_to_be_told_the_lane_of_this_process_is_and_without_one_all_are() {
    let wake = Wake::default();
    let (agents, quiet) = (wake.on_agents(), wake.on_quiet());
    wake.news("team-a", Audience::Nobody);
    assert!(quiet.has_changed().expect("it lives") && !agents.has_changed().expect("it lives"));
    drop(quiet);
    wake.news("team-a", Audience::Nobody);
    assert!(agents.has_changed().expect("it lives"));
}

/// Whoever holds it lets it go without a word: a write that was refused, a push that changes nothing, a lap that had it locked.
#[tokio::test]
async fn what_others_held_when_a_lane_looked_is_taken_soon_after_they_let_it_go_without_a_poll() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_agent("ws-1").create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.refresh("fix", "token-1").await.expect("a refresh");
    let mut holder = db.pool.begin().await.expect("a session");
    holder.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    holder.execute("SELECT FROM agents FOR NO KEY UPDATE").await.expect("a lock");
    holder.execute("SELECT FROM chats FOR NO KEY UPDATE").await.expect("a lock");
    // Each lane's first look; the second comes by itself, for nobody gives a hint and nobody polls.
    let looks = Arc::new(Looks::default());
    let clock: Clock = looks.clone();
    let lanes = Lanes::begin(&db, &world.reconciler, &clock, &Wake::default(), Duration::from_hours(1));
    until("both lanes have looked twice", || async { (looks.0.load(Ordering::SeqCst) >= 5).then_some(()) }).await;
    holder.rollback().await.expect("it is let go");
    until("chat and agent have converged", || async {
        converged(&world.look("fix").await.chat.progress)
            .and(converged(&world.look_at_agent("ws-1").await.expect("the agent").agent.progress))
    })
    .await;
    lanes.end().await;
    assert_eq!(world.look("fix").await.chat.refresh_handled.as_deref(), Some("token-1"));
}

/// A clock that counts how often somebody goes to rest: each rest is of another length. The lanes do, and who looks after the log, once.
#[derive(Debug, Default)]
struct Looks(AtomicUsize);

impl Source for Looks {
    fn random(&self) -> f64 {
        self.0.fetch_add(1, Ordering::SeqCst);
        SystemClock.random()
    }
}

#[tokio::test]
async fn chats_that_a_lap_makes_due_are_taken_without_a_poll() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for chat in ["bad", "good"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    world.settle().await;
    // The chats of the lap cannot be written together, so each is made due for the chats' lane.
    db.pool
        .execute("ALTER TABLE chats ADD CONSTRAINT refused CHECK (name <> 'bad' OR dirty_since IS NULL)")
        .await
        .expect("a constraint");
    let wake = Wake::default();
    let lanes = Lanes::begin(&db, &world.reconciler, &world.clock, &wake, Duration::from_hours(1));
    agent.push(vec![file("AGENTS.md", "two")]).await;
    wake.news("team-a", Audience::Chats);
    until("the other chat of the page is dirty", || async { world.look("good").await.chat.dirty_since }).await;
    lanes.end().await;
}

/// A clock that cannot be read.
#[derive(Debug)]
struct Broken;

impl Source for Broken {
    fn now(&self) -> jiff::Timestamp {
        panic!("the clock is broken")
    }

    fn new_id(&self) -> Uuid {
        SystemClock.new_id()
    }

    fn random(&self) -> f64 {
        0.5
    }
}

#[tokio::test]
async fn a_lane_with_a_defect_ends_the_loop_instead_of_leaving_it_lame() {
    let db = database().await;
    World::new(db.pool.clone()).chat("fix").create().await;
    let clock: clock::Clock = Arc::new(Broken);
    let worker = Worker {
        reconciler: Reconciler::new(db.pool.clone(), clock.clone()),
        pool: db.pool.clone(),
        clock,
        wake: Wake::default(),
        poll: Duration::from_secs(2),
    };
    let failed = worker.run(CancellationToken::new()).await.expect_err("a defect").to_string();
    assert!(failed.starts_with("a lane of the loop ended with a defect"), "{failed}");
}

#[tokio::test]
async fn making_partitions_does_not_queue_behind_whoever_reads_the_log() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut dump = db.pool.begin().await.expect("a session");
    dump.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    dump.execute("LOCK TABLE events IN ACCESS SHARE MODE").await.expect("as pg_dump does");
    let mut connection = db.pool.acquire().await.expect("a connection");
    assert_eq!(log::make_partitions(&mut connection, 9).await.expect("a look"), None, "not now");
    world.chat("fix").create().await;
    dump.rollback().await.expect("the dump ends");
    assert_eq!(log::make_partitions(&mut connection, 9).await.expect("making them"), Some(2));
}

#[tokio::test]
async fn whoever_connects_to_a_copy_of_the_database_begins_a_new_epoch() {
    let db = database().await;
    let copy = format!("{}_copy", db.name);
    let epoch = async |pool: &PgPool| -> i64 {
        sqlx::query_scalar("SELECT epoch FROM log_state").fetch_one(pool).await.expect("the epoch")
    };
    let before = epoch(&db.pool).await;
    db.pool.close().await;
    let mut postgres = PgConnection::connect_with(&db.options.clone().database("postgres")).await.expect("a session");
    let create = format!("CREATE DATABASE {copy} TEMPLATE {}", db.name);
    postgres.execute(sqlx::query(AssertSqlSafe(create))).await.expect("a copy");
    let pool = moorline::store::pool(db.options.clone().database(&copy), 2);
    assert_eq!(epoch(&pool).await, before + 1);
}

#[tokio::test]
async fn an_agent_whose_page_fails_does_not_keep_its_neighbours_from_their_turn() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agents = Vec::new();
    for name in ["ws-1", "ws-2"] {
        let mut agent = world.agent(name).running().await;
        agent.push(vec![file("AGENTS.md", "one")]).await;
        world.chat(&format!("of-{name}")).of_agent(name).create().await;
        agents.push(agent);
    }
    world.settle().await;
    db.pool
        .execute(
            "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$;
             CREATE TRIGGER no_room BEFORE UPDATE ON chats FOR EACH ROW WHEN (NEW.name = 'of-ws-1') EXECUTE FUNCTION no_room()",
        )
        .await
        .expect("a trigger");
    for agent in &mut agents {
        agent.push(vec![file("AGENTS.md", "two")]).await;
    }
    let lanes = Lanes::begin(&db, &world.reconciler, &world.clock, &Wake::default(), Duration::from_millis(20));
    until("the neighbour has heard", || async { world.look("of-ws-2").await.chat.dirty_since.map(drop) }).await;
    assert_eq!(world.look("of-ws-1").await.chat.dirty_since, None, "its own page fails");
    lanes.end().await;
}

#[tokio::test]
async fn a_chat_that_moved_away_while_its_page_waited_is_not_the_laps_to_decide() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut one = world.agent("ws-1").running().await;
    one.push(vec![file("AGENTS.md", "one")]).await;
    let mut two = world.agent("ws-2").running().await;
    two.push(vec![file("AGENTS.md", "left")]).await;
    world.chat("moves").of_agent("ws-1").create().await;
    world.settle().await;
    one.push(vec![file("AGENTS.md", "two")]).await;
    // The page of ws-1 finds that the chat has drifted, and waits for whoever moves it.
    let mut moving = db.pool.begin().await.expect("a session");
    moving.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    moving
        .execute("UPDATE chats SET agent = 'ws-2', revision = revision + 1, generation = generation + 1, rv = log_rv()")
        .await
        .expect("moving");
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    until_waiting(&db.pool, 1).await;
    moving.commit().await.expect("moved");
    telling.await.expect("the task").expect("telling");
    let story = world.story("moves").await;
    assert_eq!(story, ["ChatCreated", "ContextHydrated"], "the lap of ws-1 has left it alone");
    world.settle().await;
    assert_eq!(world.look("moves").await.pinned.expect("a pin").agent_name, "ws-2");
}
