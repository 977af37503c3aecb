//! kube-rs and client-go as anybody uses them, over connections that break: what they have made of our answers is what the
//! database holds.

use crate::support::{
    api::{Api, NAMESPACE, Run, file, settled},
    caches::{By, Cache, all_equal, kube_client},
    hostile,
    postgres::database,
    proxy::{Proxy, Seeded},
};
use kube::{
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{conditions, wait::await_condition},
};
use moorline::v1alpha1::chat::{Chat, ChatSpec};
use serde_json::json;
use std::{ops::Range, time::Duration};
use tokio::time::timeout;

/// Chats that the writers below create, change and delete, over and over.
const NAMES: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_rs_creates_reads_changes_and_deletes_chats_by_their_type() {
    let db = database().await;
    let api = Api::start(&db).await;
    let run = api.running_agent("web").await;
    api.pushed(&run, 1, json!([file("AGENTS.md", "one")])).await;
    let chats: kube::Api<Chat> = kube::Api::namespaced(kube_client(&api.url), NAMESPACE);

    let spec: ChatSpec = serde_json::from_value(json!({"title": "Fix", "agentRef": {"name": "web"}})).unwrap();
    let made = chats.create(&PostParams::default(), &Chat::new("fix", spec.clone())).await.unwrap();
    assert_eq!(made.spec.title, "Fix");
    let again = chats.create(&PostParams::default(), &Chat::new("fix", spec)).await.unwrap_err();
    assert!(matches!(&again, kube::Error::Api(status) if status.is_already_exists()), "{again}");
    let listed = chats.list(&ListParams::default()).await.unwrap();
    assert_eq!(listed.items, [chats.get("fix").await.map(without_detail).unwrap()]);
    assert!(listed.metadata.resource_version.is_some());

    let titled = json!({"spec": {"title": "Mend"}});
    let changed = chats.patch("fix", &PatchParams::default(), &Patch::Merge(&titled)).await.unwrap();
    assert_eq!((changed.spec.title.as_str(), changed.metadata.generation), ("Mend", Some(2)));
    let stale = chats.replace("fix", &PostParams::default(), &made).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(status) if status.is_conflict()), "{stale}");
    let running = json!({"status": {"state": "Running"}});
    chats.patch_status("fix", &PatchParams::default(), &Patch::Merge(&running)).await.unwrap();

    let gone = made.metadata.uid.clone().unwrap();
    let learns = await_condition(chats.clone(), "fix", conditions::is_deleted(&gone));
    let nothing = DeleteParams::default();
    let (learned, deleted) = tokio::join!(timeout(Duration::from_secs(30), learns), chats.delete("fix", &nothing));
    deleted.unwrap();
    learned.expect("it learns of the end").unwrap();
    let nobody = chats.get("fix").await.unwrap_err();
    assert!(matches!(&nobody, kube::Error::Api(status) if status.is_not_found()), "{nobody}");
}

/// A chat as lists show it.
fn without_detail(mut chat: Chat) -> Chat {
    if let Some(status) = &mut chat.status {
        (status.latest, status.drift) = (None, None);
    }
    chat
}

/// Changes of every sort, one after another, that a seed gives again.
pub(crate) async fn writes(api: &Api, run: &Run, seed: u64, rounds: Range<u64>) {
    let mut random = Seeded::new(seed + rounds.start);
    let hasty = api.with("prefer", "respond-async");
    for round in rounds {
        let name = format!("chat-{seed}-{}", random.of(0..NAMES));
        let one = format!("chats/{name}");
        // What does not fit what is there is refused, which is an answer too.
        match random.of(0..8) {
            0 | 1 => {
                let spec = json!({"title": format!("{round}"), "agentRef": {"name": run.agent}});
                hasty.post("chats", &json!({"metadata": {"name": name, "labels": {"round": "even"}}, "spec": spec})).await
            }
            2 => hasty.delete(&one).await,
            3 => hasty.patch(&one, &json!({"spec": {"title": format!("title {round}")}})).await,
            4 => hasty.patch(&one, &json!({"metadata": {"labels": {"round": format!("{round}")}}})).await,
            5 => hasty.patch(&format!("{one}/status"), &json!({"status": {"state": "Running"}})).await,
            6 => hasty.put(&format!("{one}/context"), &json!({"token": format!("{round}")})).await,
            _ => {
                let body = format!("{seed} says {}", random.of(0..5));
                let seq = i64::try_from(round).unwrap();
                hasty.push(&run.agent, &run.report(seq, json!([file("AGENTS.md", &body)]))).await
            }
        };
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reflectors_of_kube_rs_stay_equal_to_the_database_through_many_cut_connections() {
    let db = database().await;
    let api = Api::start(&db).await;
    let (one, two) = (api.running_agent("one").await, api.running_agent("two").await);
    // So that there is something to list at first.
    tokio::join!(writes(&api, &one, 1, 1..100), writes(&api, &two, 2, 1..100));
    // Some of these are less than a list, and some less than an event: all are cut in their middle now and then.
    let proxy = Proxy::start(&api.address, 1, 200..40_000, 400).await;
    let mut caches = [Cache::kube_rs(&proxy.url, By::ListWatch), Cache::kube_rs(&proxy.url, By::StreamingList)];
    for lap in 0..20 {
        let rounds = || 100 * (lap + 1)..100 * (lap + 2);
        tokio::join!(
            writes(&api, &one, 1, rounds()),
            writes(&api, &two, 2, rounds()),
            hostile::writes(&db, 1, 8 * lap..8 * (lap + 1)),
            hostile::writes(&db, 2, 8 * lap..8 * (lap + 1)),
        );
        if proxy.cuts() > 60 {
            break;
        }
    }
    assert!(proxy.cuts() > 60, "only {} connections were cut", proxy.cuts());
    proxy.calm();
    settled(&db).await;
    all_equal(&mut caches, &db, &api.url, Duration::from_mins(1)).await;
    // And from here on without being told to list again: what is learned now is learned by watching.
    writes(&api, &one, 3, 6_000..6_020).await;
    settled(&db).await;
    all_equal(&mut caches, &db, &api.url, Duration::from_mins(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_informers_of_client_go_stay_equal_to_the_database_through_cut_connections() {
    let db = database().await;
    let api = Api::start(&db).await;
    // Few: client-go waits longer after each.
    let proxy = Proxy::start(&api.address, 2, 500..20_000, 12).await;
    let mut caches = [Cache::client_go(&proxy.url, By::ListWatch), Cache::client_go(&proxy.url, By::StreamingList)];
    let (one, two) = (api.running_agent("one").await, api.running_agent("two").await);
    tokio::join!(writes(&api, &one, 1, 1..150), writes(&api, &two, 2, 1..150));
    settled(&db).await;
    all_equal(&mut caches, &db, &api.url, Duration::from_secs(100)).await;
    assert!(proxy.cuts() > 3, "{} connections were cut", proxy.cuts());
    proxy.calm();
    writes(&api, &one, 3, 200..220).await;
    settled(&db).await;
    all_equal(&mut caches, &db, &api.url, Duration::from_mins(1)).await;
}
