//! Server-side apply of a status, on top of the version of the object that was seen.
//!
//! The answer is the version that came of it and nothing else: all that was seen beside the status is as it was, or the write would
//! have been refused. So the cluster has less to write out and this process less to read, thousands of times in a row.

use super::{kind::Id, mirror::CONTROLLER, seen::Entry};
use http::{HeaderValue, header::ACCEPT};
use kube::{
    Client,
    api::{Patch, PatchParams},
    core::Request,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Asks for the metadata of an object instead of all of it.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

/// Applies a status to what was seen. Answers with the version that came of it; none when that is no number, as every cluster's is.
pub async fn status(client: &Client, id: &Id, seen: &Entry, status: &Value) -> kube::Result<Option<u64>> {
    let resource = id.kind.resource();
    let patch = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {
            "namespace": id.key.namespace, "name": id.key.name,
            "uid": seen.uid, "resourceVersion": seen.version.to_string(),
        },
        "status": status,
    });
    let api = id.kind.api(client, Some(&id.key.namespace));
    let params = PatchParams::apply(CONTROLLER).force();
    let request = Request::new(api.resource_url()).patch_subresource("status", &id.key.name, &params, &Patch::Apply(&patch));
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(METADATA));
    let Answer { metadata: Metadata { resource_version } } = client.request(request).await?;
    Ok(resource_version.parse().ok())
}
