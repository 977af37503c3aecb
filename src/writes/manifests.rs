//! Taking over what a manifest of a cluster says, and letting a record go when its manifest is deleted.
//!
//! Both are levels: taking the same state of a manifest over twice, or an earlier one after a later one, changes nothing, so
//! any number of replicas may do it, and again after a crash. An object that was deleted and made again (another uid) takes up the
//! record of its name, pin and all: a cluster that was restored from nothing finds its chats as they were.

use super::{
    WriteError,
    agents::{self, CreateAgent, DeleteAgent, UpdateAgent},
    chats::{self, CreateChat, DeleteChat, Propagation, UpdateChat},
};
use crate::{
    clock::Clock,
    model::{
        access::Reach,
        agent::AgentSpec,
        chat::{ChatSpec, Reference},
        event::EventKind,
        manifest::{Manifest, News, merge},
        object::{DeletionPolicy, Key, Source, TextMap},
    },
    store::{self, StoreError, Write, log::TxLog, manifests},
    writes::Preconditions,
};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

/// Who creates what a manifest asks for, and the owner of a chat whose manifest names none.
pub const MANIFESTS: &str = "system:manifests";

/// What became of a manifest's news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The record is new.
    Created,
    /// It says something else now.
    Changed,
    /// There was nothing new in it.
    Unchanged,
    /// It has a lower version than the one that was taken over last, which is this: ask the cluster what it says now, and then
    /// again.
    Doubtful(u64),
}

/// What stands before a manifest, if it may be taken over at all.
fn standing(origin: Option<manifests::Origin>, kind: &str, key: &Key) -> Result<Option<manifests::Origin>, WriteError> {
    match origin {
        Some(manifests::Origin { source: Source::Api, manifest: None, .. }) => {
            Err(WriteError::OwnedByApi { owner: format!("{kind} {}/{}", key.namespace, key.name) })
        }
        other => Ok(other),
    }
}

/// What there is to be done about a manifest, if not to take it over.
fn nothing(origin: &manifests::Origin, manifest: &Manifest, asked_after: Option<u64>) -> Option<Taken> {
    let last = origin.manifest.as_ref()?;
    match manifest.after(last, asked_after == Some(last.version)) {
        News::Some => None,
        News::None if origin.source == Source::Api => None, // its manifest was gone, and is back
        News::None => Some(Taken::Unchanged),
        News::Doubtful => Some(Taken::Doubtful(last.version)),
    }
}

/// Makes a chat what its manifest says.
pub struct TakeChat<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Where, and under which name.
    pub key: &'a Key,
    /// What is remembered of the manifest.
    pub manifest: &'a Manifest,
    /// The version that was remembered before the cluster was asked for this one, if it was asked because of that.
    pub asked_after: Option<u64>,
    /// What it asks for; the owner is [`MANIFESTS`] when it names none.
    pub spec: &'a ChatSpec,
}

