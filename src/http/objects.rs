//! What the handlers of every kind do alike: reading an object, checking its identity, answering with warnings.

use super::{
    negotiate::{self, FieldValidation, Json, NulAllowed, Warnings},
    page::parse_object_version,
    status::{ApiError, Resource},
    typed::{self, Typed},
};
use crate::{
    clock::Clock,
    model::{
        fault::{Fault, FaultKind},
        name,
        object::Key,
    },
    v1alpha1::API_VERSION,
    writes::Preconditions,
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::object::HasStatus;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// How often a patch is tried again when the object changes under it.
pub const PATCH_TRIES: usize = 8;
/// How many characters a generated name ends with.
const SUFFIX: usize = 5;
/// Longest base of a generated name, in bytes, as in Kubernetes.
const GENERATE_MAX: usize = 58;

/// The query of a write.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteQuery {
    field_validation: Option<String>,
    dry_run: Option<String>,
    /// Of a deletion.
    pub propagation_policy: Option<String>,
}

impl WriteQuery {
    /// What to do about unknown fields.
    pub fn validation(&self) -> Result<FieldValidation, ApiError> {
        FieldValidation::from_query(self.field_validation.as_deref())
    }

    /// Whether the write is a rehearsal.
    pub fn rehearsal(&self) -> Result<bool, ApiError> {
        dry_run(self.dry_run.as_deref())
    }
}

/// Reads `dryRun`.
pub fn dry_run(value: Option<&str>) -> Result<bool, ApiError> {
    match value {
        None | Some("") => Ok(false),
        Some("All") => Ok(true),
        Some(other) => Err(ApiError::bad_request(format!("dryRun: must be All, got {other:?}"))),
    }
}

/// Checks a namespace of a path.
pub fn check_namespace(resource: Resource, namespace: &str) -> Result<(), ApiError> {
    name::dns_label("metadata.namespace", namespace).map_or(Ok(()), |fault| Err(ApiError::invalid(resource.kind(), "", &[fault])))
}

/// Reads the body of a create or an update. A status in it is passed over, even one that is none, as in Kubernetes.
pub async fn read_object<T>(
    resource: Resource,
    headers: &HeaderMap,
    body: Body,
    validation: FieldValidation,
) -> Result<Typed<T>, ApiError>
where
    T: DeserializeOwned + HasStatus<Status: DeserializeOwned>,
{
    negotiate::expect_json(headers)?;
    let bytes = negotiate::read_body(headers, body, negotiate::BODY_MAX).await?;
    if bytes.is_empty() {
        return Err(ApiError::bad_request(format!("the request's body is empty: it must be a {}", resource.kind())));
    }
    let mut json = Json::parse(&bytes, NulAllowed::Nowhere)?;
    drop_nulls(&mut json.value);
    take_type(resource, &mut json.value)?;
    if let Some(fields) = json.value.as_object_mut()
        && fields.get("status").is_some_and(|status| T::Status::deserialize(status).is_err())
    {
        fields.remove("status");
    }
    typed::read(resource, json, validation)
}

/// A field of an object that is null counts as one that is absent, and a label or an annotation as one that is empty, as in
/// Kubernetes.
pub fn drop_nulls(object: &mut Value) {
    for texts in ["/metadata/labels", "/metadata/annotations"] {
        let texts = object.pointer_mut(texts).and_then(Value::as_object_mut);
        texts.into_iter().flat_map(Map::values_mut).filter(|text| text.is_null()).for_each(|text| *text = json!(""));
    }
    drop_all_nulls(object);
}

fn drop_all_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_all_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_all_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Takes `apiVersion` and `kind` off an object, which must be those of the path.
pub fn take_type(resource: Resource, value: &mut Value) -> Result<(), ApiError> {
    let Some(object) = value.as_object_mut() else {
        return Err(ApiError::bad_request("the request's body must be a JSON object"));
    };
    if let Some(got) = object.remove("apiVersion").filter(|got| got != API_VERSION) {
        return Err(ApiError::bad_request(format!("apiVersion: this path takes {API_VERSION}, got {got}")));
    }
    if let Some(got) = object.remove("kind").filter(|got| got != resource.kind()) {
        let fault = Fault::new("kind", FaultKind::Invalid, format!("{got}: must be {}", resource.kind()));
        return Err(ApiError::invalid(resource.kind(), "", &[fault]));
    }
    object.entry("metadata").or_insert_with(|| json!({}));
    object.entry("spec").or_insert_with(|| json!({}));
    Ok(())
}

/// The name of an object that is to be created, from `name` or `generateName`, and its namespace, which must be the path's.
/// What is wrong with either is named as a kube-apiserver does.
pub fn new_name(resource: Resource, namespace: &str, meta: &ObjectMeta, clock: &Clock) -> Result<(Key, Vec<Fault>), ApiError> {
    same_namespace(namespace, meta)?;
    if meta.resource_version.as_deref().is_some_and(|version| !matches!(version, "" | "0")) {
        return Err(ApiError::bad_request("metadata.resourceVersion must not be set on an object that is to be created"));
    }
    let given = meta.name.as_deref().filter(|name| !name.is_empty());
    let base = meta.generate_name.as_deref().filter(|base| !base.is_empty());
    let mut faults: Vec<Fault> = base.and_then(base_fault).into_iter().collect();
    let name = match (given, base) {
        (Some(name), _) => name.to_owned(),
        (None, Some(base)) => {
            let base: String = base.chars().take(GENERATE_MAX).collect();
            let id = clock.new_id().as_u128();
            // The alphabet of Kubernetes' own generated names: no vowels, nothing that is easily misread.
            let letters = b"bcdfghjklmnpqrstvwxz2456789";
            let suffix = (0..SUFFIX).map(|n| char::from(letters[((id >> (n * 5)) & 31) as usize % letters.len()]));
            base + &suffix.collect::<String>()
        }
        (None, None) => {
            faults.push(Fault::new("metadata.name", FaultKind::Required, "name or generateName is required"));
            return Ok((Key::new(namespace, ""), faults));
        }
    };
    faults.extend(match resource {
        Resource::Chats => name::dns_subdomain("metadata.name", &name),
        Resource::Agents | Resource::AgentSnapshots => name::dns_label("metadata.name", &name),
    });
    Ok((Key::new(namespace, name), faults))
}

