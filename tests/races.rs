//! What happens when two real sessions meet. Each test stops one of them in the middle, at the place where a naive variant goes
//! wrong, and lets the other run into it.

use crate::support::{
    batch,
    postgres::database,
    until::until,
    world::{World, file},
};
use moorline::{
    model::{chat::ChatState, object::Key, push::Phase},
    store::{
        self, Retry, StoreError, Write, chats,
        converge::{self, Lane, Outcomes},
        log::TxLog,
        transact,
    },
    writes::{WriteError, chats::Propagation, push::AcceptPush},
};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Postgres, Transaction};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// Somebody waits for a lock in this database.
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

/// A session that has changed a chat and not yet committed.
async fn holding<'a>(world: &World, sql: &'static str, chat: &str) -> Transaction<'a, Postgres> {
    let mut tx = world.pool.begin().await.expect("a session");
    tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    sqlx::query(sql).bind(world.look(chat).await.chat.meta.id).execute(&mut *tx).await.expect("holding a chat");
    tx
}

#[tokio::test]
async fn two_sessions_claim_different_chats_and_neither_waits() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    for n in 0..6 {
        world.chat(&format!("chat-{n}")).create().await;
    }
    let (mut one, mut two) = (db.pool.begin().await.expect("one"), db.pool.begin().await.expect("two"));
    let first = converge::claim(&mut one, "team-a", 4).await.expect("a claim");
    let second = converge::claim(&mut two, "team-a", 4).await.expect("a claim");
    assert_eq!((first.len(), second.len()), (4, 2));
    assert!(first.iter().all(|one| second.iter().all(|two| one.id != two.id)));
    let elsewhere = converge::claim(&mut two, "team-b", 4).await.expect("a claim");
    assert_eq!(elsewhere, [], "a claim stays within its namespace");
}

#[tokio::test]
async fn news_that_waited_for_a_chat_are_decided_from_what_the_chat_is_afterwards() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("shelved").of_agent("ws-1").create().await;
    world.chat("open").of_agent("ws-1").create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    let archiving = "UPDATE chats SET archived = true, revision = revision + 1, rv = log_rv() WHERE id = $1";
    let tx = holding(&world, archiving, "shelved").await;
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    somebody_waits(&db.pool).await;
    tx.commit().await.expect("archiving");
    telling.await.expect("the task").expect("telling the chats");
    world.settle().await;
    assert_eq!(world.look("shelved").await.chat.dirty_since, None, "it was archived before it could be marked");
    assert!(world.look("open").await.chat.dirty_since.is_some());
}

#[tokio::test]
async fn a_chat_that_was_written_while_its_lock_was_waited_for_is_found_where_it_stands_then() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("fix").create().await;
    let id = world.look("fix").await.chat.meta.id;
    let writing = holding(&world, "UPDATE chats SET title = 'as it is now', state = 'Running' WHERE id = $1", "fix").await;
    let locking = tokio::spawn({
        let pool = db.pool.clone();
        async move {
            let mut tx = pool.begin().await?;
            let locked = chats::lock_all(&mut tx, "team-a", &[id]).await?;
            // As it would be found by whoever looks only now.
            let stands: String =
                sqlx::query_scalar("SELECT ctid::text FROM chats WHERE id = $1").bind(id).fetch_one(&mut *tx).await?;
            let rows = converge::load_locked(&mut tx, "team-a", &locked).await?;
            Ok::<_, anyhow::Error>((locked, stands, rows))
        }
    });
    somebody_waits(&db.pool).await;
    writing.commit().await.expect("writing");
    let (locked, stands, rows) = locking.await.expect("the task").expect("locking");
    assert_eq!(locked, [chats::Locked { id, place: stands }]);
    let [converge::Row::Chat(chat)] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((chat.id, chat.facts.state), (id, ChatState::Running));
}

