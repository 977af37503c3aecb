//! A client of the API, for the command line: Moorline's own server, or a kube-apiserver that serves the same paths.
//!
//! What it does: find out where the server is and who is asking ([`connect`]), send one call, and tell a `Status` in words
//! ([`refusal`]). What it does not: retry, cache, or know what an object means. The transport is kube's, so that a kubeconfig
//! means what it means to kubectl: certificates, tokens, credential plugins, proxies.

pub mod connect;
pub mod refusal;
mod stream;

pub use connect::{ConnectError, Connection};
pub use refusal::Refusal;
pub use stream::Lines;

use http::{Method, Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use reqwest::Url;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{borrow::Cow, time::Duration};

/// Where our objects are, below the address of the server.
const BASE: [&str; 3] = ["apis", "moorline.dev", "v1alpha1"];

/// A server and who we are to it.
#[derive(Clone)]
pub struct Client {
    http: kube::Client,
    place: String,
    namespace: String,
    timeout: Duration,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    url: Url,
    headers: Vec<(header::HeaderName, Cow<'static, str>)>,
    body: Option<Value>,
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There was no answer.
    #[error(
        "no answer from {place}: {why}; start a server with `moorline dev` or `moorline serve`, or say where it is: --server, --context"
    )]
    Lost {
        /// Where it went to.
        place: String,
        /// What happened, in one line.
        why: String,
    },
    /// The answer did not come in time.
    #[error("no answer from {place} within {} s; --request-timeout gives it longer", within.as_secs())]
    Slow {
        /// Where it went to.
        place: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The server said yes, but not in the words of this API.
    #[error("the answer of {place} is not that of a Moorline server: {source}")]
    Answer {
        /// Who said it.
        place: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl CallError {
    /// The server's no, if it said one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Lost { .. } | Self::Slow { .. } | Self::Answer { .. } => None,
        }
    }
}

impl Call {
    /// A call of the API group: `path` is below `/apis/moorline.dev/v1alpha1`; a segment cannot leave its place.
    pub fn new(method: Method, path: &[&str]) -> Self {
        Self::absolute(method, &[&BASE, path].concat())
    }

    /// A call of any path.
    pub fn absolute(method: Method, path: &[&str]) -> Self {
        let mut url = Url::parse("http://server").expect("a valid address");
        url.path_segments_mut().expect("an http address has a path").clear().extend(path);
        Self { method, url, headers: vec![(header::ACCEPT, "application/json".into())], body: None }
    }

    /// Adds to the query.
    #[must_use]
    pub fn query(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.url.query_pairs_mut().append_pair(name, value.as_ref());
        self
    }

    /// Adds to the query, if there is something to add.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets a header.
    #[must_use]
    pub fn header(self, name: header::HeaderName, value: &'static str) -> Self {
        self.with(name, value.into())
    }

    /// Asks the server to answer when the loop has caught up, or after so many seconds; 0: at once.
    #[must_use]
    pub fn wait(self, seconds: u64) -> Self {
        let value = if seconds == 0 { "respond-async".into() } else { format!("wait={seconds}").into() };
        self.with(header::HeaderName::from_static("prefer"), value)
    }

    fn with(mut self, name: header::HeaderName, value: Cow<'static, str>) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }

    /// Sends JSON.
    #[must_use]
    pub fn json(self, body: Value) -> Self {
        Self { body: Some(body), ..self }.header(header::CONTENT_TYPE, "application/json")
    }

    /// Sends a merge patch.
    #[must_use]
    pub fn merge_patch(self, body: Value) -> Self {
        Self { body: Some(body), ..self }.header(header::CONTENT_TYPE, "application/merge-patch+json")
    }

    fn request(self) -> Request<Body> {
        let uri = match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        };
        let mut request = Request::builder().method(self.method).uri(uri);
        for (name, value) in self.headers {
            request = request.header(name, value.as_ref());
        }
        let body = self.body.map_or_else(Body::empty, |body| Body::from(body.to_string().into_bytes()));
        request.body(body).expect("a URL's path and query are a URI, and the headers are words of ours")
    }
}

impl Client {
    /// Where the server is, for people: the address, and where that is from.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The namespace that is meant when none is named.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Sends a call, and reads the answer as JSON.
    pub async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        let answer = self.bytes(call).await?;
        serde_json::from_slice(&answer).map_err(|source| CallError::Answer { place: self.place.clone(), source })
    }

    /// Sends a call, and reads the answer as text.
    pub async fn text(&self, call: Call) -> Result<String, CallError> {
        Ok(String::from_utf8_lossy(&self.bytes(call).await?).into_owned())
    }

    async fn bytes(&self, call: Call) -> Result<Vec<u8>, CallError> {
        let answer = async {
            let (status, body) = self.send(call).await?;
            let bytes = body.collect().await.map_err(|error| self.lost(&error))?.to_bytes();
            if status.is_success() {
                return Ok(bytes.to_vec());
            }
            Err(CallError::Refused(Box::new(Refusal::read(&self.place, status.as_u16(), &bytes))))
        };
        let slow = |_| CallError::Slow { place: self.place.clone(), within: self.timeout };
        tokio::time::timeout(self.timeout, answer).await.map_err(slow)?
    }

    /// Sends a call whose answer has no end: line by line. Only for the beginning of the answer is the time limited.
    pub async fn lines(&self, call: Call) -> Result<Lines, CallError> {
        let begin = async {
            let (status, body) = self.send(call).await?;
            if status.is_success() {
                return Ok(Lines::new(body, self.place.clone()));
            }
            let bytes = body.collect().await.map_err(|error| self.lost(&error))?.to_bytes();
            Err(CallError::Refused(Box::new(Refusal::read(&self.place, status.as_u16(), &bytes))))
        };
        let slow = |_| CallError::Slow { place: self.place.clone(), within: self.timeout };
        tokio::time::timeout(self.timeout, begin).await.map_err(slow)?
    }

    async fn send(&self, call: Call) -> Result<(http::StatusCode, Body), CallError> {
        let response = self.http.send(call.request()).await.map_err(|error| self.lost(&error))?;
        let (head, body) = response.into_parts();
        Ok((head.status, body))
    }

    fn lost(&self, error: &(dyn std::error::Error + 'static)) -> CallError {
        CallError::Lost { place: self.place.clone(), why: root(error) }
    }
}

/// The last of a chain of causes: what really happened. Those before it only say which layer saw it.
fn root(mut error: &(dyn std::error::Error + 'static)) -> String {
    while let Some(source) = error.source() {
        error = source;
    }
    let text = error.to_string();
    text.split_once(" (os error").map_or(text.clone(), |(words, _)| words.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_part_of_the_path_and_cannot_leave_it() {
        let call = Call::new(Method::GET, &["namespaces", "a/b", "chats", "..", "x?y"]).query("labelSelector", "a=b,c!=d e");
        let uri = call.request().uri().to_string();
        assert!(uri.starts_with("/apis/moorline.dev/v1alpha1/namespaces/a%2Fb/chats"), "{uri}");
        assert!(uri.ends_with("x%3Fy?labelSelector=a%3Db%2Cc%21%3Dd+e"), "{uri}");
    }

    #[test]
    fn a_later_header_replaces_an_earlier_one() {
        let call = Call::new(Method::GET, &["chats"]).header(header::ACCEPT, "text/markdown");
        let request = call.request();
        assert_eq!(request.headers().get_all(header::ACCEPT).iter().collect::<Vec<_>>(), ["text/markdown"]);
    }
}
