//! What agents push most of the time is what they pushed before: that is one statement, and nothing that refuses a push is forgotten
//! by it.

use crate::support::{
    counted::Counted,
    postgres::database,
    world::{RunningAgent, World, file},
};
use moorline::{
    model::{
        push::{Audience, Phase, Push},
        resource::Resource,
    },
    writes::push::{AcceptPush, PushAnswer, take_repeated},
};

fn report(agent: &RunningAgent<'_>, seq: i64, resources: Vec<Resource>) -> Push {
    Push::new(agent.run.id, (agent.run.epoch, seq), Phase::Complete, String::new(), resources)
}

/// Takes a push by the one statement, if that will have it. The agent is known as it is.
async fn again(world: &World, agent: &RunningAgent<'_>, push: &Push) -> Option<PushAnswer> {
    let known = world.look_at_agent(&agent.key.name).await.expect("the agent");
    let accept = AcceptPush { clock: &world.clock, key: &agent.key, push };
    take_repeated(&world.pool, &accept, &known).await.expect("an answer")
}

fn same() -> Vec<Resource> {
    vec![file("AGENTS.md", "the same")]
}

#[tokio::test]
async fn a_push_of_what_was_pushed_before_is_one_statement_and_counts() {
    let db = database().await;
    let counted = Counted::before(&db.options);
    let world = World::new(counted.pool());
    let mut agent = world.agent("builder").running().await;
    let first = agent.push(same()).await;
    world.settle().await;
    again(&world, &agent, &report(&agent, 2, same())).await.expect("it is such a push");

    let before = (world.look_at_agent("builder").await, counted.round_trips());
    let answer = again(&world, &agent, &report(&agent, 3, same())).await.expect("it is such a push");
    assert_eq!(
        answer,
        PushAnswer { changed: false, snapshot: first.snapshot, replayed: false, shown: false, audience: Audience::Nobody }
    );
    assert_eq!(counted.round_trips() - before.1, 2, "one for reading the agent, one for the push");
    let after = world.look_at_agent("builder").await.expect("the agent");
    let mut expected = before.0.expect("the agent");
    assert_eq!((expected.agent.seq, after.agent.seq), (2, 3));
    expected.agent.seq = 3;
    assert_eq!(after, expected, "nothing else of it changed");

    // The next ones are judged by it.
    assert!(agent.send(&report(&agent, 2, same())).await.is_err(), "out of order");
    let replay = agent.send(&report(&agent, 3, same())).await.expect("a repetition");
    assert!(replay.replayed && !replay.changed, "{replay:?}");
}

#[tokio::test]
async fn what_refuses_a_push_refuses_it_however_often_its_content_came_before() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("builder").running().await;
    agent.push(same()).await;
    agent.push(same()).await;
    let taken = async |push: Push| again(&world, &agent, &push).await.is_some();

    assert!(!taken(report(&agent, 2, same())).await, "the number of the last one");
    assert!(!taken(report(&agent, 1, same())).await, "an older number");
    assert!(!taken(report(&agent, 3, vec![file("AGENTS.md", "another")])).await, "another content");
    let mut other = report(&agent, 3, same());
    other.epoch += 1;
    assert!(!taken(other).await, "another epoch");
    let mut other = report(&agent, 3, same());
    other.run_id = world.clock.new_id();
    assert!(!taken(other).await, "another run");
    for column in ["suspend", "paused"] {
        let set = |to| sqlx::query(sqlx::AssertSqlSafe(format!("UPDATE agents SET {column} = {to}"))).execute(&db.pool);
        set(true).await.unwrap();
        assert!(!taken(report(&agent, 3, same())).await, "{column}");
        set(false).await.unwrap();
    }
    sqlx::query("UPDATE agents SET deletion_timestamp = now()").execute(&db.pool).await.unwrap();
    assert!(!taken(report(&agent, 3, same())).await, "an agent that is being deleted");
    sqlx::query("UPDATE agents SET deletion_timestamp = NULL").execute(&db.pool).await.unwrap();
    assert_eq!(world.look_at_agent("builder").await.expect("the agent").agent.seq, 2, "nothing was written");
    assert!(taken(report(&agent, 3, same())).await, "and now it is taken");
}

#[tokio::test]
async fn a_push_is_not_taken_for_a_repetition_by_whom_the_agent_was_known_before_another_push() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("builder").running().await;
    agent.push(same()).await;
    let known = world.look_at_agent("builder").await.expect("the agent");
    agent.push(vec![file("AGENTS.md", "another")]).await;

    let push = report(&agent, 3, same());
    let accept = AcceptPush { clock: &world.clock, key: &agent.key, push: &push };
    let taken = take_repeated(&db.pool, &accept, &known).await.expect("an answer");
    assert_eq!(taken, None);
    assert!(agent.send(&push).await.expect("a push").changed, "it is a change back to what was before");
}
