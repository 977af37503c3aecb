//! A release is installed, upgraded, upgraded to another version of the chart, and uninstalled, in a real cluster.
//!
//! Nothing runs Jobs here: the test says of the migration that it is done, or has failed, and sees what helm does then.

use super::{matrix, valid::restricted};
use crate::support::{
    envtest::ControlPlane,
    helm::{DEFINITIONS, Helm, MOORLINE, repository},
    until::until,
};
use serde_json::{Value, json};
use std::{fs, path::Path};

const NAMESPACE: &str = "moorline-system";
const JOB: &str = "/apis/batch/v1/namespaces/moorline-system/jobs/moorline-migrate";

fn deployment(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
}

async fn there(control_plane: &ControlPlane, path: &str) -> bool {
    control_plane.send("GET", path, None).await.is_some()
}

/// Plays the controller of Jobs: waits for the Job, and says how it ended.
async fn migrated(control_plane: &ControlPlane, image: &str, well: bool) {
    until("the Job is there", || async {
        let job = control_plane.send("GET", JOB, None).await?;
        // Not the one that failed before.
        let ended = job["status"]["conditions"].is_array();
        (job["spec"]["template"]["spec"]["containers"][0]["image"] == image && !ended).then_some(())
    })
    .await;
    let at = "2026-01-01T00:00:00Z";
    let condition =
        |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": at, "lastTransitionTime": at, "reason": "Test"});
    let status = if well {
        json!({"startTime": at, "completionTime": at, "succeeded": 1, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]})
    } else {
        json!({"startTime": at, "failed": 1, "conditions": [condition("FailureTarget"), condition("Failed")]})
    };
    control_plane.send("PATCH", &format!("{JOB}/status"), Some(&json!({"status": status}))).await.unwrap();
}

