//! What the cluster was last seen to hold: for each object a few numbers, never the object. Beside PostgreSQL, which says what
//! should be there, this is all that the mirror compares; it is made anew by every list.

mod names;

use super::{
    kind::{FINALIZER, Id, Kind, SOURCE_ANNOTATION, SOURCE_API},
    owned, shown,
};
use crate::model::{fault::Fault, object::DeletionPolicy};
use jiff::Timestamp;
use kube::core::{DynamicObject, Resource as _};
use names::Names;
use serde_json::Value;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};
use uuid::Uuid;

/// An object, as last seen.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them go together")]
pub struct Entry {
    /// Its uid in the cluster.
    pub uid: Uuid,
    /// Its resourceVersion, which grows.
    pub version: u64,
    /// Its generation.
    pub generation: i64,
    /// Its labels and annotations, as a number.
    pub texts: u64,
    /// Its spec, as a number.
    pub spec: u64,
    /// The labels of an object that the mirror made, but for those of others, as a number.
    pub labels: u64,
    /// Its status, as a number.
    pub status: u64,
    /// Whether the mirror made it.
    pub mirrored: bool,
    /// Whether it has our finalizer.
    pub held: bool,
    /// What its deletion does to the record.
    pub policy: DeletionPolicy,
    /// Since when it is being deleted.
    pub deleting: Option<Timestamp>,
    /// Whether its deletion leaves what is below it.
    pub orphans: bool,
    /// Why it was not taken over.
    pub refusal: Option<Arc<Refusal>>,
    /// Whether its deletion is no longer waited with: the record stays.
    pub abandoned: bool,
    /// Whether what it says was taken over since it was first seen.
    pub taken: bool,
}

/// How a state of an object stands to what is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing else is known.
    Latest,
    /// It says something else by now.
    Outdated,
    /// It is gone, or another one has its name.
    Gone,
}

/// The reason of a refusal for a record that was made through the API.
pub const OWNED_BY_API: &str = "OwnedByApi";

/// Why a manifest was not taken over.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// One CamelCase word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
    /// Since when this is so, or of which generation.
    pub since: Timestamp,
    /// The generation that was refused.
    pub generation: i64,
}

impl Refusal {
    /// What is wrong with a manifest, in a sentence.
    pub fn faults(faults: &[Fault]) -> String {
        faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect::<Vec<_>>().join("; ")
    }
}

impl Entry {
    /// Of an object as the cluster gave it; none when it lacks what every object of a cluster has.
    pub fn of(kind: Kind, object: &DynamicObject) -> Option<Self> {
        let meta = object.meta();
        let annotation = meta.annotations.as_ref().and_then(|annotations| annotations.get(SOURCE_ANNOTATION));
        let finalizers = meta.finalizers.as_deref().unwrap_or_default();
        let null = Value::Null;
        let spec = object.data.get("spec").unwrap_or(&null);
        // The mirror's own objects never have it: with it an object is a manifest, whatever its annotation says.
        let held = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        let mirrored = !held && annotation.is_some_and(|source| source == SOURCE_API);
        let retain = spec.get("deletionPolicy").and_then(Value::as_str) == Some(DeletionPolicy::Retain.as_str());
        Some(Self {
            uid: meta.uid.as_deref()?.parse().ok()?,
            version: meta.resource_version.as_deref()?.parse().ok()?,
            generation: meta.generation.unwrap_or_default(),
            texts: shown::texts(meta.labels.as_ref(), meta.annotations.as_ref()),
            spec: shown::spec(kind, spec),
            status: shown::status(kind, object.data.get("status").unwrap_or(&null)),
            labels: if mirrored { shown::labels(&owned::labels(meta)) } else { 0 },
            mirrored,
            held,
            policy: if retain { DeletionPolicy::Retain } else { DeletionPolicy::Delete },
            deleting: meta.deletion_timestamp.as_ref().map(|at| at.0),
            orphans: finalizers.iter().any(|finalizer| finalizer == "orphan"),
            refusal: None,
            abandoned: false,
            taken: false,
        })
    }

    /// Takes what was seen now, unless something newer is known. Answers whether that says anything new.
    fn becomes(&mut self, mut entry: Self) -> bool {
        let same_object = self.uid == entry.uid;
        if same_object && self.version >= entry.version {
            return false;
        }
        if same_object {
            entry.refusal = self.refusal.take();
            (entry.abandoned, entry.taken) = (self.abandoned, self.taken);
            self.refusal.clone_from(&entry.refusal);
        }
        self.version = entry.version;
        let news = *self != entry;
        *self = entry;
        news
    }

