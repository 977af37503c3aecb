//! Whether the cluster's definitions of our kinds fit this binary; and, in [`rights`], which verbs we lack.
//!
//! A cluster drops fields that its definition does not name, without a word, and refuses values that are not in an enum: a status
//! would lose what a newer binary has to say. So a definition must have every field, every enum value and the status subresource of
//! ours. One that has more is a newer one, and fits.
//!
//! What it does not: compare bounds, rules, columns or texts, or install anything.

pub mod rights;

use super::{FrontOptions, connect::Cluster};
use crate::{
    clock::Clock,
    metrics::METRICS,
    store::error::full_jitter,
    v1alpha1::{Agent, AgentSnapshot, Chat, VERSION},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{Api, Client, CustomResourceExt as _, ResourceExt as _};
use std::{fmt::Write as _, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);
/// How long to wait before definitions that do not fit, or a cluster that does not answer, are looked at again: half to one and a
/// half times as long.
const AGAIN: Duration = Duration::from_secs(10);
/// How many of the things that are missing are named.
const NAMED: usize = 5;

/// Why the front cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Definitions are not there, or older than this binary.
    #[error("{}", refusal(.0))]
    Misfits(Vec<Misfit>),
    /// We may not read them.
    #[error("this account may not get customresourcedefinitions.apiextensions.k8s.io: {0}")]
    Forbidden(kube::Error),
    /// The cluster answered something else.
    #[error("reading the definition {name}: {source}")]
    Read {
        /// Which.
        name: String,
        /// Why not.
        source: kube::Error,
    },
    /// The cluster did not answer.
    #[error("reading the definition {name}: no answer within {} s", REQUEST.as_secs())]
    Silence {
        /// Which.
        name: String,
    },
}

/// A definition that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// `chats.moorline.dev`.
    pub name: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is being deleted, and its objects with it.
    Deleting,
    /// The cluster does not serve it yet, or not any more.
    NotEstablished,
    /// It does not serve the version of this binary.
    NoVersion,
    /// It lacks these.
    Lacks(Vec<String>),
}

fn refusal(misfits: &[Misfit]) -> String {
    let mut text = String::from("the cluster's definitions do not fit this binary: ");
    for (index, Misfit { name, fault }) in misfits.iter().enumerate() {
        let separator = if index == 0 { "" } else { "; " };
        let what = match fault {
            Fault::Missing => "is not there".into(),
            Fault::Deleting => "is being deleted".into(),
            Fault::NotEstablished => "is not established".into(),
            Fault::NoVersion => format!("does not serve {VERSION}"),
            Fault::Lacks(missing) => {
                let more = missing.len().saturating_sub(NAMED);
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                format!("is older: it lacks {}{more}", missing[..missing.len().min(NAMED)].join(", "))
            }
        };
        write!(text, "{separator}{name} {what}").expect("writing to a string does not fail");
    }
    text + ". Apply those of this version: moorline crd | kubectl apply --server-side -f -"
}

/// Our definitions.
fn ours() -> [CustomResourceDefinition; 3] {
    [Agent::crd(), AgentSnapshot::crd(), Chat::crd()]
}

/// Whether the cluster serves what this binary reads and writes.
pub async fn check(client: &Client) -> Result<(), SchemaError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut misfits = Vec::new();
    for ours in ours() {
        let name = ours.name_any();
        let theirs = match timeout(REQUEST, api.get_opt(&name)).await {
            Ok(Ok(theirs)) => theirs,
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                return Err(SchemaError::Forbidden(kube::Error::Api(status)));
            }
            Ok(Err(source)) => return Err(SchemaError::Read { name, source }),
            Err(_) => return Err(SchemaError::Silence { name }),
        };
        if let Some(fault) = theirs.map_or(Some(Fault::Missing), |theirs| fault(&ours, &theirs)) {
            misfits.push(Misfit { name, fault });
        }
    }
    if misfits.is_empty() { Ok(()) } else { Err(SchemaError::Misfits(misfits)) }
}

