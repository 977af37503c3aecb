//! A stop at every step of the loop's transactions and of the API's: before each statement has gone out, and when it is done
//! and its answer is not in. Each ends in a `kill -9`, in a connection that is reset, or in a process that stands still for
//! longer than its session may. What is committed is there, whole and once; of what is not, there is nothing.

use super::statements::{Place, Side, Statements, Stopped};
use crate::support::{
    api::{Answer, Caller, Run, file, settled},
    postgres::{TestDb, database},
    serve::Replica,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{future::Future, process::Stdio};

/// What the first statement of each transaction is known by: of a converge of chats that are due, of a page of an agent's lap, of a
/// push, of a creation.
const CONVERGE: &str = "FROM chats\n         WHERE namespace = $1 AND converged_revision < revision";
const PAGE: &str = "FROM agents\n         WHERE namespace = $1 AND id > $2 AND converged_revision < revision";
const PUSH: &str = "SELECT id FROM agents WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE";
const CREATE: &str = "SELECT log_rv()";

/// What ends a transaction that has been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `kill -9` of the replica; another is started.
    Kill,
    /// Its connection to PostgreSQL is reset.
    Cut,
}

/// Two replicas, one for the API and one for the loop. The connections of one of them go through the proxy.
struct World {
    db: TestDb,
    statements: Statements,
    /// Is never stopped.
    _safe: Replica,
    /// Through the proxy.
    stopped: Replica,
    role: &'static str,
    api: Caller,
    run: Run,
    seq: i64,
}

async fn through(statements: &Statements, db: &TestDb, role: &str) -> Replica {
    Replica::telling(&statements.url(&db.name), &["--role", role], Stdio::null()).await
}

impl World {
    /// With an agent `ws` of the workspace `harbour`, and these chats; what is stopped is the replica of this role.
    async fn stopping(role: &'static str, chats: &[(&str, Value)]) -> Self {
        let db = database().await;
        let statements = Statements::before(&db.options).await;
        let other = if role == "api" { "controller" } else { "api" };
        let others = ["--role", other];
        let (safe, stopped) = tokio::join!(Replica::start(&db, &others), through(&statements, &db, role));
        let api = Caller::new(if role == "api" { &stopped.url } else { &safe.url });
        api.create_agent("ws", json!({"workspace": "harbour"})).await;
        let run = api.register_run("ws").await;
        let mut world = Self { db, statements, _safe: safe, stopped, role, api, run, seq: 0 };
        world.push().await;
        for (name, spec) in chats {
            world.api.create_chat(name, spec.clone()).await;
        }
        settled(&world.db).await;
        world
    }

    /// A context that was never there.
    async fn push(&mut self) -> String {
        self.seq += 1;
        let taken = self.api.pushed(&self.run, self.seq, json!([file("AGENTS.md", &format!("context {}\n", self.seq))])).await;
        taken["snapshot"]["hash"].as_str().unwrap().to_owned()
    }

    /// The transitions that the log tells of a chat, in order.
    async fn told(&self, chat: &str) -> Vec<String> {
        let (numbers, kinds): (Vec<i32>, Vec<String>) = sqlx::query_as::<_, (i32, String)>(
            "SELECT chat_seq::int, kind FROM events WHERE name = $1 AND chat_id IS NOT NULL ORDER BY rv, seq",
        )
        .bind(chat)
        .fetch_all(&self.db.pool)
        .await
        .unwrap()
        .into_iter()
        .unzip();
        let expected: Vec<i32> = (1..=i32::try_from(numbers.len()).unwrap()).collect();
        assert_eq!(numbers, expected, "the log numbers the transitions of {chat}: {kinds:?}");
        kinds
    }

    /// Ends what has been stopped.
    async fn end(&mut self, end: End) {
        match end {
            End::Kill => {
                self.stopped.kill();
                self.stopped = through(&self.statements, &self.db, self.role).await;
            }
            End::Cut => self.statements.cut(),
        }
    }
}

/// Goes on until something has happened, or a stop: which it was.
async fn stop_or<T>(statements: &Statements, done: impl Future<Output = T>) -> Result<T, Stopped> {
    tokio::select! {
        biased;
        stopped = statements.stopped() => Err(stopped),
        // What a transaction did is there a moment before the one that has its answer can stop.
        done = done => if statements.is_reached() { Err(statements.stopped().await) } else { Ok(done) },
    }
}

/// Every place of a transaction that begins so, in order, until there is no further statement: told by the caller.
fn places(first: &'static str) -> impl Iterator<Item = Place> {
    (0..).flat_map(move |step| [Side::Before, Side::After].map(|side| Place { first, step, side }))
}

