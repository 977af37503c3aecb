//! Moorline leaves a cluster: its finalizer goes, and nothing else does.

use crate::support::{
    envtest::{ADMIN, ControlPlane},
    until::until,
};
use kube::client::Body;
use moorline::{
    kubernetes::{
        kind::{Id, Kind},
        strip::{Stripped, strip},
    },
    model::object::Key,
};
use serde_json::{Value, json};
use std::{
    fs,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tempfile::TempDir;
use tokio::process::Command;

const OURS: &str = "moorline.dev/cleanup";

/// What the command said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Somebody with a kubeconfig.
struct Operator(TempDir);

impl Operator {
    fn of(kubeconfig: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("config"), kubeconfig).unwrap();
        Self(home)
    }

    async fn uninstalls(&self, args: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorline"));
        command.args(["uninstall", "--strip-finalizers", "--kubeconfig"]).arg(self.0.path().join("config")).args(args);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn path(namespace: &str, kind: &str, name: &str) -> String {
    format!("/apis/moorline.dev/v1alpha1/namespaces/{namespace}/{kind}/{name}")
}

async fn make(control_plane: &ControlPlane, namespace: &str, kind: &str, name: &str, finalizers: &[&str]) {
    let object_kind = if kind == "chats" { "Chat" } else { "Agent" };
    let meta = json!({"name": name, "finalizers": finalizers});
    let object = json!({"apiVersion": "moorline.dev/v1alpha1", "kind": object_kind, "metadata": meta, "spec": {}});
    let path = path(namespace, kind, "");
    control_plane.send("POST", path.trim_end_matches('/'), Some(&object)).await.unwrap();
}

async fn finalizers(control_plane: &ControlPlane, namespace: &str, kind: &str, name: &str) -> Option<Value> {
    let object = control_plane.send("GET", &path(namespace, kind, name), None).await?;
    Some(object["metadata"].get("finalizers").cloned().unwrap_or_else(|| json!([])))
}

#[tokio::test]
async fn our_finalizer_goes_and_others_stay_object_by_object_and_once() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    let operator = Operator::of(&control_plane.kubeconfig(&namespace));
    make(control_plane, &namespace, "agents", "web", &["a.example/x", OURS, "b.example/y"]).await;
    make(control_plane, &namespace, "chats", "fix", &[OURS]).await;
    make(control_plane, &namespace, "chats", "free", &["a.example/x"]).await;
    make(control_plane, &namespace, "chats", "going", &[OURS]).await;
    control_plane.send("DELETE", &path(&namespace, "chats", "going"), None).await;
    assert!(finalizers(control_plane, &namespace, "chats", "going").await.is_some(), "its finalizer keeps it");

    let here = ["--namespace", &*namespace];
    let mark = control_plane.mark();
    let said = operator.uninstalls(&[&here[..], &["--dry-run"]].concat()).await;
    assert_eq!((said.code, &*said.err), (Some(0), ""));
    let would = |id: &str| format!("{id}: the finalizer would be removed\n");
    let ids = [format!("Agent {namespace}/web"), format!("Chat {namespace}/fix"), format!("Chat {namespace}/going")];
    let total = format!("it would be removed from 1 Agent and 2 Chats in namespace {namespace}\n");
    assert_eq!(said.out, ids.iter().map(|id| would(id)).collect::<String>() + &total);

    let said = operator.uninstalls(&here).await;
    assert_eq!((said.code, &*said.out), (Some(1), ""));
    assert_eq!(said.err, "moorline: standard input is no terminal, so nobody can be asked: use --yes\n");
    let of_here = async |mark| {
        let writes = control_plane.writes_since(mark).await;
        writes.into_iter().filter(|write| write.namespace == namespace).map(|write| write.verb).collect::<Vec<_>>()
    };
    assert_eq!(of_here(mark).await, [""; 0], "neither of the two writes");

    let said = operator.uninstalls(&[&here[..], &["--yes"]].concat()).await;
    assert_eq!((said.code, &*said.err), (Some(0), ""));
    let removed = |id: &String| format!("{id}: the finalizer is removed\n");
    let total = format!("removed from 1 Agent and 2 Chats in namespace {namespace}\n");
    assert_eq!(said.out, ids.iter().map(removed).collect::<String>() + &total);
    assert_eq!(of_here(mark).await, ["patch"; 3]);
    assert_eq!(finalizers(control_plane, &namespace, "agents", "web").await, Some(json!(["a.example/x", "b.example/y"])));
    assert_eq!(finalizers(control_plane, &namespace, "chats", "fix").await, Some(json!([])));
    assert_eq!(finalizers(control_plane, &namespace, "chats", "free").await, Some(json!(["a.example/x"])));
    assert_eq!(finalizers(control_plane, &namespace, "chats", "going").await, None, "nothing keeps it any more");

    let mark = control_plane.mark();
    let said = operator.uninstalls(&[&here[..], &["--yes"]].concat()).await;
    assert_eq!((said.code, &*said.err), (Some(0), ""));
    assert_eq!(said.out, format!("no Chat or Agent in namespace {namespace} has the finalizer {OURS}\n"));
    assert_eq!(of_here(mark).await, [""; 0]);
}

#[tokio::test]
async fn a_thousand_objects_in_two_namespaces_are_found_page_by_page_while_others_write_them() {
    let control_plane = ControlPlane::start().await;
    let (one, two, three) = ("one", "two", "three");
    for namespace in [one, two, three] {
        control_plane.namespace(namespace).await;
    }
    let list = |namespace: &str, count: usize| {
        let chat = |n| {
            let meta = json!({"name": format!("chat-{n}"), "namespace": namespace, "finalizers": ["a.example/x", OURS]});
            json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": meta, "spec": {}})
        };
        json!({"apiVersion": "v1", "kind": "List", "items": (0..count).map(chat).collect::<Vec<_>>()}).to_string()
    };
    for (namespace, count) in [(one, 600), (two, 500), (three, 3)] {
        control_plane.kubectl(namespace, &["create", "-f", "-"], &list(namespace, count)).await.out();
    }
    let operator = Operator::of(&control_plane.kubeconfig("default"));

    // Somebody takes another finalizer off, so that ours is in another place than it was.
    let others = async {
        for n in 0..200 {
            let chat = path(one, "chats", &format!("chat-{n}"));
            until("it is written", || async {
                let there = control_plane.send("GET", &chat, None).await.unwrap();
                let mut meta = there["metadata"].clone();
                let finalizers = meta["finalizers"].as_array_mut()?;
                finalizers.retain(|finalizer| finalizer != "a.example/x");
                let patch = json!({"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": meta["finalizers"]}});
                let (status, said) = control_plane.answer("PATCH", &chat, Some(&patch)).await.unwrap();
                assert!(status == 200 || status == 409, "{said}");
                (status == 200).then_some(())
            })
            .await;
        }
    };
    let args = ["--namespace", one, "-n", two, "--yes"];
    let (said, ()) = tokio::join!(operator.uninstalls(&args), others);
    assert_eq!((said.code, &*said.err), (Some(0), ""), "{}", said.out);
    assert!(said.out.ends_with("removed from 0 Agents and 1100 Chats in namespaces one, two\n"), "{}", said.out);
    for n in 0..200 {
        assert_eq!(finalizers(&control_plane, one, "chats", &format!("chat-{n}")).await, Some(json!([])));
    }
    assert_eq!(finalizers(&control_plane, one, "chats", "chat-599").await, Some(json!(["a.example/x"])));
    assert_eq!(finalizers(&control_plane, three, "chats", "chat-0").await, Some(json!(["a.example/x", OURS])), "not asked for");
    let said = operator.uninstalls(&["--all", "--yes"]).await;
    assert_eq!(said.code, Some(0));
    assert!(said.out.ends_with("removed from 0 Agents and 3 Chats in all namespaces\n"), "{}", said.out);
}