impl Write for TakeChat<'_> {
    type Output = Taken;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<Taken, WriteError> {
        let Self { clock, key, manifest, asked_after, spec } = self;
        let Some(seen) = standing(manifests::of_chat(tx, key).await?, "Chat", key)? else {
            let create = CreateChat {
                clock,
                key,
                spec,
                labels: &manifest.labels,
                annotations: &manifest.annotations,
                created_by: MANIFESTS,
                reach: &Reach::Everything,
                source: Source::Manifest,
            };
            let made = match create.run(tx).await {
                Err(WriteError::AlreadyExists) => return Err(came_first("db.chats.insert")),
                made => made?,
            };
            manifests::remember_chat(tx, &key.namespace, made.chat.meta.id, manifest).await?;
            return Ok(Taken::Created);
        };
        if let Some(nothing) = nothing(&seen, manifest, *asked_after) {
            return Ok(nothing);
        }
        let old = chats::locked_for(tx, key, spec.archived).await?; // locks, then reads
        let Some(origin) = standing(manifests::of_chat(tx, key).await?, "Chat", key)? else {
            return Err(came_first("db.manifests.of_chat"));
        };
        if let Some(nothing) = nothing(&origin, manifest, *asked_after) {
            return Ok(nothing);
        }
        let last = origin.manifest.as_ref();
        let mut wanted = chats::Wanted {
            spec: (*spec).clone(),
            labels: merge(&old.chat.meta.labels, last.map(|last| &last.labels), &manifest.labels),
            annotations: merge(&old.chat.meta.annotations, last.map(|last| &last.annotations), &manifest.annotations),
        };
        // Said once, when it was made: the cluster keeps both as they were, and a parent may be gone by now.
        wanted.spec.parent.clone_from(&old.chat.spec.parent);
        if spec.owner == MANIFESTS {
            wanted.spec.owner.clone_from(&old.chat.spec.owner);
        }
        // A child whose manifest never named an agent has its parent's.
        if spec.parent.is_some() && !manifest.bound && last.is_none_or(|last| !last.bound) && spec.reference == Reference::Unbound
        {
            wanted.spec.reference.clone_from(&old.chat.spec.reference);
        }
        let update = UpdateChat { clock, key, known: Preconditions::default(), wanted: &wanted, asks: Source::Manifest };
        let new = update.run(tx).await?;
        manifests::remember_chat(tx, &key.namespace, new.chat.meta.id, manifest).await?;
        Ok(Taken::Changed)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Makes an agent what its manifest says.
pub struct TakeAgent<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Where, and under which name.
    pub key: &'a Key,
    /// What is remembered of the manifest.
    pub manifest: &'a Manifest,
    /// The version that was remembered before the cluster was asked for this one, if it was asked because of that.
    pub asked_after: Option<u64>,
    /// What it asks for.
    pub spec: &'a AgentSpec,
}

impl Write for TakeAgent<'_> {
    type Output = Taken;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<Taken, WriteError> {
        let Self { clock, key, manifest, asked_after, spec } = self;
        let Some(seen) = standing(manifests::of_agent(tx, key).await?, "Agent", key)? else {
            let create = CreateAgent {
                clock,
                key,
                spec,
                labels: &manifest.labels,
                annotations: &manifest.annotations,
                reach: &Reach::Everything,
                source: Source::Manifest,
            };
            let made = match create.run(tx).await {
                Err(WriteError::AlreadyExists) => return Err(came_first("db.agents.insert")),
                made => made?,
            };
            manifests::remember_agent(tx, &key.namespace, made.agent.meta.id, manifest).await?;
            return Ok(Taken::Created);
        };
        if let Some(nothing) = nothing(&seen, manifest, *asked_after) {
            return Ok(nothing);
        }
        let old = agents::locked(tx, key).await?; // locks, then reads
        let Some(origin) = standing(manifests::of_agent(tx, key).await?, "Agent", key)? else {
            return Err(came_first("db.manifests.of_agent"));
        };
        if let Some(nothing) = nothing(&origin, manifest, *asked_after) {
            return Ok(nothing);
        }
        if origin.deleting {
            return Err(WriteError::BeingDeleted);
        }
        let last = origin.manifest.as_ref();
        let wanted = agents::Wanted {
            spec: (*spec).clone(),
            labels: merge(&old.agent.meta.labels, last.map(|last| &last.labels), &manifest.labels),
            annotations: merge(&old.agent.meta.annotations, last.map(|last| &last.annotations), &manifest.annotations),
        };
        let update = UpdateAgent {
            key,
            known: Preconditions::default(),
            wanted: &wanted,
            reach: &Reach::Everything,
            asks: Source::Manifest,
        };
        let new = update.run(tx).await?;
        manifests::remember_agent(tx, &key.namespace, new.agent.meta.id, manifest).await?;
        Ok(Taken::Changed)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Somebody made or removed it meanwhile: what is to be done is another question now.
fn came_first(query: &'static str) -> WriteError {
    StoreError::Guard { query, expected: 1, got: 0 }.into()
}

/// What is left to be done before a manifest may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetGo {
    /// Nothing.
    Done,
    /// The loop lets the agent's chats go first.
    Waiting,
}

