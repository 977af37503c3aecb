//! Who calls, and what they may do.
//!
//! Three ways of knowing callers: not at all (`none`, loopback only), by a file of tokens (`token`), in the format of
//! kube-apiserver's `--token-auth-file`, and by asking a cluster (`kubernetes`). Under the first two, members of
//! `system:masters` may do everything, and others reach their own chats (`spec.owner`) and the agents whose
//! `spec.serviceAccountName` is their user name. Under the third RBAC decides, and owning (the module `identity`). For lists the same
//! rules are a [`Reach`](crate::model::access::Reach), which the store turns into SQL.

mod browser;
mod cache;
pub mod cluster;
mod identity;
mod tokens;

use super::status::ApiError;
use crate::config;
use axum::http::{HeaderMap, header};
use browser::is_of_another_site;
use cluster::Reviews;
pub use identity::{Asked, EventList, Identity, Scope};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
pub use tokens::TokenFile;

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";

/// Why callers cannot be known as asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Everybody may do everything, on an address that others reach.
    #[error(
        "--auth none lets everybody do everything, so it is refused on {0}, which is not a loopback address: use --auth token or kubernetes, or listen on 127.0.0.1"
    )]
    OpenToOthers(SocketAddr),
    /// `--auth token` without a file.
    #[error("--auth token needs --token-auth-file")]
    NoFile,
    /// `--auth kubernetes` without a cluster.
    #[error("--auth kubernetes needs a cluster to ask")]
    NoCluster,
    /// The file cannot be read.
    #[error("reading the token file {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A line of the file does not have its form.
    #[error("token file {path}, line {line}: {message}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: u64,
        /// What is wrong with it.
        message: &'static str,
    },
}

/// How callers are known.
#[derive(Clone, Debug)]
pub enum Authentication {
    /// Not at all.
    None,
    /// By a file of tokens.
    Token(TokenFile),
    /// By asking a cluster.
    Cluster(Arc<Reviews>),
}

impl Authentication {
    /// As configured, without a cluster; refuses `none` on an address that others reach.
    pub fn from_config(config: &config::Server) -> Result<Self, AuthError> {
        match config.auth {
            // A replica without an API lets nobody do anything.
            config::Auth::None if config.listen.ip().is_loopback() || !config.serving.role.serves() => Ok(Self::None),
            config::Auth::None => Err(AuthError::OpenToOthers(config.listen)),
            config::Auth::Token => {
                let path = config.token_auth_file.as_deref().ok_or(AuthError::NoFile)?;
                Ok(Self::Token(TokenFile::open(path)?))
            }
            config::Auth::Kubernetes => Err(AuthError::NoCluster),
        }
    }

    /// Who sends these headers.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Identity, ApiError> {
        if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Err(ApiError::denied("impersonation is not served here: send the token of the user that you mean"));
        }
        match self {
            Self::None if is_of_another_site(headers) => Err(ApiError::denied(
                "this server takes everybody for its owner, so it answers only requests made to a loopback name, and none from web pages of other sites",
            )),
            Self::None => Ok(Identity::by_rules("system:anonymous".into(), vec![MASTERS.into()])),
            Self::Token(file) => bearer(headers).and_then(|token| file.find(token)).ok_or_else(ApiError::unauthorized),
            Self::Cluster(reviews) => {
                let token = bearer(headers).ok_or_else(ApiError::unauthorized)?;
                identity::identify(reviews, token.into()).await
            }
        }
    }
}

