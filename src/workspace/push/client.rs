//! The three calls that an agent makes, and nothing more: no retry, no state. An answer is taken apart into what the
//! caller decides by: whether there was one, its code, its causes, and when to ask again.

use super::super::AgentSpec;
use crate::v1alpha1::push::{PushRequest, PushResponse, RunResponse};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Status, StatusCause};
use reqwest::{Certificate, Client, ClientBuilder, Method, RequestBuilder, Url, header::RETRY_AFTER, redirect::Policy};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long to wait for a whole answer.
const ANSWER: Duration = Duration::from_secs(30);

/// One agent, at one server.
#[derive(Clone, Debug)]
pub struct ApiClient {
    http: Client,
    agents: Url,
    namespace: String,
    name: String,
    token_file: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server's address is none.
    #[error("the server must be an address like http://127.0.0.1:8460, got {server:?}")]
    Server {
        /// What was got.
        server: String,
    },
    /// The HTTP client could not be set up.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
    /// The file of authorities cannot be read, or has something else in it.
    #[error("--certificate-authority {} holds no certificate that can be read: {why}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The file with the token cannot be read.
    #[error("the token file {} cannot be read", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There was no answer; the server may or may not have acted.
    #[error("the server did not answer")]
    Lost(#[source] reqwest::Error),
    /// The server said no.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The server said yes, but not in the words of this API.
    #[error("the answer is not that of a Moorline server")]
    Answer(#[source] serde_json::Error),
}

/// A server's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status code.
    pub code: u16,
    /// The sentence.
    pub message: String,
    /// All causes.
    pub causes: Vec<Cause>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

/// One cause of a no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The field, if it is about one.
    pub field: String,
    /// The word: `StaleRun`, `FieldValueTooLong`.
    pub reason: String,
    /// The sentence.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message, causes, retry_after: _ } = self;
        write!(f, "{message} (HTTP {code})")?;
        for Cause { field, reason, message } in causes {
            match field.as_str() {
                "" => write!(f, "\n  {reason}: {message}")?,
                field => write!(f, "\n  {field}: {message}")?,
            }
        }
        Ok(())
    }
}

impl CallError {
    /// The HTTP status code of a refusal.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.code),
            Self::Token { .. } | Self::Lost(_) | Self::Answer(_) => None,
        }
    }

    /// Whether the server gave `reason` as a cause.
    pub fn has_cause(&self, reason: &str) -> bool {
        match self {
            Self::Refused(refusal) => refusal.causes.iter().any(|cause| cause.reason == reason),
            Self::Token { .. } | Self::Lost(_) | Self::Answer(_) => false,
        }
    }

    /// Whether the server certainly did nothing. After a 5xx, which a proxy may have made up, nothing is certain.
    pub fn changed_nothing(&self) -> bool {
        match self {
            Self::Token { .. } => true,
            Self::Lost(_) | Self::Answer(_) => false,
            Self::Refused(refusal) => (400..500).contains(&refusal.code) && refusal.code != 408,
        }
    }
}

impl ApiClient {
    /// A client for the agent `namespace`/`name`. The token file is read at each call, because tokens are rotated.
    ///
    /// Panics when no rustls crypto provider is installed, as reqwest does.
    pub fn new(server: &str, namespace: &str, name: &str, token_file: Option<PathBuf>) -> Result<Self, ClientError> {
        let bad = || ClientError::Server { server: server.to_owned() };
        let mut agents = Url::parse(server).map_err(|_| bad())?;
        if !matches!(agents.scheme(), "http" | "https") || agents.host_str().is_none() {
            return Err(bad());
        }
        agents.path_segments_mut().map_err(|()| bad())?.pop_if_empty().extend([
            "apis",
            "moorline.dev",
            "v1alpha1",
            "namespaces",
            namespace,
            "agents",
        ]);
        let http = http(&agents).build().map_err(ClientError::Http)?;
        Ok(Self { http, agents, namespace: namespace.to_owned(), name: name.to_owned(), token_file })
    }

    /// The same, for a server that the certificates of this file vouch for, and no others. It is read now, and not again.
    pub fn trusting(self, path: &Path) -> Result<Self, ClientError> {
        let unusable = |why: String| ClientError::Authority { path: path.to_owned(), why };
        let bundle = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authorities = Certificate::from_pem_bundle(&bundle).map_err(|error| unusable(error.to_string()))?;
        if authorities.is_empty() {
            return Err(unusable("there is none in it".to_owned()));
        }
        let http = http(&self.agents).tls_certs_only(authorities).build().map_err(ClientError::Http)?;
        Ok(Self { http, ..self })
    }

