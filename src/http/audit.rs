//! Who changed what: a line of JSON for each write that was asked for, when it has been answered. Refused ones too, also of whom
//! nobody knows. Never a body, a label or a title: nothing but what stands here.
//!
//! ```json
//! {"at":"2026-11-21T14:03:07.123Z","requestID":"5c1f…","user":"system:serviceaccount:team-a:ws-42","verb":"update",
//!  "resource":"agents","subresource":"snapshot","namespace":"team-a","name":"ws-42","uid":"…","code":200,"dryRun":false}
//! ```
//!
//! Into a file when one is named, each line by one write at its end, so that it may be moved away by copying and truncating;
//! else into the log, as the target `moorline::audit`.

use super::{AppState, auth::Identity, telemetry::RequestId};
use crate::model::object::Metadata;
use axum::{
    extract::{Request, State},
    http::{Method, Uri},
    middleware::Next,
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// Longest name that is written down, in bytes: clients may ask for anything.
const NAME_MAX: usize = 253;

/// Where the lines go.
#[derive(Clone, Debug, Default)]
pub enum Audit {
    /// Nowhere.
    #[default]
    Off,
    /// Into the log.
    Log,
    /// To the end of a file.
    File(Arc<Mutex<File>>),
}

impl Audit {
    /// To the end of this file, which is made when it is not there. Nobody else may read it.
    pub fn to_file(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let file = File::options().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self::File(Arc::new(Mutex::new(file))))
    }

    fn put_down(&self, line: &Line<'_>) {
        match self {
            Self::Off => {}
            Self::Log => {
                let Line { at: _, request_id, user, verb, resource, subresource, namespace, name, uid, code, dry_run } = line;
                tracing::info!(
                    target: "moorline::audit",
                    request_id, user, verb, resource, subresource, namespace, name, uid, code, dry_run,
                    "a write was answered"
                );
            }
            Self::File(file) => {
                let mut text = serde_json::to_vec(line).expect("texts are plain data");
                text.push(b'\n');
                if let Err(error) = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(&text) {
                    tracing::error!(%error, "a line of the audit log could not be written");
                }
            }
        }
    }
}

/// A write that was answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    at: Timestamp,
    #[serde(rename = "requestID")]
    request_id: &'a str,
    user: &'a str,
    verb: &'static str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    code: u16,
    dry_run: bool,
}

/// Of the object that was written; handlers leave it in their answers.
#[derive(Clone, Debug)]
struct Written {
    name: String,
    uid: String,
}

/// Leaves in an answer which object was written.
pub fn written(mut response: Response, meta: &Metadata) -> Response {
    response.extensions_mut().insert(Written { name: meta.name.clone(), uid: meta.id.to_string() });
    response
}

/// Leaves in an answer who asked.
pub fn asked_by(response: &mut Response, identity: Identity) {
    response.extensions_mut().insert(identity);
}

/// Writes down each write when it has been answered.
pub async fn write_down(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let verb = match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return next.run(request).await,
    };
    let audit = state.audit();
    if matches!(audit, Audit::Off) {
        return next.run(request).await;
    }
    let uri = request.uri().clone();
    let id = request.extensions().get::<RequestId>().cloned();
    let response = next.run(request).await;
    let place = Place::of(&uri);
    let written = response.extensions().get::<Written>();
    let dry_run = uri.query().unwrap_or_default().split('&').any(|part| part.starts_with("dryRun=") && part != "dryRun=");
    audit.put_down(&Line {
        at: state.clock().now(),
        request_id: id.as_ref().map_or("", |RequestId(id)| id),
        user: response.extensions().get::<Identity>().map_or("", |identity| &identity.user),
        verb,
        resource: place.resource,
        subresource: place.subresource,
        namespace: place.namespace,
        name: written.map_or(place.name, |written| &written.name),
        uid: written.map_or("", |written| &written.uid),
        code: response.status().as_u16(),
        dry_run,
    });
    response
}

/// What a path names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place<'a> {
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
}

impl<'a> Place<'a> {
    fn of(uri: &'a Uri) -> Self {
        let mut parts = uri.path().split('/').skip_while(|part| *part != "namespaces").skip(1);
        let mut next = || parts.next().map(bounded).unwrap_or_default();
        Self { namespace: next(), resource: next(), name: next(), subresource: next() }
    }
}

/// The path of a request is ASCII.
fn bounded(text: &str) -> &str {
    text.get(..NAME_MAX).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_object() {
        let uri: Uri = "/apis/moorline.dev/v1alpha1/namespaces/team-a/agents/ws-42/snapshot?dryRun=All".parse().expect("a URI");
        let place = Place { namespace: "team-a", resource: "agents", name: "ws-42", subresource: "snapshot" };
        assert_eq!(Place::of(&uri), place);
        let uri: Uri = "/apis/moorline.dev/v1alpha1/namespaces/team-a/chats".parse().expect("a URI");
        assert_eq!(Place::of(&uri), Place { namespace: "team-a", resource: "chats", ..Place::default() });
        assert_eq!(Place::of(&"/version".parse().expect("a URI")), Place::default());
    }
}
