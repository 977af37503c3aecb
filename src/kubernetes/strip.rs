//! Takes our finalizer off the objects of a cluster, when Moorline leaves it: an object that waits for a controller that is gone is
//! never deleted, and neither is its namespace.
//!
//! The finalizer goes by a JSON patch that first tests that it is where it was seen: whatever others do to the object at the same
//! time, nothing else is taken off, and nobody's write is undone.
//!
//! What it does not: delete an object or a record, or stop a Moorline that still runs and puts its finalizer on again.

use super::kind::{FINALIZER, Id, Kind};
use kube::{
    Api, Client,
    api::{ListParams, PartialObjectMeta},
    core::DynamicObject,
};
use serde::de::IgnoredAny;
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// Objects to a page.
const PAGE: u32 = 500;
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(30);
/// How often an object that others keep changing is tried, and a list that expires while it is read.
const TRIES: usize = 10;
/// Whom the cluster's `managedFields` name.
const MANAGER: &str = "moorline-uninstall";

/// Why it did not go.
#[derive(Debug, thiserror::Error)]
pub enum StripError {
    /// The objects cannot be listed.
    #[error("listing {what}: {source}")]
    List {
        /// Of which kind, and where.
        what: String,
        /// Why not.
        source: kube::Error,
    },
    /// An object cannot be read.
    #[error("reading {id}: {source}")]
    Read {
        /// Which.
        id: Id,
        /// Why not.
        source: kube::Error,
    },
    /// An object cannot be patched.
    #[error("patching {id}: {source}")]
    Patch {
        /// Which.
        id: Id,
        /// Why not.
        source: kube::Error,
    },
    /// The cluster did not answer.
    #[error("{what}: no answer within {} s", REQUEST.as_secs())]
    Silence {
        /// What was asked.
        what: String,
    },
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stripped {
    /// The finalizer was taken off.
    Removed,
    /// It was off already.
    Absent,
    /// The object is not there any more.
    Gone,
}

/// The Chats and Agents that have our finalizer, in these namespaces; in all when there are none. In order of kind and name.
pub async fn find(client: &Client, namespaces: &[String]) -> Result<BTreeSet<Id>, StripError> {
    let scopes: Vec<Option<&str>> = match namespaces {
        [] => vec![None],
        some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
    };
    let mut found = BTreeSet::new();
    for kind in [Kind::Agent, Kind::Chat] {
        for scope in &scopes {
            list(kind, &kind.api(client, *scope), &mut found).await.map_err(|error| {
                let place = scope.map_or_else(|| "in all namespaces".into(), |namespace| format!("in namespace {namespace}"));
                let what = format!("{} {place}", kind.plural());
                match error {
                    Some(source) => StripError::List { what, source },
                    None => StripError::Silence { what: format!("listing {what}") },
                }
            })?;
        }
    }
    Ok(found)
}

/// Adds what has it, page by page. The error is none when the cluster does not answer.
async fn list(kind: Kind, api: &Api<DynamicObject>, found: &mut BTreeSet<Id>) -> Result<(), Option<kube::Error>> {
    let mut params = ListParams::default().limit(PAGE);
    let mut begun = 1;
    loop {
        let page = match timeout(REQUEST, api.list_metadata(&params)).await.map_err(|_| None)? {
            Ok(page) => page,
            // A cluster without our kinds has no objects of them.
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            // The rest of a list is kept for minutes only. What was found stays found.
            Err(kube::Error::Api(status)) if status.code == 410 && params.continue_token.is_some() && begun < TRIES => {
                begun += 1;
                params.continue_token = None;
                continue;
            }
            Err(error) => return Err(Some(error)),
        };
        let held = page.items.iter().filter(|object| place(object).is_some());
        found.extend(held.filter_map(|object| {
            let (namespace, name) = (object.metadata.namespace.clone()?, object.metadata.name.clone()?);
            Some(Id { kind, key: crate::model::object::Key::new(namespace, name) })
        }));
        params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if params.continue_token.is_none() {
            return Ok(());
        }
    }
}

/// Where our finalizer is in the list.
fn place(object: &PartialObjectMeta<DynamicObject>) -> Option<usize> {
    object.metadata.finalizers.iter().flatten().position(|finalizer| finalizer == FINALIZER)
}

/// Takes it off one object.
pub async fn strip(client: &Client, id: &Id) -> Result<Stripped, StripError> {
    let api = id.kind.api(client, Some(&id.key.namespace));
    let silence = |_| StripError::Silence { what: id.to_string() };
    let mut tries = 1;
    loop {
        let read = timeout(REQUEST, api.get_metadata_opt(&id.key.name)).await.map_err(silence)?;
        let Some(object) = read.map_err(|source| StripError::Read { id: id.clone(), source })? else { return Ok(Stripped::Gone) };
        let Some(place) = place(&object) else { return Ok(Stripped::Absent) };
        let pointer = format!("/metadata/finalizers/{place}");
        let patch = json!([
            {"op": "test", "path": pointer, "value": FINALIZER},
            {"op": "remove", "path": pointer},
        ]);
        let url = format!("{}/{}?fieldManager={MANAGER}", api.resource_url(), id.key.name);
        let request = http::Request::patch(url).header(http::header::CONTENT_TYPE, "application/json-patch+json");
        let request = request.body(patch.to_string().into_bytes()).expect("names of objects are path segments");
        match timeout(REQUEST, client.request::<IgnoredAny>(request)).await.map_err(silence)? {
            Ok(IgnoredAny) => return Ok(Stripped::Removed),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Stripped::Gone),
            // It is not where it was: somebody else changed the list.
            Err(kube::Error::Api(status)) if (status.is_conflict() || status.code == 422) && tries < TRIES => tries += 1,
            Err(source) => return Err(StripError::Patch { id: id.clone(), source }),
        }
    }
}
