//! Whatever the values are: what is rendered is valid, a real apiserver takes it without a warning in a namespace that enforces
//! the restricted profile, and its pods are admitted there.

use super::{matrix, schemas};
use crate::support::{
    envtest::ControlPlane,
    helm::{DEFINITIONS, Helm, MOORLINE, kubeconform, objects, of_kind, repository, tools},
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Makes a namespace that takes nothing but restricted pods, with the account that every namespace has.
pub async fn restricted(control_plane: &ControlPlane, name: &str) {
    let level = ["enforce", "warn", "audit"].map(|mode| (format!("pod-security.kubernetes.io/{mode}"), json!("restricted")));
    let labels: serde_json::Map<String, Value> = level.into_iter().collect();
    let namespace = json!({"metadata": {"name": name, "labels": labels}});
    control_plane.send("POST", "/api/v1/namespaces", Some(&namespace)).await;
    let account = json!({"metadata": {"name": "default"}});
    control_plane.send("POST", &format!("/api/v1/namespaces/{name}/serviceaccounts"), Some(&account)).await;
}

/// Installs the kinds of others of which the chart makes objects.
pub async fn kinds_of_others(control_plane: &ControlPlane) {
    let folder = tools().join("definitions");
    let folder = folder.to_str().unwrap();
    control_plane.kubectl("default", &["apply", "--server-side", "-f", folder], "").await.out();
    control_plane.kubectl("default", &["wait", "--for=condition=Established", "-f", folder], "").await.out();
}

fn kinds(objects: &[Value]) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    objects.iter().map(|object| (text(&object["apiVersion"]), text(&object["kind"]))).collect()
}

#[tokio::test]
async fn helm_has_nothing_to_say_against_the_charts() {
    let helm = Helm::alone();
    for chart in [MOORLINE, DEFINITIONS] {
        helm.run(&["lint", "--strict", chart]).await.out();
    }
    for (name, values) in matrix::all() {
        let said = helm.fed(&["lint", "--strict", MOORLINE, "--values", "-"], &values.to_string()).await;
        assert!(said.ok, "{name}: {}{}", said.out, said.err);
    }
}

#[tokio::test]
async fn what_is_rendered_is_valid_and_taken_without_a_warning_and_its_pods_are_restricted() {
    let control_plane = ControlPlane::start().await;
    kinds_of_others(&control_plane).await;
    for team in ["team-a", "team-b"] {
        control_plane.namespace(team).await;
    }
    let helm = Helm::alone();
    let mut ways = Vec::new();
    for (name, values) in matrix::all() {
        let said = helm.rendered(name, &values).await;
        assert!(said.ok, "{name}: {}", said.err);
        ways.push((name, said.out));
    }
    let schemas = tempfile::tempdir().unwrap();
    let whole: Vec<Value> = ways.iter().flat_map(|(_, yaml)| objects(yaml)).collect();
    schemas::write(&control_plane, schemas.path(), &kinds(&whole)).await;
    let location = schemas::location(schemas.path());
    let conform = ["-strict", "-summary", "-schema-location", &location];
    let kubectl = control_plane.access("default").kubectl();
    for (name, yaml) in &ways {
        let said = kubeconform(&conform, yaml).await;
        assert!(said.ok, "{name}: {}{}", said.out, said.err);

        restricted(&control_plane, name).await;
        let apply = ["apply", "--server-side", "--validate=strict", "-f", "-"];
        for args in [&[&apply[..], &["--dry-run=server"]].concat()[..], &apply] {
            let said = kubectl.fed(args, yaml).await;
            assert!(said.ok && said.err.is_empty(), "{name}: {}{}", said.out, said.err);
        }
        let objects = objects(yaml);
        for workload in of_kind(&objects, "Deployment").chain(of_kind(&objects, "Job")) {
            admits(&control_plane, name, workload).await;
        }
    }
    let issuer = repository().join("deploy/examples/cert-manager/issuer.yaml");
    let said = kubectl.run(&["apply", "--server-side", "--validate=strict", "-f", issuer.to_str().unwrap()]).await;
    assert!(said.ok && said.err.is_empty(), "{}{}", said.out, said.err);

    // Whoever looks sees: a word that is not one, and a pod that may be root.
    let (_, least) = &ways[0];
    let said = kubeconform(&conform, &least.replace("serviceAccountName:", "serviceAcountName:")).await;
    assert!(!said.ok && said.out.contains("serviceAcountName"), "{}", said.out);
    let root = objects(&least.replace("runAsNonRoot: true", "runAsNonRoot: false"));
    let deployment = of_kind(&root, "Deployment").next().unwrap();
    let (code, answer) = pod(&control_plane, "least", deployment).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("runAsNonRoot"), "{code} {answer}");
}

