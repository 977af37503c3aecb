//! The life of chats and agents: trees, inherited pins, rebuilt workspaces, refreshing and deleting, at the sizes and in the
//! races where a naive variant goes wrong.

use crate::support::{
    api::{Api, file as push_file, settled},
    postgres::database,
    until::until,
    world::{World, file},
};
use moorline::{
    model::{
        access::Reach,
        agent::AgentSpec,
        chat::PinCause,
        fault::FaultKind,
        object::{DeletionPolicy, Key, Source, TextMap},
    },
    store::{self, Write, transact},
    writes::{WriteError, agents::CreateAgent, chats::Propagation},
};
use serde_json::json;
use sqlx::{Executor as _, PgPool};
use tokio_util::sync::CancellationToken;

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

/// A tree of `size` chats, each with up to ten children: `chat-0` is the root, and `chat-n` is below `chat-(n / 10)`.
async fn plant(pool: &PgPool, size: i32) {
    sqlx::query(
        "WITH ids AS MATERIALIZED (SELECT n, gen_random_uuid() AS id FROM generate_series(0, $1 - 1) n)
         INSERT INTO chats (namespace, id, name, rv, owner, parent_id, root_id, created_by, created_at, updated_at)
         SELECT 'team-a', i.id, 'chat-' || i.n, log_rv(), 'alice', p.id, r.id, 'alice', now(), now()
         FROM ids i JOIN ids r ON r.n = 0 LEFT JOIN ids p ON p.n = i.n / 10 AND i.n > 0",
    )
    .bind(size)
    .execute(pool)
    .await
    .expect("a tree");
}

async fn count(pool: &PgPool, what: &'static str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.expect("counting")
}

#[tokio::test]
async fn a_tree_of_ten_thousand_is_archived_unarchived_orphaned_and_deleted_each_in_one_transaction() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    plant(&db.pool, 10_000).await;
    world.settle().await;
    let archived = "SELECT count(*) FROM chats WHERE archived OR inherited_archived";
    let transactions = "SELECT count(DISTINCT xmin::text) FROM chats";
    world.update_chat("chat-7", |spec, _| spec.archived = true).await.expect("archiving a part");
    let part = count(&db.pool, archived).await;
    assert_eq!(part, 1 + 10 + 100 + 1_000);
    world.update_chat("chat-0", |spec, _| spec.archived = true).await.expect("archiving all of it");
    assert_eq!(count(&db.pool, archived).await, 10_000);
    let due = "SELECT count(*) FROM chats WHERE converged_revision < revision";
    assert_eq!(count(&db.pool, due).await, 10_000);
    assert_eq!(count(&db.pool, transactions).await, 2, "one for the part, one for all the others");
    world.settle().await;
    let said = "SELECT count(*) FROM chats WHERE conditions -> 'Ready' ->> 'reason' = 'Archived'";
    assert_eq!(count(&db.pool, said).await, 10_000);

    world.update_chat("chat-0", |spec, _| spec.archived = false).await.expect("unarchiving");
    assert_eq!(count(&db.pool, archived).await, part, "what was archived itself, and what is below it, stays so");
    world.settle().await;

    // The root goes, its nine children stay, each with its tree.
    world.delete_chat("chat-0", Propagation::Orphan).await.expect("orphaning");
    assert_eq!(count(&db.pool, "SELECT count(*) FROM chats WHERE parent_id IS NULL AND root_id = id").await, 9);
    assert_eq!(count(&db.pool, "SELECT count(DISTINCT root_id) FROM chats").await, 9);
    assert_eq!(count(&db.pool, archived).await, part);
    let numbers = "SELECT count(*) FROM (SELECT rv FROM events GROUP BY rv HAVING count(*) <> max(seq) OR min(seq) <> 1) x";
    assert_eq!(count(&db.pool, numbers).await, 0, "events are numbered from 1 within each transaction");
    world.delete_chat("chat-7", Propagation::Background).await.expect("deleting a tree");
    assert_eq!(count(&db.pool, "SELECT count(*) FROM chats").await, 9_999 - part);
    let gone = "SELECT count(*) FROM events WHERE kind = 'ChatDeleted'";
    assert_eq!(count(&db.pool, gone).await, part + 1);
    assert_eq!(world.settle().await, 8, "the children that are roots now");
}

