//! Creating, changing, refreshing and deleting chats.

use super::{Preconditions, WriteError, check_owner, later};
use crate::{
    clock::Clock,
    model::{
        access::Reach,
        chat::{Chat, ChatSpec, ChatState, ChatView, PinCause, PinRecord, Reference},
        condition::Conditions,
        event::EventKind,
        fault::{Fault, FaultKind},
        object::{Key, Metadata, Progress, Requests, Source, TextMap},
    },
    store::{
        StoreError, Write, chats,
        events::{self, NewEvent},
        log::TxLog,
    },
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// Creates a chat. A child that names no agent, or its parent's reference, starts with its parent's reference and pin.
pub struct CreateChat<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Where, and under which name.
    pub key: &'a Key,
    /// What is asked of it.
    pub spec: &'a ChatSpec,
    /// Labels.
    pub labels: &'a TextMap,
    /// Annotations.
    pub annotations: &'a TextMap,
    /// Who creates it.
    pub created_by: &'a str,
    /// Whose chats the creator may read: a parent must be among them.
    pub reach: &'a Reach,
    /// Who owns its spec.
    pub source: Source,
}

impl Write for CreateChat<'_> {
    type Output = ChatView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<ChatView, WriteError> {
        let Self { clock, key, spec, labels, annotations, created_by, reach, source } = self;
        let parent = match &spec.parent {
            Some(name) => Some(self.parent(tx, reach, name).await?), // locks the parent
            None => None,
        };
        let now = clock.now();
        let id = clock.new_id();
        let mut log = TxLog::open(tx).await?;
        let (reference, pin) = inherit(&spec.reference, parent.as_ref(), now);
        let requests = Requests::of(annotations);
        let chat = Chat {
            meta: Metadata {
                namespace: key.namespace.clone(),
                id,
                name: key.name.clone(),
                labels: (*labels).clone(),
                annotations: (*annotations).clone(),
                generation: 1,
                rv: log.rv,
                created_at: now,
            },
            spec: ChatSpec { reference, ..(*spec).clone() },
            inherited_archived: parent.as_ref().is_some_and(|parent| parent.chat.is_archived()),
            source: *source,
            paused: requests.paused,
            parent_id: parent.as_ref().map(|parent| parent.chat.meta.id),
            root_id: parent.as_ref().map_or(id, |parent| parent.chat.root_id),
            created_by: (*created_by).to_owned(),
            updated_at: now,
            state: ChatState::Waiting,
            last_error: String::new(),
            pin,
            dirty_since: None,
            refresh_requested: requests.refresh,
            refresh_handled: None,
            reconcile_handled: None,
            event_seq: 1,
            progress: Progress { revision: 1, ..Progress::default() },
            conditions: Conditions::default(),
        };
        if !chats::insert(tx, &chat).await? {
            return Err(WriteError::AlreadyExists);
        }
        if events::deleted_later(tx, &key.namespace, &key.name, EventKind::ChatDeleted, log.rv).await? {
            // The name was freed by a transaction with a later version than ours: with a fresh one we come after it.
            return Err(StoreError::Guard { query: "db.chats.insert", expected: 1, got: 0 }.into());
        }
        let payload = json!({"pinned": chat.pin.is_some()});
        append(tx, &mut log, EventKind::ChatCreated, &chat, payload).await?;
        chats::get_by_id(tx, &key.namespace, id).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

impl CreateChat<'_> {
    async fn parent(&self, tx: &mut PgConnection, reach: &Reach, name: &str) -> Result<ChatView, WriteError> {
        let missing = |why: &str| {
            let message = format!("{why} in namespace {:?}", self.key.namespace);
            WriteError::Invalid(vec![Fault::new("spec.parentRef.name", FaultKind::NotFound, message)])
        };
        if name == self.key.name {
            let message = format!("a chat cannot be its own parent, got {name:?}");
            return Err(WriteError::Invalid(vec![Fault::new("spec.parentRef.name", FaultKind::Invalid, message)]));
        }
        let key = Key::new(&self.key.namespace, name);
        chats::lock(tx, &key).await?;
        // The same answer for what is not there and for what may not be read.
        let parent = chats::get(tx, &key).await?.filter(|parent| reach.covers(Some(&parent.chat.spec.owner)));
        parent.ok_or_else(|| missing(&format!("there is no chat {name:?} that you may read")))
    }
}

/// What a child starts with: its parent's reference and pin, unless it names another agent.
fn inherit(own: &Reference, parent: Option<&ChatView>, now: jiff::Timestamp) -> (Reference, Option<PinRecord>) {
    match parent {
        Some(parent) if *own == Reference::Unbound || *own == parent.chat.spec.reference => {
            let pin = parent.chat.pin.as_ref();
            let pin = pin.map(|pin| PinRecord { snapshot: pin.snapshot, cause: PinCause::Inherited, at: now });
            (parent.chat.spec.reference.clone(), pin)
        }
        Some(_) | None => (own.clone(), None),
    }
}

/// What is to become of a chat's desired columns.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is asked of it.
    pub spec: ChatSpec,
    /// Labels.
    pub labels: TextMap,
    /// Annotations.
    pub annotations: TextMap,
}

