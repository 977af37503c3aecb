//! What is written to the cluster: one request each, within its time, when it is its turn, and only by the holder.

use super::{CONTROLLER, MIRROR, error::MirrorError, settle::Next};
use crate::{
    kubernetes::{
        Shared, apply,
        kind::{FINALIZER, Id},
        owned,
        seen::{Entry, OWNED_BY_API},
        wanted::Record,
    },
    metrics::METRICS,
};
use kube::{
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::DynamicObject,
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// How long one request may take.
pub(super) const REQUEST: Duration = Duration::from_secs(20);
/// When an object is looked at again that is gone though it was seen.
const GONE: Duration = Duration::from_millis(250);
/// When a namespace that the cluster does not have is asked for again.
const NO_NAMESPACE: Duration = Duration::from_mins(1);

impl Shared {
    /// Writes a status, which is this number when it is compared, if another one is shown.
    pub(super) async fn write_status(&self, id: &Id, entry: &Entry, (status, number): (Value, u64)) -> Result<Next, MirrorError> {
        self.waited.lock().expect("no holder of this lock panics").remove(id);
        if number == entry.status {
            METRICS.mirror_skipped();
            return Ok(Next::Done);
        }
        let request = apply::status(&self.client, id, entry, &status);
        match self.request("patch", format!("{}/status", id.kind.plural()), request).await {
            Ok(version) => {
                METRICS.mirrored();
                if let Some(version) = version {
                    self.seen.answered(id, Entry { version, status: number, ..entry.clone() });
                }
                Ok(Next::Done)
            }
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// Makes an object of a record.
    pub(super) async fn make(&self, id: &Id, record: &Record) -> Result<Next, MirrorError> {
        if let Some(pause) = self.absent(&id.key.namespace) {
            return Ok(Next::After(pause));
        }
        let object: DynamicObject = serde_json::from_value(record.object()).expect("it has a kind, a name and a spec");
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let params = PostParams { field_manager: Some(MIRROR.into()), dry_run: false };
        match self.request("create", id.kind.plural().to_owned(), api.create(&params, &object)).await {
            // The watch brings it, and then its status is written.
            Ok(_) => {
                METRICS.mirrored();
                self.absent.lock().expect("no holder of this lock panics").remove(&id.key.namespace);
                Ok(Next::Done)
            }
            Err(error) if error.is_conflict() => Ok(Next::Done), // there is one: the watch brings it
            Err(error) if error.is_not_found() => {
                tracing::debug!(object = %id, "the cluster has no such namespace");
                let mut absent = self.absent.lock().expect("no holder of this lock panics");
                absent.insert(id.key.namespace.clone(), Instant::now() + NO_NAMESPACE);
                Ok(Next::After(NO_NAMESPACE))
            }
            Err(error) => Err(error),
        }
    }

    /// How long a namespace is not asked for, because the cluster did not have it. The first who comes when that is over asks for
    /// all who wait.
    fn absent(&self, namespace: &str) -> Option<Duration> {
        let mut absent = self.absent.lock().expect("no holder of this lock panics");
        let now = Instant::now();
        let until = absent.get_mut(namespace)?;
        if *until > now {
            return Some(*until - now);
        }
        *until = now + REQUEST;
        None
    }

    /// Makes the spec and the labels of an object of ours what its record's are again. Who has changed the spec is told so.
    pub(super) async fn respecify(&self, id: &Id, entry: &Entry, record: &Record) -> Result<(), MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let request = async {
            let there = api.get(&id.key.name).await?;
            let (mut spec, wanted) = (serde_json::Map::new(), record.spec());
            for field in there.data.get("spec").and_then(Value::as_object).into_iter().flat_map(|spec| spec.keys()) {
                spec.insert(field.clone(), Value::Null);
            }
            spec.extend(wanted.as_object().cloned().unwrap_or_default());
            let mut labels: serde_json::Map<_, _> =
                owned::labels(&there.metadata).into_keys().map(|label| (label, Value::Null)).collect();
            labels.extend(record.labels().into_iter().flatten().map(|(label, value)| (label.clone(), json!(value))));
            let patch = json!({
                "metadata": {"uid": entry.uid, "resourceVersion": entry.version.to_string(), "labels": labels}, "spec": spec,
            });
            let params = PatchParams { field_manager: Some(MIRROR.into()), ..PatchParams::default() };
            let theirs = owned::spec_of_others(&there.metadata).any(|field| there.data["spec"][field] != wanted[field]);
            Ok::<_, kube::Error>((api.patch(&id.key.name, &params, &Patch::Merge(&patch)).await?, theirs))
        };
        let (object, theirs) = self.request("patch", id.kind.plural().to_owned(), request).await?;
        if theirs {
            let message = "its spec was set back: its record was made through the API, and no manifest changes it";
            self.tell(id, entry.uid, OWNED_BY_API, message, true);
        }
        if self.written(id, &object).is_some_and(|entry| record.has_spec(&entry)) {
            self.queue.add(id);
        }
        Ok(())
    }

    /// Removes an object of ours whose record is gone.
    pub(super) async fn remove(&self, id: &Id, entry: &Entry) -> Result<Next, MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let uid = Some(entry.uid.to_string());
        let params =
            DeleteParams::default().preconditions(Preconditions { uid, resource_version: Some(entry.version.to_string()) });
        match self.request("delete", id.kind.plural().to_owned(), api.delete(&id.key.name, &params)).await {
            Ok(_) => Ok(Next::Done),
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// Puts our finalizer on a manifest, or takes it off.
    pub(super) async fn hold(&self, id: &Id, entry: &Entry, held: bool) -> Result<Next, MirrorError> {
        let api = id.kind.api(&self.client, Some(&id.key.namespace));
        let request = async {
            let there = api.get(&id.key.name).await?;
            let mut finalizers = there.metadata.finalizers.unwrap_or_default();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            if held {
                finalizers.push(FINALIZER.into());
            }
            let version = entry.version.to_string();
            let patch = json!({"metadata": {"uid": entry.uid, "resourceVersion": version, "finalizers": finalizers}});
            let params = PatchParams { field_manager: Some(CONTROLLER.into()), ..PatchParams::default() };
            api.patch(&id.key.name, &params, &Patch::Merge(&patch)).await
        };
        match self.request("patch", id.kind.plural().to_owned(), request).await {
            Ok(object) => {
                let there = self.written(id, &object).filter(|entry| entry.deleting.is_none());
                if let Some(entry) = there
                    && self.look(id, &entry, &object).await
                {
                    self.again.failed(id, self.clock.random());
                }
                Ok(Next::Done)
            }
            Err(error) if error.is_not_found() => Ok(self.is_gone(id, entry)),
            Err(error) => Err(error),
        }
    }

    /// Notes what a write of ours was answered, so that its echo is known. Answers with what is there now, if it is.
    fn written(&self, id: &Id, object: &DynamicObject) -> Option<Entry> {
        METRICS.mirrored();
        Entry::of(id.kind, object).filter(|entry| self.seen.answered(id, entry.clone()))
    }

    /// There is no such object, whatever was seen.
    pub(super) fn is_gone(&self, id: &Id, entry: &Entry) -> Next {
        self.seen.forget(id, entry.uid);
        Next::After(GONE)
    }

    /// One request, within its time, when the bucket has a token for it and while this replica may write.
    async fn request<T>(
        &self,
        verb: &'static str,
        what: String,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, MirrorError> {
        self.bucket.take().await;
        // Waiting for a turn may take longer than the Lease is held.
        if !self.may_write() {
            return Err(MirrorError::Standby { verb, what });
        }
        match tokio::time::timeout(REQUEST, request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                if let kube::Error::Api(status) = &source
                    && status.code == 429
                {
                    let seconds = status.details.as_ref().map_or(1, |details| details.retry_after_seconds);
                    self.bucket.pause(Duration::from_secs(u64::from(seconds).clamp(1, 30)));
                }
                Err(MirrorError::Cluster { verb, what, source: Box::new(source) })
            }
            Err(_) => Err(MirrorError::Slow { verb, what }),
        }
    }
}
