//! Whether there is a cluster is what the flags and the environment say, and what is missing is named.

use moorline::kubernetes::connect::{ConnectOptions, Mode, Place, connect, connect_to};
use serde_json::json;
use std::{fs, path::Path, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    process::Command,
    time::timeout,
};

fn kubeconfig(home: &Path, server: &str) -> Place {
    let file = home.join("config");
    let context = |namespace: Option<&str>| json!({"cluster": "it", "user": "us", "namespace": namespace});
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "here",
        "clusters": [{"name": "it", "cluster": {"server": server}}],
        "users": [{"name": "us", "user": {}}],
        "contexts": [{"name": "here", "context": context(Some("team-a"))}, {"name": "bare", "context": context(None)}],
    });
    fs::write(&file, config.to_string()).unwrap();
    Place { kubeconfig: Some(file), kube_context: None }
}

/// How `moorline serve` with nothing of this machine's environment ends, which has no database to go on with.
async fn complaint(home: &Path, args: &[&str], env: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
    command.args(["serve", "--listen=127.0.0.1:0", "--database-url=postgres://nobody@127.0.0.1:1/nothing"]).args(args);
    command.env_clear().env("HOME", home).envs(env.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn on_without_a_cluster_names_everything_that_was_looked_for() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join(".kube/config");
    let said = complaint(home.path(), &["--kubernetes=on"], &[]).await;
    let expected = format!(
        "moorline: no cluster is known: KUBERNETES_SERVICE_HOST is not set, so this runs in none; --kubeconfig (MOORLINE_KUBECONFIG) \
         is not given; and of the files that kubectl looks for ({}) there is none\n",
        place.display()
    );
    assert!(said.ends_with(&expected), "{said}");
    let said = complaint(home.path(), &["--kubernetes=on"], &[("KUBECONFIG", "/nowhere/a:/nowhere/b")]).await;
    assert!(said.contains("(KUBECONFIG=/nowhere/a:/nowhere/b) there is none"), "{said}");
}

#[tokio::test]
async fn a_kubeconfig_or_an_account_that_cannot_be_used_is_named_with_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    let said = complaint(home.path(), &["--kubernetes=on", "--kubeconfig=/nowhere/config"], &[]).await;
    assert!(said.contains("moorline: the kubeconfig /nowhere/config: ") && said.contains("No such file"), "{said}");
    let file = kubeconfig(home.path(), "http://127.0.0.1:1").kubeconfig.unwrap().display().to_string();
    let named = [("MOORLINE_KUBECONFIG", &*file), ("MOORLINE_KUBE_CONTEXT", "there"), ("MOORLINE_KUBERNETES", "on")];
    let said = complaint(home.path(), &[], &named).await;
    assert!(said.contains(&format!("the kubeconfig {file}: ")) && said.contains("there"), "{said}");
    fs::write(home.path().join("broken"), "a: [").unwrap();
    let broken = home.path().join("broken").display().to_string();
    let said = complaint(home.path(), &["--kubernetes=on", "--kubeconfig", &broken], &[]).await;
    assert!(said.contains(&format!("the kubeconfig {broken}: failed to parse")), "{said}");
    // In a cluster without the files of an account, which is what auto means there.
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    let said = complaint(home.path(), &[], &pod).await;
    assert!(
        said.contains("KUBERNETES_SERVICE_HOST is set, so this runs in a cluster, but its service account cannot be used"),
        "{said}"
    );
}

#[tokio::test]
async fn times_of_the_lease_that_do_not_go_together_are_refused_at_the_start() {
    let home = tempfile::tempdir().unwrap();
    let said = complaint(home.path(), &["--lease-duration=10s"], &[]).await;
    assert!(said.contains("--lease-duration must be longer than --lease-renew-deadline (10s), got 10s"), "{said}");
}

#[tokio::test]
async fn off_asks_nobody_and_the_namespace_is_the_contexts_or_default() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let home = tempfile::tempdir().unwrap();
    let place = kubeconfig(home.path(), "http://127.0.0.1:1");
    let options = |kubernetes| ConnectOptions { kubernetes, place: place.clone() };
    assert!(connect(&options(Mode::Off)).await.unwrap().is_none());
    // Tests run in no cluster.
    assert!(connect(&options(Mode::Auto)).await.unwrap().is_none());
    assert_eq!(connect(&options(Mode::On)).await.unwrap().unwrap().namespace, "team-a");
    let bare = Place { kube_context: Some("bare".into()), ..place };
    assert_eq!(connect_to(&bare).await.unwrap().namespace, "default");
}

#[tokio::test]
async fn a_request_that_is_refused_for_now_is_sent_once_and_says_who_we_are() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let place = kubeconfig(home.path(), &format!("http://{}", listener.local_addr().unwrap()));
    let busy = tokio::spawn(async move {
        let mut asked = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let n = connection.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
            let last = request.starts_with("get /version ");
            asked.push(request);
            let code = if last { "400 Bad Request" } else { "503 Service Unavailable" };
            let answer = format!("HTTP/1.1 {code}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            connection.write_all(answer.as_bytes()).await.unwrap();
            if last {
                break;
            }
        }
        asked
    });
    let client = connect_to(&place).await.unwrap().client;
    let refused = timeout(Duration::from_secs(30), client.list_api_groups()).await.expect("it is not sent again and again");
    refused.unwrap_err();
    client.apiserver_version().await.unwrap_err();
    let asked = busy.await.unwrap();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let us = format!("user-agent: moorline/{}\r\n", env!("CARGO_PKG_VERSION"));
    assert!(asked.iter().all(|request| request.contains(&us)), "{asked:?}");
}
