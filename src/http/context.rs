//! `…/chats/{name}/context`: what a chat is moored to, and asking it to move.

mod cache;
mod moorings;
mod pieces;

pub use cache::Cache;
pub use moorings::Moorings;

use super::{
    AppState,
    address::{Path, Query},
    auth::{Asked, Identity},
    negotiate::{self, FieldValidation, Json, NulAllowed, Warnings},
    objects::WriteQuery,
    page::object_version,
    records::{self, How, find_allowed},
    status::{ApiError, Resource},
    wait,
};
use crate::{
    model::{chat::ChatView, fault::Fault, hash::ContentHash, object::Key, prompt, resource::ResourceMeta},
    store::{self, chats::StoredPin, context::PinHead},
    v1alpha1::{
        chat::Pinned,
        context::{ChatContext, ContextResource},
        meta::{self, AgentIdentity},
    },
    writes::chats::RefreshChat,
};
use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cache::Name;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pieces::Pieces;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

const RESOURCE: Resource = Resource::Chats;
type Names = Path<(String, String)>;

fn asked<'a>(verb: &'static str, key: &'a Key) -> Asked<'a> {
    Asked { verb, resource: RESOURCE, subresource: Some("context"), namespace: &key.namespace, name: &key.name }
}

/// The query of a context.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContextQuery {
    bodies: Option<String>,
    format: Option<String>,
}

/// The form in which a context is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As a `ChatContext`.
    Json { bodies: bool },
    /// As one text for a model.
    Prompt,
}

impl ContextQuery {
    fn form(&self) -> Result<Form, ApiError> {
        let bodies = match self.bodies.as_deref() {
            None | Some("" | "true" | "1") => true,
            Some("false" | "0") => false,
            Some(other) => return Err(ApiError::bad_request(format!("bodies: must be true or false, got {other:?}"))),
        };
        match self.format.as_deref() {
            None | Some("" | "json") => Ok(Form::Json { bodies }),
            Some("prompt") if bodies => Ok(Form::Prompt),
            Some("prompt") => {
                Err(ApiError::bad_request("bodies: a prompt is made of bodies, so it cannot be had with bodies=false"))
            }
            Some(other) => Err(ApiError::bad_request(format!("format: must be json or prompt, got {other:?}"))),
        }
    }
}

/// What a chat is moored to. One indexed read; a second when the resources are wanted and were not read lately.
pub async fn get(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<ContextQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let form = query.form()?;
    let found = state.moorings().find(&key).await?;
    let Some(mooring) = found else { return Err(identity.missing(&asked("get", &key)).await) };
    identity.check(&asked("get", &key), Some(&mooring.owner)).await?;
    let Some((pin, rv)) = mooring.pin else { return Err(ApiError::not_pinned(&key.name)) };
    let cached = Name { namespace: key.namespace.clone(), id: pin.snapshot, rv, hash: pin.hash };
    let bodies = match form {
        Form::Json { bodies } => {
            let tag = Tag::of(mooring.chat_id, &pin)?;
            if tag.is_known(&headers) {
                return Ok(tag.not_modified());
            }
            if let Some(resources) = state.contexts().get(&cached).filter(|_| bodies) {
                return answer_json(&key, (mooring.chat_id, mooring.rv), pin, tag, true, resources);
            }
            bodies
        }
        Form::Prompt => true,
    };
    // Read whole, in one statement: what was read before may have moved meanwhile.
    let mut connection = store::acquire(state.pool()).await?;
    let found = store::chats::context(&mut connection, &key, bodies).await?;
    drop(connection);
    let Some(context) = found else { return Err(identity.missing(&asked("get", &key)).await) };
    identity.check(&asked("get", &key), Some(&context.owner)).await?;
    let Some(pin) = context.pin else { return Err(ApiError::not_pinned(&key.name)) };
    if form == Form::Prompt {
        return prompt_answer(&headers, pin).await;
    }
    let head = PinHead::from(&pin);
    let of = |meta: &ResourceMeta| ContextResource::new(meta, meta.content_hash.and_then(|hash| pin.bodies.get(&hash).cloned()));
    let resources: Vec<ContextResource> = pin.manifest.iter().map(of).collect();
    let resources = Bytes::from(encode(&resources)?);
    if bodies && head.snapshot == cached.id {
        state.contexts().put(cached, resources.clone());
    }
    let tag = Tag::of(context.chat_id, &head)?;
    answer_json(&key, (context.chat_id, context.rv), head, tag, bodies, resources)
}

/// An entity tag: what is compared, and how it is sent.
struct Tag(String, HeaderValue);

impl Tag {
    /// Of a context as JSON: the pinned hash with the live revision, and what tells this pin from others of the same hash, as of
    /// another agent. Weak (RFC 9110 §8.8.1), because `metadata.resourceVersion`, which also moves when the context does not, is not
    /// in it.
    fn of(chat: Uuid, pin: &PinHead) -> Result<Self, ApiError> {
        let PinHead {
            snapshot,
            snapshot_name,
            hash,
            resource_count: _, // of the snapshot, as what it holds
            error,
            agent_id,
            agent_name: _, // of the agent, for good
            cause,
            at,
            live: _, // counted by its revision
            live_revision,
        } = pin;
        let pinned = format!("{chat}\n{}\n{snapshot_name}\n{agent_id}\n{cause}\n{at}\n{error}", snapshot.0);
        let pinned = hex::encode(&ContentHash::of(pinned.as_bytes()).as_bytes()[..8]);
        let tag = format!("\"{}.{live_revision}.{pinned}\"", hex::encode(hash.as_bytes()));
        let value = HeaderValue::from_str(&format!("W/{tag}")).map_err(|_| ApiError::internal())?;
        Ok(Self(tag, value))
    }

