//! The objects that there are when a watch begins, by the piece.

use super::asked::Selection;
use crate::{
    http::{status::Resource, tail::change::Object},
    model::{
        access::Reach,
        object::Key,
        snapshot::{Snapshot, SnapshotWithManifest},
    },
    store::{
        self, StoreError,
        across::objects::{self, OwnedSnapshot},
        lists::Slice,
    },
};
use sqlx::PgConnection;
use std::collections::HashMap;

/// How many objects are read at once.
pub const PIECE: i64 = 200;

/// How many snapshots are read at once with their manifests.
const MANIFESTS: usize = 8;

/// The next objects of a kind, in the order of their keys, about as many as fit into `room` bytes; and whether these are the last.
pub async fn list_piece(
    connection: &mut PgConnection,
    resource: Resource,
    reach: &Reach,
    selection: &Selection,
    after: Option<&Key>,
    room: usize,
) -> Result<(Vec<Object>, bool), StoreError> {
    let namespace = selection.namespace();
    let slice = Slice { namespace, labels: selection.labels(), fields: selection.fields(), limit: PIECE };
    let all = |found: usize| i64::try_from(found).is_ok_and(|found| found < PIECE);
    Ok(match resource {
        Resource::Chats => {
            let rows = store::lists::chats(connection, reach, &slice, after).await?;
            let all = all(rows.len());
            (rows.into_iter().map(|view| Object::Chat(Box::new(view))).collect(), all)
        }
        Resource::Agents => {
            let rows = store::lists::agents(connection, reach, &slice, after).await?;
            let all = all(rows.len());
            (rows.into_iter().map(|view| Object::Agent(Box::new(view))).collect(), all)
        }
        Resource::AgentSnapshots => {
            let rows = store::lists::snapshots(connection, reach, &slice, after).await?;
            let mut all = all(rows.len());
            let mut rows = rows.into_iter().peekable();
            let (mut found, mut size) = (Vec::new(), 0);
            while rows.peek().is_some() {
                if size >= room {
                    all = false;
                    break;
                }
                let group: Vec<Snapshot> = rows.by_ref().take(MANIFESTS).collect();
                for owned in whole(connection, reach, group).await? {
                    size += serde_json::to_vec(&owned.found.manifest).map_or(0, |manifest| manifest.len());
                    found.push(Object::Snapshot(Box::new(owned)));
                }
            }
            (found, all)
        }
    })
}

/// Snapshots with their manifests, in their order. One that retention took between the two statements is kept as the list found
/// it, so that a piece stays whole.
async fn whole(connection: &mut PgConnection, reach: &Reach, group: Vec<Snapshot>) -> Result<Vec<OwnedSnapshot>, StoreError> {
    let key = |snapshot: &Snapshot| Key::new(&snapshot.namespace, &snapshot.name);
    let keys: Vec<Key> = group.iter().map(key).collect();
    let whole = objects::snapshots(connection, &keys).await?;
    let mut whole: HashMap<Key, OwnedSnapshot> = whole.into_iter().map(|owned| (key(&owned.found.snapshot), owned)).collect();
    let found = group.into_iter().map(|row| {
        whole.remove(&key(&row)).unwrap_or_else(|| OwnedSnapshot {
            found: SnapshotWithManifest { snapshot: row, manifest: Vec::new() },
            service_account: reach.user().map(ToOwned::to_owned),
        })
    });
    Ok(found.collect())
}
