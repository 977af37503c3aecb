//! Lists by the page, and versions on the wire.
//!
//! A version `rv` of the store is `2·rv` on an object and `2·rv + 1` on a list: the odd form says "complete through rv", so that
//! a watch from a list begins after it and a watch from an object begins with it (docs/event-log.md).

use super::status::{ApiError, Resource};
use crate::{
    model::{
        fault::{Fault, FaultKind},
        object::Key,
        selector::{FieldSelector, LabelSelector},
    },
    store,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::PgConnection;

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
}

/// What of a list is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many objects; none means all.
    pub limit: Option<i64>,
    /// The version of the first page, and what comes after which object.
    pub continued: Option<Continue>,
    /// Only objects with such labels.
    pub labels: LabelSelector,
    /// Only objects with such fields.
    pub fields: FieldSelector,
    /// Tells these selectors from others, in a continue token.
    selects: String,
}

impl Wanted {
    /// The namespace to read: the path's, or the one that the field selector wants.
    pub fn namespace<'a>(&'a self, of_path: Option<&'a str>) -> Option<&'a str> {
        of_path.or_else(|| self.fields.wants("metadata.namespace"))
    }
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

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continue {
    /// The form of this token.
    v: u8,
    /// The version of the first page.
    pub rv: i64,
    /// The namespace of the last object.
    ns: String,
    /// The name of the last object.
    name: String,
    /// Which selectors the list has; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    selects: String,
}

impl Continue {
    /// After `last`, of the list that was `wanted`, whose first page had version `rv`.
    pub fn after(last: &Key, rv: i64, wanted: &Wanted) -> Self {
        Self { v: 1, rv, ns: last.namespace.clone(), name: last.name.clone(), selects: wanted.selects.clone() }
    }

    /// The last object of the page before.
    pub fn key(&self) -> Key {
        Key::new(&self.ns, &self.name)
    }

    /// As the opaque text that clients send back.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token is plain data"))
    }

    fn decode(text: &str) -> Option<Self> {
        let token: Self = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        // Text with U+0000 in it is no name of ours, and PostgreSQL takes none.
        (token.v == 1 && !token.ns.contains('\0') && !token.name.contains('\0')).then_some(token)
    }
}

impl ListQuery {
    /// Reads it. What is not served yet is refused, never ignored.
    pub fn read(self, resource: Resource) -> Result<Wanted, ApiError> {
        let Self { limit, continue_, field_selector, label_selector, order_by } = self;
        let (labels, fields) = selectors(resource, label_selector.as_deref(), field_selector.as_deref())?;
        if order_by.is_some_and(|order| order != "name") {
            return Err(ApiError::bad_request("orderBy: only name is served by this version"));
        }
        let limit = match limit.as_deref() {
            None | Some("" | "0") => None,
            Some(text) => match text.parse::<i64>() {
                Ok(limit) if limit > 0 => Some(limit),
                _ => return Err(ApiError::bad_request(format!("limit: must be a whole number from 0, got {text:?}"))),
            },
        };
        let continued = match continue_.as_deref() {
            None | Some("") => None,
            Some(text) => Some(Continue::decode(text).ok_or_else(|| {
                ApiError::bad_request("continue: is not a token of this server; start the list again without it")
            })?),
        };
        if let Some(continued) = &continued
            && continued.selects != fingerprint(label_selector.as_deref(), field_selector.as_deref())
        {
            return Err(ApiError::bad_request(
                "continue: is of a list with other selectors; send them as they were, or start again",
            ));
        }
        let selects = fingerprint(label_selector.as_deref(), field_selector.as_deref());
        Ok(Wanted { limit, continued, labels, fields, selects })
    }
}

/// Tells the selectors of one list from another's.
fn fingerprint(labels: Option<&str>, fields: Option<&str>) -> String {
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    if labels.is_empty() && fields.is_empty() {
        return String::new();
    }
    hex::encode(&Sha256::digest(format!("{labels}\n{fields}"))[..8])
}

/// A list without a limit is complete; it is read in pieces of this many rows.
const PIECE: i64 = 500;

/// How many rows to read next, of a page that already has some.
pub fn next(limit: Option<i64>, have: usize) -> i64 {
    let have = i64::try_from(have).unwrap_or(i64::MAX);
    limit.map_or(PIECE, |limit| limit.saturating_sub(have).min(PIECE))
}

/// Whether a page has all that was asked for.
pub fn is_full(limit: Option<i64>, have: usize) -> bool {
    limit.is_some_and(|limit| i64::try_from(have).unwrap_or(i64::MAX) >= limit)
}

/// Cuts the row that was read only to see whether there are more.
pub fn cut<T>(rows: &mut Vec<T>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// The version of a list's first page, which every page shows; refuses one from before the log's floor. Call it before the
/// rows are read.
pub async fn first_version(connection: &mut PgConnection, wanted: &Wanted) -> Result<i64, ApiError> {
    let Some(continued) = &wanted.continued else { return Ok(store::log::list_version(connection).await?) };
    if continued.rv < store::log::floor(connection).await? {
        return Err(ApiError::expired("The provided continue parameter is too old; start the list again without it"));
    }
    Ok(continued.rv)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Result<Wanted, ApiError> {
        let map: serde_json::Map<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), serde_json::json!(value))).collect();
        serde_json::from_value::<ListQuery>(serde_json::Value::Object(map)).expect("a query").read(Resource::Chats)
    }

    #[test]
    fn a_token_leads_to_what_comes_after_the_last_object_and_carries_the_first_pages_version() {
        let token = Continue::after(&Key::new("team-a", "fix"), 17 << 44, &Wanted::default()).encode();
        let wanted = query(&[("limit", "2"), ("continue", &token)]).expect("a page");
        let continued = wanted.continued.expect("the token");
        assert_eq!((continued.key(), continued.rv), (Key::new("team-a", "fix"), 17 << 44));
    }

    #[test]
    fn what_is_not_served_is_refused_and_never_ignored() {
        for (key, value) in [
            ("labelSelector", "a b"),
            ("fieldSelector", "spec.title=x"),
            ("fieldSelector", "nonsense"),
            ("limit", "-1"),
            ("limit", "many"),
            ("continue", "garbage"),
            ("orderBy", "-updated"),
        ] {
            let refused = query(&[(key, value)]).expect_err(value);
            assert!(refused.message().starts_with(key), "{}", refused.message());
        }
        assert_eq!(query(&[("fieldSelector", "metadata.name=x")]).expect("a name").fields.wants("metadata.name"), Some("x"));
        let token = Continue::after(&Key::new("team-a", "fix"), 1, &query(&[("labelSelector", "a=b")]).expect("a list")).encode();
        assert!(query(&[("labelSelector", "a=b"), ("continue", &token)]).is_ok());
        let refused = query(&[("labelSelector", "a=c"), ("continue", &token)]).expect_err("of another list");
        assert!(refused.message().starts_with("continue: is of a list with other selectors"));
    }

    #[test]
    fn versions_are_even_on_objects_and_odd_on_lists() {
        assert_eq!((object_version(5), list_version(5)), ("10".into(), "11".into()));
        assert_eq!(parse_object_version("10"), Ok(5));
        for bad in ["-2", "x", "", "1e3", "+10"] {
            assert!(parse_object_version(bad).is_err(), "{bad}");
        }
        for strange in ["1", "11", "010", &u64::MAX.to_string(), &"9".repeat(99)] {
            assert_eq!(parse_object_version(strange), Ok(NO_OBJECT), "{strange}");
        }
        assert_eq!(parse_object_version(&object_version(i64::MAX)), Ok(i64::MAX));
    }
}
