//! What a watch is asked for.

use crate::{
    http::{
        address::Query,
        negotiate::accept,
        page::selectors,
        status::{ApiError, Resource},
        table::Form,
        tail::change::Look,
    },
    model::selector::{FieldSelector, LabelSelector},
    store::events::Cursor,
};
use axum::{
    extract::FromRequestParts,
    http::{header::HeaderName, request::Parts},
};
use serde::Deserialize;
use std::time::Duration;

/// Longest watch that may be asked for.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WatchQuery {
    watch: Option<String>,
    resource_version: Option<String>,
    resource_version_match: Option<String>,
    send_initial_events: Option<String>,
    allow_watch_bookmarks: Option<String>,
    timeout_seconds: Option<String>,
    label_selector: Option<String>,
    field_selector: Option<String>,
    order_by: Option<String>,
    #[serde(rename = "continue")]
    continue_: Option<String>,
}

/// In which style the stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// JSON, a line each, the objects in this form.
    Lines(Form),
    /// Server-Sent Events.
    Events,
}

/// A watch, as asked for; a list takes none.
#[derive(Clone, Debug)]
pub struct Asked {
    query: WatchQuery,
    last_event: Option<String>,
    /// The style.
    pub style: Style,
    /// Whether it wants bookmarks.
    pub bookmarks: bool,
    /// How long it may last.
    pub timeout: Option<Duration>,
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With every object there is, from a list that is at least as new as this.
    Everything {
        /// The oldest version that the list may have.
        since: Option<i64>,
    },
    /// After this.
    After(Cursor),
}

/// What a watch sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    namespace: Option<String>,
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    /// The namespace in the path, if there is one.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// What it selects by label.
    pub fn labels(&self) -> &LabelSelector {
        &self.labels
    }

    /// What it selects by field.
    pub fn fields(&self) -> &FieldSelector {
        &self.fields
    }

    /// Whether it is of this namespace.
    pub fn is_of(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }

    /// Whether it selects everything of its namespace.
    pub fn is_everything(&self) -> bool {
        self.labels == LabelSelector::default() && self.fields == FieldSelector::default()
    }

    /// Whether it selects what looks like this.
    pub fn matches(&self, look: &Look) -> bool {
        self.labels.matches(&look.labels) && self.fields.matches(|field| look.fields.get(field).map_or("", String::as_str))
    }
}

fn flag(name: &str, value: Option<&str>) -> Result<Option<bool>, ApiError> {
    match value {
        None | Some("") => Ok(None),
        Some("1" | "true" | "True" | "t") => Ok(Some(true)),
        Some("0" | "false" | "False" | "f") => Ok(Some(false)),
        Some(other) => Err(ApiError::bad_request(format!("{name}: must be true or false, got {other:?}"))),
    }
}

/// A number of seconds: none when there is none, or 0.
fn seconds(name: &str, value: Option<&str>) -> Result<Option<Duration>, ApiError> {
    let Some(text) = value.filter(|text| !text.is_empty()) else { return Ok(None) };
    let number = text.parse::<i64>().ok().and_then(|seconds| u64::try_from(seconds).ok());
    let bad = || ApiError::bad_request(format!("{name}: must be a whole number of seconds from 0, got {text:?}"));
    number.ok_or_else(bad).map(|seconds| (seconds > 0).then(|| Duration::from_secs(seconds)))
}

impl Asked {
    /// What it sees.
    pub fn selection(&self, resource: Resource, namespace: Option<&str>) -> Result<Selection, ApiError> {
        let (labels, fields) = selectors(resource, self.query.label_selector.as_deref(), self.query.field_selector.as_deref())?;
        Ok(Selection { namespace: namespace.map(ToOwned::to_owned), labels, fields })
    }

    /// Whether it is to be told where the first list ends.
    pub fn sends_initial(&self) -> bool {
        matches!(flag("", self.query.send_initial_events.as_deref()), Ok(Some(true)))
    }

    /// What the client has last heard of, when it resumes Server-Sent Events.
    pub fn last_event_id(&self) -> Option<&str> {
        self.last_event.as_deref()
    }

    /// Where it starts.
    pub fn start(&self) -> Result<Start, ApiError> {
        let version = self.last_event.as_deref().or(self.query.resource_version.as_deref());
        let version = version.filter(|version| !version.is_empty() && *version != "0").map(place).transpose()?;
        let at_least = |cursor: Cursor| cursor.rv;
        Ok(match version {
            None => Start::Everything { since: None },
            Some(cursor) if self.sends_initial() && self.last_event.is_none() => {
                Start::Everything { since: Some(at_least(cursor)) }
            }
            Some(cursor) => Start::After(cursor),
        })
    }
}

/// The place that a version on the wire stands for: an odd one is complete through its transaction, an even one begins with it.
pub fn place(text: &str) -> Result<Cursor, ApiError> {
    let number = text.parse::<i128>().ok().filter(|number| number.to_string() == text && *number > 0);
    let rv = number.and_then(|number| i64::try_from(number / 2).ok().map(|rv| (rv, number % 2 == 1)));
    match rv {
        Some((rv, true)) => Ok(Cursor::through(rv)),
        Some((rv, false)) => Ok(Cursor { rv, seq: 0 }),
        None => Err(ApiError::bad_request(format!("resourceVersion: must be a version of this server, got {text:?}"))),
    }
}

/// Extracts a watch from a request that may also be for a list.
pub struct IfWatch(pub Option<Asked>);

impl<S: Send + Sync> FromRequestParts<S> for IfWatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::<WatchQuery>::from_request_parts(parts, state).await?;
        // What cannot be read is refused of a list too, which otherwise passes over what is for watches.
        let bookmarks = flag("allowWatchBookmarks", query.allow_watch_bookmarks.as_deref())? == Some(true);
        let initial = flag("sendInitialEvents", query.send_initial_events.as_deref())?;
        let timeout = seconds("timeoutSeconds", query.timeout_seconds.as_deref())?;
        if flag("watch", query.watch.as_deref())? != Some(true) {
            return Ok(Self(None));
        }
        if query.continue_.as_deref().is_some_and(|token| !token.is_empty()) {
            return Err(ApiError::bad_request("continue: is for lists; watch from a list's resourceVersion"));
        }
        if let Some(order) = query.order_by.as_deref().filter(|order| !order.is_empty()) {
            let message =
                format!("orderBy: is for lists; a watch tells of changes in the order in which they are made, got {order:?}");
            return Err(ApiError::bad_request(message));
        }
        match (initial, query.resource_version_match.as_deref().unwrap_or_default()) {
            (None, "") | (Some(_), "NotOlderThan") => {}
            (None, got) => {
                let message = format!("resourceVersionMatch: is for watches with sendInitialEvents, got {got:?}");
                return Err(ApiError::bad_request(message));
            }
            (Some(_), got) => {
                let message = format!("resourceVersionMatch: sendInitialEvents wants NotOlderThan, got {got:?}");
                return Err(ApiError::bad_request(message));
            }
        }
        let events = accept::ranges(&parts.headers)
            .first()
            .is_some_and(|range| range.is("text", "event-stream") && !range.is("application", "json"));
        let style = if events { Style::Events } else { Style::Lines(Form::from_request_parts(parts, state).await?) };
        let last_event = parts.headers.get(HeaderName::from_static("last-event-id")).and_then(|value| value.to_str().ok());
        Ok(Self(Some(Asked {
            bookmarks,
            last_event: last_event.filter(|_| events).map(ToOwned::to_owned),
            style,
            timeout: timeout.map(|timeout| timeout.min(TIMEOUT_MAX)),
            query,
        })))
    }
}
