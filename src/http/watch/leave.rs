//! Leave to watch: what a watcher may be told, and when to find out anew whether that is so.
//!
//! A list is answered once; a watch goes on for an hour. A right that is taken away ends it, and so does a token that is no
//! longer good, after the time that such answers hold. Whoever may see more than before is ended too: it lists again, and sees it.

use crate::http::{
    auth::{EventList, Identity, Scope},
    status::{ApiError, Resource},
};
use tokio::time::Instant;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Objects.
    Objects(Resource),
    /// What happens to them.
    Events(EventList),
}

/// The leave.
#[derive(Debug)]
pub struct Leave {
    identity: Identity,
    watched: Watched,
    namespace: Option<String>,
    scope: Scope,
}

impl Leave {
    /// Of a namespace, or of all.
    pub async fn take(identity: Identity, watched: Watched, namespace: Option<String>) -> Result<Self, ApiError> {
        let scope = scope(&identity, watched, namespace.as_deref()).await?;
        Ok(Self { identity, watched, namespace, scope })
    }

    /// What may be told.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Whether it must be renewed.
    pub fn is_over(&self) -> bool {
        self.scope.until.is_some_and(|until| until <= Instant::now())
    }

    /// Renews it. Not when it would not be the same, nor when nobody can say.
    pub async fn renew(&mut self) -> bool {
        let Ok(identity) = self.identity.again().await else { return false };
        match scope(&identity, self.watched, self.namespace.as_deref()).await {
            Ok(scope) if scope.shows_the_same(&self.scope) => {
                self.scope = scope;
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// This, or when it is over if that comes first.
    pub fn earlier(&self, other: Instant) -> Instant {
        self.scope.until.map_or(other, |until| until.min(other))
    }
}

async fn scope(identity: &Identity, watched: Watched, namespace: Option<&str>) -> Result<Scope, ApiError> {
    match watched {
        Watched::Objects(resource) => identity.scope("watch", resource, namespace).await,
        Watched::Events(list) => identity.event_scope("watch", list, namespace).await,
    }
}