#[tokio::test]
async fn archiving_locks_its_tree_in_the_order_of_ids_and_not_its_root_first() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let root = world.chat("root").create().await.chat.meta.id;
    world.chat("low").child_of("root").create().await;
    // A child that was made on a machine whose clock was behind: its id comes before its parent's.
    db.pool.execute("UPDATE chats SET id = '00000000-0000-7000-8000-000000000001' WHERE name = 'low'").await.expect("a low id");
    world.settle().await;
    let mut other = db.pool.begin().await.expect("a session");
    other.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.expect("patience");
    other.execute("SELECT FROM chats WHERE name = 'low' FOR NO KEY UPDATE").await.expect("the first lock in order");
    let archiving = tokio::spawn({
        let world = world.clone();
        async move { world.update_chat("root", |spec, _| spec.archived = true).await.expect("archiving") }
    });
    somebody_waits(&db.pool).await;
    sqlx::query("SELECT FROM chats WHERE id = $1 FOR NO KEY UPDATE NOWAIT")
        .bind(root)
        .execute(&mut *other)
        .await
        .expect("the second lock in order: archiving does not hold it while it waits for the first");
    other.commit().await.expect("done");
    archiving.await.expect("archived");
    assert!(world.look("low").await.chat.inherited_archived);
}

#[tokio::test]
async fn a_tree_that_grew_while_its_archiving_waited_is_archived_whole() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    world.chat("root").create().await;
    world.chat("leaf").child_of("root").create().await;
    let key = world.key("bud");
    let spec = world.look("leaf").await.chat.spec;
    let spec = moorline::model::chat::ChatSpec { parent: Some("leaf".into()), ..spec };
    let none = TextMap::new();
    let bud = moorline::writes::chats::CreateChat {
        clock: &world.clock,
        key: &key,
        spec: &spec,
        labels: &none,
        annotations: &none,
        created_by: "alice",
        reach: &Reach::Everything,
        source: Source::Api,
    };
    let mut growing = db.pool.begin().await.expect("a session");
    bud.run(&mut growing).await.expect("a bud");
    let archiving = tokio::spawn({
        let world = world.clone();
        async move { world.update_chat("root", |spec, _| spec.archived = true).await.expect("archiving") }
    });
    somebody_waits(&db.pool).await;
    growing.commit().await.expect("grown");
    archiving.await.expect("archived");
    for chat in ["leaf", "bud"] {
        assert!(world.look(chat).await.chat.inherited_archived, "{chat}");
    }
}

#[tokio::test]
async fn a_child_starts_with_its_parents_pin_however_deep_and_names_nobody_elsewhere_or_itself() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("ws-1").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    world.chat("c0").of_agent("ws-1").create().await;
    world.settle().await;
    agent.push(vec![file("AGENTS.md", "two")]).await;
    world.settle().await;
    for n in 1..=60 {
        world.chat(&format!("c{n}")).child_of(&format!("c{}", n - 1)).create().await;
    }
    let (top, deep) = (world.look("c0").await, world.look("c60").await);
    assert_eq!(deep.chat.root_id, top.chat.meta.id);
    assert_eq!(deep.pinned.map(|pin| pin.id), top.pinned.map(|pin| pin.id), "moored where its parent is, not where it would be");
    assert_eq!(deep.chat.pin.expect("a pin").cause, PinCause::Inherited);
    world.settle().await;
    assert!(world.look("c60").await.chat.dirty_since.is_some(), "and it has drifted as its parent has");

    let refused = |result: Result<_, WriteError>, kind| match result {
        Err(WriteError::Invalid(faults)) => {
            assert_eq!((faults[0].field.as_str(), faults[0].kind, faults.len()), ("spec.parentRef.name", kind, 1));
        }
        other => panic!("{other:?}"),
    };
    refused(world.chat("own").child_of("own").try_create().await, FaultKind::Invalid);
    let mut elsewhere = world.clone();
    elsewhere.namespace = "team-b".into();
    refused(elsewhere.chat("far").child_of("c0").try_create().await, FaultKind::NotFound);
    let cycle = world.update_chat("c0", |spec, _| spec.parent = Some("c60".into())).await;
    let Err(WriteError::Invalid(faults)) = cycle else { panic!("{cycle:?}") };
    assert_eq!((faults[0].field.as_str(), faults[0].kind), ("spec.parentRef", FaultKind::Forbidden), "so no cycle can be made");
}

