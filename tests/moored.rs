//! A chat stays moored: hydrated, drifted, converged, refreshed, rebound, let go. Each story ends with one more converge that
//! changes nothing.

use crate::support::{
    postgres::database,
    world::{World, file},
};
use moorline::model::{
    chat::{ChatState, PinCause, Reference},
    condition::{ConditionType, Truth},
    push::Phase,
};
use moorline::writes::{WriteError, chats::Propagation};

async fn settled(world: &World) {
    world.settle().await;
    let before = world.footprint().await;
    assert_eq!(world.settle().await, 0, "nothing is due any more");
    assert_eq!(world.footprint().await.0, before.0, "converging what is converged writes nothing");
}

#[tokio::test]
async fn a_chat_keeps_what_it_was_started_with_until_somebody_asks() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("fix").of_agent("ws-1").create().await;
    settled(&world).await;
    let pinned = world.look("fix").await;
    assert_eq!(pinned.chat.pin.as_ref().map(|pin| pin.cause), Some(PinCause::Hydrated));

    agent.push(vec![file("AGENTS.md", "two")]).await;
    settled(&world).await;
    let dirty = world.look("fix").await;
    assert!(dirty.chat.dirty_since.is_some());
    assert_eq!(dirty.pinned, pinned.pinned, "the pin has not moved");
    assert_eq!(world.bodies("fix").await, [("AGENTS.md".to_owned(), b"one".to_vec())]);
    let since = dirty.chat.dirty_since;

    agent.push(vec![file("AGENTS.md", "three")]).await;
    settled(&world).await;
    assert_eq!(world.look("fix").await.chat.dirty_since, since, "the marker does not move while the episode lasts");

    agent.push(vec![file("AGENTS.md", "one")]).await;
    settled(&world).await;
    assert_eq!(world.look("fix").await.chat.dirty_since, None, "A→B→A ends clean");

    agent.push(vec![file("AGENTS.md", "four")]).await;
    settled(&world).await;
    world.refresh("fix", "please").await.expect("a refresh");
    settled(&world).await;
    let refreshed = world.look("fix").await;
    assert_eq!(refreshed.chat.refresh_handled.as_deref(), Some("please"));
    assert_eq!(refreshed.chat.dirty_since, None);
    assert_eq!(world.bodies("fix").await, [("AGENTS.md".to_owned(), b"four".to_vec())]);
    assert_eq!(
        world.story("fix").await,
        ["ChatCreated", "ContextHydrated", "ContextDrifted", "ContextConverged", "ContextDrifted", "ContextRefreshed"]
    );
}

#[tokio::test]
async fn a_chat_without_a_complete_snapshot_waits_and_says_so() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("early").of_agent("ws-1").create().await;
    settled(&world).await;
    let ready = |view: &moorline::model::chat::ChatView| {
        let ready = view.chat.conditions.get(ConditionType::Ready).expect("Ready").verdict.clone();
        (ready.status, ready.reason)
    };
    assert_eq!(ready(&world.look("early").await), (Truth::False, "AgentNotFound".to_owned()));
    let mut agent = world.agent("ws-1").running().await;
    agent.try_push(Phase::Pending, vec![file("AGENTS.md", "half")]).await.expect("a pending push");
    settled(&world).await;
    assert_eq!(ready(&world.look("early").await), (Truth::Unknown, "WaitingForSnapshot".to_owned()));
    assert_eq!(world.look("early").await.chat.pin, None, "a half-finished report never becomes a pin");
    agent.push(vec![]).await;
    settled(&world).await;
    assert_eq!(ready(&world.look("early").await), (Truth::True, "Pinned".to_owned()));
    assert_eq!(world.bodies("early").await, [], "an empty context is a context");
}

#[tokio::test]
async fn a_rebuilt_workspace_takes_its_chats_over_when_it_has_reported() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut first = world.agent("ws-1").of_workspace("ws", 1).running().await;
    first.push(vec![file("AGENTS.md", "same")]).await;
    world.chat("fix").of_workspace("ws").create().await;
    settled(&world).await;
    let mut second = world.agent("ws-2").of_workspace("ws", 2).running().await;
    settled(&world).await;
    let waiting = world.look("fix").await;
    assert_eq!(waiting.bound_agent().expect("an agent").name, "ws-1", "it keeps its old pin until then");
    assert_eq!(waiting.chat.conditions.get(ConditionType::Ready).expect("Ready").verdict.reason, "WaitingForSnapshot");
    second.push(vec![file("AGENTS.md", "same")]).await;
    settled(&world).await;
    let rebound = world.look("fix").await;
    assert_eq!(rebound.bound_agent().expect("an agent").name, "ws-2", "equal hashes of two agents are still a rebind");
    assert_eq!(world.story("fix").await.last().map(String::as_str), Some("AgentRebound"));
    world.delete_agent("ws-2").await;
    settled(&world).await;
    assert_eq!(world.look_at_agent("ws-2").await, None, "the agent is gone once its chats have been let go");
    assert_eq!(world.look("fix").await.bound_agent().expect("an agent").name, "ws-1", "back to the build before");
    world.delete_agent("ws-1").await;
    settled(&world).await;
    let kept = world.look("fix").await;
    assert_eq!(kept.bound_agent().expect("an agent").name, "ws-1", "a pin survives its agent");
    assert_eq!(world.bodies("fix").await, [("AGENTS.md".to_owned(), b"same".to_vec())]);
    assert_eq!(kept.chat.conditions.get(ConditionType::Ready).expect("Ready").verdict.reason, "AgentNotFound");
}

