//! Who may do what, by token.

use crate::support::{
    api::{Api, BASE, digest, file, settings, settled},
    postgres::database,
    until::until,
};
use moorline::{
    clock, config,
    server::{Server, ServerError},
};
use reqwest::Method;
use serde_json::{Value, json};

const TOKENS: &str = "t-alice,alice,1\nt-bob,bob,2,\"dev,ops\"\nt-robot,robot,3\nt-admin,root,4,\"system:masters\"\n";

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn nobody_unknown_gets_in_whatever_the_path() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    for path in ["chats", "agents", "agentsnapshots", "chats/x/context", "/apis", "/api", "/version", "/openapi/v3", BASE] {
        for caller in [
            (*api).clone(),
            api.as_token("t-nobody"),
            api.as_token(""),
            api.with("authorization", "Basic dDphbGljZQ=="),
            api.with("authorization", "t-alice"),
        ] {
            let refused = caller.get(path).await.refused(401, "Unauthorized");
            assert_eq!(refused.headers["www-authenticate"], "Bearer", "{path}");
        }
    }
    api.post("chats", &json!({"metadata": {"name": "x"}})).await.refused(401, "Unauthorized");
    until("the server is ready", || async { (api.get("/readyz").await.status == 200).then_some(()) }).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(api.get(path).await.status, 200, "{path} is for probes, which have no token");
    }
    api.as_token("t-alice").get("chats").await.expect(200);
    api.as_token("t-admin").with("impersonate-user", "alice").get("chats").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn everybody_reaches_their_own_chats_and_masters_all() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (alice, bob, admin) = (api.as_token("t-alice"), api.as_token("t-bob"), api.as_token("t-admin"));
    let made = alice.create_chat("hers", json!({})).await;
    assert_eq!(made["spec"]["owner"], "alice", "whoever creates a chat owns it");
    bob.post("chats", &json!({"metadata": {"name": "x"}, "spec": {"owner": "alice"}})).await.refused(403, "Forbidden");
    admin.create_chat("given", json!({"owner": "alice"})).await;
    bob.create_chat("his", json!({})).await;
    settled(&db).await;
    let before = digest(&db).await;
    for (method, path, body) in [
        (Method::GET, "chats/hers", None),
        (Method::GET, "chats/hers/status", None),
        (Method::GET, "chats/hers/context", None),
        (Method::PUT, "chats/hers", Some(json!({"metadata": {"name": "hers"}, "spec": {"owner": "bob"}}))),
        (Method::PUT, "chats/hers/context", Some(json!({"token": "t"}))),
        (Method::DELETE, "chats/hers", None),
    ] {
        let request = bob.request(method.clone(), path);
        let answer = bob.send(body.iter().fold(request, reqwest::RequestBuilder::json)).await;
        let refused = answer.refused(403, "Forbidden");
        assert!(refused.message.contains("bob") && refused.message.contains("hers"), "{method} {path}: {}", refused.message);
    }
    bob.patch("chats/hers", &json!({"spec": {"title": "mine"}})).await.refused(403, "Forbidden");
    bob.patch("chats/hers/status", &json!({"status": {"state": "Error"}})).await.refused(403, "Forbidden");
    assert_eq!(digest(&db).await, before);
    assert_eq!(names(&alice.get("chats").await.expect(200)), ["given", "hers"]);
    assert_eq!(names(&bob.get(&format!("{BASE}/chats")).await.expect(200)), ["his"]);
    assert_eq!(names(&bob.get("chats?fieldSelector=metadata.name%3Dhers").await.expect(200)), Vec::<&str>::new());
    assert_eq!(names(&admin.get("chats").await.expect(200)), ["given", "hers", "his"]);
    alice.patch("chats/given", &json!({"spec": {"title": "mine"}})).await.expect(200);
    admin.get("chats/hers").await.expect(200);
    admin.delete("chats/hers").await.expect(200);
}

#[tokio::test]
async fn pages_are_full_of_what_the_caller_may_see() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (alice, bob) = (api.as_token("t-alice"), api.as_token("t-bob"));
    for n in 0..12 {
        let whose = if n % 3 == 0 { &alice } else { &bob };
        whose.create_chat(&format!("c{n:02}"), json!({})).await;
    }
    let first = alice.get("chats?limit=3").await.expect(200);
    assert_eq!(names(&first), ["c00", "c03", "c06"], "a page is full unless it is the last");
    let token = first["metadata"]["continue"].as_str().expect("there is one more");
    let last = alice.get(&format!("chats?limit=3&continue={token}")).await.expect(200);
    assert_eq!((names(&last), last["metadata"].get("continue")), (vec!["c09"], None));
    // Somebody else's token is a place in a list, not a right.
    assert_eq!(names(&bob.get(&format!("chats?limit=2&continue={token}")).await.expect(200)), ["c07", "c08"]);
}

