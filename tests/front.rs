//! What people type at kubectl, typed at a real kube-apiserver with our custom resource definitions and at Moorline: every
//! difference in what comes back is listed in docs/kubectl.md, with its reason, and nothing else is listed there.

mod listed;
mod normal;
mod pair;
mod side;

use crate::support::api::{Run, file};
use pair::Pair;
use serde_json::json;

const AGENT: &str = "\
apiVersion: moorline.dev/v1alpha1
kind: Agent
metadata:
  name: web
spec:
  workspace: ws
  build: 1
";

const CHATS: &str = "\
apiVersion: moorline.dev/v1alpha1
kind: Chat
metadata:
  name: fix
  labels:
    team: web
spec:
  owner: alice
  title: Fix the login page
  agentRef:
    name: web
---
apiVersion: moorline.dev/v1alpha1
kind: Chat
metadata:
  name: guide
  labels:
    team: docs
spec:
  owner: bob
  title: Write the guide
  workspaceRef:
    name: ws
---
apiVersion: moorline.dev/v1alpha1
kind: Chat
metadata:
  name: loose
spec:
  owner: alice
  title: Nobody's
";

const GENERATED: &str =
    r#"{"apiVersion":"moorline.dev/v1alpha1","kind":"Chat","metadata":{"generateName":"some-"},"spec":{"owner":"alice"}}"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_says_of_moorline_what_it_says_of_a_kube_apiserver_but_for_what_is_listed() {
    let mut pair = Pair::start().await;
    pair.file("agent.yaml", AGENT);
    pair.file("chats.yaml", CHATS);
    pair.file("titled.yaml", &CHATS.replace("Write the guide", "Write the whole guide"));
    pair.file("unlabelled.yaml", &CHATS.replace("  labels:\n    team: docs\n", ""));
    pair.file("misspelt.yaml", &CHATS.replace("title: Fix", "titel: Fix"));
    pair.file("misnamed.yaml", &CHATS.replace("name: fix", "name: Fix_it"));
    pair.file("generated.json", GENERATED);

    discovers(&mut pair).await;
    let run = creates(&mut pair).await;
    reads(&mut pair).await;
    selects(&mut pair).await;
    waits(&mut pair, &run).await;
    describes(&mut pair).await;
    changes(&mut pair).await;
    edits(&mut pair).await;
    is_refused(&mut pair).await;
    watches(&mut pair).await;
    deletes(&mut pair).await;

    let wrong = listed::against_the_page(&pair.differences, &listed::on_the_page());
    assert!(wrong.is_empty(), "docs/kubectl.md is to say how kubectl differs on the two servers, and why:{wrong}");
}

async fn discovers(pair: &mut Pair) {
    pair.types("kubectl api-resources --api-group=moorline.dev").await;
    pair.types("kubectl api-resources --api-group=moorline.dev -o wide").await;
    pair.types("kubectl api-versions | grep moorline").await;
    pair.types("kubectl explain chat").await;
    pair.types("kubectl explain chat.spec").await;
    pair.types("kubectl explain mchat.spec.agentRef.name").await;
    pair.types("kubectl explain chat.status.conditions").await;
    pair.types("kubectl explain agent.status --recursive").await;
    pair.types("kubectl explain agentsnapshot.spec.resources").await;
    pair.types("kubectl explain chat.spec.nothing").await;
    pair.types("kubectl explain chat.metadata.labels").await;
}

async fn creates(pair: &mut Pair) -> Run {
    pair.types("kubectl get chats").await;
    pair.types("kubectl get chats,agents -o name").await;
    pair.types("kubectl create -f agent.yaml --dry-run=server").await;
    pair.types("kubectl create -f agent.yaml").await;
    pair.types("kubectl create -f agent.yaml --save-config").await;
    pair.types("kubectl get agent").await;
    let run = pair.api.register_run("web").await;
    let waiting = "kubectl wait --for=condition=Ready agent/web --timeout=20s";
    pair.types_and(waiting, (0, 1), async |both| {
        both.api().pushed(&run, 1, json!([file("AGENTS.md", "Be brief.\n"), file("CLAUDE.md", "Be kind.\n")])).await;
        both.mirror().await;
    })
    .await;
    pair.types("kubectl apply -f misspelt.yaml").await;
    pair.types("kubectl apply -f misspelt.yaml --validate=warn --dry-run=server").await;
    pair.types("kubectl apply -f misspelt.yaml --validate=false --dry-run=server").await;
    pair.types("kubectl diff -f chats.yaml").await;
    pair.types("kubectl apply -f chats.yaml --dry-run=server").await;
    pair.types("kubectl apply -f chats.yaml").await;
    pair.types("kubectl apply -f ./chats.yaml").await;
    pair.types("kubectl diff -f ./chats.yaml").await;
    pair.types("kubectl create -f generated.json -o name | xargs kubectl delete | sed s/some-[a-z0-9]*/some-XXXXX/").await;
    run
}

