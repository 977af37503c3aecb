//! How somebody reaches a control plane: who they are, through what, and in which namespace.

use super::{ControlPlane, User, programs};
use crate::support::kubectl::Kubectl;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use std::fs;

/// A way to the apiserver, which each verb changes in one thing.
pub struct Access<'a> {
    to: &'a ControlPlane,
    server: String,
    token: String,
    namespace: String,
}

impl ControlPlane {
    /// The straight way of `system:masters` into a namespace.
    pub fn access(&self, namespace: &str) -> Access<'_> {
        Access { to: self, server: self.url.clone(), token: programs::ADMIN.to_owned(), namespace: namespace.to_owned() }
    }

    /// A kubeconfig for `system:masters` whose namespace is this one.
    pub fn kubeconfig(&self, namespace: &str) -> String {
        self.access(namespace).kubeconfig()
    }

    /// What the apiserver shows who it is with, for one that stands in its place (PEM).
    pub fn certificate_and_key(&self) -> (Vec<u8>, Vec<u8>) {
        (fs::read(self.layout.certificate()).unwrap(), fs::read(self.layout.key()).unwrap())
    }
}

impl Access<'_> {
    /// As this user.
    #[must_use]
    pub fn of(self, user: &User) -> Self {
        self.with_token(&user.token)
    }

    /// As whom the apiserver knows, or does not know, by this token.
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self }
    }

    /// Through a proxy that listens at this URL.
    #[must_use]
    pub fn via(self, url: &str) -> Self {
        Self { server: url.to_owned(), ..self }
    }

    /// A kubeconfig (as JSON).
    pub fn kubeconfig(&self) -> String {
        programs::kubeconfig(&self.to.layout, &self.server, &self.token, &self.namespace)
    }

    /// A kubeconfig for whom the token in a file is, which may change.
    pub fn kubeconfig_with_token_in(&self, file: &std::path::Path) -> String {
        let mut kubeconfig: Value = serde_json::from_str(&self.kubeconfig()).unwrap();
        kubeconfig["users"][0]["user"] = json!({"tokenFile": file});
        kubeconfig.to_string()
    }

    /// A kubectl with a home of its own.
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(programs::program("kubectl"), &self.kubeconfig(), self.to.layout.home())
    }

    /// A client of this runtime.
    pub async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }
}
