//! A profile says where the process spends its processor time, to those who may know.

use crate::support::{
    envtest::ControlPlane,
    postgres::database,
    serve::{Client, Replica},
    until::until,
    wire::{Value, fields, messages},
};
use std::fs;

#[tokio::test]
async fn a_profile_of_a_busy_server_names_what_it_does_and_is_for_masters_only() {
    let db = database().await;
    let place = tempfile::tempdir().unwrap();
    let tokens = place.path().join("tokens");
    fs::write(&tokens, "root,root,1,system:masters\nalice,alice,2\n").unwrap();
    let flags = ["--auth=token", "--token-auth-file", tokens.to_str().unwrap()];
    let replica = Replica::start(&db, &flags).await;
    let client = Client::new();
    let ask = |token: &'static str, query: &str| {
        let url = format!("{}/debug/pprof/profile{query}", replica.url);
        let request = client.http.get(url).bearer_auth(token);
        async move { request.send().await.unwrap() }
    };
    assert_eq!(ask("nobody", "?seconds=1").await.status().as_u16(), 401);
    assert_eq!(ask("alice", "?seconds=1").await.status().as_u16(), 403);
    assert_eq!(ask("root", "?seconds=61").await.status().as_u16(), 400);

    let work = async {
        let url = format!("{}/apis/moorline.dev/v1alpha1/chats", replica.url);
        loop {
            client.http.get(&url).bearer_auth("root").send().await.unwrap().bytes().await.unwrap();
        }
    };
    let both = async { tokio::join!(ask("root", "?seconds=2"), ask("root", "?seconds=2")) };
    let (one, other) = tokio::select! { answers = both => answers, () = work => unreachable!("it goes on") };
    let mut codes = [one.status().as_u16(), other.status().as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [200, 429], "one at a time");
    let profile = if one.status().is_success() { one } else { other }.bytes().await.unwrap();

    let texts: Vec<String> = messages(&profile, 6).map(|text| String::from_utf8(text.to_vec()).unwrap()).collect();
    assert_eq!(texts[0], "");
    assert!(texts.iter().any(|text| text.contains("moorline::")), "{texts:?}");
    let numbers = |message: &[u8], number| {
        let all = fields(message).filter(|(field, _)| *field == number).map(|(_, value)| match value {
            Value::Number(number) => number,
            Value::Bytes(_) => panic!("a number"),
        });
        all.collect::<Vec<u64>>()
    };
    let ids: Vec<u64> = messages(&profile, 4).flat_map(|location| numbers(location, 1)).collect();
    assert!(messages(&profile, 2).count() > 5 && ids.len() > 5, "there are samples, and places");
    assert_eq!(numbers(&profile, 10), [2_000_000_000], "how long it took");
    for kind in messages(&profile, 1) {
        let names: Vec<&str> =
            [1, 2].iter().map(|field| texts[usize::try_from(numbers(kind, *field)[0]).unwrap()].as_str()).collect();
        assert!(names == ["samples", "count"] || names == ["cpu", "nanoseconds"], "{names:?}");
    }
}

#[tokio::test]
async fn in_a_cluster_it_is_for_whom_rbac_lets_get_its_path() {
    let cluster = ControlPlane::shared().await;
    let namespace = cluster.namespace_of_its_own().await;
    let moorline = cluster.user(&namespace, "moorline", &crate::security::delegator()).await;
    let place = tempfile::tempdir().unwrap();
    let kubeconfig = place.path().join("kubeconfig");
    fs::write(&kubeconfig, cluster.access(&namespace).of(&moorline).kubeconfig()).unwrap();
    let db = database().await;
    let flags = ["--auth=kubernetes", "--kubernetes=off", "--auth-deny-ttl=1s", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let replica = Replica::start(&db, &flags).await;
    let everything = serde_json::json!([{"apiGroups": ["moorline.dev"], "resources": ["*"], "verbs": ["*"]}]);
    let user = cluster.user(&namespace, "profiler", &everything).await;
    let token = cluster.token_for(&user, "moorline").await;
    let http = reqwest::Client::new();
    let url = format!("{}/debug/pprof/profile?seconds=1", replica.url);
    let ask = || async { http.get(&url).bearer_auth(&token).send().await.unwrap() };
    let refused = ask().await;
    assert_eq!(refused.status().as_u16(), 403);
    let told = refused.text().await.unwrap();
    assert!(told.contains("cannot get path \\\"/debug/pprof/profile\\\""), "{told}");
    let path = serde_json::json!([{"nonResourceURLs": ["/debug/pprof/*"], "verbs": ["get"]}]);
    cluster.allow(&user, &path).await;
    until("the right is there", || async { (ask().await.status().as_u16() == 200).then_some(()) }).await;
}
