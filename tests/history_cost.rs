//! What reading old events costs: what is read, however much their agents and the names of their chats have been through since. Counted
//! by PostgreSQL, on the very statements by which a watcher who comes back reads.

use crate::{
    lists_cost,
    support::{
        postgres::database,
        stream::all_readable,
        world::{World, file},
    },
};
use moorline::{
    http::tail::{Part, change::Missed, read},
    store::events::beginning,
    writes::chats::Propagation,
};

#[tokio::test]
async fn old_events_of_what_is_gone_are_read_without_all_that_its_name_and_its_agent_went_through_since() {
    let db = database().await;
    let world = World::new(db.pool.clone());
    let mut agent = world.agent("builder").running().await;
    agent.push(vec![file("AGENTS.md", "one")]).await;
    for _ in 0..40 {
        world.chat("fix").of_agent("builder").create().await;
        world.settle().await;
        world.delete_chat("fix", Propagation::Background).await.unwrap();
    }
    world.delete_agent("builder").await;
    world.settle().await;
    // Long stories of the same name and of the same agent, after those.
    sqlx::query(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         SELECT e.namespace, log_rv(), n, e.kind, x.id, e.name, x.id, e.agent_id, n, e.payload
         FROM (SELECT * FROM events WHERE kind = 'ContextHydrated' LIMIT 1) e,
              (SELECT gen_random_uuid() AS id) x, generate_series(1, 10000) n",
    )
    .execute(&db.pool)
    .await
    .unwrap();

    all_readable(&db).await;
    let mut moment = db.pool.begin().await.unwrap();
    let from = beginning(&mut moment).await.unwrap();
    let before = lists_cost::read(&mut moment, "events%").await;
    let part = read(&mut moment, from, &mut Missed::default(), 1 << 30).await.unwrap();
    let Part::Entries { entries, .. } = part else { panic!("it is all there: {part:?}") };
    let cost = lists_cost::read(&mut moment, "events%").await - before;
    let ends = entries.iter().filter(|entry| entry.change.as_ref().is_some_and(|change| change.gone)).count();
    assert_eq!(ends, 41, "chats, and their agent");
    let found = i64::try_from(entries.len()).unwrap();
    assert!(cost <= 10 * found, "{found} events cost {cost} rows");
}