/// Changes a chat's desired columns.
pub struct UpdateChat<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Which.
    pub key: &'a Key,
    /// What the caller knows of it.
    pub known: Preconditions,
    /// What it is to become.
    pub wanted: &'a Wanted,
    /// Who asks.
    pub asks: Source,
}

impl Write for UpdateChat<'_> {
    type Output = ChatView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<ChatView, WriteError> {
        let Self { clock, key, known, wanted, asks } = self;
        let old = locked_for(tx, key, wanted.spec.archived).await?; // locks, then reads
        let Chat { meta, spec, .. } = &old.chat;
        known.check(meta.id, meta.rv)?;
        immutable(spec, &wanted.spec)?;
        let spec_changed = *spec != wanted.spec;
        if spec_changed {
            check_owner("Chat", meta, old.chat.source, *asks)?;
        }
        let (before, after) = (Requests::of(&meta.annotations), Requests::of(&wanted.annotations));
        // A token asks when it differs from the stored annotation, not from the last handled one: else every patch after a
        // refresh by PUT would refresh again.
        let asks_refresh = after.refresh.is_some() && after.refresh != before.refresh;
        let input = spec_changed || asks_refresh || after.reconcile != before.reconcile || after.paused != before.paused;
        if !input && meta.labels == wanted.labels && meta.annotations == wanted.annotations {
            return Ok(old);
        }
        let mut log = TxLog::open(tx).await?;
        let mut new = old.chat.clone();
        new.meta.rv = log.rv;
        new.meta.labels.clone_from(&wanted.labels);
        new.meta.annotations.clone_from(&wanted.annotations);
        new.meta.generation += i64::from(spec_changed);
        new.spec = wanted.spec.clone();
        new.paused = after.paused;
        if asks_refresh {
            new.refresh_requested = after.refresh;
        }
        new.updated_at = later(clock.now(), old.chat.updated_at);
        new.progress.revision += i64::from(input);
        new.event_seq += 1;
        chats::update(tx, &new).await?;
        if new.spec.archived != old.chat.spec.archived {
            chats::spread_archived(tx, &key.namespace, &[new.meta.id]).await?; // all of the subtree, in one statement
        }
        append(tx, &mut log, EventKind::ChatUpdated, &new, json!({"before": before_of(&old.chat, &new)})).await?;
        chats::get_by_id(tx, &key.namespace, new.meta.id).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

fn immutable(old: &ChatSpec, new: &ChatSpec) -> Result<(), WriteError> {
    let fault = |field, old: &str, new: &str| {
        let message = format!("is immutable: it is {old:?}, got {new:?}");
        Fault::new(field, FaultKind::Forbidden, message)
    };
    let mut faults = Vec::new();
    if old.owner != new.owner {
        faults.push(fault("spec.owner", &old.owner, &new.owner));
    }
    if old.parent != new.parent {
        let name = |parent: &Option<String>| parent.clone().unwrap_or_default();
        faults.push(fault("spec.parentRef", &name(&old.parent), &name(&new.parent)));
    }
    if faults.is_empty() { Ok(()) } else { Err(WriteError::Invalid(faults)) }
}

/// What changes of the labels and the selectable fields, as it was: a watcher with a selector needs the old match too.
fn before_of(old: &Chat, new: &Chat) -> Value {
    let mut before = Map::new();
    if old.meta.labels != new.meta.labels {
        before.insert("labels".into(), json!(old.meta.labels));
    }
    if old.spec.reference != new.spec.reference {
        before.insert("agent".into(), json!(old.spec.reference.agent()));
        before.insert("workspace".into(), json!(old.spec.reference.workspace()));
    }
    if old.spec.archived != new.spec.archived {
        before.insert("archived".into(), json!(old.spec.archived));
    }
    if old.state != new.state {
        before.insert("state".into(), json!(old.state));
    }
    Value::Object(before)
}

/// What whoever runs a chat says of it.
pub struct ReportChat<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Which.
    pub key: &'a Key,
    /// What the caller knows of it.
    pub known: Preconditions,
    /// The state; none leaves it.
    pub state: Option<ChatState>,
    /// The error; none leaves it. Leaving `Error` clears it.
    pub last_error: Option<&'a str>,
}

impl Write for ReportChat<'_> {
    type Output = ChatView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<ChatView, WriteError> {
        let Self { clock, key, known, state, last_error } = self;
        let old = locked(tx, key).await?; // locks, then reads
        known.check(old.chat.meta.id, old.chat.meta.rv)?;
        let mut new = old.chat.clone();
        new.state = state.unwrap_or(new.state);
        if let Some(error) = last_error {
            (*error).clone_into(&mut new.last_error);
        }
        if old.chat.state == ChatState::Error && new.state != ChatState::Error {
            new.last_error.clear();
        }
        if new == old.chat {
            return Ok(old);
        }
        let mut log = TxLog::open(tx).await?;
        new.meta.rv = log.rv;
        new.updated_at = later(clock.now(), old.chat.updated_at);
        // Only crossing between active and terminal is an input of the decision.
        new.progress.revision += i64::from(old.chat.state.is_active() != new.state.is_active());
        new.event_seq += 1;
        chats::update(tx, &new).await?;
        append(tx, &mut log, EventKind::ChatUpdated, &new, json!({"before": before_of(&old.chat, &new)})).await?;
        chats::get_by_id(tx, &key.namespace, new.meta.id).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Asks for a refresh of one chat. The same token twice asks once.
pub struct RefreshChat<'a> {
    /// Which.
    pub key: &'a Key,
    /// The uid that the caller means.
    pub id: Uuid,
    /// Opaque; at most 64 characters.
    pub token: &'a str,
}

