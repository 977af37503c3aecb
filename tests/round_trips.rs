//! What a write costs between us and PostgreSQL: how often it waits for an answer, `BEGIN` and `COMMIT` included. Counted on the wire,
//! when every statement is known to the server already.

use crate::support::{
    api::{BASE, settings, settled},
    counted::Counted,
    postgres::{TestDb, database},
    world::{RunningAgent, World, file},
};
use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use moorline::{
    http::{self, AppState, auth::Authentication},
    model::push::Audience,
    reconcile::Reconciler,
    wake::Wake,
    worker::Worker,
};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A world behind a proxy that counts.
fn counted(db: &TestDb) -> (World, Counted) {
    let counted = Counted::before(&db.options);
    (World::new(counted.pool()), counted)
}

/// How often it was waited for an answer so far, with a connection that is there.
async fn waited(world: &World, counted: &Counted) -> usize {
    sqlx::query("SELECT").execute(&world.pool).await.unwrap();
    counted.round_trips()
}

/// What a push of two files costs, of which one may have changed.
async fn costs(counted: &Counted, agent: &mut RunningAgent<'_>, body: &str) -> usize {
    let before = waited(agent.world, counted).await;
    agent.push(vec![file("AGENTS.md", body), file("CLAUDE.md", "always the same")]).await;
    counted.round_trips() - before
}

#[tokio::test]
async fn a_push_costs_5_round_trips_when_nothing_changed_6_back_to_a_known_context_and_7_to_a_new_one() {
    let db = database().await;
    let (world, counted) = counted(&db);
    let mut agent = world.agent("builder").running().await;
    for body in ["one", "two", "one", "one", "three"] {
        costs(&counted, &mut agent, body).await;
    }
    assert_eq!(costs(&counted, &mut agent, "three").await, 5, "unchanged");
    assert_eq!(costs(&counted, &mut agent, "one").await, 6, "a context that it had before");
    assert_eq!(costs(&counted, &mut agent, "four").await, 7, "a new context with a new body");
    let before = waited(&world, &counted).await;
    agent.push(vec![file("AGENTS.md", "four")]).await;
    assert_eq!(counted.round_trips() - before, 7, "a new context of bodies that are there");
}

/// So many chats of the agent that have been converged once.
async fn chats(db: &TestDb, agent: &str, count: i32) {
    let insert = sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
         SELECT 'team-a', x.id, $1 || '-chat-' || x.n, log_rv(), 'somebody', $1, x.id, 'test', now(), now()
         FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, $2) n) x",
    );
    insert.bind(agent).bind(count).execute(&db.pool).await.unwrap();
}

/// Round trips of a batch of the chats' lane over all chats of the namespace, which are due.
async fn batch(world: &World, counted: &Counted, expected: usize) -> usize {
    let before = waited(world, counted).await;
    let batch = world.reconciler.converge_due(&world.namespace).await.unwrap();
    assert_eq!(batch.changed, expected, "{batch:?}");
    counted.round_trips() - before
}

#[tokio::test]
async fn a_batch_of_the_loop_costs_the_same_round_trips_whatever_its_size() {
    let db = database().await;
    let (world, counted) = counted(&db);
    // As many contexts as there are sizes, so that each drift is one that nobody has compared yet.
    let mut agent = world.agent("builder").running().await;
    let (mut hydrations, mut refreshes, mut pages) = (Vec::new(), Vec::new(), Vec::new());
    agent.push(vec![file("AGENTS.md", "first")]).await;
    world.settle().await;
    // The first of them is for the statements to be known.
    for (round, count) in [1, 1, 10, 999].into_iter().enumerate() {
        chats(&db, "builder", count).await;
        hydrations.push(batch(&world, &counted, count.try_into().unwrap()).await);

        agent.push(vec![file("AGENTS.md", &format!("context {round}"))]).await;
        let before = waited(&world, &counted).await;
        let told = world.reconciler.fan_out(&world.namespace, uuid::Uuid::nil()).await.unwrap().expect("an agent that is due");
        assert_eq!(told.batch.changed, usize::try_from(count).unwrap(), "{told:?}");
        pages.push(counted.round_trips() - before);

        sqlx::query("UPDATE chats SET refresh_requested = $1, revision = revision + 1")
            .bind(format!("round {round}"))
            .execute(&db.pool)
            .await
            .unwrap();
        refreshes.push(batch(&world, &counted, count.try_into().unwrap()).await);
        sqlx::query("DELETE FROM chats").execute(&db.pool).await.unwrap();
        world.settle().await;
    }
    let constant = |of: &[usize]| of[1..].iter().all(|trips| *trips == of[1]);
    assert!(constant(&hydrations) && hydrations[1] == 6, "BEGIN, claim, load, version, write, COMMIT: {hydrations:?}");
    assert!(constant(&refreshes) && refreshes[1] == 6, "the same: {refreshes:?}");
    assert!(constant(&pages) && pages[1] == 11, "a page of a lap, and its end: {pages:?}");
}