    fn new(tag: String) -> Result<Self, ApiError> {
        let value = HeaderValue::from_str(&tag).map_err(|_| ApiError::internal())?;
        Ok(Self(tag, value))
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        negotiate::none_match(headers, &self.0)
    }

    fn not_modified(self) -> Response {
        (StatusCode::NOT_MODIFIED, [(header::ETAG, self.1)]).into_response()
    }
}

/// A `ChatContext` around resources that are encoded already, in three pieces, so that the large one is not copied.
fn answer_json(
    key: &Key,
    (id, rv): (Uuid, i64),
    pin: PinHead,
    tag: Tag,
    bodies: bool,
    resources: Bytes,
) -> Result<Response, ApiError> {
    const HOLE: &str = "\"resources\":[]";
    let metadata = ObjectMeta {
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(id.to_string()),
        resource_version: Some(object_version(rv)),
        ..ObjectMeta::default()
    };
    let live = pin.live.as_array().into_iter().flatten().map(|value| live_resource(value, bodies)).collect::<Result<_, _>>();
    let live = live.map_err(|error| {
        tracing::error!(%error, agent = %pin.agent_name, "the live resources of an agent do not have their form");
        ApiError::internal()
    })?;
    let pinned = Pinned {
        snapshot: pin.snapshot_name,
        hash: pin.hash.to_string(),
        agent: AgentIdentity::new(&pin.agent_name, pin.agent_id),
        cause: pin.cause.into(),
        at: meta::time(pin.at),
        resource_count: pin.resource_count,
        error: pin.error,
    };
    let around = encode(&ChatContext::new(metadata, pinned, Vec::new(), live))?;
    // Quotes within a string are escaped, so this is the field and nothing that somebody wrote.
    let hole = around.find(HOLE).ok_or_else(ApiError::internal)? + HOLE.len();
    let around = Bytes::from(around);
    let (before, after) = (around.slice(..hole - "[]".len()), around.slice(hole..));
    let pieces = Pieces::new([before, resources, after]);
    let type_ = HeaderValue::from_static("application/json");
    Ok(([(header::ETAG, tag.1), (header::CONTENT_TYPE, type_)], Body::new(pieces)).into_response())
}

fn encode<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value).map_err(|error| {
        tracing::error!(%error, "a context could not be encoded");
        ApiError::internal()
    })
}

/// The pinned instruction files and skills as one text. Its tag is of the text itself: what it is made of may be the same and
/// the rules it is made by others.
async fn prompt_answer(headers: &HeaderMap, pin: StoredPin) -> Result<Response, ApiError> {
    // Up to 4 MiB, character by character: not on a thread that serves others.
    let made = tokio::task::spawn_blocking(move || prompt::prompt(&pin.manifest, |hash| pin.bodies.get(hash).map(Vec::as_slice)));
    let text = made.await.map_err(|error| {
        tracing::error!(%error, "a prompt could not be made");
        ApiError::internal()
    })?;
    let etag = format!("\"prompt.{}\"", hex::encode(ContentHash::of(text.as_bytes()).as_bytes()));
    let tag = Tag::new(etag)?;
    if tag.is_known(headers) {
        return Ok(tag.not_modified());
    }
    let type_ = HeaderValue::from_static("text/markdown; charset=utf-8");
    Ok(([(header::ETAG, tag.1), (header::CONTENT_TYPE, type_)], text).into_response())
}

fn live_resource(value: &Value, bodies: bool) -> Result<ContextResource, serde_json::Error> {
    let meta: ResourceMeta = serde_json::from_value(value.clone())?;
    let body = value.get("bodyBase64").and_then(Value::as_str).filter(|_| bodies);
    Ok(ContextResource::new(&meta, body.and_then(|body| STANDARD.decode(body).ok())))
}

/// A request to refresh.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "ChatRefresh")]
pub(super) struct RefreshRequest {
    /// Opaque; 1 to 64 characters. The same token twice refreshes once. Absent: refresh now.
    #[schemars(length(min = 1, max = 64))]
    token: Option<String>,
}

/// Asks a chat to move to its agent's latest snapshot; unless told otherwise answers when it has.
pub async fn refresh(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let rehearsal = query.rehearsal()?;
    negotiate::expect_json(&headers)?;
    let bytes = negotiate::read_body(&headers, body, negotiate::BODY_MAX).await?;
    let json = Json::parse(&bytes, NulAllowed::Nowhere)?;
    let (request, _) = json.into_type::<RefreshRequest>(FieldValidation::Ignore)?;
    let faults: Vec<Fault> = request.token.as_deref().and_then(|token| meta::token_fault("token", token)).into_iter().collect();
    if !faults.is_empty() {
        return Err(ApiError::invalid(RESOURCE.kind(), &key.name, &faults));
    }
    let old: ChatView = find_allowed(&state, &identity, &asked("update", &key), &key).await?;
    let token = request.token.unwrap_or_else(|| state.clock().new_id().to_string());
    let refresh = RefreshChat { key: &key, id: old.chat.meta.id, token: &token };
    let refreshed = records::write(&state, rehearsal, &refresh).await;
    let view = refreshed.map_err(|error| ApiError::from_write(RESOURCE, &key.name, error))?;
    let how = How { rehearsal, headers: &headers, unasked: Some(wait::UNASKED) };
    records::answer(&state, how, StatusCode::OK, view, Some(old.chat.meta.rv), Warnings::default()).await
}
