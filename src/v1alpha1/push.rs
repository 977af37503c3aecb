//! Runs and pushes, as they travel: `POST …/agents/{n}/runs` and `PUT …/agents/{n}/snapshot`.
//!
//! The wire form is lenient on purpose (words are strings, what is required has a default), so that the conversion to
//! [`Push`] can list every fault of a request and not only the first that a deserializer trips over. It never changes a
//! value to make it fit.

use crate::model::{
    fault::{Fault, FaultKind},
    hash::ContentHash,
    push::{Limits, Phase, Push},
    resource::{Resource, ResourceKind, ResourceMeta, ResourceStatus},
    word::UnknownWord,
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, hash_map::Entry},
    str::FromStr,
};
use uuid::Uuid;

/// `apiVersion` of everything here.
const API_VERSION: &str = "moorline.dev/v1alpha1";
/// `kind` of a [`RunResponse`].
const RUN_KIND: &str = "AgentRun";
/// `kind` of a push and of its answer.
const PUSH_KIND: &str = "AgentSnapshotPush";

/// A run that was registered: one process lifetime of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResponse {
    /// `moorline.dev/v1alpha1`.
    #[serde(default)]
    pub api_version: String,
    /// `AgentRun`.
    #[serde(default)]
    pub kind: String,
    /// The run's id, a UUID. Every push of the run carries it.
    #[serde(rename = "runID")]
    pub run_id: Uuid,
    /// The run's fencing number, 1 or more: a later run of the same agent has a higher one.
    #[schemars(range(min = 1))]
    pub epoch: i64,
}

impl RunResponse {
    /// The answer to a registration.
    pub fn new(run_id: Uuid, epoch: i64) -> Self {
        Self { api_version: API_VERSION.into(), kind: RUN_KIND.into(), run_id, epoch }
    }
}

/// One report of an agent: everything that it finds in its workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = require_push)]
pub struct PushRequest {
    /// `moorline.dev/v1alpha1`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [API_VERSION]))]
    pub api_version: Option<String>,
    /// `AgentSnapshotPush`; may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = [PUSH_KIND]))]
    pub kind: Option<String>,
    /// The id that registering the run gave, a UUID.
    #[serde(rename = "runID", default)]
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))]
    pub run_id: String,
    /// The fencing number that registering the run gave: 1 to 2^53 − 1.
    #[serde(default)]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub epoch: i64,
    /// The number of this report within its run, rising: 1 to 2^53 − 1. A retry of the same report keeps its number.
    #[serde(default)]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub seq: i64,
    /// `Complete`: what is not listed is not there. `Pending`: the run has not yet seen everything.
    #[serde(default)]
    #[schemars(extend("enum" = words(Phase::ALL)))]
    pub phase: String,
    /// What was wrong with the scan as a whole. At most 4,096 bytes, without U+0000.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The resources, in any order, no two of one (kind, source). At most 1,000, with at most 4 MiB of bodies together.
    /// An empty list is a complete, empty context.
    #[serde(default)]
    #[schemars(with = "Vec<ResourceReport>", length(max = 1000))]
    pub resources: Option<Vec<ResourceReport>>,
}

/// One resource, as an agent reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = require_report)]
pub struct ResourceReport {
    /// `InstructionFile`, `Skill`, `McpConfig`, `McpServer`; reserved: `Plugin`, `Hook`, `Subagent`, `Command`.
    #[serde(default)]
    #[schemars(extend("enum" = words(ResourceKind::ALL)))]
    pub kind: String,
    /// Its identity within the kind: `AGENTS.md`, `skills/tdd`. 1 to 1,024 bytes, without U+0000.
    #[serde(default)]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[^\x00]*$"))]
    pub source: String,
    /// Where it was found, relative to the workspace. At most 4,096 bytes, without U+0000.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_path: String,
    /// The content, when it is UTF-8. At most 256 KiB. Never for an McpConfig, which holds tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The content in base64 (RFC 4648 §4, padded), for any bytes; instead of `body`. At most 256 KiB decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_base64: Option<String>,
    /// `sha256:` and 64 lower-case hexadecimal digits. Required for an McpConfig that is Ok; with a body it must be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^sha256:[0-9a-f]{64}$"))]
    pub content_hash: Option<String>,
    /// Size of the content in bytes: 0 to 2^53 − 1; with a body it must be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub size_bytes: Option<i64>,
    /// `Ok`, `Oversize`, `Unreadable`, `Invalid` or `Excluded`. All but `Ok` need no content.
    #[serde(default)]
    #[schemars(extend("enum" = words(ResourceStatus::ALL)))]
    pub status: String,
    /// Why, when the status is not `Ok`. At most 4,096 bytes, without U+0000.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// The answer to a push that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushResponse {
    /// `moorline.dev/v1alpha1`.
    #[serde(default)]
    pub api_version: String,
    /// `AgentSnapshotPush`.
    #[serde(default)]
    pub kind: String,
    /// Always true: a push that is not taken is answered with a `Status`.
    pub accepted: bool,
    /// Whether the agent's latest snapshot is another one than before.
    pub changed: bool,
    /// The agent's latest snapshot; none while no run of the agent has ever completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotRef>,
}

