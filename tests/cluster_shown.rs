//! What the cluster shows of a chat, at any moment, is something that PostgreSQL held, in the order in which it did; and what
//! happened often is one Event.

use crate::support::{
    cluster::Front,
    envtest::ControlPlane,
    link::{Flow, Link},
    postgres::TestDb,
    until::{until, until_within},
};
use futures::{Stream, StreamExt as _, future};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use moorline::v1alpha1::Chat;
use serde_json::{Value, json};
use std::{collections::BTreeMap, pin::Pin, time::Duration};

const PATIENCE: Duration = Duration::from_mins(2);
const CHATS: usize = 6;
const ROUNDS: usize = 30;

/// What is compared of a chat: its pin and the cause of it, whether it has drifted, the last refresh, its state.
type State = (Option<String>, Option<String>, bool, Option<String>, String);

/// From now on the database remembers every state of every chat that was committed.
async fn remember(db: &TestDb) {
    sqlx::raw_sql(
        "CREATE TABLE held (n bigserial PRIMARY KEY, name text, snapshot bigint, cause text, dirty boolean, handled text, state text);
         CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO held (name, snapshot, cause, dirty, handled, state) VALUES
                 (NEW.name, NEW.snapshot_id, NEW.pin_cause, NEW.dirty_since IS NOT NULL, NEW.refresh_handled, NEW.state);
             RETURN NULL;
         END $$;
         CREATE TRIGGER hold AFTER INSERT OR UPDATE ON chats FOR EACH ROW EXECUTE FUNCTION hold();",
    )
    .execute(&db.pool)
    .await
    .unwrap();
}

/// The states that each chat had, in their order.
async fn held(db: &TestDb) -> BTreeMap<String, Vec<State>> {
    type Row = (String, Option<String>, Option<String>, bool, Option<String>, String);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT held.name, snapshots.name, cause, dirty, handled, state FROM held
         LEFT JOIN snapshots ON snapshots.id = held.snapshot ORDER BY n",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    let mut all = BTreeMap::<_, Vec<State>>::new();
    for (name, snapshot, cause, dirty, handled, state) in rows {
        all.entry(name).or_default().push((snapshot, cause, dirty, handled, state));
    }
    all
}

type Shows = Pin<Box<dyn Stream<Item = (String, Option<State>)> + Send>>;

/// Every state that the cluster comes to hold of a chat, from now on; none when an object has no status yet.
async fn shows(front: &Front<'_>) -> Shows {
    let client = front.control_plane.access(&front.namespace).client().await;
    let api: Api<Chat> = Api::namespaced(client, &front.namespace);
    let version = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let events = api.watch(&WatchParams::default(), &version).await.unwrap();
    let shown = |event: WatchEvent<Chat>| match event {
        WatchEvent::Added(chat) | WatchEvent::Modified(chat) => Some((chat.name_any(), state(&chat))),
        WatchEvent::Bookmark(_) => None,
        other => panic!("{other:?}"),
    };
    events.map(Result::unwrap).filter_map(move |event| future::ready(shown(event))).boxed()
}

fn state(chat: &Chat) -> Option<State> {
    let status = serde_json::to_value(&chat.status).unwrap();
    let (text, pinned) = (|value: &Value| value.as_str().map(str::to_owned), &status["pinned"]);
    let dirty = status["dirty"].as_bool().unwrap_or_default();
    Some((text(&pinned["snapshot"]), text(&pinned["cause"]), dirty, text(&status["lastHandledRefresh"]), text(&status["state"])?))
}

/// Whether what was shown is what was held, with some left out, in the same order.
fn is_part_of(shown: &[State], held: &[State]) -> Result<(), String> {
    let mut rest = held.iter();
    for state in shown {
        if !rest.any(|held| held == state) {
            let ever = if held.contains(state) { "was held earlier only" } else { "was never held" };
            return Err(format!("{state:?} {ever}; shown: {shown:#?}, held: {held:#?}"));
        }
    }
    Ok(())
}

/// Changes what a chat asks for, in the cluster.
async fn ask(front: &Front<'_>, round: usize, chat: usize) {
    let (agent, policy) = (["a", "b"][(round / 5 + chat) % 2], ["Manual", "OnDrift"][chat % 2]);
    let manifest = json!({
        "metadata": {"annotations": {"moorline.dev/refresh-requested-at": format!("round-{}", round / 3)}},
        "spec": {"agentRef": {"name": agent}, "refreshPolicy": policy, "suspend": (round + chat).is_multiple_of(11)},
    });
    let path = format!("/apis/moorline.dev/v1alpha1/namespaces/{}/chats/chat-{chat}", front.namespace);
    front.control_plane.send("PATCH", &path, Some(&manifest)).await.unwrap();
}

