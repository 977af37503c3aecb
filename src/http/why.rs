//! `…/chats/{name}/why`: the rule that decided about a chat, computed by the function that the loop decides with, from the rows
//! that it reads. Nothing is locked and nothing is written.

use super::{
    AppState,
    address::Path,
    auth::{Asked, Identity},
    page::object_version,
    status::{ApiError, Resource},
};
use crate::{
    model::object::Key,
    plan::why::{Seen, SeenPin, why},
    store,
    v1alpha1::why::{Beside, ChatWhy},
};
use axum::{Json, extract::State};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const RESOURCE: Resource = Resource::Chats;

/// Why a chat is what it is. Whoever may read the chat may read this.
pub async fn get(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Json<ChatWhy>, ApiError> {
    let key = Key::new(namespace, name);
    let found = store::why::read(state.pool(), &key).await?;
    let asked = Asked { verb: "get", resource: RESOURCE, subresource: Some("why"), namespace: &key.namespace, name: &key.name };
    let Some((view, loaded)) = found else { return Err(identity.missing(&asked).await) };
    identity.check(&asked, Some(&view.chat.spec.owner)).await?;
    let chat = &view.chat;
    let pin = loaded.pin.as_ref().zip(chat.pin.as_ref()).map(|((pin, _), record)| SeenPin {
        pin: *pin,
        agent: loaded.pin_agent.as_deref().unwrap_or_default(),
        cause: record.cause,
        at: record.at,
    });
    let seen = Seen {
        name: &chat.meta.name,
        facts: loaded.facts,
        inherited_archived: chat.inherited_archived && !chat.spec.archived,
        pin,
        target: loaded.target,
        target_agent: loaded.target_agent.as_deref(),
        reference: loaded.reference.as_deref(),
        dirty_since: chat.dirty_since,
    };
    let beside = Beside {
        pinned_snapshot: loaded.pin.as_ref().map(|(_, facts)| facts.name.as_str()),
        latest_snapshot: loaded.latest.as_ref().map(|facts| facts.name.as_str()),
        converged: !loaded.due,
        retry_at: chat.progress.retry_at.filter(|_| loaded.due),
    };
    let metadata = ObjectMeta {
        namespace: Some(chat.meta.namespace.clone()),
        name: Some(chat.meta.name.clone()),
        uid: Some(chat.meta.id.to_string()),
        resource_version: Some(object_version(chat.meta.rv)),
        ..ObjectMeta::default()
    };
    Ok(Json(ChatWhy::new(metadata, &seen, why(&seen), &beside)))
}