/// A snapshot, named in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotRef {
    /// The AgentSnapshot's name.
    pub name: String,
    /// Its context hash: `sha256:` and 64 hexadecimal digits.
    pub hash: String,
    /// Its number among the agent's snapshots, from 1.
    #[schemars(range(min = 1))]
    pub revision: i64,
}

impl PushResponse {
    /// The answer to a push that was taken.
    pub fn accepted(changed: bool, snapshot: Option<SnapshotRef>) -> Self {
        Self { api_version: API_VERSION.into(), kind: PUSH_KIND.into(), accepted: true, changed, snapshot }
    }
}

/// What a schema says that a text may be.
fn words<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// What the conversion requires of a [`PushRequest`]: serde's defaults are there to list every fault, not to be published.
fn require_push(schema: &mut Schema) {
    require(schema, &["runID", "epoch", "seq", "phase", "resources"]);
}

/// What the conversion requires of a [`ResourceReport`].
fn require_report(schema: &mut Schema) {
    require(schema, &["kind", "source", "status"]);
}

fn require(schema: &mut Schema, fields: &[&str]) {
    schema.insert("required".into(), fields.into());
    for field in fields {
        if let Some(property) = schema.pointer_mut(&format!("/properties/{field}")).and_then(|property| property.as_object_mut())
        {
            property.remove("default");
        }
    }
}

impl From<&Resource> for ResourceReport {
    fn from(Resource { meta, body }: &Resource) -> Self {
        let ResourceMeta { kind, source, source_path, content_hash, size_bytes, status, error } = meta;
        let carried = body.as_deref().filter(|_| *kind != ResourceKind::McpConfig);
        let text = carried.and_then(|bytes| str::from_utf8(bytes).ok());
        Self {
            kind: kind.to_string(),
            source: source.clone(),
            source_path: source_path.clone(),
            body: text.map(str::to_owned),
            body_base64: carried.filter(|_| text.is_none()).map(|bytes| BASE64.encode(bytes)),
            content_hash: content_hash.map(|hash| hash.to_string()),
            size_bytes: i64::try_from(*size_bytes).ok().filter(|size| *size < Limits::NUMBER),
            status: status.to_string(),
            error: error.clone(),
        }
    }
}

impl TryFrom<PushRequest> for Push {
    type Error = Vec<Fault>;

    /// Checks everything and lists every fault; past [`Limits::RESOURCES`] resources the rest is counted, not looked at.
    fn try_from(request: PushRequest) -> Result<Self, Vec<Fault>> {
        let PushRequest { api_version, kind, run_id, epoch, seq, phase, error, resources } = request;
        let mut faults = Faults::default();
        faults.constant("apiVersion", api_version.as_deref(), API_VERSION);
        faults.constant("kind", kind.as_deref(), PUSH_KIND);
        let run_id = faults.run_id(&run_id);
        faults.number("epoch", epoch, 1);
        faults.number("seq", seq, 1);
        let phase = faults.word::<Phase>("phase", &phase);
        faults.text("error", &error, Limits::ERROR);
        let resources = faults.resources(resources);
        match (run_id, phase, faults.0.is_empty()) {
            (Some(run_id), Some(phase), true) => Ok(Self::new(run_id, (epoch, seq), phase, error, resources)),
            _ => Err(faults.0),
        }
    }
}