async fn reads(pair: &mut Pair) {
    for kind in ["chats", "agents", "agentsnapshots"] {
        pair.types(&format!("kubectl get {kind} -o wide")).await;
        pair.types(&format!("kubectl get {kind} -A")).await;
        pair.types(&format!("kubectl get {kind} -o yaml")).await;
    }
    pair.types("kubectl get chat fix").await;
    pair.types("kubectl get chat fix -o yaml").await;
    pair.types("kubectl get chat fix -o json").await;
    pair.types("kubectl get agent web -o yaml --show-managed-fields | grep -c managedFields").await;
    pair.types("kubectl get moorline").await;
    pair.types("kubectl get mchat,magent,msnap -o name").await;
    pair.types("kubectl get chat/fix agent/web").await;
    pair.types("kubectl get chats.moorline.dev fix loose").await;
    pair.types("kubectl get chats.v1alpha1.moorline.dev/fix -o jsonpath='{.status.pinned.hash}'").await;
    pair.types("kubectl get chats -o custom-columns=NAME:.metadata.name,PINNED:.status.pinned.snapshot,DIRTY:.status.dirty")
        .await;
    pair.types("kubectl get chats --show-labels").await;
    pair.types("kubectl get chats -L team --no-headers").await;
    pair.types("kubectl get chats --sort-by=.spec.title").await;
    pair.types("kubectl get chats --show-kind").await;
    pair.types("kubectl get -f chats.yaml").await;
    pair.types("kubectl get chat nobody").await;
    pair.types("kubectl get chat fix nobody loose").await;
    pair.types("kubectl get chat nobody --ignore-not-found").await;
    pair.types("kubectl get chat fix --subresource=status -o jsonpath='{.status.state}'").await;
    pair.types("kubectl get chat fix --subresource=scale").await;
    pair.types("kubectl get chats --server-print=false").await;
}

async fn selects(pair: &mut Pair) {
    pair.types("kubectl get chats --chunk-size=1").await;
    pair.types("kubectl get chats --chunk-size=2 -o name").await;
    for selector in
        ["team=web", "'team in (web,docs)'", "'!team'", "team!=web", "'team notin (web)'", "team", "team=web,team!=docs"]
    {
        pair.types(&format!("kubectl get chats -o name -l {selector}")).await;
    }
    pair.types("kubectl get chats -l 'team==='").await;
    pair.types("kubectl get chats -l 'team in web'").await;
    pair.types("kubectl get chats -l team=nobody").await;
    for selector in
        ["metadata.name=fix", "metadata.name!=fix", "metadata.namespace=team-a", "metadata.name=fix,metadata.namespace=elsewhere"]
    {
        pair.types(&format!("kubectl get chats -o name --field-selector {selector}")).await;
    }
    for selector in [
        "spec.owner=alice",
        "spec.agentRef.name=web",
        "spec.workspaceRef.name!=ws",
        "spec.archived=false",
        "status.state=Waiting",
        "status.dirty=true",
    ] {
        pair.types(&format!("kubectl get chats -o name --field-selector {selector}")).await;
    }
    pair.types("kubectl get agents -o name --field-selector metadata.name=web").await;
    pair.types("kubectl get chats --field-selector spec.nonsense=1").await;
    pair.types("kubectl get chats --field-selector spec.owner").await;
    pair.types("kubectl get agentsnapshots -o name -l moorline.dev/agent=web").await;
}