    /// `namespace/name`, for people.
    pub fn agent(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Creates the Agent.
    pub async fn create_agent(&self, AgentSpec { workspace, build }: &AgentSpec) -> Result<(), CallError> {
        let mut spec = serde_json::Map::new();
        spec.extend(workspace.as_ref().map(|workspace| ("workspace".to_owned(), json!(workspace))));
        spec.extend(build.map(|build| ("build".to_owned(), json!(build))));
        let agent =
            json!({"apiVersion": "moorline.dev/v1alpha1", "kind": "Agent", "metadata": {"name": self.name}, "spec": spec});
        self.call(Method::POST, &[], &agent).await.map(|_: serde::de::IgnoredAny| ())
    }

    /// Registers a run.
    pub async fn register(&self) -> Result<RunResponse, CallError> {
        self.call(Method::POST, &[&self.name, "runs"], &json!({})).await
    }

    /// Pushes a report.
    pub async fn push(&self, request: &PushRequest) -> Result<PushResponse, CallError> {
        self.call(Method::PUT, &[&self.name, "snapshot"], request).await
    }

    async fn call<T: DeserializeOwned>(&self, method: Method, path: &[&str], body: &impl Serialize) -> Result<T, CallError> {
        let mut url = self.agents.clone();
        url.path_segments_mut().expect("an http address has a path").extend(path);
        let request = self.authorize(self.http.request(method, url).json(body))?;
        let response = request.send().await.map_err(CallError::Lost)?;
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).and_then(seconds);
        let answer = response.bytes().await.map_err(CallError::Lost)?;
        if status.is_success() {
            serde_json::from_slice(&answer).map_err(CallError::Answer)
        } else {
            Err(CallError::Refused(Box::new(refusal(status.as_u16(), asked, &answer))))
        }
    }

    fn authorize(&self, request: RequestBuilder) -> Result<RequestBuilder, CallError> {
        let Some(path) = &self.token_file else { return Ok(request) };
        let token = fs::read_to_string(path)
            .map(|text| SecretString::from(text.trim()))
            .map_err(|source| CallError::Token { path: path.clone(), source })?;
        Ok(request.bearer_auth(token.expose_secret()))
    }
}

/// A client for this server. The API does not redirect, and a token must not go where somebody else says.
fn http(server: &Url) -> ClientBuilder {
    let http = Client::builder().connect_timeout(CONNECT).timeout(ANSWER).redirect(Policy::none());
    if server.host_str().is_some_and(is_loopback) { http.no_proxy() } else { http }
}

/// A `Retry-After` in seconds. The other form, a date, is not used by this API, and ignored.
fn seconds(text: &str) -> Option<Duration> {
    text.trim().parse().ok().map(Duration::from_secs)
}

fn refusal(code: u16, retry_after: Option<Duration>, answer: &[u8]) -> Refusal {
    let Ok(Status { message, details, .. }) = serde_json::from_slice::<Status>(answer) else {
        let message = "the answer is not that of a Moorline server: check --server".into();
        return Refusal { code, message, causes: Vec::new(), retry_after };
    };
    let in_body = details.as_ref().and_then(|details| details.retry_after_seconds);
    let in_body = in_body.and_then(|seconds| u64::try_from(seconds).ok()).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let cause = |StatusCause { field, message, reason }| Cause {
        field: field.unwrap_or_default(),
        reason: reason.unwrap_or_default(),
        message: message.unwrap_or_default(),
    };
    let causes = details.and_then(|details| details.causes).unwrap_or_default().into_iter().map(cause).collect();
    Refusal { code, message: message.unwrap_or_default(), causes, retry_after: retry_after.or(in_body) }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(server: &str) -> Result<ApiClient, ClientError> {
        rustls::crypto::ring::default_provider().install_default().ok();
        ApiClient::new(server, "team-a", "ws/42", None)
    }

    #[test]
    fn names_are_part_of_the_path_and_cannot_leave_it() {
        let base = "/apis/moorline.dev/v1alpha1/namespaces/team-a/agents";
        assert_eq!(client("http://127.0.0.1:8460").unwrap().agents.path(), base);
        assert_eq!(client("https://example.com/front/").unwrap().agents.path(), format!("/front{base}"));
    }

    #[test]
    fn a_server_is_an_http_address() {
        for bad in ["", "localhost:8460", "ftp://example.com", "127.0.0.1:8460", "unix:/run/x"] {
            assert!(matches!(client(bad), Err(ClientError::Server { .. })), "{bad}");
        }
    }

    #[test]
    fn a_status_is_taken_apart() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 409, "reason": "Conflict",
            "message": "the run is stale", "details": {"retryAfterSeconds": 3, "causes": [{"reason": "StaleRun", "message": "epoch 2 < 3", "field": "epoch"}]}});
        let refusal = refusal(409, None, status.to_string().as_bytes());
        assert_eq!(refusal.to_string(), "the run is stale (HTTP 409)\n  epoch: epoch 2 < 3");
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(3)));
        let error = CallError::Refused(Box::new(refusal));
        assert!(error.has_cause("StaleRun") && !error.has_cause("OutOfOrder"));
        assert!(error.changed_nothing());
    }

    #[test]
    fn a_page_of_a_proxy_is_no_status() {
        let refusal = refusal(502, seconds("7"), b"<html>Bad Gateway</html>");
        assert_eq!((refusal.code, refusal.retry_after), (502, Some(Duration::from_secs(7))));
        assert!(!CallError::Refused(Box::new(refusal)).changed_nothing());
        assert_eq!(seconds("Wed, 21 Oct 2026 07:28:00 GMT"), None);
    }

    #[test]
    fn loopback_is_reached_directly() {
        assert!(["127.0.0.1", "127.8.8.8", "[::1]", "localhost"].into_iter().all(is_loopback));
        assert!(!["example.com", "10.0.0.1", "localhost.example.com"].into_iter().any(is_loopback));
    }

    #[tokio::test]
    async fn a_token_file_that_is_missing_is_named() {
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = ApiClient::new("http://127.0.0.1:1", "a", "b", Some("/nonexistent/token".into())).unwrap();
        let error = client.register().await.unwrap_err();
        assert!(error.to_string().starts_with("the token file /nonexistent/token cannot be read"), "{error}");
    }
}
