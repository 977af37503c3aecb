//! Agents that nobody follows are converged without a lap; all others are left to theirs.

use crate::support::{
    postgres::database,
    world::{RunningAgent, World, file},
};
use moorline::{
    model::{
        object::{RECONCILE_ANNOTATION, REFRESH_ANNOTATION},
        push::Audience,
    },
    store::fanout,
};
use sqlx::{Executor as _, PgConnection, PgPool};

/// So many agents were converged because nobody follows them.
async fn passed(world: &World) -> usize {
    world.reconciler.converge_quiet(&world.namespace).await.expect("the two statements").seen
}

async fn is_due(world: &World, agent: &str) -> bool {
    let progress = world.look_at_agent(agent).await.expect("the agent").agent.progress;
    progress.converged_revision < progress.revision
}

async fn events(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(pool).await.expect("counting")
}

/// An agent whose first report has been told, and whose second has not.
async fn with_news<'a>(world: &'a World, name: &str) -> RunningAgent<'a> {
    let mut agent = world.agent(name).running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    agent
}

#[tokio::test]
async fn agents_that_nobody_follows_are_converged_all_at_once_and_show_nothing_of_it() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agents = Vec::new();
    for n in 0..3 {
        agents.push(with_news(&world, &format!("ws-{n}")).await);
        world.settle().await;
    }
    for agent in &mut agents {
        let answer = agent.push(vec![file("AGENTS.md", "three")]).await;
        assert!(answer.shown && answer.audience == Audience::Nobody, "{answer:?}");
    }
    let (before, rv) = (events(&db.pool).await, world.look_at_agent("ws-1").await.expect("the agent").agent.meta.rv);
    assert_eq!(passed(&world).await, 3);
    assert_eq!(passed(&world).await, 0, "once");
    assert!(!is_due(&world, "ws-0").await && !is_due(&world, "ws-2").await);
    assert_eq!(events(&db.pool).await, before);
    assert_eq!(world.look_at_agent("ws-1").await.expect("the agent").agent.meta.rv, rv);
}

#[tokio::test]
async fn an_agent_with_something_to_tell_or_to_show_is_left_to_its_lap() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut first = world.agent("first").running().await;
    first.push(vec![file("AGENTS.md", "one")]).await;
    assert_eq!(passed(&world).await, 0, "its conditions change");

    let mut followed = with_news(&world, "followed").await;
    world.chat("fix").of_agent("followed").create().await;
    world.settle().await;
    assert_eq!(followed.push(vec![file("AGENTS.md", "three")]).await.audience, Audience::Chats);
    let mut shared = world.agent("shared").of_workspace("ws", 1).running().await;
    assert_eq!(
        shared.push(vec![file("AGENTS.md", "one")]).await.audience,
        Audience::Chats,
        "by who names the workspace, now or later"
    );
    assert_eq!(passed(&world).await, 0, "a chat has to be told");
    world.settle().await;
    assert!(world.look("fix").await.chat.dirty_since.is_some());

    for (asked, annotation) in [("refresh", REFRESH_ANNOTATION), ("reconcile", RECONCILE_ANNOTATION)] {
        with_news(&world, asked).await;
        world.settle().await;
        world.update_agent(asked, |_, annotations| drop(annotations.insert(annotation.to_owned(), "once".to_owned()))).await;
        assert!(is_due(&world, asked).await && passed(&world).await == 0, "{asked}: a token has to be echoed");
        world.settle().await;
    }

    with_news(&world, "changed").await;
    world.settle().await;
    world.update_agent("changed", |spec, _| spec.revision_history_limit = 7).await;
    assert!(is_due(&world, "changed").await && passed(&world).await == 0, "its generation has to be seen");
    world.settle().await;

    world.agent("moved").of_workspace("left", 1).running().await.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("behind").of_workspace("left").create().await;
    world.settle().await;
    world.update_agent("moved", |spec, _| spec.workspace = None).await;
    db.pool
        .execute("UPDATE agents SET observed_generation = generation WHERE name = 'moved'")
        .await
        .expect("nothing else to see");
    assert!(is_due(&world, "moved").await && passed(&world).await == 0, "those that follow the workspace it left are to be told");
    world.settle().await;

    with_news(&world, "midway").await;
    let begun = "UPDATE agents SET fanout_revision = revision, fanout_cursor = gen_random_uuid(),
                        fanout_generation = generation
                 WHERE name = 'midway'";
    db.pool.execute(begun).await.expect("a lap begins");
    assert!(is_due(&world, "midway").await && passed(&world).await == 0, "its lap ends itself");
    world.settle().await;

    with_news(&world, "going").await;
    world.delete_agent("going").await;
    assert_eq!(passed(&world).await, 0, "it has to be removed");
    world.settle().await;
    assert!(world.look_at_agent("going").await.is_none());

    with_news(&world, "failing").await;
    db.pool.execute("UPDATE agents SET attempts = 1 WHERE name = 'failing'").await.expect("a failure");
    assert_eq!(passed(&world).await, 0, "that it has failed is to be taken back");
}

