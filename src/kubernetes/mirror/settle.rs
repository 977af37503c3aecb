//! What is to be done about one object: what should be there is compared with what was last seen, and only a difference is written.
//! How it is written: [`super::write`].

use super::error::MirrorError;
use crate::{
    kubernetes::{
        Mirror, Shared,
        kind::{Id, Kind},
        seen::Entry,
        shown,
        wanted::{Record, refused},
    },
    metrics::METRICS,
    model::object::DeletionPolicy,
};
use std::time::Duration;

/// How long the loop is given to end what it is about to change, before an object shows the state in between.
const MOTION: Duration = Duration::from_millis(500);

/// When a manifest is taken over again whose record another cluster has taken.
const TAKEN_AWAY: Duration = Duration::from_mins(1);

/// What looking at an object came to.
pub(super) enum Next {
    /// It is as it should be.
    Done,
    /// It is to be looked at again after a while.
    After(Duration),
}

impl Shared {
    /// Whether a record that no manifest made is shown by an object of ours.
    fn shows(&self, record: &Record) -> bool {
        match (self.options.mirror, record) {
            (Mirror::Off, _) | (Mirror::Manifests, Record::Chat(..) | Record::Agent(..)) => false,
            (Mirror::Manifests, Record::Snapshot(_, from_manifest)) => *from_manifest,
            (Mirror::All, Record::Chat(..) | Record::Agent(..)) => record.is_of_the_api(),
            (Mirror::All, Record::Snapshot(..)) => true,
        }
    }

    /// Whether what was seen shows what the record holds: the one comparison that an idle object costs.
    pub(in crate::kubernetes) fn is_settled(&self, entry: Option<&Entry>, record: &Record) -> bool {
        let kind = record.id().kind;
        match entry {
            None => !self.shows(record),
            Some(entry) if entry.deleting.is_some() => false,
            Some(entry)
                if !entry.mirrored && (entry.policy == DeletionPolicy::Delete) != entry.held && kind != Kind::Snapshot =>
            {
                false
            }
            Some(entry) => {
                let status = || record.status(entry.generation).map_or(0, |status| status.number()) == entry.status;
                match (entry.mirrored, self.options.mirror) {
                    (_, Mirror::Off) => true,
                    (true, _) if !record.is_of(entry.uid) => record.is_of_the_api() && record.has_spec(entry) && status(),
                    (true | false, _) => record.is_of(entry.uid) && entry.refusal.is_none() && status(),
                }
            }
        }
    }

    /// Makes one object what it should be.
    pub(super) async fn settle(&self, id: &Id, entry: Option<Entry>, record: Option<Record>) -> Result<Next, MirrorError> {
        match (entry, record) {
            (None, None) => Ok(Next::Done),
            (None, Some(record)) if !self.shows(&record) => Ok(Next::Done),
            (None, Some(record)) if record.is_in_motion() && !self.waited(id) => Ok(Next::After(MOTION)),
            (None, Some(record)) => self.make(id, &record).await,
            // Whatever it calls itself: what a record was made from is a manifest.
            (Some(entry), Some(record)) if record.is_of(entry.uid) => self.settle_manifest(id, entry, Some(record)).await,
            (Some(entry), record) if entry.mirrored => self.settle_own(id, entry, record).await,
            (Some(_), _) if id.kind == Kind::Snapshot => Ok(Next::Done), // somebody else's
            (Some(entry), record) => self.settle_manifest(id, entry, record).await,
        }
    }

    /// An object that the mirror made.
    async fn settle_own(&self, id: &Id, entry: Entry, record: Option<Record>) -> Result<Next, MirrorError> {
        let record = match record {
            Some(record) if record.is_of_the_api() => record,
            Some(_) | None if entry.deleting.is_some() => return Ok(Next::Done),
            Some(_) | None if self.options.mirror == Mirror::Off => return Ok(Next::Done),
            Some(_) | None => return self.remove(id, &entry).await,
        };
        if entry.deleting.is_some() || self.options.mirror == Mirror::Off {
            return Ok(Next::Done); // it is made again when it is gone
        }
        if !record.has_spec(&entry) {
            if id.kind == Kind::Snapshot {
                return self.remove(id, &entry).await; // it cannot be changed; it is made again
            }
            return match self.respecify(id, &entry, &record).await {
                Ok(()) => Ok(Next::Done), // the answer has been noted, and with it what is left to be done
                Err(error) if error.is_not_found() => Ok(self.is_gone(id, &entry)),
                Err(error) => Err(error),
            };
        }
        self.show(id, &entry, &record).await
    }