/// The faults found so far; each check adds to them.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, field: impl Into<String>, kind: FaultKind, message: impl Into<String>) {
        self.0.push(Fault::new(field, kind, message));
    }

    fn constant(&mut self, field: &str, got: Option<&str>, expected: &str) {
        if let Some(got) = got.filter(|got| *got != expected) {
            self.add(field, FaultKind::NotSupported, format!("must be {expected} or left out, got {}", shown(got)));
        }
    }

    fn run_id(&mut self, text: &str) -> Option<Uuid> {
        if text.is_empty() {
            self.add("runID", FaultKind::Required, "must be the UUID that registering the run gave, got none");
            return None;
        }
        let id = Uuid::try_parse(text).ok();
        if id.is_none() {
            self.add("runID", FaultKind::Invalid, format!("must be a UUID, got {}", shown(text)));
        }
        id
    }

    fn number(&mut self, field: impl Into<String>, number: i64, min: i64) {
        if !(min..Limits::NUMBER).contains(&number) {
            self.add(field, FaultKind::Invalid, format!("must be from {min} to 2^53 - 1 ({}), got {number}", Limits::NUMBER - 1));
        }
    }

    fn word<T: FromStr<Err = UnknownWord>>(&mut self, field: impl Into<String>, word: &str) -> Option<T> {
        match word.parse() {
            Ok(value) => Some(value),
            Err(UnknownWord { got: _, known }) if word.is_empty() => {
                self.add(field, FaultKind::Required, format!("must be one of {}, got none", known.join(", ")));
                None
            }
            Err(UnknownWord { got: _, known }) => {
                self.add(field, FaultKind::NotSupported, format!("{} is none of {}", shown(word), known.join(", ")));
                None
            }
        }
    }

    fn text(&mut self, field: &str, text: &str, limit: usize) {
        if text.len() > limit {
            self.add(field, FaultKind::TooLong, format!("must be at most {limit} bytes, got {}", text.len()));
        }
        if let Some(at) = text.find('\0') {
            self.add(field, FaultKind::Invalid, format!("must not contain U+0000, got one at byte {at}"));
        }
    }

    fn resources(&mut self, reports: Option<Vec<ResourceReport>>) -> Vec<Resource> {
        let Some(reports) = reports else {
            let message = "must be a list, got none (an empty list is a complete, empty context)";
            self.add("resources", FaultKind::Required, message);
            return Vec::new();
        };
        if reports.len() > Limits::RESOURCES {
            let message = format!("must be at most {} resources, got {}", Limits::RESOURCES, reports.len());
            self.add("resources", FaultKind::TooMany, message);
        }
        let mut seen = HashMap::new();
        let mut resources = Vec::with_capacity(reports.len().min(Limits::RESOURCES));
        let mut bodies = 0;
        for (index, report) in reports.into_iter().enumerate().take(Limits::RESOURCES) {
            let at = format!("resources[{index}]");
            match seen.entry((report.kind.clone(), report.source.clone())) {
                Entry::Vacant(free) => {
                    free.insert(index);
                }
                Entry::Occupied(first) => {
                    let (kind, source) = first.key();
                    let message = format!("{} {} is already resources[{}]", shown(kind), shown(source), first.get());
                    self.add(format!("{at}.source"), FaultKind::Duplicate, message);
                }
            }
            let (resource, decoded) = self.resource(&at, report);
            bodies += decoded;
            resources.extend(resource);
        }
        if bodies > Limits::BODIES {
            let message = format!("all bodies together must be at most {} bytes decoded, got {bodies}", Limits::BODIES);
            self.add("resources", FaultKind::TooLong, message);
        }
        resources
    }

    /// The resource, if its words were understood, and the size of its decoded body.
    fn resource(&mut self, at: &str, report: ResourceReport) -> (Option<Resource>, usize) {
        let ResourceReport { kind, source, source_path, body, body_base64, content_hash, size_bytes, status, error } = report;
        let kind = self.word::<ResourceKind>(format!("{at}.kind"), &kind);
        let status = self.word::<ResourceStatus>(format!("{at}.status"), &status);
        if source.is_empty() {
            self.add(format!("{at}.source"), FaultKind::Required, format!("must be 1 to {} bytes, got 0", Limits::SOURCE));
        }
        self.text(&format!("{at}.source"), &source, Limits::SOURCE);
        self.text(&format!("{at}.sourcePath"), &source_path, Limits::SOURCE_PATH);
        self.text(&format!("{at}.error"), &error, Limits::ERROR);

        if kind == Some(ResourceKind::McpConfig) {
            for (field, given) in [("body", body.is_some()), ("bodyBase64", body_base64.is_some())] {
                if given {
                    let message =
                        "the body of an McpConfig is never carried, because it holds tokens: send contentHash and sizeBytes";
                    self.add(format!("{at}.{field}"), FaultKind::Forbidden, message);
                }
            }
        }
        let has_body = body.is_some() || body_base64.is_some();
        let body = self.body(at, body, body_base64);
        let decoded = body.as_ref().map_or(0, Vec::len);
        let hash = self.content_hash(at, content_hash.as_deref(), body.as_deref());
        let size_bytes = self.size_bytes(at, size_bytes, body.as_deref());
        if status == Some(ResourceStatus::Ok) {
            match kind {
                Some(ResourceKind::McpConfig) if content_hash.is_none() => {
                    let message = "an McpConfig that is Ok must carry the sha256 of its file, got none";
                    self.add(format!("{at}.contentHash"), FaultKind::Required, message);
                }
                None | Some(ResourceKind::McpConfig) => {}
                Some(kind) if !has_body => {
                    let message =
                        format!("{} {kind} that is Ok must carry its content in body or bodyBase64, got neither", article(kind));
                    self.add(format!("{at}.body"), FaultKind::Required, message);
                }
                Some(_) => {}
            }
        }
        let resource = kind.zip(status).map(|(kind, status)| Resource {
            meta: ResourceMeta { kind, source, source_path, content_hash: hash, size_bytes, status, error },
            body,
        });
        (resource, decoded)
    }

    fn body(&mut self, at: &str, body: Option<String>, base64: Option<String>) -> Option<Vec<u8>> {
        let (field, bytes) = match (body, base64) {
            (None, None) => return None,
            (Some(_), Some(_)) => {
                self.add(format!("{at}.bodyBase64"), FaultKind::Forbidden, "must be left out when body is given, got both");
                return None;
            }
            (Some(text), None) => ("body", text.into_bytes()),
            (None, Some(text)) => match BASE64.decode(text) {
                Ok(bytes) => ("bodyBase64", bytes),
                Err(error) => {
                    let message = format!("must be base64 with padding (RFC 4648 section 4): {error}");
                    self.add(format!("{at}.bodyBase64"), FaultKind::Invalid, message);
                    return None;
                }
            },
        };
        if bytes.len() > Limits::BODY {
            let message = format!("must be at most {} bytes decoded, got {}", Limits::BODY, bytes.len());
            self.add(format!("{at}.{field}"), FaultKind::TooLong, message);
        }
        Some(bytes)
    }

    fn content_hash(&mut self, at: &str, given: Option<&str>, body: Option<&[u8]>) -> Option<ContentHash> {
        let computed = body.map(ContentHash::of);
        let parsed = match given.map(str::parse::<ContentHash>) {
            None => return computed,
            Some(Ok(hash)) => hash,
            Some(Err(bad)) => {
                self.add(format!("{at}.contentHash"), FaultKind::Invalid, bad.to_string());
                return computed;
            }
        };
        if let Some(computed) = computed.filter(|computed| *computed != parsed) {
            let message = format!("must be the sha256 of the body, {computed}, got {parsed}");
            self.add(format!("{at}.contentHash"), FaultKind::Invalid, message);
        }
        Some(parsed)
    }

    fn size_bytes(&mut self, at: &str, given: Option<i64>, body: Option<&[u8]>) -> u64 {
        let computed = body.map(|body| body.len() as u64);
        let Some(given) = given else { return computed.unwrap_or(0) };
        self.number(format!("{at}.sizeBytes"), given, 0);
        let size = u64::try_from(given).unwrap_or(0);
        if let Some(computed) = computed.filter(|computed| given >= 0 && *computed != size) {
            let message = format!("must be the size of the body, {computed} bytes, got {given}");
            self.add(format!("{at}.sizeBytes"), FaultKind::Invalid, message);
        }
        size
    }
}

fn article(kind: ResourceKind) -> &'static str {
    if kind.as_str().starts_with(['A', 'E', 'I', 'O', 'U']) || kind == ResourceKind::McpServer { "an" } else { "a" }
}

/// What was got, quoted and cut: a message stays a message whatever was sent.
fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    if text.chars().nth(LONGEST).is_some() {
        format!("{:?} and so on, {} bytes", text.chars().take(LONGEST).collect::<String>(), text.len())
    } else {
        format!("{text:?}")
    }
}

#[cfg(test)]
mod tests;
