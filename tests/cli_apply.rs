//! `moorline apply`: what kubectl's users expect of it, beside kubectl itself.

use crate::support::{
    api::digest,
    moorline::{Harbour, Shell, ended},
};
use serde_json::json;
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;

fn manifest(spec: &str) -> String {
    format!(
        "# two of them\n---\napiVersion: moorline.dev/v1alpha1\nkind: Agent\nmetadata: {{name: web}}\nspec: {{build: 1, workspace: w}}\n---\n\
         apiVersion: moorline.dev/v1alpha1\nkind: Chat\nmetadata:\n  name: new\n  labels: {{team: web}}\nspec: {spec}\n"
    )
}

fn chat(name: &str, rest: &str) -> String {
    format!("apiVersion: moorline.dev/v1alpha1\nkind: Chat\nmetadata: {{name: {name}}}\n{rest}\n")
}

const STDIN: &[&str] = &["apply", "-f", "-"];

async fn kubectl(shell: &Shell, server: &str, args: &[&str], input: &str) -> String {
    let program = std::env::var_os("MOORLINE_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut command = shell.program(program);
    command.env("KUBECONFIG", "/dev/null").env("PATH", std::env::var_os("PATH").unwrap());
    command.args(["--server", server, "-n", "team-a"]).args(args);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    ended(child).await.out()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_creates_changes_takes_away_and_leaves_alone() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let one = manifest("{title: one, agentRef: {name: web}}");
    let rehearsed = shell.fed(&["apply", "-f", "-", "--dry-run=server"], &one).await.out();
    assert_eq!(rehearsed, "agent.moorline.dev/web created (server dry run)\nchat.moorline.dev/new created (server dry run)\n");
    harbour.api.get("chats/new").await.refused(404, "NotFound");
    let made = shell.fed(STDIN, &one).await.out();
    assert_eq!(made, "agent.moorline.dev/web created\nchat.moorline.dev/new created\n");
    let before = digest(&harbour.db).await;
    let same = shell.fed(STDIN, &one).await.out();
    assert_eq!(same, "agent.moorline.dev/web unchanged\nchat.moorline.dev/new unchanged\n");
    assert_eq!(digest(&harbour.db).await, before, "unchanged is unchanged");

    // What somebody else wrote stays; what the manifest had and has no more goes.
    harbour.api.patch("chats/new", &json!({"metadata": {"labels": {"mine": "1"}}, "spec": {"suspend": true}})).await.expect(200);
    let dropped = manifest("{agentRef: {name: web}}").replace("  labels: {team: web}\n", "");
    let rehearsed = shell.fed(&["apply", "-f", "-", "--dry-run"], &dropped).await.out();
    assert!(rehearsed.ends_with("chat.moorline.dev/new configured (server dry run)\n"), "{rehearsed}");
    assert_eq!(harbour.api.chat("new").await["spec"]["title"], "one");
    let said = shell.fed(STDIN, &dropped).await.out();
    assert_eq!(said, "agent.moorline.dev/web unchanged\nchat.moorline.dev/new configured\n");
    let now = harbour.api.chat("new").await;
    assert_eq!(now["metadata"]["labels"], json!({"mine": "1"}));
    assert_eq!((now["spec"].get("title"), &now["spec"]["suspend"]), (None, &json!(true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_and_kubectl_apply_go_on_where_the_other_was() {
    let harbour = Harbour::new().await;
    let (shell, server) = (&harbour.shell, harbour.replica.url.as_str());
    let one = manifest("{title: 'a < b & c', agentRef: {name: web}}");
    shell.fed(STDIN, &one).await.out();
    let same = kubectl(shell, server, STDIN, &one).await;
    assert_eq!(same, "agent.moorline.dev/web unchanged\nchat.moorline.dev/new unchanged\n");
    let two = manifest("{agentRef: {name: web}, refreshPolicy: OnDrift}");
    let said = kubectl(shell, server, STDIN, &two).await;
    assert_eq!(said, "agent.moorline.dev/web unchanged\nchat.moorline.dev/new configured\n");
    assert_eq!(harbour.api.chat("new").await["spec"].get("title"), None, "kubectl takes away what ours had applied");
    assert_eq!(shell.fed(STDIN, &two).await.out(), "agent.moorline.dev/web unchanged\nchat.moorline.dev/new unchanged\n");
    let three = manifest("{agentRef: {name: web}}");
    shell.fed(STDIN, &three).await.out();
    assert_eq!(harbour.api.chat("new").await["spec"]["refreshPolicy"], "Manual", "and ours what kubectl had");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_directories_and_standard_input_are_read() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    shell.write("all/b.yaml", &chat("b", ""));
    shell.write("all/a.json", r#"{"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "a"}}"#);
    shell.write("all/notes.txt", "not a manifest");
    shell.write("all/deep/c.yml", &chat("c", ""));
    let dir = shell.run(&["apply", "-f", "all"]).await.out();
    assert_eq!(dir, "chat.moorline.dev/a created\nchat.moorline.dev/b created\n");
    let deep = shell.run(&["apply", "-R", "-f", "all", "-o", "name"]).await.out();
    assert_eq!(deep, "chat.moorline.dev/a\nchat.moorline.dev/b\nchat.moorline.dev/c\n");
    let list = shell.fed(&["apply", "-f", "all/b.yaml", "-f", "-", "-o", "json"], &chat("d", "")).await.json();
    assert_eq!((&list["kind"], &list["items"][1]["metadata"]["name"]), (&json!("List"), &json!("d")));
    // What is shown can be applied again.
    let whole = shell.run(&["get", "chat", "fix", "-o", "yaml"]).await.out();
    assert_eq!(shell.fed(STDIN, &whole).await.out(), "chat.moorline.dev/fix configured\n");
    assert_eq!(shell.fed(STDIN, &whole).await.code, Some(1), "its version is another now");
    let empty = shell.fed(STDIN, "# nothing\n---\n").await.err(1);
    assert_eq!(empty, "moorline: there is no document in -\n");
    let missing = shell.run(&["apply", "-f", "nowhere.yaml"]).await.err(1);
    assert!(missing.contains("nowhere.yaml: ") && missing.contains("No such file"), "{missing}");
    shell.run(&["apply"]).await.err(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_told_with_its_place_and_the_others_are_applied() {
    let harbour = Harbour::new().await;
    let shell = &harbour.shell;
    let documents = [
        chat("misspelt", "spec: {titel: x}"),
        chat("good", ""),
        "kind: [\n".into(),
        chat("Bad_name", ""),
        chat("elsewhere", "").replace("name: elsewhere", "name: elsewhere, namespace: other"),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n".into(),
        chat("fix", "spec: {owner: mallory}"),
    ];
    shell.write("many.yaml", &documents.join("---\n"));
    let said = shell.run(&["apply", "-n", "team-a", "-f", "many.yaml"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(1), "chat.moorline.dev/good created\n"));
    for (place, why) in [
        ("document 1, line 1", "unknown field \"spec.titel\""),
        ("document 3, line ", ""),
        ("document 4, line ", "metadata.name"),
        ("document 5, line ", "metadata.namespace is \"other\", and --namespace says \"team-a\""),
        ("document 6, line ", "use kubectl for others"),
        ("document 7, line ", "is immutable: it is \"alice\", got \"mallory\""),
    ] {
        let told =
            said.err.split("moorline: ").any(|told| told.starts_with(&format!("many.yaml, {place}")) && told.contains(why));
        assert!(told, "{place} {why}: {}", said.err);
    }
    assert_eq!(said.err.matches("moorline: ").count(), 6, "{}", said.err);
    let lost = shell.run(&["apply", "-f", "many.yaml", "--server", "http://127.0.0.1:1"]).await.err(1);
    assert!(lost.contains("no answer from http://127.0.0.1:1"), "{lost}");
}