/// Waits until the definitions fit, and says what does not when that changes; then says which rights are missing. False when `stop`
/// came first. Who may not read the definitions goes on: nobody can say that they do not fit.
pub async fn wait(cluster: &Cluster, options: &FrontOptions, clock: &Clock, stop: &CancellationToken) -> bool {
    let mut said = String::new();
    loop {
        let checked = tokio::select! {
            () = stop.cancelled() => return false,
            checked = check(&cluster.client) => checked,
        };
        METRICS.front_ready(matches!(checked, Ok(()) | Err(SchemaError::Forbidden(_)))); // who may not look goes on
        let Err(error) = checked else { break };
        let text = crate::telemetry::reasons(&error);
        let new = text != said;
        match error {
            SchemaError::Forbidden(_) => {
                tracing::warn!(error = text, "whether the cluster's definitions fit is not known");
                break;
            }
            SchemaError::Misfits(_) if new => tracing::error!(error = text, "the front waits; the API and the loop go on"),
            SchemaError::Read { .. } | SchemaError::Silence { .. } if new => {
                tracing::warn!(error = text, "the front waits for the cluster; the API and the loop go on");
            }
            SchemaError::Misfits(_) | SchemaError::Read { .. } | SchemaError::Silence { .. } => {}
        }
        said = text;
        let pause = AGAIN / 2 + full_jitter(AGAIN, AGAIN, 0, clock.random());
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(pause) => {}
        }
    }
    let missing = tokio::select! {
        () = stop.cancelled() => return false,
        missing = rights::missing_verbs(&cluster.client, options, Some(&cluster.namespace)) => missing,
    };
    match missing {
        Ok(missing) => {
            for verb in missing {
                tracing::warn!("this account may not {verb}: what needs it is left undone");
            }
        }
        Err(error) => tracing::warn!(error = crate::telemetry::reasons(&error), "which rights are missing is not known"),
    }
    true
}

/// What is wrong with a definition, if it is.
fn fault(ours: &CustomResourceDefinition, theirs: &CustomResourceDefinition) -> Option<Fault> {
    let conditions = || theirs.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let is = |name: &str| conditions().any(|condition| condition.type_ == name && condition.status == "True");
    if theirs.metadata.deletion_timestamp.is_some() || is("Terminating") {
        return Some(Fault::Deleting);
    }
    if !is("Established") {
        return Some(Fault::NotEstablished);
    }
    let version = |of: &CustomResourceDefinition| of.spec.versions.iter().find(|version| version.name == VERSION).cloned();
    let Some(theirs) = version(theirs).filter(|version| version.served) else { return Some(Fault::NoVersion) };
    let ours = version(ours).expect("our definitions have our version");
    let missing = lacks(&ours, &theirs);
    if missing.is_empty() { None } else { Some(Fault::Lacks(missing)) }
}

/// What a version lacks of ours, each as `status.drift.since`, or `OnDrift of spec.refreshPolicy`.
fn lacks(ours: &CustomResourceDefinitionVersion, theirs: &CustomResourceDefinitionVersion) -> Vec<String> {
    let has_status = |version: &CustomResourceDefinitionVersion| {
        version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some())
    };
    let schema = |version: &CustomResourceDefinitionVersion| {
        version.schema.clone().and_then(|schema| schema.open_api_v3_schema).unwrap_or_default()
    };
    let mut missing = Vec::new();
    if has_status(ours) && !has_status(theirs) {
        missing.push("the status subresource".into());
    }
    compare("", &schema(ours), &schema(theirs), &mut missing);
    missing
}

