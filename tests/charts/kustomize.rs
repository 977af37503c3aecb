//! The kustomize base and its overlays make what helm makes of the values that they are made from.

use crate::support::{
    envtest::{ControlPlane, programs},
    helm::{Helm, MOORLINE, objects, repository},
    kubectl::Kubectl,
};
use serde_json::Value;
use std::fs;

/// By what objects are told from each other, and without what says that helm made them.
fn normal(mut all: Vec<Value>) -> Vec<Value> {
    for object in &mut all {
        for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
            if let Some(labels) = object.pointer_mut(labels).and_then(Value::as_object_mut) {
                labels.retain(|name, _| name != "helm.sh/chart" && name != "app.kubernetes.io/managed-by");
            }
        }
        sorted(object);
    }
    all.retain(|object| object["kind"] != "Namespace");
    all.sort_by_key(|object| {
        let metadata = &object["metadata"];
        [&object["kind"], &metadata["namespace"], &metadata["name"]].map(ToString::to_string)
    });
    all
}

/// A patch adds to the end of what is merged by name.
fn sorted(object: &mut Value) {
    let template = "/spec/template/spec";
    for list in
        ["/volumes", "/containers/0/volumeMounts", "/containers/0/env", "/initContainers/0/volumeMounts", "/initContainers/0/env"]
    {
        if let Some(list) = object.pointer_mut(&format!("{template}{list}")).and_then(Value::as_array_mut) {
            list.sort_by_key(|item| item["name"].to_string());
        }
    }
}

#[tokio::test]
async fn kustomize_makes_what_helm_makes() {
    let helm = Helm::alone();
    let kubectl = Kubectl::new(programs().join("kubectl"), "", &std::env::temp_dir());
    let folder = repository().join("deploy/kustomize");
    let values = |name: &str| format!("deploy/kustomize/values/{name}.yaml");
    let overlays = fs::read_dir(folder.join("overlays")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut overlays: Vec<String> = overlays.collect();
    overlays.sort();
    assert_eq!(overlays, ["apart", "monitoring", "namespaced", "tls"]);
    for name in ["base".to_owned()].into_iter().chain(overlays) {
        let place = if name == "base" { folder.join("base") } else { folder.join("overlays").join(&name) };
        let made = kubectl.run(&["kustomize", place.to_str().unwrap()]).await.out();
        let mut args = vec!["template", "moorline", MOORLINE, "--namespace", "moorline-system", "--values"];
        let (base, own) = (values("base"), values(&name));
        args.push(&base);
        if name != "base" {
            args.extend(["--values", &own]);
        }
        let rendered = helm.run(&args).await.out();
        let (made, rendered) = (normal(objects(&made)), normal(objects(&rendered)));
        assert_eq!(made.len(), rendered.len(), "{name}");
        for (made, rendered) in made.iter().zip(&rendered) {
            assert!(made == rendered, "{name}: {made:#}\nis not\n{rendered:#}");
        }
    }
}

/// As docs/install.md has it.
#[tokio::test]
async fn a_cluster_takes_the_base_and_every_overlay_in_a_namespace_that_is_restricted() {
    let control_plane = ControlPlane::start().await;
    super::valid::kinds_of_others(&control_plane).await;
    control_plane.namespace("team-a").await;
    let folder = repository().join("deploy/kustomize");
    let kubectl = control_plane.access("default").kubectl();
    let apply = async |place: &str| {
        let place = folder.join(place).to_str().unwrap().to_owned();
        let said = kubectl.run(&["apply", "--server-side", "--force-conflicts", "-k", &place]).await;
        assert!(said.ok && said.err.is_empty(), "{place}: {}{}", said.out, said.err);
    };
    apply("crds").await;
    for place in ["base", "overlays/apart", "overlays/monitoring", "overlays/namespaced", "overlays/tls"] {
        apply(place).await;
    }
    let namespace = control_plane.send("GET", "/api/v1/namespaces/moorline-system", None).await.unwrap();
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "restricted");
}