/// The next version of the chart, with a value that the one before does not have.
fn next(folder: &Path) -> String {
    let copied = std::process::Command::new("cp").arg("-R").arg(repository().join(MOORLINE)).arg(folder).status().unwrap();
    assert!(copied.success());
    let chart = folder.join("moorline");
    let text = fs::read_to_string(chart.join("Chart.yaml")).unwrap();
    fs::write(chart.join("Chart.yaml"), text.replace(concat!("ersion: ", env!("CARGO_PKG_VERSION")), "ersion: 99.0.0")).unwrap();
    let values = fs::read_to_string(chart.join("values.yaml")).unwrap();
    fs::write(chart.join("values.yaml"), format!("{values}\nfresh:\n  one: two\n")).unwrap();
    let mut schema: Value = serde_json::from_slice(&fs::read(chart.join("values.schema.json")).unwrap()).unwrap();
    schema["properties"]["fresh"] = json!({"type": "object"});
    fs::write(chart.join("values.schema.json"), schema.to_string()).unwrap();
    let fresh = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: fresh}\ndata: {one: {{ .Values.fresh.one }}}\n";
    fs::write(chart.join("templates/fresh.yaml"), fresh).unwrap();
    chart.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_release_is_installed_upgraded_and_uninstalled_and_leaves_what_the_docs_say() {
    let control_plane = ControlPlane::start().await;
    restricted(&control_plane, NAMESPACE).await;
    control_plane.namespace("team-a").await;
    let helm = Helm::of(&control_plane);
    let folder = tempfile::tempdir().unwrap();
    let next = next(folder.path());
    let values = |more: Value| matrix::with(&more).to_string();
    let run = async |verb: &str, chart: &str, values: &str| {
        helm.fed(&[verb, "moorline", chart, "--namespace", NAMESPACE, "--values", "-", "--timeout", "60s"], values).await
    };
    let image = |tag: &str| format!("registry.example/tools/moorline:{tag}");

    // They are there, because the control plane of tests has them: taken over, as docs/install.md has it.
    let definitions =
        ["install", "moorline-crds", DEFINITIONS, "--namespace", NAMESPACE, "--take-ownership", "--force-conflicts"];
    helm.run(&definitions).await.out();

    // Nothing of a release is there before its schema is.
    let (first, tag) = (values(json!({})), image(env!("CARGO_PKG_VERSION")));
    let (installed, ()) = tokio::join!(run("install", MOORLINE, &first), async {
        until("the Job is there", || async { there(&control_plane, JOB).await.then_some(()) }).await;
        assert!(!there(&control_plane, &deployment("moorline")).await);
        migrated(&control_plane, &tag, true).await;
    });
    let said = installed.out();
    assert!(said.contains("kubectl") && said.contains(NAMESPACE), "NOTES.txt says what to do next: {said}");
    assert!(there(&control_plane, &deployment("moorline")).await);
    until("what was for the migration is gone", || async { (!there(&control_plane, JOB).await).then_some(()) }).await;

    // A migration that fails leaves what runs alone.
    let (newer, tag) = (values(json!({"image": {"tag": "1.0.0"}})), image("1.0.0"));
    let (failed, ()) = tokio::join!(run("upgrade", MOORLINE, &newer), migrated(&control_plane, &tag, false));
    let said = failed.err();
    assert!(said.contains("pre-upgrade hooks failed"), "{said}");
    let runs = async || {
        let deployment = control_plane.send("GET", &deployment("moorline"), None).await.unwrap();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    };
    assert_eq!(runs().await, image(env!("CARGO_PKG_VERSION")));
    assert!(there(&control_plane, JOB).await, "and stays, to be looked at");
    let (upgraded, ()) = tokio::join!(run("upgrade", MOORLINE, &newer), migrated(&control_plane, &tag, true));
    upgraded.out();
    assert_eq!(runs().await, tag);

    // To another version as docs/install.md has it: with the values of the release, and the new chart's defaults for what is new.
    let page = fs::read_to_string(repository().join("docs/install.md")).unwrap();
    assert!(
        page.contains(" --reset-then-reuse-values") && !page.contains(" --reuse-values"),
        "docs/install.md tells another way"
    );
    let kept = ["upgrade", "moorline", &next, "--namespace", NAMESPACE, "--reset-then-reuse-values", "--timeout", "60s"];
    let (upgraded, ()) = tokio::join!(helm.run(&kept), migrated(&control_plane, &tag, true));
    upgraded.out();
    assert_eq!(runs().await, tag, "what was said of the release is kept");
    let fresh = control_plane.send("GET", &format!("/api/v1/namespaces/{NAMESPACE}/configmaps/fresh"), None).await.unwrap();
    assert_eq!(fresh["data"]["one"], "two", "and what is new has its default");

    // With another shape, and to and fro.
    let apart = values(json!({"roles": "apart", "kubernetes": {"watchNamespaces": ["team-a"]}, "migrations": {"mode": "none"}}));
    run("upgrade", &next, &apart).await.out();
    for (name, is) in [("moorline", false), ("moorline-api", true), ("moorline-controller", true)] {
        assert_eq!(there(&control_plane, &deployment(name)).await, is, "{name}");
    }
    let api = control_plane.send("GET", &deployment("moorline-api"), None).await.unwrap();
    assert_eq!(api["spec"]["template"]["spec"]["containers"][0]["image"], image("99.0.0"));
    run("upgrade", MOORLINE, &values(json!({"migrations": {"mode": "initContainer"}}))).await.out();
    assert!(there(&control_plane, &deployment("moorline")).await && !there(&control_plane, &deployment("moorline-api")).await);

    // What is not the release's: a chat, the Lease of the writing replica, the definitions.
    let chat =
        json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Chat", "metadata": {"name": "fix"}, "spec": {"owner": "alice"}});
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "moorline"}});
    for object in [chat, lease] {
        control_plane.kubectl(NAMESPACE, &["apply", "-f", "-"], &object.to_string()).await.out();
    }
    for release in ["moorline", "moorline-crds"] {
        helm.run(&["uninstall", release, "--namespace", NAMESPACE]).await.out();
    }
    let kinds = "deployments,jobs,services,serviceaccounts,configmaps,secrets,poddisruptionbudgets,networkpolicies,roles,rolebindings,\
                 clusterroles,clusterrolebindings,ingresses";
    let left = control_plane
        .kubectl(NAMESPACE, &["get", kinds, "-A", "-l", "app.kubernetes.io/instance=moorline", "-o", "name"], "")
        .await;
    assert_eq!(left.out(), "");
    let left = control_plane.kubectl(NAMESPACE, &["get", "chats,leases,crds", "-o", "name"], "").await.out();
    assert_eq!(
        left.lines().collect::<Vec<_>>(),
        [
            "chat.moorline.dev/fix",
            "lease.coordination.k8s.io/moorline",
            "customresourcedefinition.apiextensions.k8s.io/agents.moorline.dev",
            "customresourcedefinition.apiextensions.k8s.io/agentsnapshots.moorline.dev",
            "customresourcedefinition.apiextensions.k8s.io/chats.moorline.dev",
        ]
    );
}
