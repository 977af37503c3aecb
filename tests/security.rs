//! Who may do what where a cluster decides: every cell of the table of docs/security.md, against a real kube-apiserver with RBAC
//! and tokens of service accounts; and that nothing of what somebody may not read gets to them by any other way.

mod matrix;
mod over_time;
mod paths;
mod world;

use crate::support::until::until;
use matrix::{DEEDS, Deed, ROLES, Whose};
use serde_json::json;
use std::fs;
#[cfg(feature = "profile")]
pub use world::delegator;
use world::{BODY, NAME, World};

#[test]
fn the_page_on_security_shows_the_table() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let table = matrix::table();
    assert!(fs::read_to_string(page).unwrap().contains(&table), "docs/security.md must have this table:\n{table}");
}

/// Every cell, of objects of one's own and of others: what may be done is done, what may not is refused as if the object were not
/// there, lists show what may be seen, and bodies are only where they may be.
#[tokio::test]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let world = World::begin(&[]).await;
    for (column, role) in ROLES.into_iter().enumerate() {
        let subjects: &[&str] = if role == "no role" { &["owner", "stranger", "neighbour"] } else { &[role] };
        for subject in subjects {
            for deed in &DEEDS {
                cell(&world, subject, deed, deed.cells[column]).await;
            }
        }
    }
    world.must_not_have_logged(&[BODY]);
}

async fn cell(world: &World, subject: &str, deed: &Deed, whose: Whose) {
    let at = format!("{subject}: {} {}", deed.method, deed.path);
    let (code, text) = world.does(subject, deed, world.planted(deed)).await;
    let has_body = text.contains(BODY);
    if deed.is_of_many() {
        assert_eq!(code, 200, "{at}: {text}");
        assert_eq!(text.contains(NAME), whose == Whose::All, "{at}: {text}");
        assert!(!has_body, "{at}: {text}");
        return;
    }
    match whose {
        Whose::All => assert!((200..300).contains(&code), "{at}: {code} {text}"),
        Whose::Own | Whose::None => {
            assert_eq!(code, 403, "{at}: {text}");
            let (_, absent) = world.does(subject, deed, "absent").await;
            if !deed.is_creation() {
                assert_eq!(text.replace(world.planted(deed), "absent"), absent, "{at}: it shows whether there is one");
            }
        }
    }
    assert_eq!(has_body, deed.bodies && whose == Whose::All, "{at}: {text}");
    if whose == Whose::Own && subject == "owner" {
        let (code, text) = world.does(subject, deed, world.own(deed)).await;
        assert!((200..300).contains(&code), "{at}, of its own: {code} {text}");
        assert!(!text.contains(NAME), "{at}, of its own: {text}");
    }
}

#[tokio::test]
async fn who_sends_no_token_or_one_that_is_not_for_us_is_not_known() {
    let world = World::begin(&[]).await;
    let user = world.user("admin");
    let good = world.cluster.token_for(user, "moorline").await;
    let path = world.path("chats");
    assert_eq!(world.get_with(&good, &path).await.0, 200);
    let for_another = world.cluster.token_for(user, "vault").await;
    let at = good.len() - 20;
    let other = if &good[at..=at] == "x" { "y" } else { "x" };
    let tampered = format!("{}{other}{}", &good[..at], &good[at + 1..]);
    let expired = world.cluster.expired(&good);
    for (what, token) in [
        ("for the apiserver", user.token.as_str()),
        ("for another audience", &for_another),
        ("expired", &expired),
        ("tampered with", &tampered),
        ("made up", "made-up"),
        ("none", ""),
    ] {
        for path in [&path, "/version", "/openapi/v3", "/apis"] {
            let (code, text) = world.get_with(token, path).await;
            assert_eq!(code, 401, "{what}: {path}: {text}");
            assert!(text.contains("\"Unauthorized\"") && !text.contains(NAME), "{what}: {text}");
        }
    }
    let (code, _) = world.get_as("admin", "/metrics").await;
    assert_eq!(code, 200);
}

#[tokio::test]
async fn each_write_is_a_line_of_the_audit_log_with_who_and_what_and_no_content() {
    let world = World::begin(&[]).await;
    let secret = json!({"metadata": {"name": "new"}, "spec": {"title": BODY, "agentRef": {"name": "robots"}}});
    let (code, made) = world.send("editor", "POST", "chats", Some(secret)).await;
    assert_eq!(code, 201, "{made}");
    world.send("stranger", "DELETE", "chats/new", None).await;
    world.send("editor", "GET", "chats/new", None).await;
    let lines = until("the lines are there", || async {
        let lines = world.audit();
        (lines.iter().any(|line| line["verb"] == "delete")).then_some(lines)
    })
    .await;
    let of = |verb: &str, name: &str| lines.iter().find(|line| line["verb"] == verb && line["name"] == name).unwrap();
    let created = of("create", "new");
    let uid = serde_json::from_str::<serde_json::Value>(&made).unwrap()["metadata"]["uid"].clone();
    assert_eq!((&created["uid"], &created["code"]), (&uid, &json!(201)), "{created}");
    assert_eq!(created["user"], json!(world.user("editor").name));
    assert_eq!((&created["resource"], &created["namespace"]), (&json!("chats"), &json!(world.namespace)));
    let refused = of("delete", "new");
    assert_eq!((&refused["user"], &refused["code"]), (&json!(world.user("stranger").name), &json!(403)), "{refused}");
    assert!(created["requestID"].as_str().is_some_and(|id| !id.is_empty()));
    let text = serde_json::to_string(&lines).unwrap();
    assert!(!text.contains(BODY), "{text}");
    let pushes = lines.iter().filter(|line| line["subresource"] == "snapshot").count();
    assert!(pushes >= 4, "{text}");
    assert!(lines.iter().all(|line| line["verb"] != "get"), "{text}");
}

#[tokio::test]
async fn who_sends_more_than_its_share_waits_and_others_do_not() {
    let world = World::begin(&["--rate-limit", "1", "--rate-burst", "200"]).await;
    let path = world.path("chats?limit=1");
    let mut refused = None;
    for _ in 0..400 {
        let answer = world.answer("reader", &path).await;
        if answer.status() == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("400 requests are more than 200");
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() >= 1);
    assert!(refused.text().await.unwrap().contains("TooManyRequests"));
    assert_eq!(world.answer("viewer", &path).await.status(), 200);
}