#[tokio::test]
async fn an_agent_that_cannot_be_read_does_not_hold_up_the_others() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    for name in ["bad", "good"] {
        with_news(&world, name).await;
        world.settle().await;
    }
    db.pool.execute("UPDATE agents SET revision = revision + 1").await.expect("news");
    db.pool.execute("UPDATE agents SET conditions = '{\"Ready\": 7}' WHERE name = 'bad'").await.expect("a row of another form");
    assert_eq!(passed(&world).await, 1);
    assert!(!is_due(&world, "good").await);
}

#[tokio::test]
async fn a_chat_that_is_archived_has_nothing_to_be_told() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = with_news(&world, "ws-1").await;
    world.chat("shelved").of_agent("ws-1").create().await;
    world.settle().await;
    world.update_chat("shelved", |spec, _| spec.archived = true).await.expect("archiving");
    world.settle().await;
    assert_eq!(agent.push(vec![file("AGENTS.md", "three")]).await.audience, Audience::Nobody);
    assert_eq!(passed(&world).await, 1);
    world.update_chat("shelved", |spec, _| spec.archived = false).await.expect("unarchiving");
    world.settle().await;
    assert!(world.look("shelved").await.chat.dirty_since.is_some(), "it is told what it missed when it comes back");
}

#[tokio::test]
async fn a_push_after_the_look_makes_the_agent_due_for_another() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = with_news(&world, "ws-1").await;
    let mut connection = db.pool.acquire().await.expect("a session");
    let read = fanout::quiet(&mut connection, &world.namespace, 64).await.expect("the look");
    let read: Vec<_> = read.quiet.iter().map(|agent| (agent.id, agent.revision)).collect();
    assert_eq!(read.len(), 1);
    // Somebody follows it, and is moored to what it points at, before it points at something else.
    world.chat("fix").of_agent("ws-1").create().await;
    world.reconciler.converge_due(&world.namespace).await.expect("the chats' lane");
    agent.push(vec![file("AGENTS.md", "three")]).await;
    assert_eq!(fanout::end_quiet(&mut connection, &world.namespace, &read).await.expect("the write"), 0);
    assert!(is_due(&world, "ws-1").await);
    world.settle().await;
    assert!(world.look("fix").await.chat.dirty_since.is_some());
}

#[tokio::test]
async fn an_agent_that_somebody_holds_is_left_and_not_waited_for() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    with_news(&world, "held").await;
    with_news(&world, "free").await;
    // The push of the second has told the first's news with the rest.
    world.settle().await;
    db.pool.execute("UPDATE agents SET revision = revision + 1").await.expect("news");
    let mut holder = db.pool.begin().await.expect("a session");
    holder.execute("SELECT FROM agents WHERE name = 'held' FOR NO KEY UPDATE").await.expect("a lock");
    assert_eq!(passed(&world).await, 1);
    holder.rollback().await.expect("letting go");
    assert!(is_due(&world, "held").await && !is_due(&world, "free").await);
}

#[tokio::test]
async fn a_look_goes_through_so_many_however_many_are_due() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let followed = "INSERT INTO agents (namespace, id, name, rv, created_at, converged_revision, generation, observed_generation)
                    SELECT $1, gen_random_uuid(), 'agent-' || n, log_rv(), now(), 0, 1, 1 FROM generate_series(1, 2000) n";
    sqlx::query(followed).bind(&world.namespace).execute(&db.pool).await.expect("agents that are due");
    let following = "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
                     SELECT namespace, id, name, rv, 'o', name, id, 'x', now(), now() FROM agents";
    db.pool.execute(following).await.expect("a chat of each");
    db.pool.execute("VACUUM ANALYZE agents, chats").await.expect("statistics");
    let mut tx = db.pool.begin().await.expect("a session");
    let looks = async |tx: &mut PgConnection| -> i64 {
        let sql = "SELECT pg_stat_get_xact_numscans('chats_agent_live'::regclass)";
        sqlx::query_scalar(sql).fetch_one(tx).await.expect("counting")
    };
    let before = looks(&mut tx).await;
    let due = fanout::quiet(&mut tx, &world.namespace, 64).await.expect("the look");
    assert!(due.quiet.is_empty() && due.others);
    assert_eq!(looks(&mut tx).await - before, fanout::LOOKED_THROUGH);
}
