//! Why an object of the cluster is not yet as it should be.

use super::write::REQUEST;
use crate::store::StoreError;

/// Why an object is not yet as it should be.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cluster.
    #[error("{verb} {what}: {source}")]
    Cluster {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
        /// What it said.
        source: Box<kube::Error>,
    },
    /// The Lease was lost before it was this request's turn.
    #[error("{verb} {what}: this replica does not hold the Lease any more")]
    Standby {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
    },
    /// The cluster took too long.
    #[error("{verb} {what}: no answer within {} s", REQUEST.as_secs())]
    Slow {
        /// The verb.
        verb: &'static str,
        /// The resource, with its subresource.
        what: String,
    },
}

impl MirrorError {
    /// Somebody wrote the object since it was last seen; the watch brings it.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Cluster { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 409))
    }

    /// There is no such object, or no such namespace.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Cluster { source, .. } if matches!(&**source, kube::Error::Api(status) if status.code == 404))
    }

    /// What it is counted as.
    pub(in crate::kubernetes) fn word(&self) -> &'static str {
        match self {
            Self::Store(_) => "database",
            Self::Slow { .. } => "slow",
            Self::Standby { .. } => "standby",
            Self::Cluster { source, .. } => match &**source {
                kube::Error::Api(status) => match status.code {
                    403 => "forbidden",
                    404 => "notfound",
                    409 => "conflict",
                    422 => "invalid",
                    429 => "throttled",
                    _ => "other",
                },
                _ => "connection",
            },
        }
    }
}
