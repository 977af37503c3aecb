//! Asking a cluster: who sends a token (TokenReview), and what they may do (SubjectAccessReview).
//!
//! A token must be made for us: its audiences are asked for and looked at in the answer, for a kube-apiserver that does not know
//! of audiences answers for any. Answers are kept (see [`Times`]); that of a token never longer than the token itself lasts.
//! Nobody is impersonated, and nothing is asked but these two.
//!
//! What this does not: decide by owner. That is [`Identity`](super::Identity)'s.

use super::cache::{Answer, Cache, Failed};
use crate::clock::Clock;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// How long the cluster may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many questions of a kind it is asked at once, at most.
const AT_ONCE: usize = 32;
/// How many tokens are remembered.
const TOKENS_MAX: usize = 16_384;
/// How many answers about rights are remembered.
const RIGHTS_MAX: usize = 65_536;
/// How long it is remembered that a token is none: short, for it may be one soon.
const UNKNOWN_TOKEN: Duration = Duration::from_secs(10);
/// Longest token that is asked for, in bytes.
const TOKEN_MAX: usize = 16 << 10;

/// How long answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Who sends a token.
    pub token: Duration,
    /// That somebody may.
    pub allow: Duration,
    /// That somebody may not.
    pub deny: Duration,
}

/// Somebody whom the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The user name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
    uid: Option<String>,
    extra: Option<BTreeMap<String, Vec<String>>>,
    /// Stands for all of the above.
    digest: [u8; 32],
}

impl Subject {
    fn new(info: UserInfo) -> Option<Self> {
        let UserInfo { extra, groups, uid, username } = info;
        let user = username.filter(|user| !user.is_empty())?;
        let groups = groups.unwrap_or_default();
        let told = serde_json::to_vec(&(&user, &groups, &uid, &extra)).expect("texts are plain data");
        Some(Self { digest: Sha256::digest(told).into(), user, groups, uid, extra })
    }

    /// The namespace and the name of the service account that it is, if it is one.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        self.user.strip_prefix("system:serviceaccount:")?.split_once(':')
    }
}

/// What somebody wants to do. An empty namespace means in all of them, an empty name with all objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Deed {
    /// `get`, `update` and so on.
    pub verb: &'static str,
    /// Of the resource.
    pub group: &'static str,
    /// In the plural.
    pub resource: &'static str,
    /// Of the resource.
    pub subresource: Option<&'static str>,
    /// Where.
    pub namespace: String,
    /// With which object.
    pub name: String,
}

/// What is asked about somebody.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    /// Whether they may do this with objects.
    Deed(Deed),
    /// Whether they may get this path, which is no object's.
    Path(&'static str),
}

/// What is asked of a cluster, and what it said.
#[derive(Debug)]
pub struct Reviews {
    client: ClientOf,
    clock: Clock,
    audience: String,
    times: Times,
    tokens: Cache<[u8; 32], Option<Arc<Subject>>>,
    rights: Cache<([u8; 32], Question), bool>,
}

/// A client; it has no `Debug`.
#[derive(Clone)]
struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Client")
    }
}

impl Reviews {
    /// Asks by this client, about tokens for this audience.
    pub fn new(client: Client, clock: Clock, audience: String, times: Times) -> Self {
        let (tokens, rights) = (Cache::new(TOKENS_MAX, AT_ONCE), Cache::new(RIGHTS_MAX, AT_ONCE));
        Self { client: ClientOf(client), clock, audience, times, tokens, rights }
    }

    /// How long answers hold.
    pub fn times(&self) -> Times {
        self.times
    }

    /// Who sends this token; none when nobody does that we are meant for.
    pub async fn subject(&self, token: &SecretString) -> Result<Option<Arc<Subject>>, Failed> {
        let text = token.expose_secret();
        if text.is_empty() || text.len() > TOKEN_MAX {
            return Ok(None);
        }
        let key = Sha256::digest(text).into();
        let answer = self.tokens.get(key, || {
            let (client, audience, hold) = (self.client.0.clone(), self.audience.clone(), self.hold(text));
            review_token(client, token.clone(), audience, hold)
        });
        Ok(answer.await?.value)
    }