async fn waits(pair: &mut Pair, run: &Run) {
    pair.types("kubectl wait --for=condition=Ready chat/fix --timeout=5s").await;
    pair.types("kubectl wait --for=condition=Ready chats --all --timeout=5s").await;
    pair.types("kubectl wait --for=jsonpath='{.status.state}'=Waiting chat/fix --timeout=5s").await;
    pair.types("kubectl wait --for=condition=Drifted chat/fix --timeout=1s").await;
    pair.types("kubectl wait --for=condition=Ready chat/nobody --timeout=1s").await;
    let waiting = "kubectl wait --for=condition=Drifted chat/fix chat/guide --timeout=20s";
    pair.types_and(waiting, (0, 2), async |both| {
        both.api().pushed(run, 2, json!([file("AGENTS.md", "Be thorough.\n"), file("CLAUDE.md", "Be kind.\n")])).await;
        both.mirror().await;
    })
    .await;
    pair.types("kubectl get chats --show-kind=false").await;
}

async fn describes(pair: &mut Pair) {
    pair.types("kubectl describe chat fix").await;
    pair.types("kubectl describe agent web").await;
    pair.types("kubectl describe agentsnapshots").await;
    pair.types("kubectl describe chats -l team=docs").await;
    pair.types("kubectl describe chat nobody").await;
    pair.types("kubectl events --for chat/fix").await;
    // Sorted by second: within one, by what happens to come first.
    pair.types("kubectl events | sed s/some-[a-z0-9]*/some-XXXXX/ | sed 's/^[^ ]* *//' | sort -u").await;
    pair.types("kubectl get events | head -n 1").await;
    pair.types("kubectl get events -o wide | head -n 1").await;
    // What an event is called, and when it was, is each server's own.
    let rows = "kubectl get events --no-headers | sed s/some-[a-z0-9]*/some-XXXXX/ | sed 's/^[^ ]* *//' | sort -u";
    pair.types(rows).await;
}

