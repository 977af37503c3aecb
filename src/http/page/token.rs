//! Continue tokens: where the next page begins, and of which list.

use super::Wanted;
use crate::{
    http::status::{ApiError, Resource},
    model::object::Key,
    store::lists::Updated,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By namespace, then by name.
    #[default]
    Name,
    /// What a person or a runner changed last comes first.
    Updated,
}

impl Order {
    /// As it stands in a query.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Updated => "-updated",
        }
    }

    /// From the query parameter `orderBy`.
    pub fn from_query(resource: Resource, value: Option<&str>) -> Result<Self, ApiError> {
        match (value, resource) {
            (None | Some("" | "name"), _) => Ok(Self::Name),
            (Some("-updated"), Resource::Chats) => Ok(Self::Updated),
            (Some(other), Resource::Chats) => {
                Err(ApiError::bad_request(format!("orderBy: must be name or -updated, got {other:?}")))
            }
            (Some(other), Resource::Agents | Resource::AgentSnapshots) => {
                Err(ApiError::bad_request(format!("orderBy: {} are listed by name only, got {other:?}", resource.plural())))
            }
        }
    }
}

/// A place in an order: after this object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// By name.
    Name(Key),
    /// By time of change.
    Updated(Updated),
}

impl Place {
    /// The order that it is a place in.
    pub const fn order(&self) -> Order {
        match self {
            Self::Name(_) => Order::Name,
            Self::Updated(_) => Order::Updated,
        }
    }

    /// The key, of a place in the order of names.
    pub const fn key(&self) -> Option<&Key> {
        match self {
            Self::Name(key) => Some(key),
            Self::Updated(_) => None,
        }
    }

    /// The place in the order of what changed last.
    pub const fn updated(&self) -> Option<&Updated> {
        match self {
            Self::Name(_) => None,
            Self::Updated(updated) => Some(updated),
        }
    }
}

/// Which list a token is of: what must be asked for again as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Of {
    /// The plural of the kind.
    kind: String,
    /// The namespace in the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// Tells its selectors from others; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    selects: String,
}

impl Of {
    /// A list by this path with these selectors, as they were written.
    pub fn new(resource: Resource, namespace: Option<&str>, labels: Option<&str>, fields: Option<&str>) -> Self {
        let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
        let selects = if labels.is_empty() && fields.is_empty() {
            String::new()
        } else {
            hex::encode(&Sha256::digest(format!("{}\n{labels}\n{fields}", labels.len()))[..8])
        };
        Self { kind: resource.plural().to_owned(), namespace: namespace.map(ToOwned::to_owned), selects }
    }

    fn path(&self) -> String {
        match &self.namespace {
            None => format!("{} of every namespace", self.kind),
            Some(namespace) => format!("{} of namespace {namespace:?}", self.kind),
        }
    }
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// The version of the first page.
    pub rv: i64,
    /// The last object of the page before.
    pub after: Place,
    of: Of,
}

/// What stands in a token.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    /// The form of this token.
    v: u8,
    rv: i64,
    of: Of,
    after: At,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum At {
    Name(String, String),
    Updated(Timestamp, Uuid),
}

/// The form of our tokens.
const FORM: u8 = 2;

impl Continue {
    /// After this place, of the list that was `wanted`, whose first page had version `rv`.
    pub fn after(after: Place, rv: i64, wanted: &Wanted) -> Self {
        Self { rv, after, of: wanted.of.clone() }
    }

    /// As the opaque text that clients send back.
    pub fn encode(self) -> String {
        let after = match self.after {
            Place::Name(key) => At::Name(key.namespace, key.name),
            Place::Updated(Updated { at, id }) => At::Updated(at, id),
        };
        let written = Written { v: FORM, rv: self.rv, of: self.of, after };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).expect("a token is plain data"))
    }

    fn decode(text: &str) -> Option<Self> {
        let Written { v, rv, of, after } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let after = match after {
            // Text with U+0000 in it is no name of ours, and PostgreSQL takes none.
            At::Name(namespace, name) if namespace.contains('\0') || name.contains('\0') => return None,
            At::Name(namespace, name) => Place::Name(Key { namespace, name }),
            // Nor is there such a time in a record, and PostgreSQL has none so early or so fine.
            At::Updated(at, _) if at.as_second() < 0 || at.subsec_nanosecond() % 1000 != 0 => return None,
            At::Updated(at, id) => Place::Updated(Updated { at, id }),
        };
        let token = (v == FORM && rv >= 0).then_some(Self { rv, after, of })?;
        // We write a token in one way only: what says the same in another was not written by us.
        (token.clone().encode() == text).then_some(token)
    }

    /// Reads a token, which must be of this list in this order.
    pub fn read(text: &str, of: &Of, order: Order) -> Result<Self, ApiError> {
        let Some(token) = Self::decode(text) else {
            return Err(ApiError::bad_request("continue: is not a token of this server; start the list again without it"));
        };
        if (&token.of.kind, &token.of.namespace) != (&of.kind, &of.namespace) {
            let message = format!("continue: is of a list of {}, and this is one of {}", token.of.path(), of.path());
            return Err(ApiError::bad_request(message));
        }
        if token.after.order() != order {
            let message = format!(
                "continue: is of a list with orderBy={}, and this one has {}; send it as it was, or start again",
                token.after.order().as_str(),
                order.as_str()
            );
            return Err(ApiError::bad_request(message));
        }
        if token.of.selects != of.selects {
            return Err(ApiError::bad_request(
                "continue: is of a list with other selectors; send them as they were, or start again",
            ));
        }
        Ok(token)
    }
}
