//! What holds the model and the program together: the statements of each transaction that the model goes through, in their order, as
//! the program sends them to a real PostgreSQL. Whoever changes an order finds out here that the model has to be changed too.

use crate::support::{
    counted::Counted,
    postgres::database,
    world::{World, file},
};
use moorline::{
    model::push::{Audience, Phase},
    writes::push::{AcceptPush, take_repeated},
};
use std::future::Future;
use uuid::Uuid;

/// Words of a statement, and what it is in the model.
type Step = (&'static str, &'static str);

const BEGIN: Step = ("BEGIN", "the transaction begins with the first row");
const VERSION: Step = ("log_rv()", "Version");
const COMMIT: Step = ("COMMIT", "At::Commit");

/// `Chats`: the chats' lane.
const CONVERGE: &[Step] = &[
    BEGIN,
    ("converged_revision < revision", "the claim, SKIP LOCKED"),
    ("c.ctid = ANY($2", "Chats::Load"),
    VERSION,
    ("UPDATE chats AS c SET snapshot_id", "Chats::Record"),
    COMMIT,
];
/// `Lap`: a page of an agent's lap that changes a chat, and ends the lap.
const LAP: &[Step] = &[
    BEGIN,
    ("SELECT id FROM agents WHERE namespace = $1 AND id > $2 AND converged_revision < revision", "the claim, SKIP LOCKED"),
    ("SELECT a.name, a.workspace, a.former_workspaces", "Lap::LoadAgent"),
    ("pg_try_advisory_xact_lock", "Lap::AloneIn"),
    ("n.agent = $2", "Lap::LoadConcerned"),
    ("SELECT id, manifest", "none: snapshots never change, and how two differ is told and not decided from"),
    ("FROM chats WHERE namespace = $1 AND id = ANY($2) ORDER BY id FOR NO KEY UPDATE", "Lap::LockAll"),
    ("c.ctid = ANY($2", "Lap::Load"),
    VERSION,
    ("UPDATE chats AS c SET snapshot_id", "Lap::Record"),
    ("UPDATE agents SET converged_revision = $3, fanout_revision = NULL", "Lap::End"),
    COMMIT,
];
/// `Lap::EndQuiet`: an agent that no chat follows.
const QUIET: &[Step] = &[
    ("AND NOT c.archived AND NOT c.inherited_archived LIMIT 1) IS NULL", "Action::FindQuiet"),
    ("UPDATE agents a SET converged_revision = free.revision", "Lap::EndQuiet"),
];
/// `Ask::Push`: what is read of the agent after the lock is one statement, of its own.
const PUSH: &[Step] = &[
    BEGIN,
    ("SELECT id FROM agents WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE", "Client::Lock"),
    ("AND b.hash = u.hash) IS NULL", "Client::Get"),
    VERSION,
    ("INSERT INTO snapshots", "Client::Write"),
    ("UPDATE agents SET seq = $3, push_digest = $4", "Client::Write"),
    COMMIT,
];
/// `Ask::Repeat`.
const REPEAT: &[Step] = &[("UPDATE agents a SET seq = $5, push_changed = false", "Client::Repeated")];
/// `Ask::Refresh`: it shows nothing, so it takes no version. First of all the test looks for the chat's uid.
const REFRESH: &[Step] = &[
    ("c.namespace = $1 AND c.name = $2", "none: it is the test's"),
    BEGIN,
    ("SELECT id FROM chats WHERE namespace = $1 AND name = $2 FOR NO KEY UPDATE", "Client::Lock"),
    ("c.namespace = $1 AND c.name = $2", "Client::Get"),
    ("UPDATE chats SET refresh_requested = $3, revision = revision + 1", "Client::Write"),
    ("c.namespace = $1 AND c.id = $2", "none: what the client is answered, of a row that is locked"),
    COMMIT,
];

#[track_caller]
fn is_as_modelled(what: &str, sent: &[String], steps: &[Step]) {
    let lines: Vec<String> = sent.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let alike = lines.len() == steps.len() && lines.iter().zip(steps).all(|(line, (words, _))| line.contains(words));
    assert!(alike, "{what}: the program sends {lines:#?}, and the model goes through {steps:#?}");
}

/// What is sent while this is done.
async fn sent<T>(counted: &Counted, work: impl Future<Output = T>) -> Vec<String> {
    let before = counted.round_trips();
    work.await;
    counted.since(before)
}

#[tokio::test]
async fn the_program_sends_the_statements_that_the_model_goes_through_in_its_order() {
    let db = database().await;
    let counted = Counted::before(&db.options);
    let world = World::new(counted.pool());
    let mut agent = world.agent("builder").of_workspace("ws", 1).running().await;
    world.chat("fix").of_agent("builder").create().await;
    let mut alone = world.agent("alone").running().await;
    // The first time is for the statements to be known.
    for round in ["one", "two", "three"] {
        let context = || vec![file("AGENTS.md", round)];
        let pushed = sent(&counted, agent.push(context())).await;
        let told = sent(&counted, async {
            world.reconciler.fan_out(&world.namespace, Uuid::nil()).await.unwrap().expect("the agent is due")
        })
        .await;
        let alone_pushed = alone.push(context()).await;
        assert_eq!(alone_pushed.audience, Audience::Nobody);
        let passed = sent(&counted, async { world.reconciler.converge_quiet(&world.namespace).await.unwrap() }).await;
        world.settle().await; // its first report shows something
        let (known, again) = (world.look_at_agent("builder").await.unwrap(), agent.next_push(Phase::Complete, context()));
        let accept = AcceptPush { clock: &world.clock, key: &agent.key, push: &again };
        let repeated = sent(&counted, async {
            take_repeated(&world.pool, &accept, &known).await.unwrap().expect("it says what the last one said")
        })
        .await;
        let asked = sent(&counted, async { world.refresh("fix", round).await.unwrap() }).await;
        let converged = sent(&counted, async { world.reconciler.converge_due(&world.namespace).await.unwrap() }).await;
        if round == "three" {
            is_as_modelled("a push", &pushed, PUSH);
            is_as_modelled("a lap", &told, LAP);
            is_as_modelled("an agent that no chat follows", &passed, QUIET);
            is_as_modelled("a repeated push", &repeated, REPEAT);
            is_as_modelled("a refresh", &asked, REFRESH);
            is_as_modelled("a converge", &converged, CONVERGE);
        }
    }
}