#[tokio::test]
async fn an_agent_that_moves_tells_the_workspace_it_left() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("mover").of_workspace("old", 1).running().await;
    agent.push(vec![file("AGENTS.md", "x")]).await;
    world.chat("stays").of_workspace("old").create().await;
    settled(&world).await;
    world.update_agent("mover", |spec, _| spec.workspace = Some("new".into())).await;
    world.chat("arrives").of_workspace("new").create().await;
    settled(&world).await;
    let ready = world.look("stays").await.chat.conditions.get(ConditionType::Ready).expect("Ready").verdict.reason.clone();
    assert_eq!(ready, "AgentNotFound");
    assert!(world.look("arrives").await.chat.pin.is_some());
}

#[tokio::test]
async fn archiving_covers_the_subtree_and_unarchiving_never_revives_a_child_that_was_archived_itself() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("root").of_agent("ws-1").create().await;
    settled(&world).await;
    world.chat("child").child_of("root").create().await;
    world.chat("own").child_of("root").archived().create().await;
    world.chat("below").child_of("own").create().await;
    settled(&world).await;
    let inherited = world.look("child").await;
    assert_eq!(inherited.chat.pin.as_ref().map(|pin| pin.cause), Some(PinCause::Inherited));
    assert_eq!(inherited.chat.spec.reference, Reference::Agent("ws-1".into()));
    world.update_chat("root", |spec, _| spec.archived = true).await.expect("archiving");
    settled(&world).await;
    for chat in ["root", "child", "own", "below"] {
        assert!(world.look(chat).await.chat.is_archived(), "{chat}");
    }
    agent.push(vec![file("AGENTS.md", "two")]).await;
    settled(&world).await;
    assert_eq!(world.look("child").await.chat.dirty_since, None, "an archived chat is frozen");
    assert!(matches!(world.refresh("child", "t").await, Err(WriteError::Archived)));
    world.update_chat("root", |spec, _| spec.archived = false).await.expect("unarchiving");
    settled(&world).await;
    let archived = async |chat: &str| world.look(chat).await.chat.is_archived();
    assert_eq!(
        (archived("root").await, archived("child").await, archived("own").await, archived("below").await),
        (false, false, true, true)
    );
    assert!(world.look("child").await.chat.dirty_since.is_some(), "the level is evaluated afresh");
}

#[tokio::test]
async fn deleting_takes_the_subtree_and_orphaning_keeps_the_children() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    for (chat, parent) in [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("c"))] {
        let new = world.chat(chat);
        match parent {
            Some(parent) => new.child_of(parent).create().await,
            None => new.create().await,
        };
    }
    settled(&world).await;
    world.delete_chat("b", Propagation::Orphan).await.expect("orphaning");
    settled(&world).await;
    let (c, d) = (world.look("c").await, world.look("d").await);
    assert_eq!((c.chat.parent_id, c.chat.root_id), (None, c.chat.meta.id));
    assert_eq!(d.chat.root_id, c.chat.meta.id);
    let d_id = d.chat.meta.id;
    world.delete_chat("c", Propagation::Background).await.expect("deleting");
    assert!(world.find("d").await.is_none() && world.find("a").await.is_some());
    assert_eq!(world.story_of(d_id).await.last().map(String::as_str), Some("ChatDeleted"));
    settled(&world).await;
}

#[tokio::test]
async fn a_terminal_chat_is_left_alone_and_evaluated_afresh_when_it_turns_active() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("done").of_agent("ws-1").create().await;
    world.chat("auto").of_agent("ws-1").follows_drift().create().await;
    settled(&world).await;
    world.report("done", ChatState::Completed).await;
    settled(&world).await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    settled(&world).await;
    assert_eq!(world.look("done").await.chat.dirty_since, None);
    let auto = world.look("auto").await;
    assert_eq!(auto.chat.pin.as_ref().map(|pin| pin.cause), Some(PinCause::AutoRefreshed));
    world.report("done", ChatState::Running).await;
    settled(&world).await;
    assert!(world.look("done").await.chat.dirty_since.is_some());
}

#[tokio::test]
async fn an_agents_refresh_token_refreshes_the_chats_bound_to_it_once() {
    let db = database().await;
    let world = World::new(db.pool.clone()).with_batch(2);
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for n in 0..5 {
        world.chat(&format!("chat-{n}")).of_agent("ws-1").create().await;
    }
    world.chat("shelved").of_agent("ws-1").create().await;
    settled(&world).await;
    world.update_chat("shelved", |spec, _| spec.archived = true).await.expect("archiving");
    settled(&world).await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    settled(&world).await;
    world
        .update_agent("ws-1", |_, annotations| {
            annotations.insert("moorline.dev/refresh-requested-at".into(), "now".into());
        })
        .await;
    settled(&world).await;
    for n in 0..5 {
        let chat = world.look(&format!("chat-{n}")).await.chat;
        assert_eq!((chat.dirty_since, chat.refresh_handled.as_deref()), (None, Some("now")), "chat-{n}");
    }
    let shelved = world.look("shelved").await.chat;
    assert_eq!(shelved.refresh_handled, None);
    assert_eq!(world.look_at_agent("ws-1").await.expect("the agent").agent.refresh_handled.as_deref(), Some("now"));
}
