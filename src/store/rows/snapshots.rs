//! Snapshots without their manifests, by themselves and as they are joined.

use super::{At, deleted};
use crate::{
    model::snapshot::{Snapshot, SnapshotId},
    store::error::StoreError,
};
use jiff_sqlx::Timestamp as SqlTs;
use uuid::Uuid;

#[derive(serde::Deserialize)]
pub(in crate::store) struct SnapshotRow {
    pub(in crate::store) namespace: String,
    pub(in crate::store) id: i64,
    pub(in crate::store) agent_id: Uuid,
    pub(in crate::store) agent_name: String,
    pub(in crate::store) name: String,
    pub(in crate::store) revision: i64,
    #[serde(deserialize_with = "deleted::bytes")]
    pub(in crate::store) context_hash: Vec<u8>,
    pub(in crate::store) error: String,
    pub(in crate::store) resource_count: i32,
    pub(in crate::store) degraded_count: i32,
    pub(in crate::store) size_bytes: i64,
    #[serde(deserialize_with = "deleted::time")]
    pub(in crate::store) created_at: SqlTs,
    pub(in crate::store) rv: i64,
}

impl TryFrom<SnapshotRow> for Snapshot {
    type Error = StoreError;

    fn try_from(row: SnapshotRow) -> Result<Self, StoreError> {
        let at = At { table: "snapshots", namespace: &row.namespace, name: &row.name };
        let hash = at.hash("context_hash", &row.context_hash)?;
        Ok(Self {
            namespace: row.namespace,
            id: SnapshotId(row.id),
            name: row.name,
            agent_id: row.agent_id,
            agent_name: row.agent_name,
            revision: row.revision,
            hash,
            error: row.error,
            resource_count: row.resource_count,
            degraded_count: row.degraded_count,
            size_bytes: row.size_bytes,
            created_at: row.created_at.to_jiff(),
            rv: row.rv,
        })
    }
}

/// The columns of a snapshot that was joined, and may not be there.
#[derive(Default, serde::Deserialize)]
pub(in crate::store) struct JoinedSnapshot {
    pub(in crate::store) id: Option<i64>,
    pub(in crate::store) agent_id: Option<Uuid>,
    pub(in crate::store) agent_name: Option<String>,
    pub(in crate::store) name: Option<String>,
    pub(in crate::store) revision: Option<i64>,
    #[serde(default, deserialize_with = "deleted::some_bytes")]
    pub(in crate::store) context_hash: Option<Vec<u8>>,
    pub(in crate::store) error: Option<String>,
    pub(in crate::store) resource_count: Option<i32>,
    pub(in crate::store) degraded_count: Option<i32>,
    pub(in crate::store) size_bytes: Option<i64>,
    #[serde(default, deserialize_with = "deleted::some_time")]
    pub(in crate::store) created_at: Option<SqlTs>,
    pub(in crate::store) rv: Option<i64>,
}

impl JoinedSnapshot {
    pub(in crate::store) fn into_snapshot(self, namespace: &str) -> Result<Option<Snapshot>, StoreError> {
        let row = (|| {
            Some(SnapshotRow {
                namespace: namespace.to_owned(),
                id: self.id?,
                agent_id: self.agent_id?,
                agent_name: self.agent_name?,
                name: self.name?,
                revision: self.revision?,
                context_hash: self.context_hash?,
                error: self.error?,
                resource_count: self.resource_count?,
                degraded_count: self.degraded_count?,
                size_bytes: self.size_bytes?,
                created_at: self.created_at?,
                rv: self.rv?,
            })
        })();
        row.map(Snapshot::try_from).transpose()
    }
}

/// `query_as!` of snapshots without their manifests. The tail says which.
macro_rules! snapshot_query {
    (page ($tail:tt $(+ $more:literal)*), $order:literal $(, $arg:expr)*) => {
        snapshot_query!($tail $(+ $more)* $(, $arg)*) // nothing is joined
    };
    ($tail:tt $(+ $more:literal)* $(, $arg:expr)* $(,)?) => {
        sqlx::query_as!(
            crate::store::rows::SnapshotRow,
            r#"
            SELECT s.namespace, s.id, s.agent_id, s.agent_name, s.name, s.revision, s.context_hash, s.error,
                   s.resource_count, s.degraded_count, s.size_bytes, s.created_at AS "created_at: _", s.rv
            FROM snapshots s
            "# + $tail $(+ $more)*
            $(, $arg)*
        )
    };
}

pub(in crate::store) use snapshot_query;
