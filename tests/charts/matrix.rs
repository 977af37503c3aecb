//! Values to render the chart with: each thing that changes what is made, at least once, and some together.

use crate::support::helm::repository;
use serde_json::{Value, json};

/// What has no default, and nothing else.
pub fn least() -> Value {
    json!({
        "image": {"repository": "registry.example/tools/moorline"},
        "database": {"existingSecret": {"name": "moorline-database"}},
    })
}

/// These values besides the least.
pub fn with(values: &Value) -> Value {
    let mut all = least();
    merge(&mut all, values);
    all
}

/// As helm merges values: objects key by key, anything else as a whole.
fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Each way to render it, with a name that is one of a namespace too. There are namespaces `team-a` and `team-b`.
pub fn all() -> Vec<(&'static str, Value)> {
    let ways = [
        ("least", json!({})),
        ("apart", json!({"roles": "apart", "controller": {"replicas": 1, "resources": {"limits": {"memory": "1Gi"}}}})),
        ("namespaced", json!({"kubernetes": {"watchNamespaces": ["team-a", "team-b"]}})),
        (
            "apart-and-namespaced",
            json!({"roles": "apart", "kubernetes": {"watchNamespaces": ["team-a"], "mirror": "all"}, "tls": {"existingSecret": "tls"}}),
        ),
        ("mirror-off", json!({"kubernetes": {"mirror": "off", "lease": {"duration": "30s"}}})),
        ("mirror-all", json!({"kubernetes": {"mirror": "all", "mirrorQps": 10}})),
        ("no-front", json!({"kubernetes": {"enabled": false}})),
        ("no-cluster", json!({"kubernetes": {"enabled": false}, "auth": {"mode": "token", "tokenSecret": {"name": "tokens"}}})),
        ("tls", json!({"tls": {"existingSecret": "moorline-tls"}, "service": {"type": "LoadBalancer", "port": 443}})),
        (
            "certified",
            json!({"tls": {"certManager": {
                "enabled": true, "issuerRef": {"name": "internal", "kind": "ClusterIssuer"}, "dnsNames": ["moorline.example"],
            }}}),
        ),
        (
            "database-tls",
            json!({"database": {"tls": {"mode": "verify-full", "caSecret": {"name": "moorline-database-ca"}}, "listenNotify": false}}),
        ),
        ("init-container", json!({"migrations": {"mode": "initContainer"}})),
        ("migrated-by-hand", json!({"migrations": {"mode": "none"}})),
        ("routed", routed()),
        ("monitored", monitored()),
        ("walled", walled()),
        ("pods", pods()),
        (
            "accounts-of-others",
            json!({"serviceAccount": {"create": false, "name": "given"}, "rbac": {"create": false}, "roles": "apart"}),
        ),
        ("ids-of-openshift", json!({"podSecurityContext": {"runAsUser": null, "runAsGroup": null, "fsGroup": null}})),
        (
            "named",
            json!({
                "fullnameOverride": "a-name-that-is-longer-than-what-its-suffixes-leave-room-for", "nameOverride": "conversations",
                "roles": "apart", "commonLabels": {"team": "tools"},
                "image": {"tag": "1.2.3", "digest": format!("sha256:{}", "0a".repeat(32)), "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "pull"}], "serviceAccount": {"annotations": {"example.com/a": "b"}},
            }),
        ),
    ];
    let examples = ["cloudnative-pg", "cert-manager"].map(|name| (name, example(name)));
    ways.into_iter().chain(examples).map(|(name, values)| (name, with(&values))).collect()
}

/// What an example has values for.
fn example(name: &str) -> Value {
    let file = repository().join("deploy/examples").join(name).join("values.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn routed() -> Value {
    json!({
        "ingress": {
            "enabled": true, "className": "internal", "annotations": {"example.com/backend": "HTTPS"},
            "hosts": [{"host": "moorline.example"}, {"host": "chats.example", "path": "/moorline"}],
            "tls": [{"secretName": "front", "hosts": ["moorline.example"]}],
        },
        "httpRoute": {
            "enabled": true, "renderMode": "alwaysRender", "parentRefs": [{"name": "public", "namespace": "gateways"}],
            "hostnames": ["moorline.example"],
        },
    })
}

fn monitored() -> Value {
    json!({"metrics": {
        "serviceMonitor": {"enabled": true, "renderMode": "alwaysRender", "labels": {"release": "prometheus"}},
        "podMonitor": {"enabled": true, "renderMode": "alwaysRender", "interval": "1m"},
        "prometheusRule": {"enabled": true, "renderMode": "alwaysRender", "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": true, "annotations": {"example.com/folder": "Moorline"}},
    }})
}

fn walled() -> Value {
    let pods = |name: &str| json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}]);
    json!({
        "otlp": {"endpoint": "http://collector.observability:4318"},
        "networkPolicy": {
            "ingress": {"from": pods("team-a"), "metricsFrom": pods("monitoring")},
            "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"], "ports": [6443]},
            "database": {"to": pods("databases"), "port": 6432},
            "otlp": {"to": pods("observability")},
            "extraIngress": [{"from": pods("team-b")}],
            "extraEgress": [{"to": pods("team-b")}],
        },
    })
}

fn pods() -> Value {
    json!({
        "roles": "apart",
        "api": {"replicas": null, "podDisruptionBudget": {"minAvailable": "50%"}, "extraArgs": ["--poll-ms=500"]},
        "pods": {
            "topologySpreadConstraints": [], "annotations": {"example.com/note": "on"}, "labels": {"team": "tools"},
            "nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"key": "dedicated", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]}},
            ]}},
            "priorityClassName": "system-cluster-critical", "terminationGracePeriodSeconds": 60,
            "extraEnv": [{"name": "NO_PROXY", "value": "*"}], "extraVolumes": [{"name": "scratch", "emptyDir": {}}],
            "extraVolumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
        },
        "controller": {"podDisruptionBudget": {"enabled": false}},
        "log": {"level": "debug", "format": "text"},
    })
}
