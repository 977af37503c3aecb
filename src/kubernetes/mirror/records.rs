//! What PostgreSQL holds of the objects that the mirror looks at.

use crate::{
    kubernetes::{
        Shared,
        kind::{Id, Kind},
        seen::Entry,
        wanted::Record,
    },
    model::object::Key,
    store::{self, StoreError, across::objects, manifests},
};
use sqlx::PgConnection;
use std::collections::HashMap;

impl Shared {
    /// The records of these objects, as they stand at one moment: what they show must fit together.
    pub(in crate::kubernetes) async fn records(
        &self,
        entries: &[(Id, Option<Entry>)],
    ) -> Result<HashMap<Id, Record>, StoreError> {
        let mut connection = store::acquire_whole(&self.pool).await?;
        let read = store::patiently(store::PATIENCE, Self::read(&mut connection, entries)).await;
        if read.is_ok() {
            connection.give_back(); // else it may never answer, and is closed
        }
        read
    }

    async fn read(connection: &mut PgConnection, entries: &[(Id, Option<Entry>)]) -> Result<HashMap<Id, Record>, StoreError> {
        let keys = |kind| entries.iter().filter(|(id, _)| id.kind == kind).map(|(id, _)| id.key.clone()).collect::<Vec<Key>>();
        let mut connection = store::moment_on(connection).await?;
        let mut found = Vec::new();
        let (chats, agents, snapshots) = (keys(Kind::Chat), keys(Kind::Agent), keys(Kind::Snapshot));
        if !chats.is_empty() {
            let mut origins = manifests::of_chats_named(&mut connection, &chats).await?;
            let views = objects::chats_named(&mut connection, &chats).await?;
            found.extend(views.into_iter().filter_map(|view| {
                let key = Key::new(&view.chat.meta.namespace, &view.chat.meta.name);
                Some(Record::Chat(Box::new(view), origins.remove(&key)?))
            }));
        }
        if !agents.is_empty() {
            let mut origins = manifests::of_agents_named(&mut connection, &agents).await?;
            let views = objects::agents_named(&mut connection, &agents).await?;
            found.extend(views.into_iter().filter_map(|view| {
                let key = Key::new(&view.agent.meta.namespace, &view.agent.meta.name);
                Some(Record::Agent(Box::new(view), origins.remove(&key)?))
            }));
        }
        if !snapshots.is_empty() {
            let owned = objects::snapshots(&mut connection, &snapshots).await?;
            let of = |owned: &objects::OwnedSnapshot| (owned.found.snapshot.namespace.clone(), owned.found.snapshot.agent_id);
            let (namespaces, agents): (Vec<String>, Vec<_>) = owned.iter().map(of).unzip();
            let made = manifests::made_agents(&mut connection, &namespaces, &agents).await?;
            found.extend(owned.into_iter().map(|owned| {
                let from_manifest = made.contains(&owned.found.snapshot.agent_id);
                Record::Snapshot(Box::new(owned.found), from_manifest)
            }));
        }
        store::end(connection).await?;
        Ok(found.into_iter().map(|record| (record.id(), record)).collect())
    }
}
