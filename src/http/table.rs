//! Tables: lists and objects as people read them, in the form of `meta.k8s.io/v1`, and answers with the metadata only.
//!
//! The columns are the printer columns of the published types, the very ones in the CRDs, so `kubectl get` prints the same
//! against Moorline as against a kube-apiserver. What the cells say follows that server too (apiextensions-apiserver, its
//! table convertor): a text is itself, a date is an age, what is missing is null.
//!
//! What this does not: decide what is in a list.

mod age;
mod path;
#[cfg(test)]
mod tests;
mod wanted;

use super::status::{ApiError, Resource};
use crate::v1alpha1::{Agent, AgentSnapshot, Chat};
use axum::{
    extract::FromRequestParts,
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use kube::CustomResourceExt;
use path::{BadPath, Path};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::LazyLock;

pub use age::human;
pub use wanted::Wanted;

/// `apiVersion` of tables and of bare metadata.
const META_VERSION: &str = "meta.k8s.io/v1";

/// What tables of a kind are made of.
pub trait Tabular {
    /// The columns.
    fn definitions(&self) -> Value;
    /// What they say of an object.
    fn cells(&self, object: &Value, now: Timestamp) -> Value;

    /// A table of these objects. `metadata` is the list's: its version, and `continue` and `remainingItemCount` if it has them.
    fn table(&self, objects: &[Value], metadata: Value, include: IncludeObject, now: Timestamp) -> Value {
        let row = |object: &Value| {
            let mut row = json!({"cells": self.cells(object, now)});
            match include {
                IncludeObject::None => row["object"] = Value::Null,
                IncludeObject::Metadata => row["object"] = partial(object),
                IncludeObject::Object => row["object"] = object.clone(),
            }
            row
        };
        let rows: Vec<Value> = objects.iter().map(row).collect();
        let mut table = json!({"kind": "Table", "apiVersion": META_VERSION, "columnDefinitions": self.definitions()});
        table["metadata"] = metadata;
        table["rows"] = Value::Array(rows);
        table
    }
}

/// The columns of a kind, after NAME.
#[derive(Clone, Debug)]
pub struct Columns(Vec<Column>);

#[derive(Clone, Debug)]
struct Column {
    definition: CustomResourceColumnDefinition,
    path: Path,
}

/// How much of an object stands in its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// From the query parameter `includeObject`.
    pub fn from_query(value: Option<&str>) -> Result<Self, ApiError> {
        match value {
            None | Some("" | "Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(ApiError::bad_request(format!("includeObject: must be None, Metadata or Object, got {other:?}"))),
        }
    }
}

impl Columns {
    /// These columns.
    pub fn new(definitions: Vec<CustomResourceColumnDefinition>) -> Result<Self, BadPath> {
        let column = |definition: CustomResourceColumnDefinition| {
            Path::parse(&definition.json_path).map(|path| Column { definition, path })
        };
        definitions.into_iter().map(column).collect::<Result<_, _>>().map(Self)
    }

    /// Those of a resource: the printer columns of its CRD.
    pub fn of(resource: Resource) -> &'static Self {
        static CHATS: LazyLock<Columns> = LazyLock::new(Columns::printed::<Chat>);
        static AGENTS: LazyLock<Columns> = LazyLock::new(Columns::printed::<Agent>);
        static SNAPSHOTS: LazyLock<Columns> = LazyLock::new(Columns::printed::<AgentSnapshot>);
        match resource {
            Resource::Chats => &CHATS,
            Resource::Agents => &AGENTS,
            Resource::AgentSnapshots => &SNAPSHOTS,
        }
    }

    fn printed<T: CustomResourceExt>() -> Self {
        let versions = T::crd().spec.versions;
        let definitions =
            versions.into_iter().find(|version| version.served).and_then(|version| version.additional_printer_columns);
        Self::new(definitions.unwrap_or_default()).expect("the columns of the published types have simple paths")
    }
}

