//! With a collector, one push can be followed to the chats that it made drift and to what the cluster was shown of them; and a
//! request belongs to the trace that its client names.

use crate::{
    batches::{chats, refuse},
    metrics::worked,
    support::{
        cluster::Front,
        collector::{Collector, Span},
        envtest::ControlPlane,
        postgres::database,
        serve::{Client, Replica, push_of},
        until::until,
        world::World,
    },
};
use moorline::trace::Story;
use serde_json::json;

const PROMPTLY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "50");

/// The spans of a trace that have this name.
fn named<'a>(spans: &'a [Span], trace: &str, name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.trace == trace && span.name == name).collect()
}

#[tokio::test]
async fn one_push_is_followed_to_its_chats_converge_and_to_the_patch_of_the_cluster() {
    let collector = Collector::start().await;
    let told = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), PROMPTLY];
    let front = Front::start_in(ControlPlane::shared().await, &[], &told).await;
    worked(&front).await; // "one" hydrates a chat, "two" makes it drift, and it is refreshed
    let chat = front.record("chats", "fix").await.unwrap();
    let agent = front.record("agents", "ws").await.unwrap();
    let story = Story {
        agent: agent["metadata"]["uid"].as_str().unwrap().parse().unwrap(),
        hash: chat["status"]["pinned"]["hash"].as_str().unwrap().parse().unwrap(),
    };
    let trace = story.trace().to_string();
    let spans = until("push, converge and mirror have been told of", || async {
        let spans = collector.spans();
        let patches = named(&spans, &trace, "mirror");
        let chats = patches.iter().filter(|span| span.attributes["moorline.resource"] == "chats").count();
        let whole = named(&spans, &trace, "push").len() == 1 && named(&spans, &trace, "converge").len() >= 2 && chats >= 2;
        whole.then_some(spans)
    })
    .await;

    let push = named(&spans, &trace, "push")[0];
    assert_eq!((push.parent.as_str(), push.service.as_str()), ("", "moorline"), "{push:?}");
    assert_eq!(push.attributes["moorline.agent"], "ws");
    let [(request, span)] = &push.links[..] else { panic!("{push:?}") };
    let request = spans.iter().find(|one| one.trace == *request && one.id == *span).expect("the request that it links to");
    assert!(request.name.starts_with("PUT ") && request.name.ends_with("/agents/{name}/snapshot"), "{request:?}");
    assert_eq!(request.attributes["http.response.status_code"], "200");
    for name in ["converge", "mirror"] {
        for span in named(&spans, &trace, name) {
            assert_eq!(span.parent, push.id, "{span:?}");
            assert!(span.began >= push.began && span.ended >= span.began, "{span:?}");
            assert_eq!(span.attributes["moorline.namespace"], front.namespace);
        }
    }
    let lanes: Vec<&str> =
        named(&spans, &trace, "converge").iter().map(|span| span.attributes["moorline.lane"].as_str()).collect();
    assert!(
        lanes.contains(&"agents") && lanes.contains(&"chats"),
        "it drifted by its agent's lap, and was refreshed by itself: {lanes:?}"
    );
    let shown = named(&spans, &trace, "mirror").into_iter().find(|span| span.attributes["moorline.resource"] == "chats").unwrap();
    assert_eq!((shown.attributes["moorline.name"].as_str(), shown.attributes["moorline.result"].as_str()), ("fix", "success"));
    // What the first push set off is another story.
    let stories: std::collections::BTreeSet<&str> =
        spans.iter().filter(|span| span.name == "push").map(|span| span.trace.as_str()).collect();
    assert_eq!(stories.len(), 2);
}

#[tokio::test]
async fn chats_of_a_batch_in_which_one_is_refused_are_told_together_all_the_same() {
    let (db, collector) = (database().await, Collector::start().await);
    let world = World::new(db.pool.clone());
    let _agent = chats(&world, &[]).await;
    world.settle().await; // from here on there is work for one lane only
    for chat in ["a", "bad", "c"] {
        world.chat(chat).of_agent("ws-1").create().await;
    }
    refuse(&db, "bad", "23514").await;
    let told = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), PROMPTLY];
    let _replica = Replica::start_in(&db, &[], &told).await;
    let hydrated = until("the chats have been told of", || async {
        let spans = collector.spans();
        spans.into_iter().find(|span| span.name == "converge" && span.attributes["moorline.lane"] == "chats")
    })
    .await;
    assert_eq!(hydrated.attributes["moorline.chats"], "2", "{hydrated:?}");
}

#[tokio::test]
async fn a_request_belongs_to_the_trace_of_its_client_and_is_an_example_in_the_metrics() {
    let (db, collector) = (database().await, Collector::start().await);
    let told = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")];
    let replica = Replica::start_in(&db, &[], &told).await;
    let client = Client::new();
    let agent = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "ws"}, "spec": {}});
    assert_eq!(client.post(&replica.url, "agents", agent).await.0, 201);
    let (_, run) = client.post(&replica.url, "agents/ws/runs", json!({})).await;
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let push = |seq, flags: &str, trace: &str| {
        let url = format!("{}/apis/moorline.dev/v1alpha1/namespaces/default/agents/ws/snapshot", replica.url);
        let body = push_of(&run, seq, "Complete", &format!("body {seq}")).to_string();
        let request = client.http.put(url).header("content-type", "application/json").body(body);
        request.header("traceparent", format!("00-{trace}-{parent}-{flags}")).send()
    };
    assert_eq!(push(1, "01", trace).await.unwrap().status().as_u16(), 200);
    let unwanted = "11111111111111111111111111111111";
    assert_eq!(push(2, "00", unwanted).await.unwrap().status().as_u16(), 200);
    let scrape = client.http.get(format!("{}/metrics", replica.url)).header("accept", "application/openmetrics-text");
    let text = scrape.send().await.unwrap().text().await.unwrap();
    let example = format!("# {{trace_id=\"{trace}\"}}");
    let has = |metric: &str| text.lines().any(|line| line.starts_with(metric) && line.contains(&example));
    assert!(has("moorline_push_duration_seconds_bucket") && has("moorline_http_request_duration_seconds_bucket"), "{text}");
    assert!(!text.contains(unwanted), "its client does not record it");

    // Whatever is left is told when the process ends.
    assert_eq!(replica.terminate().await, Some(0));
    let spans = collector.spans();
    let request = spans.iter().find(|span| span.trace == trace).expect("the request of the client's trace");
    assert_eq!(request.parent, parent, "{request:?}");
    let push = spans.iter().find(|span| span.links.iter().any(|(linked, _)| linked == trace)).expect("the push");
    assert_eq!((push.name.as_str(), &push.links[0].1), ("push", &request.id), "{push:?}");
    assert!(spans.iter().all(|span| span.trace != unwanted), "its client does not record it");
    assert!(spans.iter().all(|span| !span.name.ends_with("/readyz") && !span.name.ends_with("/metrics")), "{spans:?}");
}