fn compare(path: &str, ours: &JSONSchemaProps, theirs: &JSONSchemaProps, missing: &mut Vec<String>) {
    if theirs.x_kubernetes_preserve_unknown_fields == Some(true) && theirs.properties.is_none() {
        return; // anything is kept
    }
    if let (Some(wanted), Some(found)) = (&ours.type_, &theirs.type_)
        && wanted != found
    {
        missing.push(format!("{path} as {wanted} (it is {found} there)"));
        return;
    }
    for (name, wanted) in ours.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match theirs.properties.as_ref().and_then(|properties| properties.get(name)) {
            Some(found) => compare(&path, wanted, found, missing),
            // Whatever a type says of `metadata`, a cluster has its own.
            None if path == "metadata" => {}
            None => missing.push(path),
        }
    }
    // Without an enum every value is kept.
    if let Some(values) = &theirs.enum_ {
        let lacking = ours.enum_.iter().flatten().filter(|value| !values.contains(value));
        missing.extend(lacking.map(|value| match &value.0 {
            serde_json::Value::String(word) => format!("{word} of {path}"),
            other => format!("{other} of {path}"),
        }));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(wanted)) = &ours.items {
        match &theirs.items {
            Some(JSONSchemaPropsOrArray::Schema(found)) => compare(&format!("{path}[]"), wanted, found, missing),
            Some(JSONSchemaPropsOrArray::Schemas(_)) | None => missing.push(format!("{path}[]")),
        }
    }
    if let Some(JSONSchemaPropsOrBool::Schema(wanted)) = &ours.additional_properties {
        match &theirs.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(found)) => compare(&format!("{path}.*"), wanted, found, missing),
            Some(JSONSchemaPropsOrBool::Bool(true)) => {}
            Some(JSONSchemaPropsOrBool::Bool(false)) | None => missing.push(format!("{path}.*")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn established(mut definition: Value) -> CustomResourceDefinition {
        let condition = json!({"type": "Established", "status": "True", "reason": "", "message": ""});
        definition["status"] = json!({"conditions": [condition]});
        serde_json::from_value(definition).unwrap()
    }

    fn chats(change: impl FnOnce(&mut Value)) -> Option<Fault> {
        let mut definition = serde_json::to_value(Chat::crd()).unwrap();
        change(&mut definition["spec"]["versions"][0]);
        fault(&Chat::crd(), &established(definition))
    }

    fn remove(from: &mut Value, path: &str, name: &str) {
        from.pointer_mut(path).unwrap_or_else(|| panic!("{path}")).as_object_mut().unwrap().remove(name).unwrap();
    }

    const SPEC: &str = "/schema/openAPIV3Schema/properties/spec/properties";
    const STATUS: &str = "/schema/openAPIV3Schema/properties/status/properties";

    #[test]
    fn our_own_definitions_fit_and_so_do_newer_ones() {
        for ours in ours() {
            assert_eq!(fault(&ours, &established(serde_json::to_value(&ours).unwrap())), None);
        }
        let newer = chats(|version| {
            version.pointer_mut(SPEC).unwrap()["mood"] = json!({"type": "string"});
            version.pointer_mut(&format!("{SPEC}/refreshPolicy/enum")).unwrap().as_array_mut().unwrap().push(json!("Weekly"));
            remove(version, &format!("{SPEC}/deletionPolicy"), "enum");
            version["additionalPrinterColumns"] = json!([]);
        });
        assert_eq!(newer, None);
    }

    #[test]
    fn everything_that_an_older_one_lacks_is_named_by_its_path_and_what_is_below_it_is_not() {
        let older = chats(|version| {
            remove(version, SPEC, "agentRef");
            remove(version, &format!("{STATUS}/conditions/items/properties"), "reason");
            let policies = version.pointer_mut(&format!("{SPEC}/refreshPolicy/enum")).unwrap().as_array_mut().unwrap();
            policies.retain(|policy| policy != "OnDrift");
            version.pointer_mut(&format!("{SPEC}/title")).unwrap()["type"] = json!("integer");
            remove(version, "", "subresources");
        });
        let missing = [
            "the status subresource",
            "spec.agentRef",
            "OnDrift of spec.refreshPolicy",
            "spec.title as string (it is integer there)",
            "status.conditions[].reason",
        ];
        assert_eq!(older, Some(Fault::Lacks(missing.map(str::to_owned).into())));
    }

    #[test]
    fn a_definition_that_is_not_served_is_told_from_an_older_one() {
        assert_eq!(chats(|version| version["served"] = json!(false)), Some(Fault::NoVersion));
        assert_eq!(chats(|version| version["name"] = json!("v1")), Some(Fault::NoVersion));
        assert_eq!(fault(&Chat::crd(), &Chat::crd()), Some(Fault::NotEstablished));
        let mut going = established(serde_json::to_value(Chat::crd()).unwrap());
        going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-11-20T12:00:00Z")).unwrap());
        assert_eq!(fault(&Chat::crd(), &going), Some(Fault::Deleting));
    }

    #[test]
    fn a_refusal_names_each_definition_the_first_things_that_it_lacks_and_what_to_do() {
        let lacks = (1..=7).map(|n| format!("spec.field{n}")).collect();
        let misfits = [("chats.moorline.dev", Fault::Lacks(lacks)), ("agents.moorline.dev", Fault::Missing)];
        let misfits = misfits.map(|(name, fault)| Misfit { name: name.into(), fault }).to_vec();
        assert_eq!(
            SchemaError::Misfits(misfits).to_string(),
            "the cluster's definitions do not fit this binary: chats.moorline.dev is older: it lacks spec.field1, spec.field2, \
             spec.field3, spec.field4, spec.field5 and 2 more; agents.moorline.dev is not there. Apply those of this version: \
             moorline crd | kubectl apply --server-side -f -"
        );
    }
}