/// What is wrong with the base of a generated name: it may end with a hyphen, which no name does.
fn base_fault(base: &str) -> Option<Fault> {
    let masked = base.strip_suffix('-').filter(|rest| !rest.is_empty()).map(|rest| format!("{rest}a"));
    let fault = name::dns_subdomain("metadata.generateName", masked.as_deref().unwrap_or(base))?;
    Some(Fault { message: fault.message.replace(masked.as_deref().unwrap_or(base), base), ..fault })
}

fn same_namespace(namespace: &str, meta: &ObjectMeta) -> Result<(), ApiError> {
    match meta.namespace.as_deref() {
        Some(other) if !other.is_empty() && other != namespace => Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request: {other:?} and {namespace:?}"
        ))),
        Some(_) | None => Ok(()),
    }
}

/// What an update knows of the object it means; its name must be the path's.
pub fn known(key: &Key, meta: &ObjectMeta) -> Result<Result<Preconditions, Fault>, ApiError> {
    same_namespace(&key.namespace, meta)?;
    if let Some(other) = meta.name.as_deref().filter(|name| !name.is_empty() && *name != key.name) {
        let message = format!("the name of the object ({other}) does not match the name on the URL ({})", key.name);
        return Err(ApiError::bad_request(message));
    }
    let version = meta.resource_version.as_deref().filter(|version| !version.is_empty()).map(parse_object_version);
    let uid = meta.uid.as_deref().filter(|uid| !uid.is_empty()).map(|uid| {
        let fault = || Fault::new("metadata.uid", FaultKind::Invalid, format!("must be a UUID, got {uid:?}"));
        uid.parse().map_err(|_| fault())
    });
    Ok(version.transpose().and_then(|rv| uid.transpose().map(|uid| Preconditions { rv, uid })))
}

/// An answer with an object, warnings, and other headers.
pub fn answer<T: Serialize>(
    code: StatusCode,
    object: &T,
    warnings: Warnings,
    others: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Response {
    let mut response = (code, axum::Json(object)).into_response();
    for (name, value) in warnings.into_headers().chain(others) {
        response.headers_mut().append(name, value);
    }
    response
}

/// The answer to a deletion that is done.
pub fn deleted(resource: Resource, name: &str, uid: &str) -> Response {
    let details = json!({"name": name, "group": super::status::GROUP, "kind": resource.plural(), "uid": uid});
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    (StatusCode::OK, axum::Json(body)).into_response()
}

/// The body of a deletion.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    propagation_policy: Option<String>,
    orphan_dependents: Option<bool>,
    preconditions: Option<DeletePreconditions>,
    dry_run: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeletePreconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

/// What a deletion asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// What it knows of the object.
    pub known: Preconditions,
    /// What becomes of what depends on it.
    pub orphan: bool,
    /// Whether it is a rehearsal.
    pub rehearsal: bool,
}

/// Reads a deletion: options in the body, the propagation policy in either place.
pub async fn read_deletion(
    resource: Resource,
    name: &str,
    query: &WriteQuery,
    headers: &HeaderMap,
    body: Body,
) -> Result<Deletion, ApiError> {
    let bytes = negotiate::read_body(headers, body, negotiate::BODY_MAX).await?;
    let json = Json::parse(&bytes, NulAllowed::Nowhere)?;
    let (options, _) = json.into_type::<DeleteOptions>(FieldValidation::Ignore)?;
    let policy = options.propagation_policy.as_deref().or(query.propagation_policy.as_deref());
    if policy.is_some() && options.orphan_dependents.is_some() {
        let message = "orphanDependents and propagationPolicy cannot be both set: propagationPolicy alone says it all";
        let fault = Fault::new("propagationPolicy", FaultKind::Invalid, message);
        return Err(ApiError::invalid("DeleteOptions", name, &[fault]));
    }
    let orphan = match (policy, options.orphan_dependents) {
        (Some("Orphan"), _) | (None | Some(""), Some(true)) => true,
        (Some("Background" | "Foreground" | "") | None, _) => false,
        (Some(other), _) => {
            let message = format!("propagationPolicy: must be Background, Foreground or Orphan, got {other:?}");
            return Err(ApiError::bad_request(message));
        }
    };
    let meta = options.preconditions.unwrap_or_default();
    let meta = ObjectMeta { uid: meta.uid, resource_version: meta.resource_version, ..ObjectMeta::default() };
    let known = known(&Key::new("", name), &meta)?.map_err(|fault| ApiError::invalid(resource.kind(), name, &[fault]))?;
    let asked = options.dry_run.unwrap_or_default();
    let rehearsal = dry_run(asked.first().map(String::as_str))? || query.rehearsal()?;
    Ok(Deletion { known, orphan, rehearsal })
}

/// A list, as Kubernetes sends them.
pub fn list<T: Serialize>(kind: &str, items: &[T], version: &str, continued: Option<String>) -> Value {
    let mut metadata = json!({"resourceVersion": version});
    if let Some(token) = continued {
        metadata["continue"] = json!(token);
    }
    json!({"apiVersion": API_VERSION, "kind": format!("{kind}List"), "metadata": metadata, "items": items})
}
