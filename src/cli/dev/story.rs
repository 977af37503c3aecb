//! Each transition as a sentence, as it happens: `demo drifted: AGENTS.md changed, +3 −1`.

use crate::{
    model::{
        drift::{Change, ChangeKind, Drift},
        event::EventKind,
        hash::ContentHash,
        object::Key,
        resource::ResourceMeta,
        snapshot::SnapshotWithManifest,
    },
    store::{
        self, StoreError,
        events::{Cursor, Logged, Read, read_after},
        log,
    },
    wake::Wake,
};
use similar::{ChangeTag, TextDiff};
use sqlx::{PgConnection, PgPool};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How many events are read at once.
const BATCH: i64 = 200;
/// How often to look when nobody says anything.
const LOOK: Duration = Duration::from_millis(500);
/// How many resources a sentence names.
const NAMED: usize = 3;

/// Tells what happens in a namespace.
pub(super) struct Story {
    namespace: String,
    cursor: Cursor,
}

impl Story {
    /// From what is in the log by now.
    pub(super) async fn from_now(pool: &PgPool, namespace: &str) -> Result<Self, StoreError> {
        let mut connection = store::acquire(pool).await?;
        let cursor = Cursor::through(log::list_version(&mut connection).await?);
        Ok(Self { namespace: namespace.to_owned(), cursor })
    }

    /// Tells until `stop`.
    pub(super) async fn tell(mut self, pool: PgPool, wake: Wake, stop: CancellationToken) {
        let mut hints = wake.on_events();
        while !stop.is_cancelled() {
            hints.mark_unchanged(); // registered before it looks
            match self.look(&pool).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "reading the log failed; it is tried again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
                _ = hints.changed() => {}
            }
        }
    }

    async fn look(&mut self, pool: &PgPool) -> Result<bool, StoreError> {
        let mut connection = store::acquire(pool).await?;
        let events = match read_after(&mut connection, self.cursor, BATCH).await? {
            Read::Batch(batch) => batch.events,
            Read::Expired => {
                self.cursor = Cursor::through(log::list_version(&mut connection).await?);
                return Ok(true);
            }
        };
        for event in &events {
            self.cursor = event.cursor;
            if event.namespace == self.namespace
                && let Some(sentence) = sentence(&mut connection, event).await?
            {
                println!("{sentence}");
            }
        }
        Ok(!events.is_empty())
    }
}

async fn sentence(connection: &mut PgConnection, event: &Logged) -> Result<Option<String>, StoreError> {
    let text = |key: &str| event.payload.get(key).and_then(|value| value.as_str()).unwrap_or("?");
    let name = &event.name;
    Ok(match event.kind {
        EventKind::ChatCreated => Some(format!("{name} was created")),
        EventKind::ChatDeleted => Some(format!("{name} was deleted")),
        EventKind::ContextHydrated => Some(format!("{name} was hydrated: pinned to {}", text("toSnapshot"))),
        EventKind::ContextDrifted => Some(format!("{name} drifted: {}", differences(connection, event).await?)),
        EventKind::ContextConverged if text("toSnapshot") == "?" => {
            Some(format!("{name} is not compared any more: there is no agent, or no snapshot of it, to compare with"))
        }
        EventKind::ContextConverged => Some(format!("{name} is clean again: its agent is back at {}", text("toSnapshot"))),
        EventKind::ContextRefreshed if text("from") == text("to") => {
            Some(format!("{name} was refreshed: it was up to date at {}", text("toSnapshot")))
        }
        EventKind::ContextRefreshed => {
            Some(format!("{name} was refreshed to {}: {}", text("toSnapshot"), differences(connection, event).await?))
        }
        EventKind::AgentRebound => Some(format!("{name} was rebound to {} of agent {}", text("toSnapshot"), text("agent"))),
        EventKind::ContextCleared => Some(format!("{name} let its pin go: it names no agent")),
        EventKind::AgentCreated => Some(format!("agent {name} was created")),
        EventKind::AgentDeleted => Some(format!("agent {name} was deleted; its chats keep their pins")),
        EventKind::SnapshotAccepted => Some(format!("agent {} reported a new context: {name}", text("agent"))),
        EventKind::ChatUpdated | EventKind::AgentUpdated | EventKind::SnapshotDeleted => None,
    })
}

/// What changed, with lines added and removed when the contents are at hand.
async fn differences(connection: &mut PgConnection, event: &Logged) -> Result<String, StoreError> {
    let Some(drift) = event.payload.get("drift").and_then(|drift| serde_json::from_value::<Drift>(drift.clone()).ok()) else {
        return Ok("another context".to_owned());
    };
    let mut sides = Vec::new();
    for side in ["fromSnapshot", "toSnapshot"] {
        let name = event.payload.get(side).and_then(|name| name.as_str()).unwrap_or_default();
        sides.push(store::snapshots::get(connection, &Key::new(&event.namespace, name)).await?);
    }
    let mut words = Vec::new();
    for change in drift.resources.iter().take(NAMED) {
        let verb = match change.change {
            ChangeKind::Added => "added",
            ChangeKind::Changed => "changed",
            ChangeKind::Removed => "removed",
        };
        let lines = match (&sides[0], &sides[1], change.change) {
            (Some(from), Some(to), ChangeKind::Changed) => lines(connection, change, from, to).await?,
            _ => None,
        };
        words.push(match lines {
            Some((added, removed)) => format!("{} {verb}, +{added} −{removed}", change.source),
            None => format!("{} {verb}", change.source),
        });
    }
    if drift.total() > NAMED {
        words.push(format!("and {} more", drift.total() - NAMED));
    }
    Ok(words.join("; "))
}

async fn lines(
    connection: &mut PgConnection,
    change: &Change,
    from: &SnapshotWithManifest,
    to: &SnapshotWithManifest,
) -> Result<Option<(usize, usize)>, StoreError> {
    let mut texts = Vec::new();
    for side in [from, to] {
        let resource = side.manifest.iter().find(|resource| (resource.kind, &resource.source) == (change.kind, &change.source));
        let Some(hash) = resource.and_then(|resource: &ResourceMeta| resource.content_hash) else { return Ok(None) };
        let hashes: [ContentHash; 1] = [hash];
        let snapshot = &side.snapshot;
        let mut bodies = store::snapshots::bodies(connection, &snapshot.namespace, snapshot.agent_id, &hashes).await?;
        match bodies.remove(&hash).map(String::from_utf8) {
            Some(Ok(text)) => texts.push(text),
            Some(Err(_)) | None => return Ok(None),
        }
    }
    let diff = TextDiff::from_lines(&texts[0], &texts[1]);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    Ok(Some((count(ChangeTag::Insert), count(ChangeTag::Delete))))
}