#[tokio::test]
async fn a_locked_chat_is_read_and_written_where_it_stands_or_not_at_all() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        world.chat(name).create().await;
        ids.push(world.look(name).await.chat.meta.id);
    }
    ids.sort_unstable();
    let mut tx = db.pool.begin().await.expect("a session");
    let locked = chats::lock_all(&mut tx, "team-a", &ids).await.expect("the locks");
    let is_a_race = |error: StoreError| error.retry() == Retry::Transaction;
    let rows = converge::load_locked(&mut tx, "team-a", &locked).await.expect("both");
    let mut loaded = batch::chats(rows);

    let another = chats::Locked { id: ids[0], place: locked[1].place.clone() };
    let read = converge::load_locked(&mut tx, "team-a", &[another]).await;
    assert!(read.is_err_and(is_a_race), "what was locked is what is read");

    let outcomes = Outcomes { classes: vec![batch::keeps(None)], chats: vec![(loaded[0].id, 0)] };
    let mut log = TxLog::open(&mut tx).await.expect("a version");
    let place = loaded[0].place.clone();
    loaded[0].place = loaded[1].place.clone();
    let now = world.clock.now();
    let elsewhere = converge::record(&mut tx, "team-a", &outcomes, &loaded, Lane::Due, now, &mut log).await;
    assert!(elsewhere.is_err_and(is_a_race), "another chat stands there");
    loaded[0].place = place;
    converge::record(&mut tx, "team-a", &outcomes, &loaded, Lane::Due, now, &mut log).await.expect("it stands there");
    let again = converge::record(&mut tx, "team-a", &outcomes, &loaded, Lane::Due, now, &mut log).await;
    assert!(again.is_err_and(is_a_race), "it has been written since, and stands elsewhere");
}

#[tokio::test]
async fn a_chat_that_is_deleted_while_its_news_wait_is_left_out_and_the_others_are_told() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("goes").of_agent("ws-1").create().await;
    world.chat("stays").of_agent("ws-1").create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    let tx = holding(&world, "DELETE FROM chats WHERE id = $1", "goes").await;
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    somebody_waits(&db.pool).await;
    tx.commit().await.expect("deleting");
    telling.await.expect("the task").expect("telling the chats");
    assert!(world.look("stays").await.chat.dirty_since.is_some());
    assert_eq!(world.story("stays").await, ["ChatCreated", "ContextHydrated", "ContextDrifted"]);
}

#[tokio::test]
async fn a_push_in_the_middle_of_a_lap_makes_another_lap_and_nobody_is_left_behind() {
    let db = database().await;
    let world = World::new(db.pool.clone()).with_batch(3);
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for n in 0..8 {
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
    }
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.reconciler.fan_out("team-a", Uuid::nil()).await.expect("the first page");
    agent.push(vec![file("AGENTS.md", "one")]).await;
    let lap: (Option<i64>, i64) =
        sqlx::query_as("SELECT fanout_revision, revision FROM agents").fetch_one(&db.pool).await.expect("the lap");
    assert!(lap.0.expect("a lap is running") < lap.1, "the lap keeps the revision that it began with");
    world.settle().await;
    for n in 0..8 {
        assert_eq!(world.look(&format!("chat-{n}")).await.chat.dirty_since, None, "chat-{n} ends clean");
    }
    assert_eq!(world.story("chat-7").await, ["ChatCreated", "ContextHydrated"], "the last page only ever saw the last state");
}

#[tokio::test]
async fn a_push_waits_for_the_page_in_hand_and_the_next_lap_tells_it() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_agent("ws-1").create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    // The page waits for the chat, and the push for the agent that the page holds.
    let tx = holding(&world, "SELECT FROM chats WHERE id = $1 FOR UPDATE", "fix").await;
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    somebody_waits(&db.pool).await;
    let push = agent.next_push(Phase::Complete, vec![file("AGENTS.md", "three")]);
    let pushing = tokio::spawn({
        let (world, key) = (world.clone(), agent.key.clone());
        async move { transact(&world.pool, &world.clock, &AcceptPush { clock: &world.clock, key: &key, push: &push }).await }
    });
    until("the push waits too", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&db.pool)
        .await
        .expect("looking at the sessions");
        (waiting == 2).then_some(())
    })
    .await;
    tx.rollback().await.expect("letting go");
    telling.await.expect("the task").expect("telling");
    assert!(pushing.await.expect("the task").expect("the push").changed);
    world.refresh("fix", "t").await.expect("a refresh");
    world.settle().await;
    assert_eq!(world.bodies("fix").await, [("AGENTS.md".to_owned(), b"three".to_vec())]);
}

