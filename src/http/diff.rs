//! `…/chats/{name}/diff`: what would change if a chat moved to what its agent has now.
//!
//! Both ends and the bodies are of one moment; what is compared is compared beside the server's other work, as many at once
//! as `AT_ONCE`, each within the limits of [`unified`](crate::model::unified).

use super::{
    AppState,
    address::Path,
    auth::{Asked, Identity},
    page::object_version,
    status::{ApiError, Resource},
};
use crate::{
    model::{
        diff::Diff,
        hash::ContentHash,
        object::Key,
        resource::{ResourceKind, ResourceMeta},
    },
    store::{
        self, StoreError,
        diff::{End, Ends},
    },
    v1alpha1::{
        diff::{Bodies, ChatDiff, DiffEnd},
        meta::AgentIdentity,
    },
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sqlx::PgConnection;
use std::collections::HashMap;
use tokio::sync::Semaphore;

const RESOURCE: Resource = Resource::Chats;

/// How many diffs are made at once: each holds up to 8 MiB of bodies, and a processor. Others wait for their turn, without a
/// connection.
const AT_ONCE: usize = 4;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);

/// What would change, as of now.
pub async fn get(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let turn = TURNS.acquire().await.map_err(|_| ApiError::internal())?;
    let asked = |subresource| Asked {
        verb: "get",
        resource: RESOURCE,
        subresource: Some(subresource),
        namespace: &key.namespace,
        name: &key.name,
    };
    let mut granted = None;
    let (mut tx, ends, may_see_bodies) = loop {
        let mut tx = store::one_moment(state.pool()).await?;
        let Some(ends) = store::diff::ends(&mut tx, &key).await? else {
            drop(tx);
            return Err(identity.missing(&asked("diff")).await);
        };
        let owner = Some(ends.owner.as_str());
        let known = match identity.known(&asked("diff"), owner) {
            Some(true) => identity.known(&asked("context"), owner),
            Some(false) | None => None,
        };
        if let Some(may_see_bodies) = granted.or(known) {
            break (tx, ends, may_see_bodies);
        }
        drop(tx); // nobody is asked while it is open
        identity.check(&asked("diff"), owner).await?;
        granted = Some(match identity.check(&asked("context"), owner).await {
            Ok(()) => true,
            Err(refused) if refused.code() == StatusCode::FORBIDDEN => false,
            Err(failed) => return Err(failed),
        });
    };
    let Ends { chat_id, rv, pinned, latest, .. } = &ends;
    let Some(pinned) = pinned else { return Err(ApiError::not_pinned(&key.name)) };
    let metadata = ObjectMeta {
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(chat_id.to_string()),
        resource_version: Some(object_version(*rv)),
        ..ObjectMeta::default()
    };
    let shown = ChatDiff::new(metadata, end(pinned), latest.as_ref().map(end), note(&ends, pinned));
    let Some((from, to)) = ends.pinned.zip(ends.latest).filter(|(from, to)| from.hash != to.hash) else {
        return Ok(axum::Json(shown).into_response());
    };
    let bodies = if may_see_bodies { Some(read_bodies(&mut tx, &key.namespace, &from, &to).await?) } else { None };
    drop(tx);
    let work = tokio::task::spawn_blocking(move || {
        let shown = shown.with(&Diff::between(&from.manifest, &to.manifest), bodies.as_ref());
        let response = axum::Json(shown).into_response();
        // Held until here whoever still waits for the answer.
        drop(turn);
        response
    });
    work.await.map_err(|error| {
        tracing::error!(%error, chat = %key.name, "a diff could not be made");
        ApiError::internal()
    })
}

fn end(end: &End) -> DiffEnd {
    let agent = AgentIdentity::new(&end.agent_name, end.agent_id);
    DiffEnd { snapshot: end.name.clone(), hash: end.hash.to_string(), agent }
}

fn note(ends: &Ends, pinned: &End) -> String {
    match (&ends.latest, &ends.target) {
        (Some(latest), _) if latest.agent_id != pinned.agent_id => {
            format!("the chat names agent {:?} now, and its pin came from {:?}", latest.agent_name, pinned.agent_name)
        }
        (Some(_), _) => String::new(),
        (None, Some(target)) => format!("agent {target:?} has no snapshot yet: there is nothing to compare with"),
        (None, None) if ends.names_one => "the agent that the chat names is not there: there is nothing to compare with".into(),
        (None, None) => "the chat names no agent: there is nothing to compare with".into(),
    }
}

/// The bodies of both ends.
struct Read {
    from: HashMap<ContentHash, Vec<u8>>,
    to: HashMap<ContentHash, Vec<u8>>,
}

impl Bodies for Read {
    fn from(&self, resource: &ResourceMeta) -> Option<&[u8]> {
        self.from.get(resource.content_hash.as_ref()?).map(Vec::as_slice)
    }

    fn to(&self, resource: &ResourceMeta) -> Option<&[u8]> {
        self.to.get(resource.content_hash.as_ref()?).map(Vec::as_slice)
    }
}

/// The bodies of what changed, and of nothing else.
async fn read_bodies(tx: &mut PgConnection, namespace: &str, from: &End, to: &End) -> Result<Read, StoreError> {
    let changed = Diff::between(&from.manifest, &to.manifest).changed;
    let changed = changed.iter().filter(|(a, _)| a.kind != ResourceKind::McpConfig);
    let (old, new): (Vec<_>, Vec<_>) = changed.map(|(a, b)| (a.content_hash, b.content_hash)).unzip();
    let hashes = |side: Vec<Option<ContentHash>>| side.into_iter().flatten().collect::<Vec<_>>();
    Ok(Read {
        from: store::snapshots::bodies(tx, namespace, from.agent_id, &hashes(old)).await?,
        to: store::snapshots::bodies(tx, namespace, to.agent_id, &hashes(new)).await?,
    })
}