#[tokio::test]
async fn an_agent_is_reached_by_its_service_account() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (robot, bob, admin) = (api.as_token("t-robot"), api.as_token("t-bob"), api.as_token("t-admin"));
    let body = |name: &str, account: &str| json!({"metadata": {"name": name}, "spec": {"serviceAccountName": account}});
    robot.post("agents", &body("ws", "robot")).await.expect(201);
    bob.post("agents", &body("stolen", "robot")).await.refused(403, "Forbidden");
    let his = bob.post("agents", &json!({"metadata": {"name": "bobs"}})).await.expect(201);
    assert_eq!(his["spec"]["serviceAccountName"], "bob", "whoever may only have agents of his own means one of his own");
    admin.create_agent("nobodys", json!({})).await;
    let run = robot.register_run("ws").await;
    robot.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    settled(&db).await;
    let before = digest(&db).await;
    bob.get("agents/ws").await.refused(403, "Forbidden");
    robot.get("agents/nobodys").await.refused(403, "Forbidden");
    bob.post("agents/ws/runs", &json!({})).await.refused(403, "Forbidden");
    bob.push("ws", &run.report(2, json!([]))).await.refused(403, "Forbidden");
    bob.delete("agents/ws").await.refused(403, "Forbidden");
    bob.patch("agents/ws", &json!({"spec": {"serviceAccountName": "bob"}})).await.refused(403, "Forbidden");
    // Nobody hands an agent to somebody else, or to nobody.
    robot.patch("agents/ws", &json!({"spec": {"serviceAccountName": "bob"}})).await.refused(403, "Forbidden");
    robot.put("agents/ws", &json!({"metadata": {"name": "ws"}, "spec": {}})).await.refused(403, "Forbidden");
    assert_eq!(digest(&db).await, before);
    assert_eq!(names(&bob.get("agents").await.expect(200)), ["bobs"]);
    assert_eq!(names(&robot.get("agents").await.expect(200)), ["ws"]);
    assert_eq!(names(&admin.get("agents").await.expect(200)), ["bobs", "nobodys", "ws"]);
    let snapshots = robot.get("agentsnapshots").await.expect(200);
    assert_eq!(names(&snapshots).len(), 1);
    assert_eq!(names(&bob.get("agentsnapshots").await.expect(200)), Vec::<&str>::new());
    bob.get(&format!("agentsnapshots/{}", names(&snapshots)[0])).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_parent_that_the_caller_may_not_read_is_as_good_as_none() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (alice, bob, admin) = (api.as_token("t-alice"), api.as_token("t-bob"), api.as_token("t-admin"));
    alice.create_chat("hers", json!({})).await;
    settled(&db).await;
    let before = digest(&db).await;
    let child = |parent: &str| json!({"metadata": {"name": "child"}, "spec": {"parentRef": {"name": parent}}});
    let unreadable = bob.post("chats", &child("hers")).await.refused(422, "Invalid");
    let absent = bob.post("chats", &child("nobody")).await.refused(422, "Invalid");
    assert!(unreadable.fields()[0].starts_with("spec.parentRef"), "{unreadable:?}");
    // Nor does the refusal tell which of both it is.
    assert_eq!(unreadable.message.replace("hers", "nobody"), absent.message);
    assert_eq!(digest(&db).await, before);
    alice.post("chats", &child("hers")).await.expect(201);
    admin.post("chats", &json!({"metadata": {"name": "other"}, "spec": {"parentRef": {"name": "hers"}}})).await.expect(201);
}

#[tokio::test]
async fn a_server_that_knows_nobody_listens_to_this_machine_only() {
    let db = database().await;
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let config = config::Server { listen: listen.parse().unwrap(), ..settings() };
        let Err(refused) = Server::bind(config, db.options.clone(), clock::system()).await else { panic!("{listen} was taken") };
        assert!(matches!(refused, ServerError::Auth(_)), "{listen}: {refused}");
        let said = refused.to_string();
        assert!(said.contains("none") && said.contains("loopback") && said.contains("token"), "{said}");
    }
    let api = Api::start(&db).await;
    api.get("chats").await.expect(200);
    // A page of another site, in a browser on this machine, is not this machine's owner.
    api.with("origin", "https://elsewhere.example").get("chats").await.refused(403, "Forbidden");
    api.with("host", "rebound.example").get("chats").await.refused(403, "Forbidden");
}