#[tokio::test]
async fn no_object_ever_shows_a_state_that_postgres_did_not_hold_or_an_older_one_after_a_newer() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let links = [Link::to(&control_plane.url).await, Link::to(&control_plane.url).await];
    let by = |link: &Link| control_plane.access(&namespace).via(&link.https()).kubeconfig();
    let flags = ["--mirror-qps=10000", "--mirror-burst=10000"];
    let front = Front::start_by(control_plane, namespace.clone(), &by(&links[0]), &flags).await;
    remember(&front.db).await;
    let mut shown = shows(&front).await;
    for agent in ["a", "b"] {
        front.apply(&json!({"kind": "Agent", "metadata": {"name": agent}, "spec": {}})).await;
        front.push(agent, "begin").await;
    }
    for chat in 0..CHATS {
        front.apply(&json!({"kind": "Chat", "metadata": {"name": format!("chat-{chat}")}, "spec": {}})).await;
    }
    front.until_shown("chat/chat-0", "Ready", "True", "Unbound").await;
    let first = front.holder().await;
    let _second = front.another_by(&by(&links[1]), &flags).await;
    for round in 0..ROUNDS {
        if round % 10 == 4 {
            // Whoever writes is cut off, with whatever it has in hand, and comes back while the other writes.
            let holder = front.holder().await;
            links[usize::from(!holder.starts_with(&first))].set(Flow::Silent);
            until("the other takes over", || async { (front.holder().await != holder).then_some(()) }).await;
        }
        front.push(["a", "b"][round % 2], &format!("body {}", round % 7)).await;
        for chat in 0..CHATS {
            ask(&front, round, chat).await;
        }
        if round % 10 == 7 {
            for link in &links {
                link.set(Flow::Whole);
            }
        }
    }
    until_within(PATIENCE, "the cluster shows what the records say", || async { front.agrees().await.then_some(()) }).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": "last"}, "spec": {}})).await;
    front.until_shown("chat/last", "Ready", "True", "Unbound").await;

    let mut all = BTreeMap::<String, Vec<State>>::new();
    loop {
        let (name, state) = tokio::time::timeout(PATIENCE, shown.next()).await.unwrap().unwrap();
        let Some(state) = state else { continue };
        if name == "last" {
            break;
        }
        let states = all.entry(name).or_default();
        if states.last() != Some(&state) {
            states.push(state);
        }
    }
    let held = held(&front.db).await;
    assert_eq!(all.len(), CHATS);
    for (name, shown) in &all {
        println!("{name}: {} states shown of {} held", shown.len(), held[name].len());
        assert!(shown.len() >= 5, "there was something to see: {shown:#?}");
        is_part_of(shown, &held[name]).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// The Events of one reason about a chat.
async fn events(front: &Front<'_>, chat: &str, reason: &str) -> Vec<Value> {
    let list = front.get("events.events.k8s.io").await;
    let of = |event: &Value| event["regarding"]["name"] == chat && event["reason"] == reason;
    list["items"].as_array().unwrap().iter().filter(|event| of(event)).cloned().collect()
}

#[tokio::test]
async fn what_happens_to_a_chat_again_and_again_is_one_event_that_counts() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    for name in ["fix", "other"] {
        front.apply(&json!({"kind": "Chat", "metadata": {"name": name}, "spec": {"agentRef": {"name": "ws"}}})).await;
    }
    front.push("ws", "begin").await;
    front.until_shown("chat/fix", "Ready", "True", "Pinned").await;
    for round in 1..=4 {
        front.push("ws", &format!("round {round}")).await;
        front.until_shown("chat/fix", "Drifted", "True", "ContentChanged").await;
        front
            .kubectl(&["annotate", "--overwrite", "chat/fix", &format!("moorline.dev/refresh-requested-at=round-{round}")])
            .await
            .out();
        front.until_shown("chat/fix", "Drifted", "False", "UpToDate").await;
    }
    for reason in ["ContextRefreshed", "ContextDrifted"] {
        until(&format!("four times {reason} is one Event that counts four"), || async {
            let events = events(&front, "fix", reason).await;
            let [event] = events.as_slice() else { return None };
            (event["series"]["count"] == 4).then_some(())
        })
        .await;
    }
    let hydrated = events(&front, "fix", "ContextHydrated").await;
    assert_eq!((hydrated.len(), &hydrated[0]["series"]), (1, &Value::Null), "what happened once is no series");
    let others = events(&front, "other", "ContextDrifted").await;
    assert_eq!((others.len(), &others[0]["series"]), (1, &Value::Null), "nor what happened to another chat");
    let described = front.kubectl(&["describe", "chat/fix"]).await.out();
    assert!(described.contains("x4"), "people see it: {described}");
}

#[tokio::test]
async fn a_chat_with_the_longest_name_has_events_too_and_one_that_somebody_deleted_is_told_anew() {
    let front = Front::start(ControlPlane::shared().await, &[]).await;
    let long = "a".repeat(253);
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.apply(&json!({"kind": "Chat", "metadata": {"name": long}, "spec": {"agentRef": {"name": "ws"}}})).await;
    front.push("ws", "begin").await;
    front.until_shown(&format!("chat/{long}"), "Ready", "True", "Pinned").await;
    for round in 0..2 {
        front.push("ws", &format!("round {round}")).await;
        front.until_shown(&format!("chat/{long}"), "Drifted", "True", "ContentChanged").await;
        front
            .kubectl(&["annotate", "--overwrite", "chat", &long, &format!("moorline.dev/refresh-requested-at=r{round}")])
            .await
            .out();
        until("its refresh is an Event, which is no series", || async {
            let events = events(&front, &long, "ContextRefreshed").await;
            (events.len() == 1 && events[0]["series"].is_null()).then_some(())
        })
        .await;
        front.kubectl(&["delete", "events.events.k8s.io", "--all"]).await.out();
    }
}