async fn changes(pair: &mut Pair) {
    pair.types("kubectl apply -f titled.yaml").await;
    pair.types("kubectl diff -f chats.yaml | cat").await;
    pair.types("kubectl apply -f unlabelled.yaml -o name").await;
    pair.types("kubectl get chat guide --show-labels").await;
    pair.types("kubectl label chat fix tier=one").await;
    pair.types("kubectl label chat fix tier=one --overwrite=false").await;
    pair.types("kubectl label chat fix tier=two").await;
    pair.types("kubectl label chat fix tier=two --overwrite").await;
    pair.types("kubectl label chats --all seen=yes").await;
    pair.types("kubectl label chat fix tier- seen-").await;
    pair.types("kubectl label chat fix 'bad key=1'").await;
    pair.types("kubectl label chat fix tier=-bad-").await;
    pair.types("kubectl label chat fix --list").await;
    pair.types("kubectl annotate chat fix note=hello").await;
    pair.types("kubectl annotate chat fix note-").await;
    pair.types("kubectl annotate chat fix moorline.dev/refresh-requested-at=first").await;
    pair.types("kubectl wait --for=jsonpath='{.status.lastHandledRefresh}'=first chat/fix --timeout=5s").await;
    pair.types("kubectl get chat fix -o jsonpath='{.status.pinned.cause} {.status.dirty}'").await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"title":"Mend it"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"title": "Mend it"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=json -p '[{"op":"replace","path":"/spec/title","value":"Fix it"}]'"#).await;
    pair.types(r#"kubectl patch chat fix --type=json -p '[{"op":"test","path":"/spec/title","value":"Other"}]'"#).await;
    pair.types(r#"kubectl patch chat fix --type=json -p '[{"op":"remove","path":"/spec/nothing"}]'"#).await;
    pair.types(r#"kubectl patch chat fix --subresource=status --type=merge -p '{"status":{"state":"Running"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --subresource=status --type=merge -p '{"status":{"state":"Flying"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"status":{"state":"Completed"}}'"#).await;
    pair.types("kubectl get chat fix -o jsonpath='{.spec.title} {.status.state} {.metadata.generation}'").await;
    pair.types("kubectl get chat fix -o yaml | sed s/Fix/Repair/ | kubectl replace -f -").await;
    pair.types("kubectl get chat fix -o yaml > stale.yaml; kubectl label chat fix stale=yes; kubectl replace -f stale.yaml")
        .await;
    pair.types("kubectl set env chat/fix A=b").await;
}

async fn edits(pair: &mut Pair) {
    pair.types("EDITOR='sed -i s/Repair/Improve/' kubectl edit chat fix").await;
    pair.types("EDITOR=true kubectl edit chat fix").await;
    pair.types("EDITOR='sed -i s/Running/Paused/' kubectl edit chat fix --subresource=status").await;
    pair.types("EDITOR='sed -i s/refreshPolicy:.*/refreshPolicy:\\ Sometimes/' kubectl edit chat fix 2>&1 | grep -v /tmp").await;
    pair.types("kubectl get chat fix -o jsonpath='{.spec.title} {.status.state}'").await;
}

async fn is_refused(pair: &mut Pair) {
    pair.types("kubectl create -f misnamed.yaml").await;
    pair.types("kubectl apply --server-side -f chats.yaml").await;
    pair.types(r#"kubectl patch chat fix -p '{"spec":{"title":"Strategic"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"title":7}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"refreshPolicy":"Sometimes"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"owner":"mallory"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"spec":{"workspaceRef":{"name":"ws"}}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"metadata":{"name":"other"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"metadata":{"resourceVersion":"1"}}'"#).await;
    pair.types(r#"kubectl patch chat fix --type=merge -p '{"metadata":{"uid":"1b4db7eb-4057-4b1b-8b1b-2b1b1b1b1b1b"}}'"#).await;
    pair.types(
        r#"kubectl patch agentsnapshots --all --type=merge -p '{"spec":{"revision":7}}' 2>&1 | sed s/web-[0-9a-f]*/web-HASH/"#,
    )
    .await;
    pair.types("kubectl delete agentsnapshot nothing").await;
    pair.types("kubectl scale chat fix --replicas=2").await;
    pair.types("kubectl auth can-i list chats").await;
    pair.types("kubectl get chats --as=alice").await;
    pair.types("kubectl get unicorns").await;
    pair.types("kubectl -n nowhere get chats").await;
    pair.types("kubectl -n nowhere create -f agent.yaml").await;
}

async fn watches(pair: &mut Pair) {
    // One change at a time, so that both have the same to tell.
    let change = async |both: &pair::Watched<'_>| {
        both.types("kubectl label chat fix watched=one --overwrite").await;
        both.types(r#"kubectl patch chat fix --subresource=status --type=merge -p '{"status":{"state":"Running"}}'"#).await;
        both.types("kubectl label chat guide watched=two --overwrite").await;
        both.types(r#"kubectl patch chat fix --subresource=status --type=merge -p '{"status":{"state":"Waiting"}}'"#).await;
        both.types("kubectl label chats --all watched-").await;
    };
    // Whether a chat is first seen before the loop has looked at it is a matter of luck; it is seen here when it is labelled.
    let create_too = async |both: &pair::Watched<'_>| {
        both.types("kubectl create -f ./watched.yaml").await;
        both.types("kubectl label chat seen watched=three").await;
        both.types("kubectl delete chat seen").await;
        change(both).await;
    };
    pair.file("watched.yaml", &CHATS[CHATS.rfind("apiVersion").unwrap()..].replace("loose", "seen"));
    pair.types("kubectl get chats --sort-by=.metadata.name").await;
    pair.types_and("kubectl get chats -w", (4, 10), &change).await;
    pair.types_and("kubectl get chats -w -o name", (3, 9), &change).await;
    pair.types_and("kubectl get chat fix -w -o wide", (2, 6), &change).await;
    // One that is there from the start, so that it can be seen that the watch has begun.
    pair.types("kubectl label chat loose watched=zero").await;
    pair.types_and("kubectl get chats -w --output-watch-events -l watched", (2, 11), &create_too).await;
    pair.types_and(
        "kubectl get chats -w -o jsonpath='{.metadata.name}{\"\\n\"}' --field-selector metadata.name=fix",
        (1, 5),
        &change,
    )
    .await;
}

async fn deletes(pair: &mut Pair) {
    pair.types("kubectl delete chat guide --dry-run=server").await;
    // Whether it is gone already when it is first looked for is a matter of luck; that this ends by itself is not.
    let waiting = "sh -c 'kubectl wait --for=delete chat/guide --timeout=20s | grep -v met; echo it has ended'";
    pair.types_and(waiting, (0, 1), async |both| {
        both.types("kubectl delete chat guide").await;
    })
    .await;
    pair.types("kubectl delete chat guide").await;
    pair.types("kubectl delete chat guide --ignore-not-found").await;
    pair.types("kubectl delete chats -l team=web --wait=false").await;
    pair.types("kubectl delete chats --all").await;
    pair.types("kubectl delete -f agent.yaml").await;
    pair.types("kubectl delete chats").await;
    pair.types("kubectl get moorline -o name | grep -v agentsnapshot").await;
}