/// The token that these headers hold.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::{tokens::read, *};
    use crate::{http::status::Resource, model::access::Reach};
    use axum::http::HeaderValue;
    use std::{fs, time::SystemTime};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, text).expect("writing it");
        file
    }

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a header"))])
    }

    async fn reach_of(identity: &Identity) -> Reach {
        identity.scope("list", Resource::Chats, None).await.expect("rules").reach
    }

    #[tokio::test]
    async fn callers_are_known_by_their_token_and_others_are_not() {
        let file = file("# people\ns3cret,alice,1\nroot,admin,2,\"system:masters,ops\"\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let alice = auth.identify(&bearer("s3cret")).await.expect("alice");
        assert_eq!(reach_of(&alice).await, Reach::Own("alice".into()));
        assert_eq!(reach_of(&auth.identify(&bearer("root")).await.expect("admin")).await, Reach::Everything);
        for headers in [bearer("s3cre"), bearer(""), HeaderMap::new()] {
            assert_eq!(auth.identify(&headers).await.expect_err("unknown").code().as_u16(), 401);
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_keeps_what_was_known() {
        let file = file("one,alice,1\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let later = |seconds| {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(time)).expect("its time");
        };
        fs::write(&file, "two,alice,1\n").expect("writing it");
        later(1_000);
        assert!(auth.identify(&bearer("one")).await.is_err() && auth.identify(&bearer("two")).await.is_ok());
        fs::write(&file, "broken\n").expect("writing it");
        later(2_000);
        assert!(auth.identify(&bearer("two")).await.is_ok());
    }

    #[tokio::test]
    async fn where_nobody_is_known_web_pages_of_other_sites_and_borrowed_names_are_refused() {
        let with =
            |name: header::HeaderName, value: &'static str| HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
        for (name, value, ok) in [
            (header::HOST, "127.0.0.1:8460", true),
            (header::HOST, "localhost:8460", true),
            (header::HOST, "[::1]:8460", true),
            (header::HOST, "rebound.example:8460", false),
            (header::ORIGIN, "http://localhost:3000", true),
            (header::ORIGIN, "https://elsewhere.example", false),
            (header::ORIGIN, "null", false),
            (header::HeaderName::from_static("impersonate-user"), "bob", false),
        ] {
            assert_eq!(Authentication::None.identify(&with(name.clone(), value)).await.is_ok(), ok, "{name}: {value}");
        }
    }

    #[tokio::test]
    async fn a_name_with_a_comma_stands_in_quotes_and_loose_groups_are_refused() {
        let file = file("t,\"Smith, J\",1,\"dev, ops\"\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let smith = auth.identify(&bearer("t")).await.expect("smith");
        assert_eq!((smith.user.as_str(), smith.groups), ("Smith, J", vec!["dev".to_owned(), "ops".to_owned()]));
        assert!(read(self::file("t,u,1,dev,ops\n").path()).is_err());
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = TokenFile::open(file("a,b,c\nonly-a-token\n").path()).expect_err("a broken line");
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn nobody_is_let_in_unknown_from_elsewhere() {
        let none = |listen: &str| config::Server {
            listen: listen.parse().expect("an address"),
            auth: config::Auth::None,
            token_auth_file: None,
            listen_notify: crate::wake::ListenNotify::On,
            poll_ms: 2_000,
            database_connections: 4,
            retention_interval: crate::config::RETENTION_INTERVAL,
            event_retention: crate::config::EVENT_RETENTION,
            access: config::Access::default(),
            serving: config::Serving::default(),
        };
        assert!(Authentication::from_config(&none("127.0.0.1:0")).is_ok());
        assert!(Authentication::from_config(&none("[::1]:0")).is_ok());
        let refused = Authentication::from_config(&none("0.0.0.0:0")).expect_err("refused");
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }

    #[tokio::test]
    async fn a_refusal_reads_as_a_kube_apiservers() {
        let bob = Identity::by_rules("bob".into(), vec![]);
        let asked = Asked { verb: "get", resource: Resource::Chats, subresource: None, namespace: "team-a", name: "x" };
        let error = bob.check(&asked, Some("alice")).await.expect_err("not his");
        assert_eq!(
            error.message(),
            "chats.moorline.dev \"x\" is forbidden: User \"bob\" cannot get resource \"chats\" in API group \"moorline.dev\" in the namespace \"team-a\""
        );
        assert!(bob.check(&asked, Some("bob")).await.is_ok());
    }
}
