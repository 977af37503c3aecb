//! Manifests are read from the cluster again: those that could not be taken over, those whose records say something else, and those
//! that no list had.

use super::{
    Shared,
    follow::CHECK,
    ingest::{CONCURRENCY, READ},
    kind::{Id, Kind},
    seen::Entry,
};
use crate::{
    model::object::{DeletionPolicy, Key, Source},
    store::{self, StoreError, manifests},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

/// How the task is named that does it.
const READER: &str = "reader of manifests";
/// How many records are read at once.
const PAGE: i64 = 1_000;

impl Shared {
    /// Reads manifests again that could not be taken over, until `stop`: so many at once, and each ever more rarely.
    pub(super) async fn try_again(self, stop: CancellationToken) {
        let mut work = JoinSet::new();
        loop {
            while work.len() >= CONCURRENCY {
                work.join_next().await;
            }
            self.liveness.alive(READER);
            let ids = tokio::select! {
                () = stop.cancelled() => break,
                ids = self.again.take(1) => ids,
                () = sleep(CHECK) => continue,
            };
            for id in ids {
                let (shared, hand) = (self.clone(), self.again.in_hand(&id));
                work.spawn(async move {
                    if shared.read_again(&id).await {
                        shared.again.failed(&id, shared.clock.random());
                    } else {
                        shared.again.done(&id);
                    }
                    hand.told();
                });
            }
        }
        self.liveness.ended(READER);
    }

    /// Reads one manifest again. Answers whether that has to be done once more.
    async fn read_again(&self, id: &Id) -> bool {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        match tokio::time::timeout(READ, api.get_opt(&id.key.name)).await {
            Ok(Ok(Some(object))) => {
                let Some(entry) = Entry::of(id.kind, &object) else { return false };
                if !self.seen.answered(id, entry.clone()) {
                    return false; // the watch brings it, or has told meanwhile that it is gone
                }
                self.look(id, &entry, &object).await
            }
            Ok(Ok(None)) => match self.nowhere(id).await {
                Ok(again) => again,
                Err(error) => {
                    tracing::debug!(object = %id, %error, "a manifest is gone, and its record could not be released yet");
                    true
                }
            },
            Ok(Err(_)) | Err(_) => true,
        }
    }

    /// The cluster was asked, and has no object of this name. The record of that name, if a manifest made it, loses its manifest, and
    /// stays. Answers whether that has to be looked at once more.
    pub(super) async fn nowhere(&self, id: &Id) -> Result<bool, StoreError> {
        let keys = [id.key.clone()];
        let mut connection = store::acquire(&self.pool).await?;
        let origins = match id.kind {
            Kind::Chat => manifests::of_chats_named(&mut connection, &keys).await?,
            Kind::Agent => manifests::of_agents_named(&mut connection, &keys).await?,
            Kind::Snapshot => return Ok(false),
        };
        drop(connection);
        let made = origins.get(&id.key).filter(|origin| origin.source == Source::Manifest);
        let Some(manifest) = made.and_then(|origin| origin.manifest.as_ref()) else { return Ok(false) };
        let _turn = self.turns.of(id).await;
        // It may have been made and taken over since the cluster was asked.
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        match tokio::time::timeout(READ, api.get_metadata_opt(&id.key.name)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(_))) => return Ok(false), // the watch brings it
            Ok(Err(_)) | Err(_) => return Ok(true),
        }
        self.let_go(id, &Entry::vanished(manifest.uid), DeletionPolicy::Retain).await?;
        tracing::info!(object = %id, "its manifest is nowhere; the record stays, and the API may change it");
        Ok(false)
    }

    /// A list has ended: records whose manifests were in none are looked for, and the cluster is asked for each.
    pub(super) async fn look_for_vanished(&self, kind: Kind, namespace: Option<&str>) -> Result<(), StoreError> {
        let mut after = Key::new("", "");
        loop {
            let mut connection = store::acquire(&self.pool).await?;
            let page = match kind {
                Kind::Chat => manifests::chats_made(&mut connection, &after, PAGE).await?,
                Kind::Agent => manifests::agents_made(&mut connection, &after, PAGE).await?,
                Kind::Snapshot => return Ok(()),
            };
            drop(connection);
            let Some(last) = page.last() else { return Ok(()) };
            after = last.key.clone();
            for made in page.into_iter().filter(|made| namespace.is_none_or(|namespace| namespace == made.key.namespace)) {
                let id = Id { kind, key: made.key };
                if self.seen.get(&id).is_none() {
                    self.again.add(&id);
                }
            }
        }
    }
}
