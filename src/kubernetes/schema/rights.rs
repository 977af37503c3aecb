//! Which verbs our account lacks, asked of the cluster itself, so that a log says at the start what a 403 would say later.
//!
//! What it does not: keep anything from being tried. Rights can be given while this runs.

use super::{
    super::{FrontOptions, Mirror, kind::Kind},
    REQUEST, ours,
};
use crate::v1alpha1::GROUP;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, ResourceExt as _, api::PostParams};
use tokio::time::timeout;

/// Reviews that are asked for at once.
const CONCURRENCY: usize = 8;

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum RightsError {
    /// The cluster answered something else.
    #[error("asking whether this account may {right}: {source}")]
    Review {
        /// Which right was asked about.
        right: String,
        /// What was answered.
        source: kube::Error,
    },
    /// The cluster did not answer.
    #[error("asking whether this account may {right}: no answer within {} s", REQUEST.as_secs())]
    Silence {
        /// Which right was asked about.
        right: String,
    },
}

/// Something that we do, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: Option<&'static str>,
    /// Of one object only: an account need not be given more.
    name: Option<String>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Namespace(String),
    AllNamespaces,
    Cluster,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { verb, group, resource, subresource, name, place } = self;
        write!(f, "{verb} {resource}.{group}")?;
        if let Some(subresource) = subresource {
            write!(f, "/{subresource}")?;
        }
        if let Some(name) = name {
            write!(f, " named {name}")?;
        }
        match place {
            Place::Namespace(namespace) => write!(f, " in namespace {namespace}"),
            Place::AllNamespaces => f.write_str(" in all namespaces"),
            Place::Cluster => Ok(()),
        }
    }
}

/// What we may not do and have to, each as `patch chats.moorline.dev/status in namespace x`. `own_namespace` is the Lease's when the
/// options name none; without either, its verbs are asked about in all namespaces.
pub async fn missing_verbs(
    client: &Client,
    options: &FrontOptions,
    own_namespace: Option<&str>,
) -> Result<Vec<String>, RightsError> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let reviews = needed(options, own_namespace).into_iter().map(|right| {
        let api = api.clone();
        async move { Ok(if allowed(&api, &right).await? { None } else { Some(right.to_string()) }) }
    });
    stream::iter(reviews).buffered(CONCURRENCY).try_filter_map(async |missing| Ok(missing)).try_collect().await
}

async fn allowed(api: &Api<SelfSubjectAccessReview>, right: &Right) -> Result<bool, RightsError> {
    let attributes = ResourceAttributes {
        verb: Some(right.verb.into()),
        group: Some(right.group.into()),
        resource: Some(right.resource.into()),
        subresource: right.subresource.map(Into::into),
        name: right.name.clone(),
        namespace: match &right.place {
            Place::Namespace(namespace) => Some(namespace.clone()),
            Place::AllNamespaces | Place::Cluster => None,
        },
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    match timeout(REQUEST, api.create(&PostParams::default(), &review)).await {
        Ok(Ok(answer)) => Ok(answer.status.is_some_and(|status| status.allowed)),
        Ok(Err(source)) => Err(RightsError::Review { right: right.to_string(), source }),
        Err(_) => Err(RightsError::Silence { right: right.to_string() }),
    }
}

/// Everything that the front does with these options.
fn needed(options: &FrontOptions, own_namespace: Option<&str>) -> Vec<Right> {
    let places = match options.watch_namespaces.as_slice() {
        [] => vec![Place::AllNamespaces],
        some => some.iter().cloned().map(Place::Namespace).collect(),
    };
    let mut needed = Vec::new();
    for place in places {
        let mut need = |group, resource, subresource, verbs: &[&'static str]| {
            let right = |verb: &&'static str| Right { verb, group, resource, subresource, name: None, place: place.clone() };
            needed.extend(verbs.iter().map(right));
        };
        for kind in [Kind::Chat, Kind::Agent] {
            // Patched: the finalizer.
            need(GROUP, kind.plural(), None, &["get", "list", "watch", "patch"]);
            match options.mirror {
                Mirror::Off => {}
                Mirror::Manifests => need(GROUP, kind.plural(), Some("status"), &["patch"]),
                Mirror::All => {
                    need(GROUP, kind.plural(), None, &["create", "delete"]);
                    need(GROUP, kind.plural(), Some("status"), &["patch"]);
                }
            }
        }
        need(GROUP, Kind::Snapshot.plural(), None, &["get", "list", "watch"]);
        if options.mirror != Mirror::Off {
            need(GROUP, Kind::Snapshot.plural(), None, &["create", "delete"]);
        }
        need("events.k8s.io", "events", None, &["create", "patch"]);
    }
    let namespace = options.lease.lease_namespace.as_deref().or(own_namespace);
    let place = namespace.map_or(Place::AllNamespaces, |namespace| Place::Namespace(namespace.to_owned()));
    // Of the Lease, which one is known; but whoever creates an object has not named it yet when rights are looked at.
    let lease = Some(options.lease.lease_name.clone());
    for (verb, name) in [("get", lease.clone()), ("create", None), ("update", lease)] {
        let (group, resource) = ("coordination.k8s.io", "leases");
        needed.push(Right { verb, group, resource, subresource: None, name, place: place.clone() });
    }
    for definition in ours() {
        let (group, resource) = ("apiextensions.k8s.io", "customresourcedefinitions");
        let name = Some(definition.name_any());
        needed.push(Right { verb: "get", group, resource, subresource: None, name, place: Place::Cluster });
    }
    needed
}