/// Asks for the refresh of a chat that has drifted, and stops the converge that does it at each of its places.
async fn refreshes_stopped(end: End) -> Vec<String> {
    let mut world = World::stopping("controller", &[("fix", json!({"agentRef": {"name": "ws"}}))]).await;
    let mut stops = Vec::new();
    for (round, place) in places(CONVERGE).enumerate() {
        let hash = world.push().await;
        settled(&world.db).await;
        let before = world.told("fix").await;
        assert_eq!(before.last().map(String::as_str), Some("ContextDrifted"));

        world.statements.stop_at(place);
        let hasty = world.api.with("prefer", "respond-async");
        let token = format!("round-{round}");
        hasty.put("chats/fix/context", &json!({"token": token})).await.expect(200);
        let after_it = [before.clone(), vec!["ContextRefreshed".to_owned()]].concat();
        let Err(stop) = stop_or(&world.statements, settled(&world.db)).await else { break };
        let told = world.told("fix").await;
        assert_eq!(told, if stop.committed() { &after_it } else { &before }.clone(), "{}", stop.told());
        world.end(end).await;
        settled(&world.db).await;

        assert_eq!(world.told("fix").await, after_it, "once, after a stop {}", stop.told());
        let status = world.api.chat("fix").await["status"].take();
        assert_eq!((&status["pinned"]["hash"], &status["dirty"]), (&json!(hash), &json!(false)), "{}", stop.told());
        assert_eq!(status["lastHandledRefresh"], json!(token), "{}", stop.told());
        stops.push(stop.told());
    }
    world.statements.stop_nobody();
    stops
}

/// An agent's push, of whose news three chats are told in one transaction, stopped at each of its places.
async fn laps_stopped(end: End) -> Vec<String> {
    const CHATS: [(&str, &str); 3] =
        [("waits", "ContextDrifted"), ("follows", "ContextRefreshed"), ("through-workspace", "ContextDrifted")];
    let mut world = World::stopping(
        "controller",
        &[
            ("waits", json!({"agentRef": {"name": "ws"}})),
            ("follows", json!({"agentRef": {"name": "ws"}, "refreshPolicy": "OnDrift"})),
            ("through-workspace", json!({"workspaceRef": {"name": "harbour"}})),
        ],
    )
    .await;
    let mut stops = Vec::new();
    for place in places(PAGE) {
        let (mut before, mut after_it) = (Vec::new(), Vec::new());
        for (chat, news) in CHATS {
            let told = world.told(chat).await;
            after_it.push([told.clone(), vec![news.to_owned()]].concat());
            before.push(told);
        }
        world.statements.stop_at(place);
        let hash = world.push().await;
        let Err(stop) = stop_or(&world.statements, settled(&world.db)).await else { break };
        for (n, (chat, _)) in CHATS.iter().enumerate() {
            let wanted = if stop.committed() { &after_it } else { &before };
            assert_eq!(world.told(chat).await, wanted[n], "{chat}, {}", stop.told());
        }
        world.end(end).await;
        settled(&world.db).await;

        for (n, (chat, _)) in CHATS.iter().enumerate() {
            assert_eq!(world.told(chat).await, after_it[n], "{chat}: once, after a stop {}", stop.told());
            let status = world.api.chat(chat).await["status"].take();
            let (current, dirty) = (status["pinned"]["hash"] == hash.as_str(), status["dirty"] == true);
            assert_eq!((current, dirty), (*chat == "follows", *chat != "follows"), "{chat}, {}", stop.told());
            world.api.put(&format!("chats/{chat}/context"), &json!({"token": hash[..32]})).await.expect(200);
        }
        settled(&world.db).await;
        stops.push(stop.told());
    }
    world.statements.stop_nobody();
    stops
}