impl Tabular for Columns {
    fn definitions(&self) -> Value {
        let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "The object's name, unique within its namespace."});
        let column = |Column { definition, .. }: &Column| {
            let said = definition.description.clone().filter(|text| !text.is_empty());
            let said = said
                .unwrap_or_else(|| format!("Custom resource definition column (in JSONPath format): {}", definition.json_path));
            json!({
                "name": definition.name, "type": definition.type_, "format": definition.format.as_deref().unwrap_or_default(),
                "priority": definition.priority.unwrap_or_default(), "description": said,
            })
        };
        std::iter::once(name).chain(self.0.iter().map(column)).collect()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Value {
        let name = object["metadata"]["name"].clone();
        let cell = |column: &Column| cell(&column.definition.type_, column.path.find(object), now);
        std::iter::once(name).chain(self.0.iter().map(cell)).collect()
    }
}

/// What a column says of a value, by the column's type.
fn cell(kind: &str, value: Option<&Value>, now: Timestamp) -> Value {
    match (kind, value) {
        (_, None | Some(Value::Null)) => Value::Null,
        ("string", Some(Value::String(text))) => json!(text),
        ("string", Some(other)) => json!(other.to_string()),
        ("date", Some(Value::String(text))) => {
            json!(text.parse().map_or_else(|_| "<invalid>".to_owned(), |then| human(then, now)))
        }
        ("integer", Some(number @ Value::Number(_))) => number.as_i64().map_or(Value::Null, Value::from),
        ("number", Some(number @ Value::Number(_))) => number.clone(),
        ("boolean", Some(truth @ Value::Bool(_))) => truth.clone(),
        (_, Some(_)) => Value::Null,
    }
}

/// An object's metadata alone.
pub fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": META_VERSION, "metadata": object["metadata"]})
}

/// The form of an answer to a read, from the request's headers and query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// What `Accept` asks for.
    pub wanted: Wanted,
    /// What `includeObject` asks for; only a table heeds it.
    pub include: IncludeObject,
}

impl Form {
    /// An object in this form. `object` has `apiVersion` and `kind`, as the published types have.
    pub fn object(self, columns: &impl Tabular, object: Value, now: Timestamp) -> Value {
        match self.wanted {
            Wanted::Json => object,
            Wanted::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                columns.table(&[object], metadata, self.include, now)
            }
            Wanted::PartialObjectMetadata => partial(&object),
        }
    }

    /// A list in this form; its metadata is kept.
    pub fn list(self, columns: &impl Tabular, mut list: Value, now: Timestamp) -> Value {
        let parts = |list: &mut Value| {
            let Value::Array(items) = list["items"].take() else { return (Vec::new(), list["metadata"].take()) };
            (items, list["metadata"].take())
        };
        match self.wanted {
            Wanted::Json => list,
            Wanted::Table => {
                let (items, metadata) = parts(&mut list);
                columns.table(&items, metadata, self.include, now)
            }
            Wanted::PartialObjectMetadata => {
                let (items, metadata) = parts(&mut list);
                let items: Vec<Value> = items.iter().map(partial).collect();
                json!({"kind": "PartialObjectMetadataList", "apiVersion": META_VERSION, "metadata": metadata, "items": items})
            }
        }
    }

    /// The answer to a read of one object.
    pub fn answer<T: Serialize>(self, resource: Resource, object: &T, now: Timestamp) -> Result<Response, ApiError> {
        match self.wanted {
            Wanted::Json => Ok(axum::Json(object).into_response()),
            Wanted::Table | Wanted::PartialObjectMetadata => {
                let object = serde_json::to_value(object).map_err(|error| {
                    tracing::error!(%error, kind = resource.kind(), "an object cannot be written as JSON");
                    ApiError::internal()
                })?;
                Ok(axum::Json(self.object(Columns::of(resource), object, now)).into_response())
            }
        }
    }

    /// The answer to a list, as [`super::objects::list`] makes them.
    pub fn answer_list(self, resource: Resource, list: Value, now: Timestamp) -> Response {
        axum::Json(self.list(Columns::of(resource), list, now)).into_response()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FormQuery {
    include_object: Option<String>,
}

/// A handler that also serves other forms, a stream say, takes a `Result<Form, ApiError>` and looks at `Accept` itself first.
impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let wanted = Wanted::from_headers(&parts.headers)?;
        let query = super::address::Query::<FormQuery>::from_request_parts(parts, state).await?;
        let include = IncludeObject::from_query(query.0.include_object.as_deref())?; // what cannot be read is refused in any form
        Ok(Self { wanted, include })
    }
}
