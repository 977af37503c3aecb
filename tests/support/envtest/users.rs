//! Users with rights of their own: service accounts, whose tokens the apiserver gives, as a deployed Moorline's.

use super::ControlPlane;
use serde_json::{Value, json};

/// Somebody whom the apiserver knows.
#[derive(Clone, Debug)]
pub struct User {
    /// As the apiserver calls it: `system:serviceaccount:…`.
    pub name: String,
    /// What it shows. It is good for an hour, until `dismiss`, or until the data of etcd are lost.
    pub token: String,
    namespace: String,
    short: String,
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

impl ControlPlane {
    /// Makes a user that may do what `rules` (RBAC `PolicyRule`s) allow in every namespace, and nothing else.
    pub async fn user(&self, namespace: &str, short: &str, rules: &Value) -> User {
        let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.send("POST", &accounts, Some(&json!({"metadata": {"name": short}}))).await.unwrap();
        let token = self.send("POST", &format!("{accounts}/{short}/token"), Some(&json!({"spec": {}}))).await.unwrap();
        let user = User {
            name: format!("system:serviceaccount:{namespace}:{short}"),
            token: token["status"]["token"].as_str().unwrap().to_owned(),
            namespace: namespace.to_owned(),
            short: short.to_owned(),
        };
        let role = user.role();
        let body = json!({"metadata": {"name": role}, "rules": rules});
        self.send("POST", &format!("{RBAC}/clusterroles"), Some(&body)).await.unwrap();
        let body = json!({
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": short, "namespace": namespace}],
        });
        self.send("POST", &format!("{RBAC}/clusterrolebindings"), Some(&body)).await.unwrap();
        user
    }

    /// Gives a user these rights instead of those it had.
    pub async fn allow(&self, user: &User, rules: &Value) {
        let path = format!("{RBAC}/clusterroles/{}", user.role());
        self.send("PATCH", &path, Some(&json!({"rules": rules}))).await.unwrap();
    }

    /// Makes the token of a user worthless.
    pub async fn dismiss(&self, user: &User) {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}", user.namespace, user.short);
        self.send("DELETE", &path, None).await.unwrap();
    }
}

impl User {
    fn role(&self) -> String {
        format!("{}:{}", self.namespace, self.short)
    }
}
