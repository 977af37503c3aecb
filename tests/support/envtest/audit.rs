//! What the apiserver was asked and did, from its audit log: who wrote what, and how often.

use super::{ControlPlane, programs};
use crate::support::until::until;
use jiff::Timestamp;
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
};

/// A point in the story of an apiserver.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// A request that was answered. Ordered, so that many of them are easily compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Audit {
    /// `create`, `update`, `patch`, `delete`, `deletecollection`; or `get`, `list`, `watch`.
    pub verb: String,
    /// `chats`, `chats/status`.
    pub resource: String,
    /// Empty for what is in none.
    pub namespace: String,
    /// Empty for a list, and for what the apiserver is to name.
    pub name: String,
    /// Whom the apiserver took it from.
    pub user: String,
    /// What that user says it is: `moorline/…`.
    pub user_agent: String,
    /// The HTTP status.
    pub code: u16,
    /// When it was answered.
    pub at: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    id: String,
    stage: Stage,
    verb: String,
    user: Named,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<Object>,
    response_status: Option<Status>,
    stage_timestamp: Timestamp,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// Whom the apiserver does not know has no name.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

impl ControlPlane {
    /// Now: what was answered before is not counted from here.
    pub fn mark(&self) -> Mark {
        Mark(std::fs::metadata(self.layout.audit()).map_or(0, |file| file.len()))
    }

    /// Every write since a mark that somebody has an answer to, whoever it was (the apiserver itself is `system:apiserver`),
    /// refused ones too. Those that have begun are waited for.
    pub async fn writes_since(&self, mark: Mark) -> Vec<Audit> {
        let mut writes = self.requests_since(mark).await;
        writes.retain(|request| programs::writes(&request.verb));
        writes
    }

    /// The same with reads. A watch is there twice: when it has begun and when it has ended. A read that has just been
    /// answered may not be there yet.
    pub async fn requests_since(&self, mark: Mark) -> Vec<Audit> {
        let begun: BTreeSet<String> = read(self, mark).into_iter().map(|line| line.id).collect();
        until("the audit log has how every write ended", || async {
            let mut ended = Vec::new();
            let mut open = BTreeSet::new();
            for line in read(self, mark) {
                match line.stage {
                    Stage::RequestReceived => _ = open.insert(line.id),
                    Stage::ResponseStarted => ended.push(Audit::from(line)),
                    Stage::ResponseComplete | Stage::Panic => {
                        open.remove(&line.id);
                        ended.push(Audit::from(line));
                    }
                }
            }
            open.is_disjoint(&begun).then_some(ended)
        })
        .await
    }
}

/// The whole lines since a mark.
fn read(of: &ControlPlane, Mark(from): Mark) -> Vec<Line> {
    let mut text = String::new();
    let mut file = File::open(of.layout.audit()).unwrap();
    file.seek(SeekFrom::Start(from)).unwrap();
    file.read_to_string(&mut text).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

impl From<Line> for Audit {
    fn from(line: Line) -> Self {
        let Line { id: _, stage: _, verb, user, user_agent, object_ref, response_status, stage_timestamp } = line;
        let Object { resource, subresource, namespace, name } = object_ref.unwrap_or_default();
        let resource = if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") };
        let code = response_status.unwrap_or_default().code;
        Self { verb, resource, namespace, name, user: user.username, user_agent, code, at: stage_timestamp }
    }
}

/// How many of each verb, resource and user there are.
pub fn counted(requests: &[Audit]) -> BTreeMap<(&str, &str, &str), usize> {
    let mut counts = BTreeMap::new();
    for Audit { verb, resource, user, .. } in requests {
        *counts.entry((verb.as_str(), resource.as_str(), user.as_str())).or_default() += 1;
    }
    counts
}