    /// How long an answer about this token may hold: no longer than the token, if it says how long it lasts.
    fn hold(&self, token: &str) -> Duration {
        let left = expiry(token).map(|at| at.saturating_sub(self.clock.now().as_second()));
        left.map_or(self.times.token, |left| self.times.token.min(Duration::from_secs(left.try_into().unwrap_or(0))))
    }

    /// Whether somebody may do something, if that is known without asking.
    pub fn known(&self, subject: &Subject, deed: &Deed) -> Option<bool> {
        let whole = self.rights.known(&(subject.digest, Question::Deed(of_all(deed)))).map(|answer| answer.value);
        if whole == Some(true) || deed.name.is_empty() {
            return whole;
        }
        let named = self.rights.known(&(subject.digest, Question::Deed(deed.clone()))).map(|answer| answer.value);
        if named == Some(true) { named } else { whole.and(named) }
    }

    /// Whether somebody may do something, and until when that holds.
    ///
    /// It is asked of all objects first, and of the one only when that is refused: most rights are to all, so most answers serve
    /// for every name.
    pub async fn allowed(&self, subject: &Arc<Subject>, deed: &Deed) -> Result<Answer<bool>, Failed> {
        let whole = self.ask(subject, Question::Deed(of_all(deed))).await?;
        if whole.value || deed.name.is_empty() {
            return Ok(whole);
        }
        self.ask(subject, Question::Deed(deed.clone())).await
    }

    /// Whether somebody may get a path that is no object's (RBAC's `nonResourceURLs`).
    pub async fn may_get(&self, subject: &Arc<Subject>, path: &'static str) -> Result<Answer<bool>, Failed> {
        self.ask(subject, Question::Path(path)).await
    }

    async fn ask(&self, subject: &Arc<Subject>, question: Question) -> Result<Answer<bool>, Failed> {
        let (client, times) = (self.client.0.clone(), self.times);
        let key = (subject.digest, question.clone());
        self.rights.get(key, || review_access(client, Arc::clone(subject), question, times)).await
    }
}

fn of_all(deed: &Deed) -> Deed {
    Deed { name: String::new(), ..deed.clone() }
}

async fn review_token(
    client: Client,
    token: SecretString,
    audience: String,
    hold: Duration,
) -> Result<Answer<Option<Arc<Subject>>>, Failed> {
    let spec = TokenReviewSpec { audiences: Some(vec![audience.clone()]), token: Some(token.expose_secret().to_owned()) };
    let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
    let said = ask(&Api::<TokenReview>::all(client), "TokenReview", &review).await?;
    let status = said.status.unwrap_or_default();
    let is_ours = status.audiences.is_some_and(|audiences| audiences.contains(&audience));
    let subject = status.user.filter(|_| status.authenticated == Some(true) && is_ours).and_then(Subject::new);
    if subject.is_none() {
        tracing::debug!(error = status.error.unwrap_or_default(), is_ours, "a token was refused");
    }
    let hold = if subject.is_some() { hold } else { UNKNOWN_TOKEN.min(hold) };
    Ok(Answer { value: subject.map(Arc::new), until: Instant::now() + hold })
}

async fn review_access(client: Client, subject: Arc<Subject>, question: Question, times: Times) -> Result<Answer<bool>, Failed> {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let (resource_attributes, non_resource_attributes) = match question {
        Question::Deed(Deed { verb, group, resource, subresource, namespace, name }) => {
            let attributes = ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            };
            (Some(attributes), None)
        }
        Question::Path(path) => (None, Some(NonResourceAttributes { path: Some(path.to_owned()), verb: Some("get".to_owned()) })),
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(subject.user.clone()),
        groups: Some(subject.groups.clone()),
        uid: subject.uid.clone(),
        extra: subject.extra.clone(),
        resource_attributes,
        non_resource_attributes,
    };
    let review = SubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
    let said = ask(&Api::<SubjectAccessReview>::all(client), "SubjectAccessReview", &review).await?;
    // A refusal wins, as among authorizers.
    let value = said.status.is_some_and(|status| status.allowed && status.denied != Some(true));
    Ok(Answer { value, until: Instant::now() + if value { times.allow } else { times.deny } })
}