#[tokio::test]
async fn a_version_never_goes_back() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("one").create().await;
    let two = world.chat("two").create().await;
    world.settle().await;
    // This transaction takes its version, and another with a later one changes the chat before it gets there.
    let mut early = db.pool.begin().await.expect("a session");
    let log = TxLog::open(&mut early).await.expect("a version");
    world.report("two", ChatState::Running).await;
    let mut late = world.look("two").await.chat;
    assert!(late.meta.rv > log.rv);
    late.meta.rv = log.rv;
    let refused = store::chats::update(&mut early, &late).await.expect_err("the guard fires");
    assert!(matches!(refused, StoreError::Guard { expected: 1, got: 0, .. }), "{refused}");
    assert_eq!(refused.retry(), Retry::Transaction, "and the whole transaction is tried again");
    early.rollback().await.expect("rolling back");
    assert!(world.look("two").await.chat.meta.rv > two.chat.meta.rv);
}

/// A write that loses its race the first time, in a way that the test chooses, and wins the second.
struct LosesOnce<'a> {
    tries: AtomicUsize,
    lose: &'static str,
    pool: &'a PgPool,
}

impl Write for LosesOnce<'_> {
    type Output = usize;
    type Error = StoreError;

    async fn run(&self, tx: &mut PgConnection) -> Result<usize, StoreError> {
        let tries = self.tries.fetch_add(1, Ordering::SeqCst) + 1;
        if tries == 1 {
            let sql = self.lose;
            let failed = tx.execute(sql).await.expect_err("the statement that loses");
            return Err(StoreError::Database { query: "test.loses", source: failed });
        }
        let open = !self.pool.is_closed();
        assert!(open, "a fresh transaction of the same pool");
        Ok(tries)
    }

    fn store_error(error: &StoreError) -> Option<&StoreError> {
        Some(error)
    }
}

#[tokio::test]
async fn a_transaction_that_lost_a_race_begins_again_and_other_failures_do_not() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let raise = [
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$", true),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$", true),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23503'; END $$", true),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'ML001'; END $$", true),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '23514'; END $$", false),
        ("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P01'; END $$", false),
    ];
    for (lose, again) in raise {
        let write = LosesOnce { tries: AtomicUsize::new(0), lose, pool: &db.pool };
        let result = transact(&db.pool, &world.clock, &write).await;
        assert_eq!(result.ok(), again.then_some(2), "{lose}");
    }
}

#[tokio::test]
async fn a_real_deadlock_costs_a_retry_and_loses_nothing() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    let (a, b) = (world.chat("a").of_agent("ws-1").create().await, world.chat("b").of_agent("ws-1").create().await);
    world.settle().await;
    let (low, high) = if a.chat.meta.id < b.chat.meta.id { ("a", "b") } else { ("b", "a") };
    agent.push(vec![file("AGENTS.md", "two")]).await;
    // Somebody locks against the order: the high chat first, then the low one, which the loop holds by then.
    let mut tx = holding(&world, "SELECT FROM chats WHERE id = $1 FOR UPDATE", high).await;
    let telling = tokio::spawn({
        let world = world.clone();
        async move { world.reconciler.fan_out("team-a", Uuid::nil()).await }
    });
    somebody_waits(&db.pool).await;
    let against = sqlx::query("SELECT FROM chats WHERE id = $1 FOR UPDATE").bind(world.look(low).await.chat.meta.id);
    let lost = against.execute(&mut *tx).await.is_err();
    drop(tx);
    telling.await.expect("the task").expect("the loop's transaction went through, at the first try or the second");
    let dirty = async |chat| world.look(chat).await.chat.dirty_since.is_some();
    assert!(dirty("a").await && dirty("b").await, "whoever lost (the stranger: {lost}), both chats were told");
    assert_eq!(world.story("a").await, ["ChatCreated", "ContextHydrated", "ContextDrifted"], "and told once");
}

#[tokio::test]
async fn a_child_that_is_born_while_its_tree_is_archived_is_archived_too() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("root").create().await;
    world.chat("child").child_of("root").create().await;
    world.settle().await;
    // A grandchild is created, which locks its parent, and not yet committed.
    let child = world.look("child").await.chat.meta;
    let mut birth = db.pool.begin().await.expect("a session");
    birth.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    store::chats::lock(&mut birth, &world.key("child")).await.expect("locking the parent");
    let insert = "INSERT INTO chats (namespace, id, name, rv, owner, parent_id, root_id, created_by, created_at, updated_at)
                  SELECT namespace, $2, 'grandchild', log_rv(), owner, id, root_id, 'x', now(), now() FROM chats WHERE id = $1";
    sqlx::query(insert).bind(child.id).bind(world.clock.new_id()).execute(&mut *birth).await.expect("a birth");
    let archiving = tokio::spawn({
        let world = world.clone();
        async move { world.update_chat("root", |spec, _| spec.archived = true).await }
    });
    somebody_waits(&db.pool).await;
    birth.commit().await.expect("the birth");
    archiving.await.expect("the task").expect("archiving");
    assert!(world.look("grandchild").await.chat.is_archived(), "the tree was looked at again after the wait");
}

