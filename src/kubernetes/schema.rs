//! Whether the cluster's definitions of our kinds fit this binary, and which verbs we lack.
//!
//! A cluster drops fields that its definition does not name, without a word: a status would lose what a newer binary has to say.
//! So a definition must have every field that ours has. One that has more is a newer one, and fits.

use super::{FrontOptions, Mirror, kind::Kind};
use crate::{
    clock::Clock,
    store::error::full_jitter,
    v1alpha1::{Agent, AgentSnapshot, Chat},
};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, api::PostParams};
use serde_json::Value;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often definitions that do not fit are looked at again, about.
const AGAIN: Duration = Duration::from_secs(15);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// Why the front does not begin.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// A definition is not there.
    #[error("the cluster has no definition of {name}: apply crds/ of this version (kubectl apply --server-side -f crds/)")]
    Missing {
        /// Its name.
        name: String,
    },
    /// A definition is older than this binary.
    #[error(
        "the cluster's definition of {name} is older than this binary: it lacks {what}; apply crds/ of this version first (kubectl apply --server-side -f crds/)"
    )]
    Older {
        /// Its name.
        name: String,
        /// The first thing that it lacks.
        what: String,
    },
    /// The cluster could not be asked.
    #[error("asking the cluster for its definitions: {0}")]
    Cluster(#[from] Box<kube::Error>),
    /// The cluster took too long.
    #[error("asking the cluster for its definitions: no answer within {} s", REQUEST.as_secs())]
    Slow,
}

/// Our definitions.
fn ours() -> [CustomResourceDefinition; 3] {
    [Agent::crd(), Chat::crd(), AgentSnapshot::crd()]
}

/// Whether the cluster's definitions have all that ours have.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for ours in ours() {
        let name = ours.metadata.name.clone().unwrap_or_default();
        let there = tokio::time::timeout(REQUEST, api.get_opt(&name)).await.map_err(|_| SchemaError::Slow)?;
        let Some(there) = there.map_err(Box::new)? else { return Err(SchemaError::Missing { name }) };
        if let Some(what) = lacking(&there, &ours) {
            return Err(SchemaError::Older { name, what });
        }
    }
    Ok(())
}

/// The first thing that a definition lacks of ours.
fn lacking(there: &CustomResourceDefinition, ours: &CustomResourceDefinition) -> Option<String> {
    for wanted in &ours.spec.versions {
        let Some(version) = there.spec.versions.iter().find(|version| version.name == wanted.name && version.served) else {
            return Some(format!("version {}", wanted.name));
        };
        let has_status = |subresources: &Option<_>| {
            let value = serde_json::to_value(subresources).unwrap_or_default();
            !value["status"].is_null()
        };
        if has_status(&wanted.subresources) && !has_status(&version.subresources) {
            return Some("the status subresource".into());
        }
        let schema = |schema: &Option<_>| serde_json::to_value(schema).unwrap_or_default()["openAPIV3Schema"].take();
        if let Some(path) = lacking_field("", &schema(&version.schema), &schema(&wanted.schema)) {
            return Some(format!("the field {path}"));
        }
    }
    None
}

fn lacking_field(path: &str, there: &Value, ours: &Value) -> Option<String> {
    for (name, wanted) in ours["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        match there["properties"].get(name) {
            None => return Some(path),
            Some(found) => {
                if let Some(lacking) = lacking_field(&path, found, wanted) {
                    return Some(lacking);
                }
            }
        }
    }
    if ours["items"].is_object() {
        return lacking_field(&format!("{path}[]"), &there["items"], &ours["items"]);
    }
    let words = |schema: &Value| schema["enum"].as_array().cloned().unwrap_or_default();
    let known = words(there);
    words(ours).into_iter().find(|word| !known.is_empty() && !known.contains(word)).map(|word| format!("{path}: {word}"))
}

/// Waits until the cluster's definitions fit; answers false when `stop` came first. What does not fit is said again only when it
/// changes.
pub async fn wait(client: &Client, options: &FrontOptions, clock: &Clock, stop: &CancellationToken) -> bool {
    let mut said = String::new();
    loop {
        let checked = tokio::select! {
            () = stop.cancelled() => return false,
            checked = check(client) => checked,
        };
        crate::metrics::METRICS.front_ready(checked.is_ok());
        let Err(error) = checked else { break };
        let error = error.to_string();
        if error != said {
            tracing::error!(%error, "manifests are not taken over until the cluster's definitions fit; the API and the loop go on");
            said = error;
        }
        let pause = AGAIN / 2 + full_jitter(AGAIN, AGAIN, 0, clock.random());
        tokio::select! { () = stop.cancelled() => return false, () = tokio::time::sleep(pause) => {} }
    }
    let missing = tokio::select! {
        () = stop.cancelled() => return false,
        missing = missing_verbs(client, options, None) => missing,
    };
    for verb in missing {
        tracing::warn!("this account may not {verb}: what needs it is left undone");
    }
    true
}