#[tokio::test]
async fn a_rebuilt_workspace_takes_over_every_chat_and_no_reader_sees_one_agent_with_anothers_context() {
    let db = database().await;
    let world = World::new(db.pool.clone()).with_batch(20);
    let mut first = world.agent("build-1").of_workspace("w", 1).running().await;
    first.push(vec![file("AGENTS.md", "of build-1")]).await;
    for n in 0..60 {
        world.chat(&format!("chat-{n}")).of_workspace("w").create().await;
    }
    world.settle().await;
    let done = CancellationToken::new();
    let readers: Vec<_> = (0..3)
        .map(|reader| {
            let (world, done) = (world.clone(), done.clone());
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.is_cancelled() {
                    for n in (reader..60).step_by(7) {
                        let name = format!("chat-{n}");
                        let view = world.look(&name).await;
                        let pin = view.pinned.clone().expect("a pin, at every moment");
                        assert_eq!(view.bound_agent().expect("bound").id, pin.agent_id);
                        let mut connection = world.pool.acquire().await.expect("a connection");
                        let context = store::chats::context(&mut connection, &world.key(&name), true).await.expect("reading");
                        let pin = context.expect("the chat").pin.expect("a pin");
                        let body = pin.bodies.values().next().expect("a body");
                        assert_eq!(*body, format!("of {}", pin.agent_name).into_bytes());
                        reads += 1;
                    }
                }
                reads
            })
        })
        .collect();
    for build in 2..=8 {
        let name = format!("build-{build}");
        let mut agent = world.agent(&name).of_workspace("w", build).running().await;
        world.settle().await;
        let held = world.look("chat-0").await.pinned.expect("a pin");
        assert_eq!(held.agent_name, format!("build-{}", build - 1), "until it has reported, the old context stays");
        agent.push(vec![file("AGENTS.md", &format!("of {name}"))]).await;
        world.settle().await;
    }
    done.cancel();
    for reader in readers {
        assert!(reader.await.expect("a reader that saw one fact") > 0);
    }
    let late = "SELECT count(*) FROM chats c JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
                WHERE s.agent_name <> 'build-8' OR c.pin_cause <> 'Rebound' OR c.dirty_since IS NOT NULL";
    assert_eq!(count(&db.pool, late).await, 0);
    let rebound = "SELECT count(*) FROM events WHERE kind = 'AgentRebound'";
    assert_eq!(count(&db.pool, rebound).await, 60 * 7, "each chat once per build");
}