/// Whether a record was made from this object and still is.
fn is_of(origin: Option<&manifests::Origin>, uid: Uuid) -> bool {
    origin.is_some_and(|origin| {
        origin.source == Source::Manifest && origin.manifest.as_ref().is_some_and(|manifest| manifest.uid == uid)
    })
}

/// A chat's manifest goes, or is gone.
pub struct LetChatGo<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Which.
    pub key: &'a Key,
    /// The object's uid in the cluster: of another one nothing is touched.
    pub uid: Uuid,
    /// Whether the record goes too.
    pub policy: DeletionPolicy,
    /// What becomes of the chats below it.
    pub propagation: Propagation,
}

impl Write for LetChatGo<'_> {
    type Output = LetGo;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<LetGo, WriteError> {
        let Self { clock, key, uid, policy, propagation } = self;
        let seen = manifests::of_chat(tx, key).await?;
        if !is_of(seen.as_ref(), *uid) {
            return Ok(LetGo::Done);
        }
        match policy {
            DeletionPolicy::Delete => {
                let known = Preconditions { uid: seen.map(|seen| seen.id), rv: None };
                let delete = DeleteChat { key, known, propagation: *propagation, asks: Source::Manifest };
                match delete.run(tx).await {
                    Ok(_) | Err(WriteError::NotFound | WriteError::OtherUid { .. }) => Ok(LetGo::Done),
                    Err(error) => Err(error),
                }
            }
            DeletionPolicy::Retain => {
                if store::chats::lock(tx, key).await?.is_none() {
                    return Ok(LetGo::Done);
                }
                let origin = manifests::of_chat(tx, key).await?; // reads, after the lock
                let (Some(old), true) = (store::chats::get(tx, key).await?, is_of(origin.as_ref(), *uid)) else {
                    return Ok(LetGo::Done);
                };
                let mut log = TxLog::open(tx).await?;
                let mut chat = old.chat;
                chat.event_seq = manifests::release_chat(tx, &key.namespace, chat.meta.id, log.rv, clock.now()).await?;
                chats::append(tx, &mut log, EventKind::ChatUpdated, &chat, json!({"before": {}})).await?;
                Ok(LetGo::Done)
            }
        }
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// An agent's manifest goes, or is gone.
pub struct LetAgentGo<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Which.
    pub key: &'a Key,
    /// The object's uid in the cluster: of another one nothing is touched.
    pub uid: Uuid,
    /// Whether the record goes too.
    pub policy: DeletionPolicy,
}

impl Write for LetAgentGo<'_> {
    type Output = LetGo;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<LetGo, WriteError> {
        let Self { clock, key, uid, policy } = self;
        let seen = manifests::of_agent(tx, key).await?;
        if !is_of(seen.as_ref(), *uid) {
            return Ok(LetGo::Done);
        }
        match policy {
            DeletionPolicy::Delete => {
                let known = Preconditions { uid: seen.map(|seen| seen.id), rv: None };
                match (DeleteAgent { clock, key, known, asks: Source::Manifest }).run(tx).await {
                    Ok(_) => Ok(LetGo::Waiting),
                    Err(WriteError::NotFound | WriteError::OtherUid { .. }) => Ok(LetGo::Done),
                    Err(error) => Err(error),
                }
            }
            DeletionPolicy::Retain => {
                if store::agents::lock(tx, key).await?.is_none() {
                    return Ok(LetGo::Done);
                }
                let origin = manifests::of_agent(tx, key).await?; // reads, after the lock
                let (Some(old), true) = (store::agents::get(tx, key).await?, is_of(origin.as_ref(), *uid)) else {
                    return Ok(LetGo::Done);
                };
                let mut log = TxLog::open(tx).await?;
                manifests::release_agent(tx, &key.namespace, old.agent.meta.id, log.rv).await?;
                agents::append(tx, &mut log, EventKind::AgentUpdated, &old.agent, json!({"before": {}})).await?;
                Ok(LetGo::Done)
            }
        }
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Annotations that a record takes over: not the copy of the whole manifest that `kubectl apply` keeps.
#[must_use]
pub fn annotations(annotations: &TextMap) -> TextMap {
    annotations
        .iter()
        .filter(|(key, _)| !key.starts_with("kubectl.kubernetes.io/"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
