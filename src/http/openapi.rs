//! `/openapi/v3`: made from the published types (schemars, the derive that the CRDs come from too) and the table of what is
//! served, so that it cannot differ from either; a test holds it against the routes. docs/openapi.md tells people about it.
//!
//! What clients rely on: an index of documents by group and version, each under an address that carries the hash of its
//! content and never changes; and in a document, for kubectl, a `patch` operation that lists `fieldValidation`, and
//! `x-kubernetes-group-version-kind` on operations and schemas. What this does not: protobuf, and OpenAPI v2, which clients
//! of Kubernetes 1.27 and newer do not need.

mod meta;
mod operations;
mod parameters;
mod plain;
mod schemas;
#[cfg(test)]
mod tests;

use super::{address::Query, discovery::TABLE, status::ApiError};
use axum::{
    Json,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, sync::LazyLock};

/// The name of the group's document.
const GROUP: &str = "apis/moorline.dev/v1alpha1";

struct Document {
    text: String,
    hash: String,
}

static DOCUMENTS: LazyLock<BTreeMap<&'static str, Document>> = LazyLock::new(|| {
    let document = |(name, value): (&'static str, Value)| {
        let text = value.to_string();
        let hash = hex::encode_upper(Sha256::digest(text.as_bytes()));
        (name, Document { text, hash })
    };
    build_all().into_iter().map(document).collect()
});

impl Document {
    fn address(&self, name: &str) -> String {
        format!("/openapi/v3/{name}?hash={}", self.hash)
    }
}

/// Where the documents are.
pub async fn index() -> Json<Value> {
    let path =
        |(name, document): (&&'static str, &Document)| ((*name).to_owned(), json!({"serverRelativeURL": document.address(name)}));
    let paths: Map<String, Value> = DOCUMENTS.iter().map(path).collect();
    Json(json!({"paths": paths}))
}

/// The query of a document.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HashQuery {
    hash: Option<String>,
}

/// A document. Under its own hash it may be kept for ever; under another one the client is sent to its own.
pub async fn document(
    Path(name): Path<String>,
    Query(query): Query<HashQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(document) = DOCUMENTS.get(name.as_str()) else { return Err(ApiError::no_such_path()) };
    let mut answer = HeaderMap::new();
    match query.hash.as_deref() {
        None | Some("") => {}
        Some(hash) if hash == document.hash => {
            answer.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        }
        Some(_) => {
            let address = HeaderValue::from_str(&document.address(&name)).map_err(|_| ApiError::internal())?;
            return Ok((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, address)]).into_response());
        }
    }
    let etag = format!("\"{}\"", document.hash);
    answer.insert(header::ETAG, HeaderValue::from_str(&etag).map_err(|_| ApiError::internal())?);
    answer.insert(header::VARY, HeaderValue::from_static("Accept"));
    if super::negotiate::none_match(&headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, answer).into_response());
    }
    answer.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((answer, document.text.as_str()).into_response())
}

/// The document of the group: OpenAPI 3.0.
pub fn build() -> Value {
    let listed: Vec<&str> = TABLE.iter().filter(|entry| entry.verbs.contains(&"list")).map(|entry| entry.kind).collect();
    let mut paths = operations::paths();
    meta::add_resource_list(&mut paths);
    whole(&paths, schemas::components(&listed))
}

fn build_all() -> Vec<(&'static str, Value)> {
    let others = meta::documents().into_iter().map(|(name, paths)| (name, whole(&paths, schemas::of_discovery())));
    std::iter::once((GROUP, build())).chain(others).collect()
}

fn whole(paths: &Map<String, Value>, mut schemas: Map<String, Value>) -> Value {
    schemas::keep_used(paths, &mut schemas);
    json!({
        "openapi": "3.0.0",
        "info": {
            "title": "Moorline", "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps AI coding chats moored to immutable snapshots of their agent's context. A Kubernetes-style API.",
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "A token that the server knows."}},
        },
        "security": [{"bearer": []}],
    })
}