    /// Of a manifest that is nowhere: all that is known is its uid.
    pub fn vanished(uid: Uuid) -> Self {
        Self {
            uid,
            version: 0,
            generation: 0,
            texts: 0,
            spec: 0,
            labels: 0,
            status: 0,
            mirrored: false,
            held: false,
            policy: DeletionPolicy::Retain,
            deleting: None,
            orphans: false,
            refusal: None,
            abandoned: false,
            taken: false,
        }
    }

    /// Whether the record of its name is none of its business.
    pub fn is_refused_for_a_record(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.reason == OWNED_BY_API)
    }

    /// Whether this asks for the same as another state of the same object: what it shows may differ.
    fn asks_the_same(&self, other: &Self) -> bool {
        let asked = |it: &Self| (it.texts, it.spec, it.mirrored, it.held, it.policy, it.deleting, it.orphans);
        asked(self) == asked(other)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Names<Entry>>);

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Names<Entry>> {
        self.0.lock().expect("no holder of this lock panics")
    }

    /// What is known of an object.
    pub fn get(&self, id: &Id) -> Option<Entry> {
        self.lock().get(id).cloned()
    }

    /// Whether this state of an object, or a newer one, is known: without looking at what it says.
    pub fn has(&self, id: &Id, object: &DynamicObject) -> bool {
        let meta = object.meta();
        let (Some(Ok(uid)), Some(Ok(version))) =
            (meta.uid.as_deref().map(str::parse::<Uuid>), meta.resource_version.as_deref().map(str::parse::<u64>))
        else {
            return false;
        };
        self.lock().get(id).is_some_and(|known| known.uid == uid && known.version >= version)
    }

    /// Notes an object, unless something newer is known of it. A refusal outlives what does not change what was refused.
    /// Answers whether there is anything to look at: an echo of our own write has nothing new.
    pub fn note(&self, id: &Id, entry: Entry) -> bool {
        let mut all = self.lock();
        if let Some(known) = all.get_mut(id) {
            return known.becomes(entry);
        }
        all.insert(id, entry);
        true
    }

    /// Notes what a write of ours was answered. Of an object that is gone meanwhile, or is another one by now, nothing is noted: the
    /// watch has told of it already, and does not tell again. Answers whether it is there.
    pub fn answered(&self, id: &Id, entry: Entry) -> bool {
        let mut all = self.lock();
        let Some(known) = all.get_mut(id).filter(|known| known.uid == entry.uid) else { return false };
        known.becomes(entry);
        true
    }

    /// How a state of an object stands to what is known now.
    pub fn standing(&self, id: &Id, entry: &Entry) -> Standing {
        match self.lock().get(id) {
            Some(known) if known.uid != entry.uid => Standing::Gone,
            Some(known) if known.version > entry.version && !known.asks_the_same(entry) => Standing::Outdated,
            Some(_) => Standing::Latest,
            None => Standing::Gone,
        }
    }

    /// Notes why an object was not taken over, or that it was.
    pub fn refuse(&self, id: &Id, uid: Uuid, refusal: Option<Refusal>) -> bool {
        let mut all = self.lock();
        let Some(known) = all.get_mut(id).filter(|known| known.uid == uid) else { return false };
        let refusal = refusal.map(|new| match &known.refusal {
            // The time of a transition is that of the first refusal for this reason.
            Some(old) if old.reason == new.reason => Refusal { since: old.since, ..new },
            Some(_) | None => new,
        });
        let changed = known.refusal.as_deref() != refusal.as_ref();
        known.taken = refusal.is_none();
        known.refusal = refusal.map(Arc::new);
        changed
    }

    /// The deletion of an object is no longer waited with.
    pub fn abandon(&self, id: &Id, uid: Uuid) {
        if let Some(known) = self.lock().get_mut(id).filter(|known| known.uid == uid) {
            known.abandoned = true;
        }
    }

    /// Whether the deletion of an object is no longer waited with, or the object is gone.
    pub fn is_abandoned(&self, id: &Id, uid: Uuid) -> bool {
        self.lock().get(id).is_none_or(|known| known.uid != uid || known.abandoned)
    }

    /// An object is gone.
    pub fn forget(&self, id: &Id, uid: Uuid) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|known| known.uid == uid) {
            all.remove(id);
        }
    }

    /// An object is gone, whichever it was.
    pub fn forget_any(&self, id: &Id) {
        self.lock().remove(id);
    }

    /// Nothing is known any more of a kind, in a namespace or in all.
    pub fn forget_all(&self, kind: Kind, namespace: Option<&str>) {
        for id in self.ids(kind, namespace) {
            self.forget_any(&id);
        }
    }

    /// All that are known of a kind, in a namespace or in all.
    pub fn ids(&self, kind: Kind, namespace: Option<&str>) -> HashSet<Id> {
        self.lock().ids(kind, namespace).collect()
    }

    /// How many objects are known.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