#[tokio::test]
async fn a_tree_that_grows_while_it_is_deleted_goes_whole() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("root").create().await;
    world.settle().await;
    let root = world.look("root").await.chat.meta;
    let mut birth = db.pool.begin().await.expect("a session");
    birth.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    store::chats::lock(&mut birth, &world.key("root")).await.expect("locking the parent");
    let insert = "INSERT INTO chats (namespace, id, name, rv, owner, parent_id, root_id, created_by, created_at, updated_at)
                  SELECT namespace, $2, 'late', log_rv(), owner, id, root_id, 'x', now(), now() FROM chats WHERE id = $1";
    sqlx::query(insert).bind(root.id).bind(world.clock.new_id()).execute(&mut *birth).await.expect("a birth");
    let deleting = tokio::spawn({
        let world = world.clone();
        async move { world.delete_chat("root", Propagation::Background).await }
    });
    somebody_waits(&db.pool).await;
    birth.commit().await.expect("the birth");
    deleting.await.expect("the task").expect("deleting");
    assert!(world.find("root").await.is_none() && world.find("late").await.is_none());
}

#[tokio::test]
async fn a_session_that_dies_in_the_middle_of_a_converge_leaves_its_chats_due() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_agent("ws-1").create().await;
    let mut session = PgConnection::connect_with(&db.options).await.expect("a session");
    session.execute("BEGIN").await.expect("a transaction");
    let claimed = converge::claim(&mut session, "team-a", 10).await.expect("a claim");
    assert_eq!(claimed.len(), 1);
    assert_eq!(world.reconciler.converge_due("team-a").await.expect("the loop").seen, 0, "it is somebody else's meanwhile");
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.expect("its pid");
    sqlx::query("SELECT pg_terminate_backend($1, 10000)").bind(pid).execute(&db.pool).await.expect("killing it");
    world.settle().await;
    assert!(world.look("fix").await.chat.pin.is_some());
    assert_eq!(world.story("fix").await, ["ChatCreated", "ContextHydrated"]);
}

#[tokio::test]
async fn a_name_that_was_freed_by_a_later_version_is_not_taken_by_an_earlier_one() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("name").create().await;
    let mut early = db.pool.begin().await.expect("a session");
    let log = TxLog::open(&mut early).await.expect("a version");
    world.delete_chat("name", Propagation::Background).await.expect("deleting");
    let later =
        store::events::deleted_later(&mut early, "team-a", "name", moorline::model::event::EventKind::ChatDeleted, log.rv);
    assert!(later.await.expect("looking"), "creating it now would go back in time");
    early.rollback().await.expect("rolling back");
    world.chat("name").create().await;
    assert!(world.look("name").await.chat.meta.rv > log.rv);
}

#[tokio::test]
async fn of_two_replicas_that_migrate_at_once_one_waits() {
    let db = crate::support::postgres::empty_database().await;
    let (one, two) = (store::pool(db.options.clone(), 2), store::pool(db.options.clone(), 2));
    let (a, b) = tokio::join!(store::schema::migrate(&one, false), store::schema::migrate(&two, false));
    let (a, b) = (a.expect("one"), b.expect("two"));
    assert_eq!((a.to, b.to), (store::schema::needed(), store::schema::needed()));
    let applied: i64 =
        sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&db.pool).await.expect("the migrations");
    assert_eq!(usize::try_from(applied), Ok(store::MIGRATOR.iter().count()), "each was applied once");
}

#[tokio::test]
async fn two_chats_of_one_name_are_one_chat_and_a_refusal() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let (a, b) = tokio::join!(world.chat("same").try_create(), world.chat("same").try_create());
    let refused = [a, b].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(refused[..], [WriteError::AlreadyExists]), "{refused:?}");
    let elsewhere = Key::new("team-b", "same");
    assert_eq!(store::chats::get(&mut db.pool.acquire().await.expect("a connection"), &elsewhere).await.expect("reading"), None);
}