#[tokio::test]
async fn what_others_change_between_reading_an_object_and_patching_it_stays_as_they_have_it() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    make(control_plane, &namespace, "chats", "fix", &["a.example/x", OURS, "b.example/y"]).await;
    let real = control_plane.access(&namespace).client().await;
    let (patches, chat) = (Arc::new(AtomicUsize::new(0)), path(&namespace, "chats", "fix"));
    let counted = patches.clone();
    let hasty = tower::service_fn(move |request: http::Request<Body>| {
        let (real, counted, chat) = (real.clone(), counted.clone(), chat.clone());
        async move {
            if request.method() == http::Method::PATCH && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                // Where ours was there is another now.
                let others = json!({"metadata": {"finalizers": ["b.example/y", "c.example/z", OURS]}});
                control_plane.send("PATCH", &chat, Some(&others)).await.unwrap();
            }
            real.send(request).await
        }
    });
    let id = Id { kind: Kind::Chat, key: Key::new(&namespace, "fix") };
    let client = kube::Client::new(hasty, namespace.clone());
    assert_eq!(strip(&client, &id).await.unwrap(), Stripped::Removed);
    assert_eq!(finalizers(control_plane, &namespace, "chats", "fix").await, Some(json!(["b.example/y", "c.example/z"])));
    assert_eq!(patches.load(Ordering::SeqCst), 2);
    assert_eq!(strip(&client, &id).await.unwrap(), Stripped::Absent);
    control_plane.send("PATCH", &path(&namespace, "chats", "fix"), Some(&json!({"metadata": {"finalizers": []}}))).await;
    control_plane.send("DELETE", &path(&namespace, "chats", "fix"), None).await;
    assert_eq!(strip(&client, &id).await.unwrap(), Stripped::Gone);
    assert_eq!(patches.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn what_may_not_be_changed_is_named_and_the_rest_is_done() {
    let control_plane = ControlPlane::shared().await;
    let namespace = control_plane.namespace_of_its_own().await;
    make(control_plane, &namespace, "agents", "web", &[OURS]).await;
    make(control_plane, &namespace, "chats", "fix", &[OURS]).await;
    let rules = json!([
        {"apiGroups": ["moorline.dev"], "resources": ["chats", "agents"], "verbs": ["get", "list"]},
        {"apiGroups": ["moorline.dev"], "resources": ["chats"], "verbs": ["patch"]},
    ]);
    let user = control_plane.user(&namespace, "poor", &rules).await;
    let operator = Operator::of(&control_plane.access(&namespace).of(&user).kubeconfig());
    let said = operator.uninstalls(&["--namespace", &namespace, "--yes"]).await;
    assert_eq!(said.code, Some(1));
    assert!(
        said.err.contains(&format!("patching Agent {namespace}/web: ")) && said.err.contains("cannot patch resource"),
        "{said:?}"
    );
    assert!(said.err.contains("1 Agent and 0 Chats") && said.err.contains("still have it; 1 could not be changed"), "{said:?}");
    assert!(said.out.contains(&format!("Chat {namespace}/fix: the finalizer is removed")), "{said:?}");
    assert_eq!(finalizers(control_plane, &namespace, "chats", "fix").await, Some(json!([])));

    control_plane.allow(&user, &json!([])).await;
    let forbidden = until("it may not list any more", || async {
        let said = operator.uninstalls(&["--all", "--yes"]).await;
        (said.code == Some(1)).then_some(said)
    })
    .await;
    assert!(forbidden.err.starts_with("moorline: listing agents in all namespaces: "), "{forbidden:?}");
}

#[tokio::test]
async fn a_command_that_does_not_say_where_or_what_is_not_read() {
    let operator = Operator::of("{}");
    for (args, names) in [(&["--yes"][..], "--all"), (&["--all", "-n", "x"], "cannot be used with")] {
        let said = operator.uninstalls(args).await;
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(names), "{said:?}");
    }
    let said = Command::new(env!("CARGO_BIN_EXE_moorline")).args(["uninstall", "--all"]).output().await.unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert!(String::from_utf8(said.stderr).unwrap().contains("--strip-finalizers"));
    // A kubeconfig that says nothing, and a token that nobody knows.
    let said = operator.uninstalls(&["--all", "--yes"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("the kubeconfig ") && said.err.contains("config"), "{said:?}");
    let control_plane = ControlPlane::shared().await;
    let kubeconfig = control_plane.kubeconfig("default").replace(ADMIN, "worthless");
    let said = Operator::of(&kubeconfig).uninstalls(&["--all", "--yes"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("listing agents in all namespaces") && said.err.contains("nauthorized"), "{said:?}");
}