async fn pod(control_plane: &ControlPlane, namespace: &str, workload: &Value) -> (u16, Value) {
    let template = &workload["spec"]["template"];
    let mut body = json!({"metadata": template["metadata"], "spec": template["spec"]});
    body["metadata"]["generateName"] = json!("its-pod-");
    control_plane.answer("POST", &format!("/api/v1/namespaces/{namespace}/pods"), Some(&body)).await.unwrap()
}

/// A pod of the workload, with an account of the name if that is another's to make.
async fn admits(control_plane: &ControlPlane, namespace: &str, workload: &Value) {
    if workload["spec"]["template"]["spec"]["serviceAccountName"] == "given" {
        let account = json!({"metadata": {"name": "given"}});
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        control_plane.answer("POST", &path, Some(&account)).await.unwrap();
    }
    let (code, answer) = pod(control_plane, namespace, workload).await;
    assert_eq!(code, 201, "{namespace}: {} {answer}", workload["metadata"]["name"]);
    let spec = &answer["spec"];
    assert_eq!(spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(spec["automountServiceAccountToken"], workload["spec"]["template"]["spec"]["automountServiceAccountToken"]);
}

#[tokio::test]
async fn the_definitions_of_the_chart_are_those_of_the_binary() {
    let helm = Helm::alone();
    let ours = |yaml: &str| -> Vec<Value> {
        let mut all = objects(yaml);
        for object in &mut *all {
            object["metadata"] = json!({"name": object["metadata"]["name"]});
        }
        all
    };
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_moorline")).arg("crd").output().await.unwrap();
    let mut made = ours(&String::from_utf8(output.stdout).unwrap());
    made.sort_by_key(|object| object["metadata"]["name"].to_string());
    for (args, kept) in [(&[][..], true), (&["--set=keep=false", "--set=commonLabels.team=tools"], false)] {
        let said = helm.run(&[&["template", "crds", DEFINITIONS][..], args].concat()).await.out();
        let mut rendered = ours(&said);
        rendered.sort_by_key(|object| object["metadata"]["name"].to_string());
        assert_eq!(rendered, made);
        for definition in objects(&said) {
            assert_eq!(definition["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep", kept);
        }
    }
}

#[test]
fn the_charts_are_of_the_version_of_the_binary() {
    for chart in [MOORLINE, DEFINITIONS] {
        let chart = std::fs::read_to_string(repository().join(chart).join("Chart.yaml")).unwrap();
        let chart: Value = serde_saphyr::from_str(&chart).unwrap();
        assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    }
}

#[tokio::test]
async fn the_runbook_of_an_alert_is_at_the_place_that_a_value_names() {
    let url = "https://docs.example/moorline/operations.html";
    let rule = json!({"enabled": true, "renderMode": "alwaysRender", "runbookUrl": url});
    let objects = Helm::alone().objects("ns", &matrix::with(&json!({"metrics": {"prometheusRule": rule}}))).await;
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let groups = rule["spec"]["groups"].as_array().unwrap().iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    let alerts: Vec<&Value> = rules.filter(|rule| rule["alert"].is_string()).collect();
    assert!(alerts.len() > 20);
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap().to_lowercase();
        assert_eq!(alert["annotations"]["runbook_url"], format!("{url}#{name}"), "{alert}");
    }
}