/// Sends a request whose transaction begins so, again and again, stopped at each of its places by a reset; each is sent again as
/// long as it is refused. `sent` makes the nth request and takes its answer for done.
async fn requests_stopped<F>(world: &World, first: &'static str, sent: impl Fn(Caller, usize) -> F) -> Vec<(usize, Stopped)>
where
    F: Future<Output = Answer> + Send + 'static,
{
    let mut stops = Vec::new();
    for (round, place) in places(first).enumerate() {
        world.statements.stop_at(place);
        let mut asking = tokio::spawn(sent(world.api.clone(), round));
        let Err(stop) = stop_or(&world.statements, &mut asking).await else { break };
        world.statements.cut();
        // Nobody knows whether it is done, and nobody says that it is.
        asking.await.unwrap().refused(503, "ServiceUnavailable");
        let again = sent(world.api.clone(), round).await;
        assert!(matches!(again.status, 200 | 201 | 409), "{} {}", again.status, again.text);
        assert_eq!(again.status == 409, first == CREATE && stop.committed(), "{} {}", stop.told(), again.text);
        stops.push((round, stop));
    }
    world.statements.stop_nobody();
    stops
}

fn every_step(stops: &[String], statements: &[&str]) {
    println!("{} stops: {stops:#?}", stops.len());
    for statement in statements {
        for side in ["Before", "After"] {
            let wanted = format!("{side} {statement}");
            assert!(stops.iter().any(|stop| stop.starts_with(&wanted)), "no stop {wanted} in {stops:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_converge_that_is_killed_at_any_of_its_steps_is_done_once_by_the_next_replica() {
    let stops = refreshes_stopped(End::Kill).await;
    every_step(&stops, &["SELECT id, ctid::text", "WITH told AS ( INSERT", "COMMIT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_converge_whose_connection_is_reset_at_any_of_its_steps_is_done_once_by_the_same_replica() {
    let stops = refreshes_stopped(End::Cut).await;
    every_step(&stops, &["SELECT id, ctid::text", "WITH told AS ( INSERT", "COMMIT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_lap_whose_connection_is_reset_at_any_of_its_steps_tells_each_chat_once() {
    let stops = laps_stopped(End::Cut).await;
    every_step(&stops, &["SELECT id FROM agents", "WITH told AS ( INSERT", "UPDATE agents", "COMMIT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_whose_connection_is_reset_at_any_of_its_steps_is_taken_once_when_it_is_sent_again() {
    let world = World::stopping("api", &[]).await;
    let seq = |round: usize| 100 + i64::try_from(round).unwrap();
    let run = world.run.clone();
    let stops = requests_stopped(&world, PUSH, |api, round| {
        let report = run.report(seq(round), json!([file("AGENTS.md", &format!("round {round}\n"))]));
        async move { api.push("ws", &report).await }
    })
    .await;
    settled(&world.db).await;
    for (round, stop) in &stops {
        let sent = world.run.report(seq(*round), json!([file("AGENTS.md", &format!("round {round}\n"))]));
        let hash = moorline::model::hash::ContentHash::of(format!("round {round}\n").as_bytes());
        let made: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshots WHERE manifest::text LIKE '%' || $1 || '%'")
            .bind(hash.to_string())
            .fetch_one(&world.db.pool)
            .await
            .unwrap();
        assert_eq!(made, 1, "{}: {sent}", stop.told());
    }
    let accepted: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'SnapshotAccepted'")
        .fetch_one(&world.db.pool)
        .await
        .unwrap();
    let snapshots: i64 = sqlx::query_scalar("SELECT count(*) FROM snapshots").fetch_one(&world.db.pool).await.unwrap();
    assert_eq!(accepted, snapshots, "each is told of once");
    let stops: Vec<String> = stops.iter().map(|(_, stop)| stop.told()).collect();
    every_step(&stops, &["SELECT id FROM agents", "WITH kept AS ( INSERT", "WITH told AS ( INSERT", "COMMIT"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_whose_connection_is_reset_at_any_of_its_steps_makes_one_chat_when_it_is_sent_again() {
    let world = World::stopping("api", &[]).await;
    let stops = requests_stopped(&world, CREATE, |api, round| async move {
        let chat = json!({"metadata": {"name": format!("made-{round}")}, "spec": {"agentRef": {"name": "ws"}}});
        api.post("chats", &chat).await
    })
    .await;
    settled(&world.db).await;
    for (round, stop) in &stops {
        let told = world.told(&format!("made-{round}")).await;
        assert_eq!(told, ["ChatCreated", "ContextHydrated"], "{}", stop.told());
    }
    let stops: Vec<String> = stops.iter().map(|(_, stop)| stop.told()).collect();
    every_step(&stops, &["SELECT log_rv()", "INSERT INTO chats", "INSERT INTO events", "COMMIT"]);
}

/// A replica that stands still in the middle of a converge, holding locks, for longer than its session may be idle: PostgreSQL ends
/// the session, another replica does the work, and the one that wakes up finds it done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stands_still_in_a_converge_is_overtaken_and_does_nothing_twice() {
    let world = World::stopping("controller", &[("fix", json!({"agentRef": {"name": "ws"}}))]).await;
    let before = world.told("fix").await;
    // `UPDATE chats` is done, and nobody can see it: the chat and its version are in hand.
    let place = places(CONVERGE).find(|place| place.step == 3 && place.side == Side::After).unwrap();
    world.statements.stop_at(place);
    let hasty = world.api.with("prefer", "respond-async");
    hasty.put("chats/fix/context", &json!({"token": "still"})).await.expect(200);
    let stop = world.statements.stopped().await;
    assert!(stop.told().starts_with("After WITH told AS ( INSERT"), "{}", stop.told());
    world.stopped.signal(Signal::STOP);
    let other = Replica::start(&world.db, &["--role", "controller"]).await;
    settled(&world.db).await;
    let after_it = [before, vec!["ContextRefreshed".to_owned()]].concat();
    assert_eq!(world.told("fix").await, after_it, "{}", stop.told());
    world.statements.go_on();
    world.stopped.signal(Signal::CONT);
    // It works again: with the other one gone, it alone.
    assert_eq!(other.terminate().await, Some(0));
    hasty.put("chats/fix/context", &json!({"token": "awake"})).await.expect(200);
    settled(&world.db).await;
    assert_eq!(world.told("fix").await, [after_it, vec!["ContextRefreshed".to_owned()]].concat());
}