#[tokio::test]
async fn chats_are_deleted_with_what_is_below_them_or_without_as_asked() {
    let db = database().await;
    let api = Api::start(&db).await;
    let tree = async |name: &str| {
        api.create_chat(name, json!({})).await;
        for child in ["a", "b"] {
            api.create_chat(&format!("{name}-{child}"), json!({"parentRef": {"name": name}})).await;
        }
        api.create_chat(&format!("{name}-a-deep"), json!({"parentRef": {"name": format!("{name}-a")}})).await;
    };
    let delete = async |name: &str, query: &str, body: serde_json::Value| {
        let request = api.request(reqwest::Method::DELETE, &format!("chats/{name}{query}")).json(&body);
        api.send(request).await
    };
    for (n, (query, body, orphans)) in [
        ("", json!({}), false),
        ("", json!({"propagationPolicy": "Background"}), false),
        ("", json!({"propagationPolicy": "Foreground"}), false),
        ("", json!({"orphanDependents": false}), false),
        ("?propagationPolicy=Background", json!({}), false),
        ("", json!({"propagationPolicy": "Orphan"}), true),
        ("?propagationPolicy=Orphan", json!({}), true),
        ("", json!({"orphanDependents": true}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("tree-{n}");
        tree(&name).await;
        delete(&name, query, body.clone()).await.expect(200);
        api.get(&format!("chats/{name}")).await.refused(404, "NotFound");
        for child in ["a", "b", "a-deep"] {
            let status = api.get(&format!("chats/{name}-{child}")).await.status;
            assert_eq!(status, if orphans { 200 } else { 404 }, "{child} after {query} {body}");
        }
        if orphans {
            let spec = api.chat(&format!("{name}-a")).await["spec"].clone();
            assert_eq!(spec.get("parentRef"), None, "it has no parent any more");
            let deep = api.chat(&format!("{name}-a-deep")).await["spec"].clone();
            assert_eq!(deep["parentRef"]["name"], format!("{name}-a"));
        }
    }
    tree("kept").await;
    for body in [json!({"propagationPolicy": "Everything"}), json!({"propagationPolicy": "Background", "orphanDependents": true})]
    {
        let refused = delete("kept", "", body).await;
        assert!(matches!(refused.status, 400 | 422), "{}", refused.text);
    }
    let wrong = delete("kept", "", json!({"preconditions": {"uid": "01900000-0000-7000-8000-000000000000"}})).await;
    wrong.refused(409, "Conflict");
    api.chat("kept-a-deep").await;
}

#[tokio::test]
async fn an_agents_refresh_annotation_moves_its_chats_and_one_that_follows_drift_needs_none() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([push_file("AGENTS.md", "one")])).await;
    let on = json!({"agentRef": {"name": "ws"}});
    for name in ["a", "b", "shelved", "held"] {
        api.create_chat(name, on.clone()).await;
    }
    api.create_chat("follows", json!({"agentRef": {"name": "ws"}, "refreshPolicy": "OnDrift"})).await;
    api.patch("chats/shelved", &json!({"spec": {"archived": true}})).await.expect(200);
    api.patch("chats/held", &json!({"spec": {"suspend": true}})).await.expect(200);
    settled(&db).await;
    api.pushed(&run, 2, json!([push_file("AGENTS.md", "two")])).await;
    settled(&db).await;
    let cause = async |name: &str| api.chat(name).await["status"]["pinned"]["cause"].clone();
    assert_eq!((cause("a").await, cause("follows").await), (json!("Hydrated"), json!("AutoRefreshed")));
    api.put("chats/a/context", &json!({"token": "only a"})).await.expect(200);
    assert_eq!((cause("a").await, cause("b").await), (json!("Refreshed"), json!("Hydrated")), "one chat alone");

    let ask = json!({"metadata": {"annotations": {"moorline.dev/refresh-requested-at": "t1"}}});
    api.patch("agents/ws", &ask).await.expect(200);
    settled(&db).await;
    assert_eq!(api.agent("ws").await["status"]["lastHandledRefresh"], "t1");
    for name in ["a", "b", "follows"] {
        let status = api.chat(name).await["status"].clone();
        assert_eq!(
            (&status["pinned"]["cause"], &status["lastHandledRefresh"], &status["dirty"]),
            (&json!("Refreshed"), &json!("t1"), &json!(false)),
            "{name}"
        );
    }
    for name in ["shelved", "held"] {
        assert_eq!(cause(name).await, "Hydrated", "{name} keeps the context it has");
    }
    api.patch("chats/held", &json!({"spec": {"suspend": false}})).await.expect(200);
    settled(&db).await;
    assert_eq!(cause("held").await, "Refreshed", "a suspended chat's refresh waits for it");
}

#[tokio::test]
async fn two_who_join_an_empty_workspace_at_once_do_not_both_get_in() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let join = |user: &str| {
        let (world, user) = (world.clone(), user.to_owned());
        async move {
            let spec = AgentSpec {
                workspace: Some("w".into()),
                build: None,
                service_account: Some(user.clone()),
                suspend: false,
                revision_history_limit: 10,
                deletion_policy: DeletionPolicy::Delete,
            };
            (world.clone(), Key::new("team-a", format!("of-{user}")), spec, Reach::Own(user))
        }
    };
    let none = TextMap::new();
    let (w, key, spec, reach) = join("alice").await;
    let alice = CreateAgent {
        clock: &w.clock,
        key: &key,
        spec: &spec,
        labels: &none,
        annotations: &none,
        reach: &reach,
        source: Source::Api,
    };
    let mut first = db.pool.begin().await.expect("a session");
    alice.run(&mut first).await.expect("nobody is there yet");
    let second = tokio::spawn({
        let join = join("bob");
        async move {
            let (w, key, spec, reach) = join.await;
            let none = TextMap::new();
            let bob = CreateAgent {
                clock: &w.clock,
                key: &key,
                spec: &spec,
                labels: &none,
                annotations: &none,
                reach: &reach,
                source: Source::Api,
            };
            transact(&w.pool, &w.clock, &bob).await
        }
    });
    somebody_waits(&db.pool).await;
    first.commit().await.expect("joined");
    let Err(WriteError::Invalid(faults)) = second.await.expect("bob") else { panic!("both joined") };
    assert_eq!((faults[0].field.as_str(), faults[0].kind), ("spec.workspace", FaultKind::Forbidden));
}
