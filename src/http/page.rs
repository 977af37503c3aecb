//! What is asked of a list, and versions on the wire.
//!
//! A version `rv` of the store is `2·rv` on an object and `2·rv + 1` on a list: the odd form says "complete through rv", so that
//! a watch from a list begins after it and a watch from an object begins with it (docs/event-log.md).
//!
//! What this does not: read a list. `http::lists` does.

#[cfg(test)]
mod tests;
mod token;

use super::{
    AppState,
    status::{ApiError, Resource},
    watch::place,
};
use crate::{
    model::{
        fault::{Fault, FaultKind},
        selector::{FieldSelector, LabelSelector},
    },
    store::{self, events::Cursor, log},
};
use serde::Deserialize;
use sqlx::PgConnection;
use std::time::Duration;
use token::Of;
pub use token::{Continue, Order, Place};
use tokio::time::Instant;

/// How long a list waits to be as new as it is asked to be, as with a kube-apiserver.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks whether it is.
const LOOK: Duration = Duration::from_millis(50);
/// A list without a limit is complete; it is read in pieces of this many rows.
const PIECE: i64 = 500;

/// The version of an object, on the wire.
pub fn object_version(rv: i64) -> String {
    (2 * i128::from(rv)).to_string()
}

/// The version of a list, on the wire.
pub fn list_version(rv: i64) -> String {
    (2 * i128::from(rv) + 1).to_string()
}

/// The version of no object.
const NO_OBJECT: i64 = -1;

/// Reads the version of an object that a client gives. A number that this server never gave to an object is the version of
/// none, so that whoever sends it is told of a conflict, as with a kube-apiserver, and reads again.
pub fn parse_object_version(text: &str) -> Result<i64, Fault> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!("must be a version that this server gave to an object, got {text:?}");
        return Err(Fault::new("metadata.resourceVersion", FaultKind::Invalid, message));
    }
    let given = text.parse::<i128>().ok().filter(|number| number % 2 == 0 && number.to_string() == text);
    Ok(given.and_then(|number| i64::try_from(number / 2).ok()).unwrap_or(NO_OBJECT))
}

/// The query of a list.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListQuery {
    limit: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
    field_selector: Option<String>,
    label_selector: Option<String>,
    order_by: Option<String>,
    resource_version: Option<String>,
    resource_version_match: Option<String>,
    send_initial_events: Option<String>,
}

/// How new a list must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// As new as it is.
    #[default]
    Now,
    /// At least as new as this version.
    NotOlderThan(i64),
    /// As it was at this version.
    Exact(i64),
}

/// What of a list is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many objects; none means all.
    limit: Option<i64>,
    /// In which order.
    pub order: Order,
    /// How new.
    since: Since,
    /// The version of the first page, and what comes after which object.
    pub continued: Option<Continue>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    of: Of,
}

/// The fields that a selector may name.
pub const fn selectable(resource: Resource) -> &'static [&'static str] {
    match resource {
        Resource::Chats => &[
            "metadata.name",
            "metadata.namespace",
            "spec.owner",
            "spec.agentRef.name",
            "spec.workspaceRef.name",
            "spec.archived",
            "status.state",
            "status.dirty",
        ],
        Resource::Agents => &["metadata.name", "metadata.namespace", "spec.workspace"],
        Resource::AgentSnapshots => &["metadata.name", "metadata.namespace", "spec.agentRef.name"],
    }
}

/// Reads the selectors of a list or a watch.
pub fn selectors(
    resource: Resource,
    labels: Option<&str>,
    fields: Option<&str>,
) -> Result<(LabelSelector, FieldSelector), ApiError> {
    let labels = LabelSelector::parse(labels.unwrap_or_default())
        .map_err(|error| ApiError::bad_request(format!("labelSelector: {error}")))?;
    let fields = FieldSelector::parse(fields.unwrap_or_default(), selectable(resource))
        .map_err(|error| ApiError::bad_request(format!("fieldSelector: {error}")))?;
    Ok((labels, fields))
}

