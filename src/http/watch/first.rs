//! The objects that there are when a watch begins, by the piece.

use super::asked::Selection;
use crate::{
    http::{status::Resource, tail::change::Object},
    model::{access::Reach, object::Key, snapshot::SnapshotWithManifest},
    store::{
        self, StoreError,
        across::objects::{self, OwnedSnapshot},
        lists::Slice,
    },
};
use sqlx::PgConnection;

/// How many objects are read at once.
pub const PIECE: i64 = 200;

/// The next objects of a kind, in the order of their keys.
pub async fn list_piece(
    connection: &mut PgConnection,
    resource: Resource,
    reach: &Reach,
    selection: &Selection,
    after: Option<&Key>,
) -> Result<Vec<Object>, StoreError> {
    let namespace = selection.namespace();
    let slice = Slice { namespace, labels: selection.labels(), fields: selection.fields(), limit: PIECE };
    Ok(match resource {
        Resource::Chats => {
            let rows = store::lists::chats(connection, reach, &slice, after).await?;
            rows.into_iter().map(|view| Object::Chat(Box::new(view))).collect()
        }
        Resource::Agents => {
            let rows = store::lists::agents(connection, reach, &slice, after).await?;
            rows.into_iter().map(|view| Object::Agent(Box::new(view))).collect()
        }
        Resource::AgentSnapshots => {
            let rows = store::lists::snapshots(connection, reach, &slice, after).await?;
            let keys: Vec<Key> = rows.iter().map(|row| Key::new(&row.namespace, &row.name)).collect();
            let mut whole = objects::snapshots(connection, &keys).await?;
            whole.sort_by(|a, b| {
                Key::new(&a.found.snapshot.namespace, &a.found.snapshot.name)
                    .cmp(&Key::new(&b.found.snapshot.namespace, &b.found.snapshot.name))
            });
            // One that retention took between the two statements is kept as the list found it, so that a piece stays whole.
            let found = rows.into_iter().map(|row| {
                let key = Key::new(&row.namespace, &row.name);
                whole
                    .iter()
                    .find(|owned| Key::new(&owned.found.snapshot.namespace, &owned.found.snapshot.name) == key)
                    .cloned()
                    .unwrap_or_else(|| OwnedSnapshot {
                        found: SnapshotWithManifest { snapshot: row, manifest: Vec::new() },
                        service_account: reach.user().map(ToOwned::to_owned),
                    })
            });
            found.map(|owned| Object::Snapshot(Box::new(owned))).collect()
        }
    })
}