/// What this account may not do and would have to, each as `patch chats/status in namespace team-a`. Empty, when the cluster does
/// not answer: whatever is missing then says so itself.
pub async fn missing_verbs(client: &Client, options: &FrontOptions, own_namespace: Option<&str>) -> Vec<String> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let scopes: Vec<Option<&str>> = match options.watch_namespaces.as_slice() {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut missing = Vec::new();
    for (group, resource, subresource, verb) in needed(options) {
        let of_lease = resource == "leases";
        let lease_scope = [options.lease.lease_namespace.as_deref().or(own_namespace)];
        let scopes = if of_lease { lease_scope.as_slice() } else { scopes.as_slice() };
        for namespace in scopes {
            let attributes = ResourceAttributes {
                group: Some(group.into()),
                resource: Some(resource.into()),
                subresource: subresource.map(Into::into),
                verb: Some(verb.into()),
                namespace: namespace.map(Into::into),
                ..ResourceAttributes::default()
            };
            let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            let Ok(Ok(answer)) = tokio::time::timeout(REQUEST, api.create(&PostParams::default(), &review)).await else {
                return Vec::new();
            };
            if answer.status.is_some_and(|status| !status.allowed) {
                let subresource = subresource.map(|subresource| format!("/{subresource}")).unwrap_or_default();
                let place = namespace.map_or_else(|| "in all namespaces".into(), |namespace| format!("in namespace {namespace}"));
                missing.push(format!("{verb} {resource}{subresource} {place}"));
            }
        }
    }
    missing
}

type Needed = (&'static str, &'static str, Option<&'static str>, &'static str);

/// Group, resource, subresource and verb of all that the front does.
fn needed(options: &FrontOptions) -> Vec<Needed> {
    const GROUP: &str = "moorline.dev";
    let mut needed = Vec::new();
    for kind in Kind::ALL {
        for verb in ["get", "list", "watch"] {
            needed.push((GROUP, kind.plural(), None, verb));
        }
        if kind != Kind::Snapshot {
            needed.push((GROUP, kind.plural(), None, "patch"));
            if options.mirror != Mirror::Off {
                needed.push((GROUP, kind.plural(), Some("status"), "patch"));
            }
        }
        if options.mirror == Mirror::All || (options.mirror == Mirror::Manifests && kind == Kind::Snapshot) {
            needed.push((GROUP, kind.plural(), None, "create"));
            needed.push((GROUP, kind.plural(), None, "delete"));
        }
    }
    for verb in ["create", "patch"] {
        needed.push(("events.k8s.io", "events", None, verb));
    }
    for verb in ["get", "create", "update"] {
        needed.push(("coordination.k8s.io", "leases", None, verb));
    }
    needed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_definitions_fit_and_the_first_thing_that_an_older_one_lacks_is_named() {
        for ours in ours() {
            assert_eq!(lacking(&ours, &ours), None);
        }
        let mut old = serde_json::to_value(Chat::crd()).expect("JSON");
        let properties = &mut old["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        properties["status"]["properties"]["pinned"]["properties"].as_object_mut().expect("properties").remove("cause");
        let old = serde_json::from_value(old).expect("a definition");
        assert_eq!(lacking(&old, &Chat::crd()).as_deref(), Some("the field .status.pinned.cause"));
        assert_eq!(lacking(&Chat::crd(), &old), None, "a newer one fits");
    }

    #[test]
    fn an_unknown_word_and_a_missing_subresource_are_named_too() {
        let mut old = serde_json::to_value(Chat::crd()).expect("JSON");
        let version = &mut old["spec"]["versions"][0];
        version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["refreshPolicy"]["enum"] = serde_json::json!(["Manual"]);
        let one: CustomResourceDefinition = serde_json::from_value(old.clone()).expect("a definition");
        assert_eq!(lacking(&one, &Chat::crd()).as_deref(), Some("the field .spec.refreshPolicy: \"OnDrift\""));
        old["spec"]["versions"][0].as_object_mut().expect("a version").remove("subresources");
        let other: CustomResourceDefinition = serde_json::from_value(old).expect("a definition");
        assert_eq!(lacking(&other, &Chat::crd()).as_deref(), Some("the status subresource"));
    }
}
