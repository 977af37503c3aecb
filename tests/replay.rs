//! A real history, replayed: 148 changes of one public repository's context, laid out in a real directory, read by the real
//! scanner, pushed and converged. The chat stays moored through all of it.

use crate::support::{
    postgres::database,
    trace::Trace,
    world::{RunningAgent, World},
};
use moorline::{
    model::{hash::ContextHash, resource::Resource},
    workspace::scan::scan,
};
use std::{collections::HashMap, path::Path};

/// What the workspace holds, as the scanner finds it, pushed and converged.
async fn step(world: &World, agent: &mut RunningAgent<'_>, trace: &Trace, step: usize, workspace: &Path) -> Vec<Resource> {
    trace.lay_out(step, workspace);
    let found = scan(workspace).expect("a scan").resources;
    agent.push(found.clone()).await;
    world.settle().await;
    found
}

fn bodies(resources: &[Resource]) -> Vec<(String, Vec<u8>)> {
    resources.iter().map(|found| (found.meta.source.clone(), found.body.clone().unwrap_or_default())).collect()
}

fn hash(resources: &[Resource]) -> ContextHash {
    let metas: Vec<_> = resources.iter().map(|found| found.meta.clone()).collect();
    ContextHash::of(&metas)
}

#[tokio::test]
async fn a_chat_stays_moored_through_a_real_history_of_148_changes() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let trace = Trace::read();
    let workspace = tempfile::tempdir().expect("a workspace");
    let mut agent = world.agent("superpowers").running().await;

    let first = step(&world, &mut agent, &trace, 1, workspace.path()).await;
    for (chat, follows) in [("moored", false), ("asks", false), ("follows", true)] {
        let new = world.chat(chat).of_agent("superpowers");
        if follows { new.follows_drift() } else { new }.create().await;
    }
    world.settle().await;

    let mut pins = HashMap::from([("moored", hash(&first)), ("asks", hash(&first))]);
    let mut asked = bodies(&first);
    for n in trace.steps() {
        let found = step(&world, &mut agent, &trace, n, workspace.path()).await;
        assert_eq!(hash(&found), trace.hash(n), "step {n}: the scanner finds what was laid out");
        for chat in ["moored", "asks"] {
            let dirty = world.look(chat).await.chat.dirty_since.is_some();
            assert_eq!(dirty, hash(&found) != pins[chat], "step {n}: {chat} is dirty exactly when the context is not its pin's");
        }
        if n % 29 == 0 {
            world.refresh("asks", &format!("at-{n}")).await.expect("a refresh");
            world.settle().await;
            pins.insert("asks", hash(&found));
            asked = bodies(&found);
        }
        if n % 12 == 0 || n == 148 {
            assert_eq!(world.bodies("moored").await, bodies(&first), "step {n}: it keeps what it was started with");
            assert_eq!(world.bodies("asks").await, asked, "step {n}: it has what it was refreshed to");
            assert_eq!(world.bodies("follows").await, bodies(&found), "step {n}: it follows");
        }
    }

    let (revision, snapshots): (i64, i64) =
        sqlx::query_as("SELECT max(revision), count(*) FROM snapshots").fetch_one(&db.pool).await.expect("the snapshots");
    assert_eq!((revision, snapshots), (146, 146), "A→B→A returns to the same snapshot");
    assert_eq!(world.settle().await, 0, "nothing is due any more");
}
