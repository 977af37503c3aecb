//! Objects that fill a piece of the stream each: all of them are told, by the piece.

use crate::support::{
    api::{Api, BASE, NAMESPACE, file},
    postgres::database,
    stream::{Watch, all_readable},
};
use serde_json::Value;

/// A few hundred kilobytes of manifest.
fn large(n: i64) -> Value {
    let name = |f: i64| format!("{n}/{f}/{}", "long/".repeat(60));
    (0..500).map(|f| file(&name(f), "the same every time")).collect()
}

async fn revisions(mut watch: Watch, wanted: usize) -> Vec<i64> {
    let mut revisions = Vec::new();
    while revisions.len() < wanted {
        let event = watch.next().await.expect("a snapshot");
        assert_eq!(event["type"], "ADDED");
        assert_eq!(event["object"]["spec"]["resources"].as_array().unwrap().len(), 500);
        revisions.push(event["object"]["spec"]["revision"].as_i64().unwrap());
    }
    revisions
}

#[tokio::test]
async fn many_large_snapshots_are_told_once_each_from_a_list_from_history_and_live() {
    let db = database().await;
    let api = Api::start(&db).await;
    let snapshots = format!("{BASE}/namespaces/{NAMESPACE}/agentsnapshots");
    let run = api.running_agent("ws-1").await;
    all_readable(&db).await;
    let list = api.get(&snapshots).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let live = Watch::open(&api, &snapshots, "").await;
    for n in 1..=12 {
        api.pushed(&run, n, large(n)).await;
    }
    assert_eq!(revisions(live, 12).await, (1..=12).collect::<Vec<_>>());
    all_readable(&db).await;
    let replayed = Watch::open(&api, &snapshots, &format!("resourceVersion={version}")).await;
    assert_eq!(revisions(replayed, 12).await, (1..=12).collect::<Vec<_>>());
    let mut listed = revisions(Watch::open(&api, &snapshots, "").await, 12).await;
    listed.sort_unstable();
    assert_eq!(listed, (1..=12).collect::<Vec<_>>(), "in the order of their names");
}
