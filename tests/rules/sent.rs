//! The two servers, and what they answer to a row.

use super::row::{Row, Sent};
use crate::support::{
    api::{Api, BASE, NAMESPACE},
    envtest::ControlPlane,
    postgres::{TestDb, database},
};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fmt, fs};

/// Both, each with a namespace.
pub struct Servers {
    pub kubernetes: Server,
    pub moorline: Server,
    _api: Api,
    _plane: ControlPlane,
    _db: TestDb,
}

/// One of the two.
pub struct Server {
    http: reqwest::Client,
    all: String,
}

impl Servers {
    pub async fn start() -> Self {
        let db = database().await;
        let (api, plane) = tokio::join!(Api::start(&db), ControlPlane::start());
        plane.namespace(NAMESPACE).await;
        let config: Value = serde_json::from_str(&plane.kubeconfig(NAMESPACE)).unwrap();
        let (cluster, user) = (&config["clusters"][0]["cluster"], &config["users"][0]["user"]);
        let bundle = fs::read(cluster["certificate-authority"].as_str().unwrap()).unwrap();
        let trusted = reqwest::Certificate::from_pem_bundle(&bundle).unwrap();
        let bearer = format!("Bearer {}", user["token"].as_str().unwrap());
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer.parse().unwrap())]);
        let theirs = reqwest::Client::builder().no_proxy().tls_certs_only(trusted).default_headers(headers).build().unwrap();
        // What is changed later is changed under the version it was created with, so the loop must be done with it.
        let headers = HeaderMap::from_iter([("prefer".parse().unwrap(), "wait=10".parse().unwrap())]);
        let ours = reqwest::Client::builder().no_proxy().default_headers(headers).build().unwrap();
        let all = |url: &str| format!("{url}{BASE}/namespaces/{NAMESPACE}");
        let kubernetes = Server { http: theirs, all: all(&plane.url) };
        let moorline = Server { http: ours, all: all(&api.url) };
        Self { kubernetes, moorline, _api: api, _plane: plane, _db: db }
    }
}

impl Server {
    /// Does what a row says, to an object of this name.
    pub async fn send(&self, row: &Row, name: &str) -> Answered {
        let all = format!("{}/{}", self.all, row.kind);
        let one = format!("{all}/{name}");
        let mut there = Value::Null;
        if let Some(before) = &row.before {
            let before = self.ask("POST", &all, "json", named(row, before, name).to_string()).await;
            if before.refused_for().is_some() {
                return before;
            }
            there = before.object;
        }
        match &row.sent {
            Sent::Create(object) => {
                let object = named(row, object, name);
                let generated = object["metadata"]["name"].is_null();
                Answered { generated, ..self.ask("POST", &all, "json", object.to_string()).await }
            }
            Sent::CreateRaw(text) => self.ask("POST", &all, "json", text.clone()).await,
            Sent::CreateStrictly(object) => {
                let strictly = format!("{all}?fieldValidation=Strict");
                self.ask("POST", &strictly, "json", named(row, object, name).to_string()).await
            }
            Sent::Put(object) => {
                let mut object = named(row, object, name);
                if object["metadata"]["resourceVersion"].is_null() {
                    object["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
                }
                self.ask("PUT", &one, "json", object.to_string()).await
            }
            Sent::Merge(patch) => self.ask("PATCH", &one, "merge-patch+json", patch.to_string()).await,
            Sent::Operations(patch) => self.ask("PATCH", &one, "json-patch+json", patch.to_string()).await,
            Sent::MergeStatus(patch) => self.ask("PATCH", &format!("{one}/status"), "merge-patch+json", patch.to_string()).await,
            Sent::Delete => self.ask("DELETE", &one, "json", String::new()).await,
        }
    }

    async fn ask(&self, method: &str, url: &str, form: &str, body: String) -> Answered {
        let request = self.http.request(method.parse().unwrap(), url).header(CONTENT_TYPE, format!("application/{form}"));
        let answer = match request.body(body).send().await {
            // Refused by its announced length, and cut off while it is still being written.
            Err(error) if !error.is_connect() => {
                return Answered { code: 413, object: json!(error.to_string()), generated: false };
            }
            answer => answer.unwrap(),
        };
        let (code, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        Answered { code, object: serde_json::from_str(&text).unwrap_or(Value::String(text)), generated: false }
    }
}

/// An object of the row's kind; with this name, unless it says its own.
fn named(row: &Row, object: &Value, name: &str) -> Value {
    let mut object = object.clone();
    let kind = match row.kind {
        "chats" => "Chat",
        "agents" => "Agent",
        "agentsnapshots" => "AgentSnapshot",
        other => panic!("no kind has the plural {other}"),
    };
    for (field, value) in [("apiVersion", "moorline.dev/v1alpha1"), ("kind", kind)] {
        if object[field].is_null() {
            object[field] = json!(value);
        }
    }
    if object["metadata"]["name"].is_null() && object["metadata"]["generateName"].is_null() {
        object["metadata"]["name"] = json!(name);
    }
    object
}

/// What came back.
pub struct Answered {
    code: u16,
    object: Value,
    /// Whether the end of its name is by chance.
    generated: bool,
}

impl Answered {
    /// The fields that are named as the cause of a refusal; none when it is none.
    pub fn refused_for(&self) -> Option<BTreeSet<&str>> {
        let causes = self.object["details"]["causes"].as_array().into_iter().flatten();
        // `<nil>` is how a kube-apiserver says that it did not go on to its rules.
        let fields = causes.filter_map(|cause| cause["field"].as_str()).filter(|field| *field != "<nil>");
        (self.code >= 400).then(|| fields.collect())
    }

    /// What everybody is shown of the object but for what each server numbers for itself.
    pub fn shown(&self) -> Option<Value> {
        if self.code >= 400 {
            return None;
        }
        let Value::Object(metadata) = &self.object["metadata"] else { return Some(Value::Null) };
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
        let name = if self.generated { &name[..name.len().saturating_sub(5)] } else { name };
        let (labels, annotations) = (metadata.get("labels"), metadata.get("annotations"));
        let (generation, spec) = (&metadata.get("generation"), &self.object["spec"]);
        Some(json!({"name": name, "labels": labels, "annotations": annotations, "generation": generation, "spec": spec}))
    }
}

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.refused_for() {
            Some(fields) => format!("{fields:?} {}", self.object["message"]),
            None => self.shown().unwrap_or_default().to_string(),
        };
        // Rows are large.
        write!(f, "{} {}", self.code, text.chars().take(700).collect::<String>())
    }
}