impl Write for RefreshChat<'_> {
    type Output = ChatView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<ChatView, WriteError> {
        let Self { key, id, token } = self;
        let old = locked(tx, key).await?; // locks, then reads
        Preconditions { uid: Some(*id), rv: None }.check(old.chat.meta.id, old.chat.meta.rv)?;
        if old.chat.is_archived() {
            return Err(WriteError::Archived);
        }
        if old.chat.refresh_requested.as_deref() == Some(token) {
            return Ok(old);
        }
        let id = old.chat.meta.id;
        chats::request_refresh(tx, &key.namespace, id, token).await?;
        chats::get_by_id(tx, &key.namespace, id).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// What becomes of the chats below one that is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted too.
    Background,
    /// They stay, each child as the root of its own tree.
    Orphan,
}

/// Deletes a chat. Answers with its last state.
pub struct DeleteChat<'a> {
    /// Which.
    pub key: &'a Key,
    /// What the caller knows of it.
    pub known: Preconditions,
    /// What becomes of the chats below it.
    pub propagation: Propagation,
    /// Who asks.
    pub asks: Source,
}

impl Write for DeleteChat<'_> {
    type Output = ChatView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<ChatView, WriteError> {
        let Self { key, known, propagation, asks } = self;
        let namespace = key.namespace.as_str();
        // No lock yet: the subtree is locked in id order, and this chat need not be the first.
        let seen = chats::get(tx, key).await?.ok_or(WriteError::NotFound)?;
        let tree = chats::lock_subtree(tx, namespace, seen.chat.meta.id).await?; // locks, in id order
        let old = chats::get(tx, key).await?.ok_or(WriteError::NotFound)?; // reads, after the locks
        let id = old.chat.meta.id;
        if id != seen.chat.meta.id {
            return Err(StoreError::Guard { query: "db.chats.delete", expected: 1, got: 0 }.into());
        }
        known.check(id, old.chat.meta.rv)?;
        check_owner("Chat", &old.chat.meta, old.chat.source, *asks)?;
        let mut log = TxLog::open(tx).await?;
        match propagation {
            Propagation::Background => chats::delete(tx, namespace, &tree, &mut log).await?,
            Propagation::Orphan => {
                let children = chats::children(tx, namespace, id).await?;
                chats::orphan_children(tx, namespace, id, &children, &mut log).await?;
                chats::reroot(tx, namespace, &children).await?;
                chats::spread_archived(tx, namespace, &children).await?;
                chats::delete(tx, namespace, &[id], &mut log).await?;
            }
        }
        Ok(old)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Locks a chat that is to be archived or not, then reads it in a new statement. When that is to change, the whole subtree is
/// locked in id order, which this chat need not be the first of: so its lock is not taken before the others'.
pub(super) async fn locked_for(tx: &mut PgConnection, key: &Key, archived: bool) -> Result<ChatView, WriteError> {
    let seen = chats::get(tx, key).await?.ok_or(WriteError::NotFound)?;
    if seen.chat.spec.archived == archived {
        chats::lock(tx, key).await?.ok_or(WriteError::NotFound)?; // locks
    } else {
        chats::lock_subtree(tx, &key.namespace, seen.chat.meta.id).await?; // locks, in id order
    }
    let old = chats::get(tx, key).await?.ok_or(WriteError::NotFound)?; // reads, after the locks
    if old.chat.meta.id != seen.chat.meta.id || old.chat.spec.archived != seen.chat.spec.archived {
        // Somebody else came first: what has to be locked is another question now.
        return Err(StoreError::Guard { query: "db.chats.lock_for", expected: 1, got: 0 }.into());
    }
    Ok(old)
}

/// Locks a chat, then reads it in a new statement.
async fn locked(tx: &mut PgConnection, key: &Key) -> Result<ChatView, WriteError> {
    chats::lock(tx, key).await?.ok_or(WriteError::NotFound)?;
    chats::get(tx, key).await?.ok_or(WriteError::NotFound)
}

pub(super) async fn append(
    tx: &mut PgConnection,
    log: &mut TxLog,
    kind: EventKind,
    chat: &Chat,
    payload: Value,
) -> Result<(), StoreError> {
    let id: Uuid = chat.meta.id;
    let event = NewEvent {
        namespace: &chat.meta.namespace,
        kind,
        subject: Some(id),
        name: &chat.meta.name,
        chat: Some((id, chat.event_seq)),
        agent: None,
        payload,
    };
    events::append(tx, log, event).await
}
