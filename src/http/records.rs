//! Chats and agents as objects: reading one, replacing it, patching it. What differs between the two is in [`Record`].
//!
//! A write answers with what a read of the same object has, so that a client that compares the two sees what changed and
//! nothing else (kubectl does, for `(no change)` and for `diff`). A rehearsal gives no version: it shows the one that the
//! object has, and none for one that is not there.
//!
//! What this does not: lists and watches, and deciding what may change (the writes do).

use super::{
    AppState,
    address::{Path, Query},
    audit,
    auth::{Asked, Identity},
    negotiate::Warnings,
    objects::{self, PATCH_TRIES, WriteQuery},
    page::object_version,
    patch::Patch,
    status::{ApiError, Resource},
    table::Form,
    typed::Typed,
    wait::{self, Patience, Seen},
};
use crate::{
    clock::Clock,
    model::{
        access::Reach,
        fault::Fault,
        object::{Key, Metadata, Progress},
    },
    store::{self, StoreError, Write, rehearse, transact},
    writes::{Preconditions, WriteError},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use kube::core::object::HasStatus;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use std::{future::Future, time::Duration};

type Names = Path<(String, String)>;

/// A chat, or an agent.
pub trait Record: Sized + Send + Sync + 'static {
    /// What it is.
    const RESOURCE: Resource;
    /// Its published type.
    type Wire: kube::Resource<DynamicType = ()>
        + HasStatus<Status: DeserializeOwned>
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// What may be asked to become of it.
    type Wanted: Send + Sync;

    /// Its identity and versions.
    fn meta(&self) -> &Metadata;
    /// How far the loop has got with it.
    fn progress(&self) -> &Progress;
    /// The user whose it is.
    fn user(&self) -> Option<&str>;
    /// As lists show it.
    fn wire(&self) -> Self::Wire;
    /// Reads one.
    fn read(connection: &mut PgConnection, key: &Key) -> impl Future<Output = Result<Option<Self>, StoreError>> + Send;
    /// As a read of it alone shows it, as of now.
    fn detailed(&self, connection: &mut PgConnection) -> impl Future<Output = Result<Self::Wire, StoreError>> + Send;
    /// What an object asks to become of this one; all faults of it.
    fn wanted(&self, object: &Self::Wire) -> Result<Self::Wanted, Vec<Fault>>;
    /// The user whose it would be: the caller must reach it as it is and as it would be.
    fn user_after<'a>(&'a self, wanted: &'a Self::Wanted) -> Option<&'a str>;
    /// Whether it would get to the context of an agent that it does not name now.
    fn names_anew(&self, wanted: &Self::Wanted) -> bool;
    /// The write that makes it so.
    fn update<'a>(
        update: &'a Update<'a>,
        known: Preconditions,
        wanted: &'a Self::Wanted,
    ) -> impl Write<Output = Self, Error = WriteError> + 'a;
}

/// Of an update: who asks, and of what.
#[derive(Debug)]
pub struct Update<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Which record.
    pub key: &'a Key,
    /// What the caller reaches.
    pub reach: &'a Reach,
}

/// How a write is to be done and answered.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    /// It is not done at all: what it would answer.
    pub rehearsal: bool,
    /// What the client prefers about waiting stands there.
    pub headers: &'a HeaderMap,
    /// How long to wait for the loop when the client does not say.
    pub unasked: Option<Duration>,
}

/// Who asks for what: a verb on one record.
pub fn asked<'a, R: Record>(verb: &'static str, subresource: Option<&'static str>, key: &'a Key) -> Asked<'a> {
    Asked { verb, resource: R::RESOURCE, subresource, namespace: &key.namespace, name: &key.name }
}

/// Reads one that must be there.
pub async fn find<R: Record>(connection: &mut PgConnection, key: &Key) -> Result<R, ApiError> {
    R::read(connection, key).await?.ok_or_else(|| ApiError::not_found(R::RESOURCE, &key.name))
}

/// The same, on a connection of its own.
pub async fn find_now<R: Record>(state: &AppState, key: &Key) -> Result<R, ApiError> {
    find(&mut *store::acquire(state.pool()).await?, key).await
}

/// One that must be there and with which the caller may do what it asks.
pub async fn find_allowed<R: Record>(state: &AppState, identity: &Identity, asked: &Asked<'_>, key: &Key) -> Result<R, ApiError> {
    let found = R::read(&mut *store::acquire(state.pool()).await?, key).await?; // the connection goes back before anybody is asked
    match found {
        Some(record) => {
            identity.check(asked, record.user()).await?;
            Ok(record)
        }
        None => Err(identity.missing(asked).await),
    }
}

/// One that must be there and be the caller's, and how it is shown, as of one moment.
pub async fn find_shown<R: Record>(
    state: &AppState,
    identity: &Identity,
    asked: &Asked<'_>,
    key: &Key,
) -> Result<(R, R::Wire), ApiError> {
    let mut granted = false;
    loop {
        let mut tx = store::one_moment(state.pool()).await?;
        let Some(record) = R::read(&mut tx, key).await? else {
            drop(tx);
            return Err(identity.missing(asked).await);
        };
        if granted || identity.known(asked, record.user()) == Some(true) {
            let shown = record.detailed(&mut tx).await?;
            return Ok((record, shown));
        }
        drop(tx); // nobody is asked while it is open
        identity.check(asked, record.user()).await?;
        granted = true;
    }
}

/// Does a write and tells the loop, or rehearses it.
pub async fn write<W: Write<Error = WriteError>>(state: &AppState, rehearsal: bool, write: &W) -> Result<W::Output, WriteError> {
    if rehearsal {
        return rehearse(state.pool(), write).await;
    }
    let output = transact(state.pool(), state.clock(), write).await?;
    state.wake().work();
    state.wake().events();
    Ok(output)
}