impl ListQuery {
    /// Reads it. What is not served is refused, never ignored.
    pub fn read(self, resource: Resource, namespace: Option<&str>) -> Result<Wanted, ApiError> {
        let since = self.since()?;
        let Self { limit, continue_, field_selector, label_selector, order_by, .. } = self;
        let (labels, fields) = selectors(resource, label_selector.as_deref(), field_selector.as_deref())?;
        let order = Order::from_query(resource, order_by.as_deref())?;
        let limit = match limit.as_deref() {
            None | Some("" | "0") => None,
            Some(text) => match text.parse::<i64>() {
                Ok(limit) if limit > 0 => Some(limit),
                _ => return Err(ApiError::bad_request(format!("limit: must be a whole number from 0, got {text:?}"))),
            },
        };
        let of = Of::new(resource, namespace, label_selector.as_deref(), field_selector.as_deref());
        let continued = continue_.as_deref().filter(|text| !text.is_empty());
        let continued = continued.map(|text| Continue::read(text, &of, order)).transpose()?;
        if continued.is_some() && since != Since::Now {
            return Err(ApiError::bad_request("resourceVersion: specifying resource version is not allowed when using continue"));
        }
        Ok(Wanted { limit, order, since, continued, labels, fields, of })
    }

    /// The rules of a kube-apiserver for lists (apimachinery, `ValidateListOptions`).
    fn since(&self) -> Result<Since, ApiError> {
        let version = self.resource_version.as_deref().unwrap_or_default();
        let how = self.resource_version_match.as_deref().unwrap_or_default();
        let mut faults = Vec::new();
        let mut forbid = |field: &str, message: &str| faults.push(Fault::new(field, FaultKind::Forbidden, message));
        if !how.is_empty() && version.is_empty() {
            forbid("resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !how.is_empty() && self.continue_.as_deref().is_some_and(|token| !token.is_empty()) {
            forbid("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided");
        }
        if how == "Exact" && version == "0" {
            forbid("resourceVersionMatch", "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        if self.send_initial_events.as_deref().is_some_and(|text| !text.is_empty()) {
            forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
        }
        if !matches!(how, "" | "Exact" | "NotOlderThan") {
            let message = format!("must be Exact or NotOlderThan, got {how:?}");
            faults.push(Fault::new("resourceVersionMatch", FaultKind::NotSupported, message));
        }
        if !faults.is_empty() {
            return Err(ApiError::invalid("ListOptions", "", &faults));
        }
        match version {
            "" | "0" => Ok(Since::Now),
            version => {
                let rv = place(version)?.rv;
                Ok(if how == "Exact" { Since::Exact(rv) } else { Since::NotOlderThan(rv) })
            }
        }
    }
}

impl Wanted {
    /// How many rows to read next, of a page that already has some.
    pub fn next(&self, have: usize) -> i64 {
        let have = i64::try_from(have).unwrap_or(i64::MAX);
        self.limit.map_or(PIECE, |limit| limit.saturating_sub(have).min(PIECE))
    }

    /// Whether a page has all that was asked for.
    pub fn is_full(&self, have: usize) -> bool {
        self.limit.is_some_and(|limit| i64::try_from(have).unwrap_or(i64::MAX) >= limit)
    }

    /// Waits until a list can be as new as it is asked to be: a writer that began earlier may still be open. Call it before the
    /// list's moment begins.
    pub async fn wait(&self, state: &AppState) -> Result<(), ApiError> {
        let (Since::NotOlderThan(rv) | Since::Exact(rv)) = self.since else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut connection = store::acquire(state.pool()).await?;
            let newest = log::bounds(&mut connection).await?.newest;
            let version = log::list_version(&mut connection).await?;
            drop(connection);
            if version >= rv {
                return Ok(());
            }
            if rv > newest || Instant::now() >= deadline {
                return Err(ApiError::too_large_version(&list_version(rv), &list_version(version)));
            }
            tokio::select! {
                () = state.stopping().cancelled() => return Err(ApiError::unavailable("the server is stopping: ask again")),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The version of the list's first page, which every page shows. Call it before the rows are read, in the same moment.
    pub async fn version(&self, moment: &mut PgConnection) -> Result<i64, ApiError> {
        if let Some(Continue { rv, .. }) = self.continued {
            let bounds = log::bounds(moment).await?;
            return if bounds.admit(Cursor::through(rv)) {
                Ok(rv)
            } else {
                Err(ApiError::expired("The provided continue parameter is too old; start the list again without it"))
            };
        }
        let version = log::list_version(moment).await?;
        if let Since::Exact(rv) = self.since
            && (rv != version || log::newest(moment).await? != version)
        {
            let message = format!(
                "The resourceVersion for the provided list is too old: only the present state is kept, which is {}; leave out \
                 resourceVersionMatch=Exact",
                list_version(version)
            );
            return Err(ApiError::expired(message));
        }
        Ok(version)
    }
}

/// Cuts the row that was read only to see whether there are more.
pub fn cut<T>(rows: &mut Vec<T>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}
