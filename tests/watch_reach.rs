//! What a watcher is told that may see its own records only.

use crate::support::{
    api::{Api, BASE, NAMESPACE},
    postgres::database,
    stream::{Watch, all_readable},
};
use serde_json::json;

const TOKENS: &str = "a,alice,1\nb,bob,2\nroot,admin,3,\"system:masters\"\n";

fn chats() -> String {
    format!("{BASE}/namespaces/{NAMESPACE}/chats")
}

#[tokio::test]
async fn of_anothers_chat_that_changed_more_often_than_is_kept_nothing_is_told_not_even_its_name() {
    let db = database().await;
    let api = Api::with_tokens(&db, TOKENS).await;
    let (alice, bob) = (api.as_token("a"), api.as_token("b"));
    bob.create_chat("his", json!({})).await;
    all_readable(&db).await;
    let list = alice.get(&chats()).await.expect(200);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    for n in 0..40 {
        let labels = json!({"metadata": {"labels": {"n": n.to_string()}}});
        bob.patch(&format!("{}/his", chats()), &labels).await.expect(200);
    }
    alice.create_chat("hers", json!({})).await;
    all_readable(&db).await;
    let mut watch = Watch::open(&alice, &chats(), &format!("resourceVersion={version}")).await;
    assert_eq!(watch.told().await, "ADDED hers");
}
