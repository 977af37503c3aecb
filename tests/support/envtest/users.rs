//! Users with rights of their own: service accounts, whose tokens the apiserver gives, as a deployed Moorline's.

use super::ControlPlane;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moorline::clock;
use serde_json::{Value, json};
use std::{fs, process::Command, time::Duration};

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

    /// Another token of a user, good for so long. The apiserver itself gives none for less than ten minutes, but takes whatever
    /// is signed with its key.
    pub async fn token_that_lasts(&self, user: &User, lifetime: Duration) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}", user.namespace, user.short);
        let account = self.send("GET", &path, None).await.unwrap();
        let (now, issuer) = (clock::system().now().as_second(), format!("{}/", self.url));
        let claims = json!({
            "iss": issuer, "aud": [issuer], "sub": user.name, "iat": now, "nbf": now, "exp": now + lifetime.as_secs().cast_signed(),
            "kubernetes.io": {"namespace": user.namespace, "serviceaccount": {"name": user.short, "uid": account["metadata"]["uid"]}},
        });
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        self.signed(&format!("{}.{}", part(&json!({"alg": "RS256", "typ": "JWT"})), part(&claims)))
    }

    /// What is said, with the apiserver's signature.
    fn signed(&self, said: &str) -> String {
        let file = self.layout.home().join(format!("claims-{}", clock::system().new_id().simple()));
        fs::write(&file, said).unwrap();
        let mut openssl = Command::new("openssl");
        let signed = openssl.args(["dgst", "-sha256", "-sign"]).arg(self.layout.token_key()).arg(&file).output().unwrap();
        assert!(signed.status.success(), "openssl dgst: {}", String::from_utf8_lossy(&signed.stderr));
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signed.stdout))
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

/// Tokens that are made for somebody, and those that are good for nothing.
impl ControlPlane {
    /// A token of a user for an audience, as a pod's projected volume has it.
    pub async fn token_for(&self, user: &User, audience: &str) -> String {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/{}/token", user.namespace, user.short);
        let asked = json!({"spec": {"audiences": [audience], "expirationSeconds": 600}});
        let made = self.send("POST", &path, Some(&asked)).await.unwrap();
        made["status"]["token"].as_str().unwrap().to_owned()
    }

    /// The same token as the apiserver would have made it an hour earlier, signed with its key: it is over since.
    pub fn expired(&self, token: &str) -> String {
        let mut parts = token.split('.');
        let (header, claims) = (parts.next().unwrap(), parts.next().unwrap());
        let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        for time in ["iat", "nbf", "exp"] {
            claims[time] = json!(claims[time].as_i64().unwrap() - 3_600);
        }
        self.signed(&format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string())))
    }

    /// Gives a user these rights in one namespace, besides those it has.
    pub async fn allow_in(&self, namespace: &str, user: &User, rules: &Value) {
        let name = format!("{}-{}", user.namespace, user.short);
        let of = format!("{RBAC}/namespaces/{namespace}");
        self.send("POST", &format!("{of}/roles"), Some(&json!({"metadata": {"name": name}, "rules": rules}))).await.unwrap();
        let body = json!({
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": user.short, "namespace": user.namespace}],
        });
        self.send("POST", &format!("{of}/rolebindings"), Some(&body)).await.unwrap();
    }
}
