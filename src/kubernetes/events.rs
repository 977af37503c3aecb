//! What happened to a chat or an agent, told as an Event of the cluster: by the holder, once each, with repeats folded: they count
//! one Event up, as client-go's recorder does it. Transitions only; nothing is told of a retry. Best effort, as Events are: statuses
//! go first, and what there is no room for is dropped and counted, and the API has them all.

use super::{Shared, kind::Id};
use crate::model::name::SUBDOMAIN_MAX;
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{collections::HashMap, time::Duration};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events that may wait to be told: a push can drift thousands of chats at once. It takes no memory while they are few.
pub const ROOM: usize = 8_192;
/// How long an Event waits at most for statuses that are to be written. So some are told even when those never end.
const LAST: Duration = Duration::from_secs(1);
/// Longest note of an Event, in bytes.
const NOTE: usize = 1_024;
/// How long telling one may take.
const REQUEST: Duration = Duration::from_secs(10);
/// For how long what happens again is counted up instead of told anew, since it happened last: as client-go's recorder.
const FOLD: Duration = Duration::from_mins(6);

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
        let mut told = Told::default();
        loop {
            let happened = tokio::select! {
                () = stop.cancelled() => return,
                happened = happenings.recv() => happened,
            };
            let Some(happened) = happened else { return };
            tokio::time::timeout(LAST, self.queue.worked_off()).await.ok();
            self.bucket.take().await;
            if !self.may_write() {
                crate::metrics::METRICS.event_dropped();
                continue;
            }
            match tokio::time::timeout(REQUEST, self.tell_one(&mut told, &happened)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    crate::metrics::METRICS.event_dropped();
                    tracing::debug!(object = %happened.id, %error, "an Event could not be told");
                }
                Err(_) => crate::metrics::METRICS.event_dropped(),
            }
        }
    }

    /// Makes an Event, or counts one up that tells the same of the same object.
    async fn tell_one(&self, told: &mut Told, happened: &Happened) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &happened.id.key.namespace);
        let (now, moment) = (self.clock.now(), Instant::now());
        let what = (happened.id.clone(), happened.uid, happened.reason.clone());
        if let Some(series) = told.series(&what, moment) {
            let count = series.count + 1;
            let more = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            match api.patch_metadata(&series.name, &PatchParams::default(), &Patch::Merge(&more)).await {
                Ok(_) => {
                    told.note(what, Series { count, at: moment, ..series });
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.code == 404 => {} // it has expired, or somebody has deleted it
                Err(error) => return Err(error),
            }
        }
        let event = self.event(happened, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        told.note(what, Series { name, count: 1, at: moment });
        Ok(())
    }

    fn event(&self, happened: &Happened, now: Timestamp) -> Event {
        let Happened { id, uid, reason, message, warning } = happened;
        let resource = id.kind.resource();
        Event {
            metadata: ObjectMeta {
                namespace: Some(id.key.namespace.clone()),
                name: Some(name(&id.key.name, now)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if *warning { "Warning" } else { "Normal" }.into()),
            action: Some(reason.clone()),
            reason: Some(reason.clone()),
            note: Some(note(message).to_owned()),
            regarding: Some(ObjectReference {
                api_version: Some(resource.api_version),
                kind: Some(resource.kind),
                namespace: Some(id.key.namespace.clone()),
                name: Some(id.key.name.clone()),
                uid: Some(uid.to_string()),
                ..ObjectReference::default()
            }),
            reporting_controller: Some(super::mirror::CONTROLLER.into()),
            reporting_instance: Some(self.lease.identity().to_owned()),
            ..Event::default()
        }
    }
}

/// As much of a message as an Event takes, in whole characters.
fn note(message: &str) -> &str {
    &message[..message.floor_char_boundary(NOTE)]
}

/// A name that no other Event has, however long that of its object is.
fn name(of: &str, now: Timestamp) -> String {
    let hex = format!("{:x}", now.as_nanosecond());
    let room = SUBDOMAIN_MAX - 1 - hex.len();
    // A name is ASCII, and a part of one does not end as it likes.
    let of = of.get(..room).unwrap_or(of).trim_end_matches(['.', '-']);
    format!("{of}.{hex}")
}

/// An Event that was made, and may be counted up.
#[derive(Clone, Debug)]
struct Series {
    name: String,
    count: i32,
    at: Instant,
}

type What = (Id, Uuid, String);

/// Which Events were told of late: of each only what it takes to count it up.
#[derive(Debug, Default)]
struct Told {
    all: HashMap<What, Series>,
    /// How many there may be until it is worth a look which are too old.
    look: usize,
}

impl Told {
    fn series(&self, what: &What, now: Instant) -> Option<Series> {
        self.all.get(what).filter(|series| now - series.at < FOLD).cloned()
    }

    fn note(&mut self, what: What, series: Series) {
        if self.all.len() >= self.look.max(64) {
            let now = series.at;
            self.all.retain(|_, series| now - series.at < FOLD);
            self.all.shrink_to(self.all.len() * 2);
            self.look = self.all.len() * 2;
        }
        self.all.insert(what, series);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kubernetes::kind::Kind, model::object::Key};

    #[test]
    fn the_longest_name_leaves_room_for_what_makes_it_another_one() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let hex = format!("{:x}", now.as_nanosecond());
        assert_eq!(name("fix", now), format!("fix.{hex}"));
        let long = name(&"a".repeat(SUBDOMAIN_MAX), now);
        assert_eq!((long.len(), long.ends_with(&format!("a.{hex}"))), (SUBDOMAIN_MAX, true));
        let dots = format!("{}{}", "a".repeat(200), "-.".repeat(26));
        assert_eq!(name(&dots, now), format!("{}.{hex}", "a".repeat(200)));
    }

    #[test]
    fn a_long_note_of_whatever_characters_is_as_long_as_the_cluster_takes_it() {
        assert_eq!(note("short"), "short");
        for (character, bytes) in [("a", 1_024), ("é", 1_024), ("€", 1_023), ("🦀", 1_024)] {
            let long = format!("{}€", character.repeat(2_000));
            assert_eq!((note(&long).len(), long.starts_with(note(&long))), (bytes, true), "{character}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_long_ago_is_told_anew_and_takes_no_memory() {
        let what = |n: usize| (Id { kind: Kind::Chat, key: Key::new("n", n.to_string()) }, Uuid::nil(), "R".to_owned());
        let mut told = Told::default();
        for n in 0..10_000 {
            told.note(what(n), Series { name: String::new(), count: 1, at: Instant::now() });
            tokio::time::advance(FOLD / 100).await;
        }
        assert!(told.all.len() <= 200, "{}", told.all.len());
        assert!(told.series(&what(9_999), Instant::now()).is_some());
        assert!(told.series(&what(9_800), Instant::now()).is_none());
    }
}
