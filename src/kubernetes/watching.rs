//! One watch of one kind: what the cluster lists and tells is handed on, and what was there and is not any more is looked for. It
//! begins anew when it is not answered, or when the cluster is another one than it was.

use super::{
    Shared,
    connect::Cluster,
    follow::CHECK,
    kind::{Id, Kind},
    owned,
};
use futures::StreamExt as _;
use kube::{
    core::DynamicObject,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, watcher},
    },
};
use std::{collections::HashSet, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

/// Objects in one page of a list, and at most in one look at a watch.
const PAGE: u32 = 100;
/// When records without a manifest are looked for again, after that failed.
const OWED: Duration = Duration::from_secs(2);
/// How long a watch may ask nothing of the cluster: it is ended, and asked for again, within five minutes. After that the request
/// has got lost.
const SILENCE: Duration = Duration::from_mins(6);

impl Shared {
    /// Follows one kind of object in the cluster until `stop`. What goes wrong with the watch is logged once a minute at most.
    pub(super) async fn watch(self, kind: Kind, namespace: Option<String>, cluster: Cluster, stop: CancellationToken) {
        let task = match &namespace {
            Some(namespace) => format!("watch of {} in {namespace}", kind.plural()),
            None => format!("watch of {}", kind.plural()),
        };
        let config = watcher::Config::default().page_size(PAGE);
        // A watch that has nothing to say is alive too: it ends and is asked for again, within five minutes.
        let (liveness, alive) = (self.liveness.clone(), task.clone());
        let client = match cluster.client_that_tells(move || liveness.alive(&alive)) {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(%error, "there is no {task}");
                return;
            }
        };
        let api = kind.api(&client, namespace.as_deref());
        let begin = || {
            let stream = watcher(api.clone(), config.clone());
            let stream = stream.modify(|object: &mut DynamicObject| owned::trim(&mut object.metadata));
            stream.default_backoff().ready_chunks(PAGE as usize).boxed()
        };
        let mut stream = begin();
        let mut histories = self.lease.histories();
        let mut history = *histories.borrow_and_update();
        // What was known when a list began and has not been in it yet.
        let mut missing: Option<HashSet<Id>> = None;
        let mut quiet_until = Instant::now();
        // When the records of manifests that no list had are looked for.
        let mut owed: Option<Instant> = None;
        self.liveness.alive(&task);
        loop {
            let events = tokio::select! {
                () = stop.cancelled() => break,
                () = sleep_until(owed.unwrap_or_else(Instant::now)), if owed.is_some() => {
                    owed = self.look_for_vanished(kind, namespace.as_deref()).await.err().map(|error| {
                        tracing::debug!(%error, kind = kind.plural(), "records without a manifest could not be looked for yet");
                        Instant::now() + OWED
                    });
                    continue;
                }
                () = sleep(CHECK) => {
                    if self.liveness.silence(&task) > SILENCE {
                        tracing::warn!("the {task} was not answered for {} s; it begins anew", SILENCE.as_secs());
                        stream = begin();
                    }
                    continue;
                }
                Ok(()) = histories.changed() => {
                    history = *histories.borrow_and_update();
                    // What was seen says nothing of what there is.
                    self.seen.forget_all(kind, namespace.as_deref());
                    stream = begin();
                    continue;
                }
                events = stream.next() => events,
            };
            self.liveness.alive(&task);
            let Some(events) = events else { break };
            let mut objects = Vec::new();
            for event in events {
                match event {
                    Ok(watcher::Event::Init) => missing = Some(self.seen.ids(kind, namespace.as_deref())),
                    Ok(watcher::Event::InitApply(object)) => {
                        if let (Some(missing), Some(id)) = (&mut missing, Id::of(kind, &object)) {
                            missing.remove(&id);
                        }
                        objects.push(object);
                    }
                    Ok(watcher::Event::Apply(object)) => objects.push(object),
                    Ok(watcher::Event::Delete(object)) => {
                        self.saw(kind, std::mem::take(&mut objects), &task).await;
                        self.gone(kind, &object).await;
                    }
                    Ok(watcher::Event::InitDone) => {
                        self.saw(kind, std::mem::take(&mut objects), &task).await;
                        if let Some(missing) = missing.take() {
                            for id in missing {
                                self.seen.forget_any(&id);
                                self.queue.add(&id);
                            }
                            owed = Some(Instant::now());
                            self.listed.send_modify(|listed| _ = listed.of(history).map(|listed| listed.has(&task)));
                        }
                    }
                    Err(error) => {
                        crate::metrics::METRICS.watch_failed(kind.plural());
                        if is_refused(&error) {
                            self.listed.send_modify(|listed| _ = listed.of(history).map(|listed| listed.has_refused(&task)));
                        }
                        if Instant::now() >= quiet_until {
                            quiet_until = Instant::now() + Duration::from_mins(1);
                            tracing::warn!(error = crate::telemetry::reasons(&error), "the {task} failed; it is tried again");
                        }
                    }
                }
            }
            self.saw(kind, objects, &task).await;
        }
        self.liveness.ended(&task);
    }
}

/// Whether the cluster has answered that there is no list for us, so that none is to be waited for.
fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status)) => matches!(status.code, 403 | 404),
        _ => false,
    }
}
