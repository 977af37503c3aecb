//! `ChatContext`: what a chat is moored to, with bodies, and the live class of its agent.

use super::{API_VERSION, chat::Pinned, snapshot::SnapshotResource};
use crate::model::resource::ResourceMeta;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A chat's context: `GET …/chats/{name}/context`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatContext {
    /// `moorline.dev/v1alpha1`.
    pub api_version: String,
    /// `ChatContext`.
    pub kind: String,
    /// The chat's name, namespace, uid and version.
    pub metadata: ObjectMeta,
    /// What it is moored to.
    pub pinned: Pinned,
    /// The pinned resources, in (kind, source) order.
    pub resources: Vec<ContextResource>,
    /// The live class of the bound agent: what its MCP servers offer now. Not part of the pin.
    pub live: Vec<ContextResource>,
}

impl ChatContext {
    /// A context.
    pub fn new(metadata: ObjectMeta, pinned: Pinned, resources: Vec<ContextResource>, live: Vec<ContextResource>) -> Self {
        Self { api_version: API_VERSION.into(), kind: "ChatContext".into(), metadata, pinned, resources, live }
    }
}

/// A resource with its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContextResource {
    /// The resource.
    #[serde(flatten)]
    pub resource: SnapshotResource,
    /// The content, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The content in base64 (RFC 4648 §4), when it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
}

impl ContextResource {
    /// A resource with the body that is kept for it, if one is.
    pub fn new(meta: &ResourceMeta, body: Option<Vec<u8>>) -> Self {
        let resource = SnapshotResource::from(meta);
        match body.map(String::from_utf8) {
            None => Self { resource, body: None, body_base64: None },
            Some(Ok(text)) => Self { resource, body: Some(text), body_base64: None },
            Some(Err(bytes)) => Self { resource, body: None, body_base64: Some(STANDARD.encode(bytes.into_bytes())) },
        }
    }
}
