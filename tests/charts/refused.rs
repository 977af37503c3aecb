//! Values that cannot be meant are refused, with a message that names the value.

use super::matrix;
use crate::support::{
    envtest::ControlPlane,
    helm::{DEFINITIONS, Helm, MOORLINE, objects, of_kind, repository},
};
use serde_json::{Value, json};

#[tokio::test]
async fn what_cannot_be_meant_is_refused_by_name() {
    let cases = [
        (json!({"pods": {"replcas": 3}}), "at '/pods': additional properties 'replcas' not allowed"),
        (json!({"replicas": 3}), "additional properties 'replicas' not allowed"),
        (json!({"pods": {"replicas": "two"}}), "at '/pods/replicas': got string, want null or integer"),
        (json!({"api": {"replicas": -1}}), "at '/api/replicas': minimum: got -1, want 0"),
        (
            json!({"pods": {"terminationGracePeriodSeconds": 10}}),
            "at '/pods/terminationGracePeriodSeconds': minimum: got 10, want 20",
        ),
        (json!({"pods": {"shutdownDelay": "1m"}}), "at '/pods/shutdownDelay': '1m' does not match"),
        (json!({"roles": "both"}), "at '/roles': value must be one of 'together', 'apart'"),
        (json!({"image": {"digest": "0a0b"}}), "at '/image/digest'"),
        (json!({"database": {"connections": 2}}), "at '/database/connections': minimum: got 2, want 4"),
        (json!({"database": {"tls": {"mode": "verify"}}}), "at '/database/tls/mode': value must be one of"),
        (json!({"database": {"url": "postgres://"}}), "at '/database': additional properties 'url' not allowed"),
        (json!({"migrations": {"mode": "job"}}), "at '/migrations/mode': value must be one of 'hook', 'initContainer', 'none'"),
        (json!({"auth": {"mode": "none"}}), "at '/auth/mode': value must be one of 'kubernetes', 'token'"),
        (json!({"kubernetes": {"watchNamespaces": "team-a"}}), "at '/kubernetes/watchNamespaces': got string, want array"),
        (json!({"kubernetes": {"watchNamespaces": ["Team A"]}}), "at '/kubernetes/watchNamespaces/0': 'Team A' does not match"),
        (json!({"kubernetes": {"mirror": "some"}}), "at '/kubernetes/mirror': value must be one of 'off', 'manifests', 'all'"),
        (json!({"kubernetes": {"lease": {"duration": "15"}}}), "at '/kubernetes/lease/duration': '15' does not match"),
        (json!({"retention": {"events": "1w"}}), "at '/retention/events': '1w' does not match"),
        (json!({"service": {"port": 0}}), "at '/service/port': minimum: got 0, want 1"),
        (
            json!({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}),
            "at '/networkPolicy/apiServer/cidrs/0': '10.0.0.1' does not",
        ),
        (json!({"networkPolicy": {"dns": {"to": []}}}), "at '/networkPolicy/dns/to': minItems: got 0, want 1"),
        (
            json!({"metrics": {"serviceMonitor": {"renderMode": "maybe"}}}),
            "at '/metrics/serviceMonitor/renderMode': value must be one of",
        ),
        (json!({"ingress": {"enabled": true, "hosts": [{"path": "/"}]}}), "at '/ingress/hosts/0': missing property 'host'"),
        // What a schema cannot say.
        (json!({"image": {"repository": ""}}), "image.repository is required"),
        (json!({"database": {"existingSecret": {"name": ""}}}), "database.existingSecret.name is required"),
        (
            json!({"pods": {"shutdownDelay": "30s"}}),
            "pods.terminationGracePeriodSeconds must be at least 50: 20 s to stop and pods.shutdownDelay, got 45",
        ),
        (json!({"auth": {"mode": "token"}}), "auth.tokenSecret.name is required with auth.mode token"),
        (json!({"tls": {"certManager": {"enabled": true}}}), "tls.certManager.issuerRef.name is required"),
        (json!({"ingress": {"enabled": true}}), "ingress.hosts is required"),
        (json!({"httpRoute": {"enabled": true, "renderMode": "alwaysRender"}}), "httpRoute.parentRefs is required"),
        (
            json!({"metrics": {"podMonitor": {"enabled": true, "renderMode": "failIfMissing"}}}),
            "metrics.podMonitor.renderMode is failIfMissing, and the cluster does not serve monitoring.coreos.com/v1/PodMonitor",
        ),
    ];
    let helm = Helm::alone();
    for (values, complaint) in cases {
        let said = helm.rendered("default", &matrix::with(&values)).await;
        assert!(!said.ok && said.err.contains(complaint), "{values}: {:?} is not in {}", complaint, said.err);
    }
    let said = helm.fed(&["template", "crds", DEFINITIONS, "--values", "-"], r#"{"kep": true}"#).await.err();
    assert!(said.contains("additional properties 'kep' not allowed"), "{said}");
}

/// What the definitions need is what the charts ask for, and what the pages say.
#[tokio::test]
async fn a_cluster_that_is_too_old_for_the_definitions_is_refused_by_both_charts() {
    let render = async |chart: &str, version: &str| {
        let values = matrix::with(&json!({})).to_string();
        let args = ["template", "moorline", chart, "--kube-version", version, "--values", "-"];
        let values = if chart == MOORLINE { values } else { "{}".to_owned() };
        Helm::alone().fed(&args, &values).await
    };
    for chart in [MOORLINE, DEFINITIONS] {
        let refused = render(chart, "1.31.9").await.err();
        assert!(refused.contains("requires kubeVersion: >=1.32.0-0"), "{chart}: {refused}");
        render(chart, "1.32.0").await.out();
    }
    for page in ["install.md", "compatibility.md", "crds.md"] {
        let text = std::fs::read_to_string(repository().join("docs").join(page)).unwrap();
        assert!(text.contains("1.32 or newer"), "docs/{page} says another version");
        assert!(!text.contains("1.29"), "docs/{page} says another version too");
    }
}

/// The schema says something of every value that there is, and there is a default for all that it names: a value that is
/// misspelt in one of the two would not be seen otherwise.
#[test]
fn the_schema_and_the_defaults_name_the_same_values() {
    let read = |file: &str| std::fs::read_to_string(crate::support::helm::repository().join(MOORLINE).join(file)).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut wrong = Vec::new();
    compare("", &values, &schema, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
}

fn compare(path: &str, values: &Value, schema: &Value, wrong: &mut Vec<String>) {
    let Some(named) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{path}");
    // Optional by nature: what is other than in `pods`, what another chart gives, and a part of resources.
    let optional = |key: &str| key == "global" || ["/api", "/controller"].contains(&path) || path.ends_with("/resources");
    for (key, schema) in named {
        match values.get(key) {
            None if optional(key) => {}
            None => wrong.push(format!("values.yaml lacks {path}/{key}")),
            Some(value) => compare(&format!("{path}/{key}"), value, schema, wrong),
        }
    }
    for key in values.as_object().into_iter().flat_map(|values| values.keys()).filter(|key| !named.contains_key(*key)) {
        wrong.push(format!("values.schema.json lacks {path}/{key}"));
    }
}

/// `skipIfMissing` is about the cluster that helm speaks to, which is a real one here.
#[tokio::test]
async fn objects_of_kinds_that_the_cluster_lacks_are_left_out_and_made_when_it_has_them() {
    let control_plane = ControlPlane::start().await;
    let helm = Helm::of(&control_plane);
    let monitor = json!({"enabled": true, "renderMode": "skipIfMissing"});
    let values = matrix::with(&json!({
        "metrics": {"serviceMonitor": monitor, "podMonitor": monitor},
        "httpRoute": {"enabled": true, "renderMode": "skipIfMissing", "parentRefs": [{"name": "public"}]},
    }));
    let install = ["install", "moorline", MOORLINE, "--dry-run=server", "--hide-notes", "--values", "-"];
    let kinds = async || {
        let said = helm.fed(&install, &values.to_string()).await.out();
        let manifest = said.split_once("\nMANIFEST:\n").unwrap().1.to_owned();
        let objects = objects(&manifest);
        ["ServiceMonitor", "PodMonitor", "HTTPRoute"].map(|kind| of_kind(&objects, kind).count())
    };
    assert_eq!(kinds().await, [0, 0, 0]);
    super::valid::kinds_of_others(&control_plane).await;
    assert_eq!(kinds().await, [1, 1, 1]);
}