#[tokio::test]
async fn a_lap_that_shows_nothing_costs_6_round_trips_and_another_claim_when_its_agent_had_the_last_turn() {
    let db = database().await;
    let (world, counted) = counted(&db);
    let mut agent = world.agent("builder").running().await;
    let own = world.look_at_agent("builder").await.unwrap().agent.meta.id;
    let mut costs = Vec::new();
    // The first of each is for the statements to be known, and for the conditions to be true.
    for (context, after) in [uuid::Uuid::nil(), own, uuid::Uuid::nil(), own].into_iter().enumerate() {
        agent.push(vec![file("AGENTS.md", &format!("context {context}"))]).await;
        let before = waited(&world, &counted).await;
        let told = world.reconciler.fan_out(&world.namespace, after).await.unwrap();
        assert_eq!(told.map(|told| told.agent), Some(own));
        costs.push(counted.round_trips() - before);
    }
    assert_eq!(costs[2..], [6, 7], "BEGIN, claim, agent, chats, end, COMMIT");
}

#[tokio::test]
async fn the_loop_takes_each_of_many_pushes_to_nobody_by_two_statements() {
    const PUSHES: usize = 20;
    let db = database().await;
    let world = World::new(db.pool.clone());
    let counted = Counted::before(&db.options);
    let (pool, wake, stop) = (counted.pool(), Wake::default(), CancellationToken::new());
    let (clock, poll) = (world.clock.clone(), Duration::from_hours(1));
    let worker = Worker { reconciler: Reconciler::new(pool.clone(), clock.clone()), pool, clock, wake: wake.clone(), poll };
    let running = tokio::spawn(worker.run(stop.clone()));
    let mut agent = world.agent("builder").running().await;
    let mut before = 0;
    for push in 0..=PUSHES {
        agent.push(vec![file("AGENTS.md", &push.to_string())]).await;
        wake.news(&world.namespace, Audience::Nobody);
        settled(&db).await;
        if push == 0 {
            before = counted.round_trips(); // the first look, and the statements, are known
        }
    }
    let trips = counted.round_trips() - before;
    stop.cancel();
    running.await.expect("the task").expect("the lanes end well");
    // The look after the first may be on either side, and so may what is looked after now and then.
    assert!(trips <= PUSHES * 2 + 15, "a look for who follows it, and its end: {trips} for {PUSHES}");
}

#[tokio::test]
async fn over_http_a_push_costs_one_more_for_reading_the_agent_that_it_is_of() {
    let db = database().await;
    let (world, counted) = counted(&db);
    let agent = world.agent("builder").running().await;
    let authentication = Authentication::from_config(&settings()).unwrap();
    let routes = http::router(AppState::new(counted.pool(), world.clock.clone(), Wake::default(), authentication));
    let mut costs = Vec::new();
    // The first of each sort is for the statements to be known.
    for (seq, body) in ["one", "two", "one", "one", "two", "two", "three"].into_iter().enumerate() {
        let resource =
            json!({"kind": "InstructionFile", "source": "AGENTS.md", "sourcePath": "AGENTS.md", "body": body, "status": "Ok"});
        let push = json!({"runID": agent.run.id, "epoch": agent.run.epoch, "seq": seq + 1, "phase": "Complete", "resources": [resource]});
        let path = format!("{BASE}/namespaces/{}/agents/builder/snapshot", world.namespace);
        let request = Request::put(path).header("host", "localhost").header("content-type", "application/json");
        let before = counted.round_trips();
        let answer = routes.clone().oneshot(request.body(Body::from(push.to_string())).unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        costs.push(counted.round_trips() - before);
    }
    assert_eq!(costs[4..], [7, 2, 8], "a context that it had before, what it said before, and a new context with a new body");
}
