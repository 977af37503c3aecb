//! What the event of each transition says: from which context to which, by which snapshots, whose, why, and what it changed; and
//! that nothing is told where nothing is shown anew.

use crate::support::{
    postgres::{TestDb, database},
    world::{RunningAgent, World, file},
};
use moorline::model::{
    chat::{ChatState, Reference},
    object::{RECONCILE_ANNOTATION, REFRESH_ANNOTATION},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// The kinds and payloads of a chat's events, in order.
async fn told(db: &TestDb, world: &World, chat: &str) -> Vec<(String, Value)> {
    sqlx::query_as("SELECT kind, payload FROM events WHERE chat_id = $1 ORDER BY rv, seq")
        .bind(world.look(chat).await.chat.meta.id)
        .fetch_all(&db.pool)
        .await
        .expect("reading events")
}

/// Reports a context of one file; answers with its hash and the name of its snapshot.
async fn push(agent: &mut RunningAgent<'_>, body: &str) -> (Value, Value) {
    let snapshot = agent.push(vec![file("AGENTS.md", body)]).await.snapshot.expect("a snapshot");
    (json!(snapshot.hash), json!(snapshot.name))
}

#[tokio::test]
async fn a_transition_says_from_where_it_led_where_and_why() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut first = world.agent("first").running().await;
    let (one, one_is) = push(&mut first, "one").await;
    world.chat("fix").of_agent("first").create().await;
    world.settle().await;
    let (two, two_is) = push(&mut first, "two").await;
    world.settle().await;
    let since = json!(world.look("fix").await.chat.dirty_since.expect("it has drifted"));
    push(&mut first, "one").await;
    world.settle().await;
    push(&mut first, "two").await;
    world.settle().await;
    let again = json!(world.look("fix").await.chat.dirty_since.expect("it has drifted"));
    world.refresh("fix", "now").await.expect("a refresh");
    world.settle().await;
    let mut second = world.agent("second").running().await;
    let (three, three_is) = push(&mut second, "three").await;
    world.update_chat("fix", |spec, _| spec.reference = Reference::Agent("second".into())).await.expect("binding it elsewhere");
    world.settle().await;
    world.update_chat("fix", |spec, _| spec.reference = Reference::Unbound).await.expect("letting it go");
    world.refresh("fix", "then").await.expect("a refresh");
    world.settle().await;

    let drift = json!({"added": 0, "changed": 1, "removed": 0, "truncated": false,
                       "resources": [{"kind": "InstructionFile", "source": "AGENTS.md", "change": "Changed"}]});
    let drifted = |since: &Value| {
        json!({"from": one, "to": two, "fromSnapshot": one_is, "toSnapshot": two_is, "agent": "first", "drift": drift,
               "since": since, "before": {"dirty": false}})
    };
    let expected = [
        (
            "ContextHydrated",
            json!({"from": null, "to": one, "fromSnapshot": null, "toSnapshot": one_is, "agent": "first", "cause": "Hydrated"}),
        ),
        ("ContextDrifted", drifted(&since)),
        (
            "ContextConverged",
            json!({"from": one, "to": one, "fromSnapshot": one_is, "toSnapshot": one_is, "agent": "first", "before": {"dirty": true}}),
        ),
        ("ContextDrifted", drifted(&again)),
        (
            "ContextRefreshed",
            json!({"from": one, "to": two, "fromSnapshot": one_is, "toSnapshot": two_is, "agent": "first", "cause": "Refreshed",
                                    "drift": drift, "before": {"dirty": true}}),
        ),
        (
            "AgentRebound",
            json!({"from": two, "to": three, "fromSnapshot": two_is, "toSnapshot": three_is, "agent": "second", "cause": "Rebound",
                                "drift": drift}),
        ),
        ("ContextCleared", json!({"from": three, "to": null, "fromSnapshot": three_is, "toSnapshot": null, "agent": "second"})),
    ];
    let transitions: Vec<_> = told(&db, &world, "fix").await.into_iter().filter(|(kind, _)| !kind.starts_with("Chat")).collect();
    assert_eq!(transitions.len(), expected.len(), "{transitions:#?}");
    for ((kind, payload), (expected_kind, expected)) in transitions.iter().zip(expected) {
        assert_eq!((kind.as_str(), payload), (expected_kind, &expected));
    }
}