/// Waits for the loop to have seen a change, as long as the client prefers.
pub async fn settle<R: Record>(
    state: &AppState,
    how: How<'_>,
    record: R,
) -> Result<(R, Option<(HeaderName, HeaderValue)>), ApiError> {
    let meta = record.meta();
    let (key, id, revision) = (Key::new(&meta.namespace, &meta.name), meta.id, record.progress().revision);
    wait::wait(state, Patience::of(how.headers, how.unasked), record, || async {
        let seen = R::read(&mut *store::acquire(state.pool()).await?, &key).await?.filter(|seen| seen.meta().id == id);
        Ok(seen.map(|record| Seen { converged: record.progress().converged_revision >= revision, record }))
    })
    .await
}

/// A record that was written, as a read of it would show it now.
async fn shown<R: Record>(state: &AppState, record: &R) -> R::Wire {
    let read = async { record.detailed(&mut *store::acquire(state.pool()).await?).await };
    // It has been written: that the database went away since is no reason to say otherwise.
    read.await.unwrap_or_else(|_| record.wire())
}

/// The answer to a write: the record as it is when the loop has seen it. `before` is the version that it had; a rehearsal
/// shows that.
pub async fn answer<R: Record>(
    state: &AppState,
    how: How<'_>,
    code: StatusCode,
    record: R,
    before: Option<i64>,
    warnings: Warnings,
) -> Result<Response, ApiError> {
    if how.rehearsal {
        let mut object = shown(state, &record).await;
        kube::Resource::meta_mut(&mut object).resource_version = before.map(object_version);
        return Ok(audit::written(objects::answer(code, &object, warnings, None), record.meta()));
    }
    let (record, applied) = settle(state, how, record).await?;
    Ok(audit::written(objects::answer(code, &shown(state, &record).await, warnings, applied), record.meta()))
}

/// One record.
pub async fn get<R: Record>(
    State(state): State<AppState>,
    identity: Identity,
    form: Form,
    Path((namespace, name)): Names,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let (_, object) = find_shown::<R>(&state, &identity, &asked::<R>("get", None, &key), &key).await?;
    form.answer(R::RESOURCE, &object, state.clock().now())
}

/// Replaces a record's desired columns.
pub async fn update<R: Record>(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let (validation, how) = (query.validation()?, How { rehearsal: query.rehearsal()?, headers: &headers, unasked: None });
    let read = objects::read_object::<R::Wire>(R::RESOURCE, &headers, body, validation).await?;
    let asked = asked::<R>("update", None, &key);
    let old: R = find_allowed(&state, &identity, &asked, &key).await?;
    let (wanted, known) = read_update(&identity, &asked, &key, &old, &read).await?;
    let update = Update { clock: state.clock(), key: &key, reach: &identity.reach(&asked).await };
    let written = write(&state, how.rehearsal, &R::update(&update, known.or_the_same(old.meta().id), &wanted)).await;
    let record = written.map_err(|error| ApiError::from_write(R::RESOURCE, &key.name, error))?;
    answer(&state, how, StatusCode::OK, record, Some(old.meta().rv), read.warnings).await
}

/// Applies a patch to a record's desired columns. Unless the patch names a version, it is tried again when the record changes
/// under it.
pub async fn patch<R: Record>(
    State(state): State<AppState>,
    identity: Identity,
    Path((namespace, name)): Names,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let key = Key::new(namespace, name);
    let (validation, how) = (query.validation()?, How { rehearsal: query.rehearsal()?, headers: &headers, unasked: None });
    let patch = Patch::read(&headers, body).await?;
    let asked = asked::<R>("patch", None, &key);
    let mut tries = 0;
    loop {
        let (old, shown) = find_shown::<R>(&state, &identity, &asked, &key).await?;
        let read = patch.apply(R::RESOURCE, &key.name, &shown, validation)?;
        let (wanted, known) = read_update(&identity, &asked, &key, &old, &read).await?;
        let known = known.or_as_seen(old.meta().id, old.meta().rv);
        let update = Update { clock: state.clock(), key: &key, reach: &identity.reach(&asked).await };
        tries += 1;
        match write(&state, how.rehearsal, &R::update(&update, known, &wanted)).await {
            Err(WriteError::Changed) if !patch.versioned && tries < PATCH_TRIES => {}
            Err(error) => return Err(ApiError::from_write(R::RESOURCE, &key.name, error)),
            Ok(record) => return answer(&state, how, StatusCode::OK, record, Some(old.meta().rv), read.warnings).await,
        }
    }
}

/// What an object asks of a record that exists; all faults of it.
async fn read_update<R: Record>(
    identity: &Identity,
    asked: &Asked<'_>,
    key: &Key,
    old: &R,
    read: &Typed<R::Wire>,
) -> Result<(R::Wanted, Preconditions), ApiError> {
    let known = objects::known(key, kube::Resource::meta(&read.object))?;
    match (old.wanted(&read.object), known) {
        (Ok(wanted), Ok(known)) if read.faults.is_empty() => {
            identity.check(asked, old.user_after(&wanted)).await?;
            if old.names_anew(&wanted) {
                identity.check_naming(&key.namespace).await?;
            }
            Ok((wanted, known))
        }
        (wanted, known) => {
            let faults = read.faults.iter().cloned().chain(wanted.err().into_iter().flatten()).chain(known.err());
            let faults: Vec<Fault> = faults.collect();
            Err(ApiError::invalid(R::RESOURCE.kind(), &key.name, &faults))
        }
    }
}
