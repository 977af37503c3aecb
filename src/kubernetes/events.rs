//! What happened to a chat or an agent, told as an Event of the cluster: by the holder, once each, with repeats folded by the one
//! recorder. Transitions only; nothing is told of a retry. Best effort, as Events are: statuses go first, and what there is no
//! room for is dropped and counted, and the API has them all.

use super::{Shared, kind::Id};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events that may wait to be told: a push can drift thousands of chats at once. It takes no memory while they are few.
pub const ROOM: usize = 8_192;
/// How long an Event waits at most for statuses that are to be written. So some are told even when those never end.
const LAST: std::time::Duration = std::time::Duration::from_secs(1);
/// Longest note of an Event, in bytes.
const NOTE: usize = 1_024;
/// How long telling one may take.
const REQUEST: std::time::Duration = std::time::Duration::from_secs(10);

/// Something that is to be told.
#[derive(Debug)]
pub struct Happened {
    /// Of which object.
    pub id: Id,
    /// Its uid in the cluster.
    pub uid: Uuid,
    /// One CamelCase word.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether somebody has to do something.
    pub warning: bool,
}

impl Shared {
    /// Has something told, if this replica may.
    pub(super) fn tell(&self, id: &Id, uid: Uuid, reason: &str, message: &str, warning: bool) {
        if !self.may_write() {
            return;
        }
        let happened = Happened { id: id.clone(), uid, reason: reason.to_owned(), message: message.to_owned(), warning };
        if self.happened.try_send(happened).is_err() {
            crate::metrics::METRICS.event_dropped();
        }
    }

    /// Tells what is to be told until `stop`.
    pub(super) async fn tell_events(self, mut happenings: mpsc::Receiver<Happened>, stop: CancellationToken) {
        let instance = self.lease.identity().to_owned();
        let reporter = Reporter { controller: super::mirror::CONTROLLER.into(), instance: Some(instance) };
        let recorder = Recorder::new(self.client.clone(), reporter);
        loop {
            let happened = tokio::select! {
                () = stop.cancelled() => return,
                happened = happenings.recv() => happened,
            };
            let Some(Happened { id, uid, reason, message, warning }) = happened else { return };
            let resource = id.kind.resource();
            let about = ObjectReference {
                api_version: Some(resource.api_version),
                kind: Some(resource.kind),
                namespace: Some(id.key.namespace.clone()),
                name: Some(id.key.name.clone()),
                uid: Some(uid.to_string()),
                ..ObjectReference::default()
            };
            let event = Event {
                type_: if warning { EventType::Warning } else { EventType::Normal },
                action: reason.clone(),
                reason,
                note: Some(message[..message.floor_char_boundary(NOTE)].to_owned()),
                secondary: None,
            };
            tokio::time::timeout(LAST, self.queue.worked_off()).await.ok();
            self.bucket.take().await;
            if !self.may_write() {
                crate::metrics::METRICS.event_dropped();
                continue;
            }
            match tokio::time::timeout(REQUEST, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    crate::metrics::METRICS.event_dropped();
                    tracing::debug!(object = %id, %error, "an Event could not be told");
                }
                Err(_) => crate::metrics::METRICS.event_dropped(),
            }
        }
    }
}
