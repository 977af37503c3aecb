//! Replicas that serve the API and replicas that run the loop, apart: each does its own part and only that, and together they
//! do everything.

use crate::support::{
    api::{Api, BASE, Caller, file, settings},
    cluster::Front,
    envtest::ControlPlane,
    ports,
    postgres::database,
    serve::Replica,
    stream::Watch,
    until::until,
};
use moorline::{
    config::{self, Role, Serving},
    server::Server,
};
use serde_json::json;
use std::net::{SocketAddr, TcpListener};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_replica_and_a_controller_replica_converge_together() {
    let db = database().await;
    let front = Replica::start(&db, &["--role", "api"]).await;
    let api = Caller::new(&front.url);
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let chat = json!({"metadata": {"name": "fix"}, "spec": {"agentRef": {"name": "ws"}}});
    let alone = api.with("prefer", "wait=1").post("chats", &chat).await;
    assert_eq!(alone.header("preference-applied"), None, "nobody converges yet");
    assert_eq!(alone.expect(201)["status"]["pinned"], json!(null));

    let back = Replica::start(&db, &["--role", "controller"]).await;
    let pinned = || async { api.chat("fix").await["status"]["pinned"].is_object().then_some(()) };
    until("the controller has pinned it", pinned).await;
    let second = api.create_chat("second", json!({"agentRef": {"name": "ws"}})).await;
    assert_eq!(second["status"]["pinned"]["cause"], "Hydrated", "whoever creates a chat sees it pinned");
    let mut watch = Watch::open(&api, "chats", "").await;
    api.pushed(&run, 2, json!([file("AGENTS.md", "two")])).await;
    watch.until(|event| event["object"]["metadata"]["name"] == "fix" && event["object"]["status"]["dirty"] == true).await;
    drop(watch);

    // A controller has no API, and both can be probed and measured.
    let controller = Caller::new(&back.url);
    for path in ["/apis", &format!("{BASE}/chats"), "/openapi/v3", "/version"] {
        controller.get(path).await.refused(404, "NotFound");
    }
    for (replica, converges) in [(&api, false), (&controller, true)] {
        for path in ["/livez", "/readyz", "/healthz"] {
            assert_eq!(replica.get(path).await.status, 200, "{path}");
        }
        let text = replica.get("/metrics").await.text;
        assert!(text.contains("moorline_database_up 1"), "{text}");
        assert_eq!(text.contains("controller_runtime_reconcile_total{"), converges, "{text}");
    }
    assert_eq!(back.terminate().await, Some(0));
    assert_eq!(front.terminate().await, Some(0));
}

/// Alerts take the least of some of these over all replicas: one that has no front must not say that its front is not ready.
#[tokio::test]
async fn a_replica_without_the_loop_measures_no_front_even_if_it_is_told_of_a_cluster() {
    let with = Front::start(ControlPlane::shared().await, &[]).await;
    let api = with.another(&["--role=api"]).await;
    let without = Caller::new(&api.url);
    let gauges = ["moorline_kubernetes_ready", "moorline_kubernetes_watch_silent_seconds", "leader_election_master_status"];
    until("whoever has the front measures it", || async {
        let text = with.metrics_text(None).await.1;
        gauges.iter().all(|gauge| text.lines().any(|line| line.starts_with(gauge))).then_some(())
    })
    .await;
    let text = without.get("/metrics").await.text;
    assert!(text.contains("moorline_database_up 1"), "{text}");
    for gauge in gauges {
        assert!(!text.lines().any(|line| line.starts_with(gauge)), "{gauge}: {text}");
    }
}

#[tokio::test]
async fn what_listens_for_probes_answers_nothing_else() {
    let db = database().await;
    let health = ports::address();
    let serving = Serving { health_listen: Some(health), ..Serving::default() };
    let api = Api::run(config::Server { serving, ..settings() }, db.options.clone(), None).await;
    let probes = Caller::new(&format!("http://{health}"));
    until("it is ready", || async { (probes.get("/readyz").await.status == 200).then_some(()) }).await;
    let run = api.running_agent("ws").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    for path in ["/livez", "/metrics"] {
        assert_eq!((probes.get(path).await.status, api.get(path).await.status), (200, 200), "{path}");
    }
    probes.get("agents/ws").await.refused(404, "NotFound");
    probes.post("agents", &json!({"metadata": {"name": "other"}})).await.refused(404, "NotFound");
    api.get("agents/ws").await.expect(200);
}

#[tokio::test]
async fn a_controller_without_an_api_may_be_probed_from_anywhere() {
    let db = database().await;
    let (health, unused) = (ports::address(), ports::address());
    // `--auth none` would open an API to others; there is none.
    let listen = SocketAddr::new([0, 0, 0, 0].into(), unused.port());
    let serving = Serving { role: Role::Controller, health_listen: Some(health), ..Serving::default() };
    let config = config::Server { listen, serving, ..settings() };
    let server = Server::bind(config, db.options.clone(), moorline::clock::system()).await.unwrap();
    assert_eq!(server.address(), health, "the API's address is not listened on");
    TcpListener::bind(listen).expect("nobody has it");
}