    /// An object that somebody applied.
    async fn settle_manifest(&self, id: &Id, entry: Entry, record: Option<Record>) -> Result<Next, MirrorError> {
        if entry.deleting.is_some() {
            let ours = record.as_ref().is_some_and(|record| record.is_of(entry.uid));
            if ours || !entry.held {
                if ours {
                    self.again.add(id);
                }
                return Ok(Next::Done); // the log tells when the record is gone
            }
            return self.hold(id, &entry, false).await;
        }
        if (entry.policy == DeletionPolicy::Delete) != entry.held {
            return self.hold(id, &entry, entry.policy == DeletionPolicy::Delete).await;
        }
        if self.options.mirror == Mirror::Off {
            return Ok(Next::Done);
        }
        if let Some(refusal) = &entry.refusal {
            // The record may have gone while nobody followed the log.
            if entry.is_refused_for_a_record() && !record.as_ref().is_some_and(Record::was_never_a_manifests) {
                self.again.add(id);
                return Ok(Next::Done);
            }
            let mut status = refused(refusal);
            if let Some(record) = record.filter(|record| record.is_of(entry.uid))
                && let Some(shown) = record.status(entry.generation)
            {
                let mut shown = shown.json();
                // What the record still holds is shown beside why the manifest's news were not taken over.
                let conditions = status["conditions"].take();
                shown["observedGeneration"] = status["observedGeneration"].take();
                let kept = shown["conditions"].as_array().cloned().unwrap_or_default().into_iter();
                let kept = kept.filter(|condition| condition["type"] != "Ready" && condition["type"] != "Stalled");
                shown["conditions"] = conditions.as_array().cloned().unwrap_or_default().into_iter().chain(kept).collect();
                status = shown;
            }
            let number = shown::status(id.kind, &status);
            return self.write_status(id, &entry, (status, number)).await;
        }
        match record {
            Some(record) if record.is_of(entry.uid) => self.show(id, &entry, &record).await,
            Some(record) if entry.taken && record.is_of_another(entry.uid) => {
                self.was_taken_away(id, &entry);
                Ok(Next::Done)
            }
            // Not taken over yet, or its record went another way.
            Some(_) | None => {
                self.again.add(id);
                Ok(Next::Done)
            }
        }
    }

    /// The record of a manifest that is as it was is now another's: another cluster has one of the same name. They do not fight for it
    /// as fast as they can.
    fn was_taken_away(&self, id: &Id, entry: &Entry) {
        let message = "its record was taken over by a manifest of another cluster: a database belongs to one cluster";
        tracing::warn!(object = %id, "{message}");
        self.tell(id, entry.uid, "TakenByAnother", message, true);
        self.again.add_after(id, TAKEN_AWAY);
    }

    /// Writes the status of a record, if another one is shown.
    async fn show(&self, id: &Id, entry: &Entry, record: &Record) -> Result<Next, MirrorError> {
        let Some(status) = record.status(entry.generation) else { return Ok(Next::Done) };
        let number = status.number();
        if number == entry.status {
            METRICS.mirror_skipped();
            return Ok(Next::Done);
        }
        if record.is_in_motion() && !self.waited(id) {
            return Ok(Next::After(MOTION));
        }
        self.write_status(id, entry, (status.json(), number)).await
    }

    /// Whether an object has been waited for already; the next time it is not again.
    pub(super) fn waited(&self, id: &Id) -> bool {
        let mut waited = self.waited.lock().expect("no holder of this lock panics");
        if waited.remove(id) {
            return true;
        }
        waited.insert(id.clone());
        false
    }
}