async fn ask<K>(api: &Api<K>, what: &str, review: &K) -> Result<K, Failed>
where
    K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%error, "the cluster did not answer a {what}");
        Failed::from(format!("the cluster did not answer a {what}: {error}"))
    };
    match tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), review)).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(error)) => Err(failed(&crate::telemetry::reasons(&error))),
        Err(error) => Err(failed(&error)),
    }
}

/// When a token expires, in seconds since 1970, if it is a JWT that says so. Nothing is believed of it but that it may be over
/// sooner than we would look again.
fn expiry(token: &str) -> Option<i64> {
    let claims = token.split('.').nth(1)?;
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    claims.get("exp")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_when_it_expires() {
        let claims = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry(&claims(r#"{"aud":["moorline"],"exp":1795000000}"#)), Some(1_795_000_000));
        for none in [claims("{}"), claims("no JSON"), "opaque".into(), "a.%%.c".into()] {
            assert_eq!(expiry(&none), None, "{none}");
        }
    }

    /// A cluster that answers every question with this status.
    fn reviews(status: serde_json::Value) -> Reviews {
        let answer = move |_: http::Request<kube::client::Body>| {
            let said = serde_json::json!({"spec": {}, "status": status});
            async move {
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(said.to_string().into_bytes())))
            }
        };
        let client = Client::new(tower::service_fn(answer), "default");
        let times = Times { token: Duration::from_mins(1), allow: Duration::from_mins(5), deny: Duration::from_secs(30) };
        Reviews::new(client, crate::clock::system(), "moorline".into(), times)
    }

    #[tokio::test]
    async fn a_token_is_known_only_when_the_cluster_says_that_it_is_for_us() {
        let known = async |status: serde_json::Value| reviews(status).subject(&"a".into()).await.expect("an answer").is_some();
        let user = serde_json::json!({"username": "alice"});
        let said = |authenticated, audiences: &[&str]| serde_json::json!({"authenticated": authenticated, "audiences": audiences, "user": user});
        assert!(known(said(true, &["vault", "moorline"])).await);
        assert!(!known(said(true, &["vault"])).await);
        assert!(!known(said(false, &["moorline"])).await);
        assert!(!known(serde_json::json!({"authenticated": true, "user": user})).await, "it knows of no audiences");
        assert!(!known(serde_json::json!({"authenticated": true, "audiences": ["moorline"]})).await, "nobody");
    }

    #[tokio::test]
    async fn a_refusal_wins() {
        let said = async |status: serde_json::Value| {
            let subject = Subject::new(UserInfo { username: Some("alice".into()), ..UserInfo::default() }).expect("a user");
            let deed = Deed {
                verb: "get",
                group: "moorline.dev",
                resource: "chats",
                subresource: None,
                namespace: "team-a".into(),
                name: "x".into(),
            };
            reviews(status).allowed(&Arc::new(subject), &deed).await.expect("an answer").value
        };
        assert!(said(serde_json::json!({"allowed": true})).await);
        assert!(!said(serde_json::json!({"allowed": true, "denied": true})).await);
        assert!(!said(serde_json::json!({"allowed": false})).await);
    }

    #[test]
    fn a_service_account_is_known_by_its_name_and_others_are_not() {
        let subject = |user: &str| Subject::new(UserInfo { username: Some(user.into()), ..UserInfo::default() }).expect("a user");
        assert_eq!(subject("system:serviceaccount:team-a:ws-42").service_account(), Some(("team-a", "ws-42")));
        assert_eq!(subject("ws-42").service_account(), None);
        assert_eq!(Subject::new(UserInfo::default()), None, "nobody");
        assert_ne!(subject("a").digest, subject("b").digest);
    }
}
