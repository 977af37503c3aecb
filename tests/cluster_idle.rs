//! With nothing to do the front does nothing, however much there is; and a change costs each object it concerns two looks at most.

use crate::support::{
    cluster::Front,
    envtest::{Audit, ControlPlane, audit::Mark},
    until::until_within,
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use std::time::Duration;

/// Half of them manifests, half of them made through the API.
const OBJECTS: u32 = 2_000;
/// How long the front is watched doing nothing, in seconds; `MOORLINE_TEST_IDLE` says another number.
const OBSERVED: u64 = 60;
/// How long all of them may take, beside whatever else runs.
const PATIENCE: Duration = Duration::from_mins(5);

fn chat(name: &str) -> Value {
    json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": name},
           "spec": {"owner": "alice", "agentRef": {"name": "ws"}}})
}

fn observed() -> Duration {
    Duration::from_secs(std::env::var("MOORLINE_TEST_IDLE").map_or(OBSERVED, |seconds| seconds.parse().unwrap()))
}

async fn make(front: &Front<'_>) {
    let made = stream::iter(0..OBJECTS).map(async |n| {
        if n % 2 == 0 {
            let (code, said) = front.send("POST", "chats", Some(chat(&format!("record-{n}")))).await;
            assert_eq!(code, 201, "{said}");
        } else {
            let path = format!("/apis/moorline.dev/v1alpha1/namespaces/{}/chats", front.namespace);
            front.control_plane.send("POST", &path, Some(&chat(&format!("manifest-{n}")))).await.unwrap();
        }
    });
    made.buffer_unordered(8).collect::<Vec<_>>().await;
}

/// Waits until each shows that it is pinned, and whether it has drifted. Looks at few at a time: at all of them only when about as
/// much was written as it takes.
async fn until_all_show(front: &Front<'_>, dirty: bool) {
    let path = format!("/apis/moorline.dev/v1alpha1/namespaces/{}/chats", front.namespace);
    until_within(PATIENCE, &format!("all show dirty={dirty}"), || async {
        let others =
            front.control_plane.send("GET", &format!("{path}?limit=1&fieldSelector=status.dirty!={dirty}"), None).await?;
        if !others["items"].as_array()?.is_empty() {
            return None;
        }
        let all = front.control_plane.send("GET", &path, None).await?;
        let pinned = all["items"].as_array()?.iter().filter(|chat| chat["status"]["pinned"]["snapshot"].is_string());
        (pinned.count() == OBJECTS as usize).then_some(())
    })
    .await;
}

/// What was written since, but for the Lease and what a probe of this test costs.
async fn written(front: &Front<'_>, since: Mark) -> Vec<Audit> {
    let mut writes = front.control_plane.writes_since(since).await;
    writes.retain(|it| it.namespace == front.namespace && it.resource != "leases" && !it.name.contains("probe-"));
    writes
}

async fn until_idle(front: &Front<'_>) {
    until_within(PATIENCE, "the front is idle", || async {
        let mark = front.control_plane.mark();
        front.settled().await;
        written(front, mark).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn beside_2000_objects_an_idle_front_writes_nothing_for_a_minute_and_a_change_is_two_looks_at_each() {
    let flags = ["--mirror=all", "--mirror-qps=10000", "--mirror-burst=10000"];
    let front = Front::start(ControlPlane::shared().await, &flags).await;
    front.apply(&json!({"kind": "Agent", "metadata": {"name": "ws"}, "spec": {}})).await;
    front.push("ws", "one").await;
    make(&front).await;
    until_all_show(&front, false).await;
    until_idle(&front).await;

    let (mark, looks, mirrored) = (
        front.control_plane.mark(),
        front.metric("moorline_mirror_looks_total").await,
        front.metric("moorline_mirror_patches_total{result=\"sent\"}").await,
    );
    front.push("ws", "two").await;
    until_all_show(&front, true).await;
    until_idle(&front).await;
    let statuses = written(&front, mark).await.into_iter().filter(|it| it.resource == "chats/status").count();
    assert_eq!(statuses, OBJECTS as usize, "each is written once");
    let looked = front.metric("moorline_mirror_looks_total").await - looks;
    let probes = front.metric("moorline_mirror_patches_total{result=\"sent\"}").await - mirrored - i64::from(OBJECTS);
    println!("{looked} looks at {OBJECTS} objects and what goes with them ({probes} other writes)");
    assert!(
        looked <= 2 * i64::from(OBJECTS) + 50,
        "{looked} looks at {OBJECTS} objects, and some at an agent, a snapshot and probes"
    );

    // An observation, not a wait for something to come about: what is asked is that nothing does.
    let (mark, looks) = (front.control_plane.mark(), front.metric("moorline_mirror_looks_total").await);
    let observed = observed();
    tokio::time::sleep(observed).await;
    assert_eq!(written(&front, mark).await, []);
    let looked = front.metric("moorline_mirror_looks_total").await - looks;
    assert!(looked <= 4, "{looked} looks, of which the last probe can have left a few");
    let renewals = front.control_plane.writes_since(mark).await;
    let renewals = renewals.iter().filter(|it| it.namespace == front.namespace && it.resource == "leases").count();
    println!("0 writes and {looked} looks in {observed:?}, {renewals} renewals of the Lease");
    assert!(renewals as u64 >= observed.as_secs() / 2, "it was there all the time: it has renewed its Lease {renewals} times");
}