#[tokio::test]
async fn what_a_converge_shows_anew_is_an_event_and_what_it_finds_as_it_was_is_none() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    push(&mut agent, "one").await;
    world.chat("fix").of_agent("ws-1").create().await;
    world.chat("loose").create().await;
    world.settle().await;
    let mut story = vec!["ChatCreated", "ContextHydrated"];
    assert_eq!(world.story("fix").await, story);
    world.report("fix", ChatState::Running).await;
    world.settle().await;
    story.push("ChatUpdated"); // the report; there was nothing to do because of it
    assert_eq!(world.story("fix").await, story);

    world.update_chat("fix", |spec, _| spec.title = "another".into()).await.expect("an update");
    world.update_agent("ws-1", |_, annotations| drop(annotations.insert(RECONCILE_ANNOTATION.into(), "now".into()))).await;
    world.reconciler.fan_out("team-a", Uuid::nil()).await.expect("the agents' lane").expect("a lap");
    story.push("ChatUpdated"); // the title; that it has been seen is not the lap's to say
    assert_eq!(world.story("fix").await, story);
    world.settle().await;
    story.push("ChatUpdated"); // it has been seen
    assert_eq!(world.story("fix").await, story);

    world
        .update_chat("fix", |_, annotations| drop(annotations.insert(RECONCILE_ANNOTATION.into(), "now".into())))
        .await
        .expect("an update");
    world.settle().await;
    story.extend(["ChatUpdated"; 2]); // that it was asked for, and that it was done
    assert_eq!(world.story("fix").await, story);

    world.delete_agent("ws-1").await;
    world.settle().await;
    story.push("ChatUpdated"); // its conditions say that the agent is gone
    assert_eq!(world.story("fix").await, story);

    let before = world.story("loose").await.len();
    world.refresh("loose", "now").await.expect("a refresh");
    world.settle().await;
    let story = world.story("loose").await;
    assert_eq!(story[before..], ["ChatUpdated"; 1], "that it was done: {story:?}");
}

#[tokio::test]
async fn an_agent_that_shows_anew_that_it_was_looked_at_has_an_event() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    push(&mut agent, "one").await;
    world.settle().await;
    let updates = async || -> i64 {
        let count = sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'AgentUpdated'");
        count.fetch_one(&db.pool).await.expect("counting events")
    };
    let before = updates().await;
    world.update_agent("ws-1", |_, annotations| drop(annotations.insert(RECONCILE_ANNOTATION.into(), "now".into()))).await;
    assert_eq!(updates().await, before + 1, "that it was asked for");
    world.settle().await;
    assert_eq!(updates().await, before + 2, "that it was done");
}

#[tokio::test]
async fn an_agents_refresh_token_is_for_chats_that_it_has_and_that_have_not_had_it() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut before = world.agent("before").of_workspace("ws", 1).running().await;
    push(&mut before, "one").await;
    world.chat("ended").of_workspace("ws").create().await;
    world.settle().await;
    world.report("ended", ChatState::Completed).await;
    let mut after = world.agent("after").of_workspace("ws", 2).running().await;
    push(&mut after, "two").await;
    for chat in ["had", "has-not"] {
        world.chat(chat).of_workspace("ws").create().await;
    }
    world.settle().await;
    world.refresh("had", "now").await.expect("a refresh");
    world.settle().await;
    push(&mut after, "three").await;
    world.settle().await;
    world.update_agent("after", |_, annotations| drop(annotations.insert(REFRESH_ANNOTATION.into(), "now".into()))).await;
    world.settle().await;
    assert!(world.look("had").await.chat.dirty_since.is_some(), "this token has moved it once");
    assert_eq!(world.look("has-not").await.chat.dirty_since, None);
    let ended = world.look("ended").await;
    assert_eq!(
        (ended.chat.refresh_requested, ended.chat.refresh_handled),
        (None, None),
        "it is pinned to another agent's context"
    );
    assert_eq!(world.bodies("ended").await, [("AGENTS.md".to_owned(), b"one".to_vec())]);
}
