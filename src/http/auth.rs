//! Who calls, and what they may do.
//!
//! Two ways of knowing callers: not at all (`none`, loopback only), and by a file of tokens (`token`), in the format of
//! kube-apiserver's `--token-auth-file`. Three rules of what callers may: members of `system:masters` everything; others their
//! own chats (`spec.owner`) and the agents whose `spec.serviceAccountName` is their user name. For lists the same rules are a
//! [`Reach`], which the store turns into SQL.

use super::status::{ApiError, GROUP, Resource};
use crate::{config, model::access::Reach};
use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, RwLock},
    time::SystemTime,
};

/// The group whose members may do everything.
pub const MASTERS: &str = "system:masters";

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user name.
    pub user: String,
    /// The groups.
    pub groups: Vec<String>,
}

impl Identity {
    /// Whose records it reaches.
    pub fn reach(&self) -> Reach {
        if self.groups.iter().any(|group| group == MASTERS) { Reach::Everything } else { Reach::Own(self.user.clone()) }
    }

    /// Refuses what is not within reach. `owner` is the chat's owner, or the agent's service account.
    pub fn check(&self, request: &Asked<'_>, owner: Option<&str>) -> Result<(), ApiError> {
        if self.reach().covers(owner) { Ok(()) } else { Err(self.forbidden(request)) }
    }

    fn forbidden(&self, asked: &Asked<'_>) -> ApiError {
        let Asked { verb, resource, subresource, namespace, name } = asked;
        let resource_path = match subresource {
            Some(subresource) => format!("{}/{subresource}", resource.plural()),
            None => resource.plural().to_owned(),
        };
        let message = format!(
            "{}.{GROUP} {name:?} is forbidden: User {:?} cannot {verb} resource {resource_path:?} in API group {GROUP:?} in the namespace {namespace:?}",
            resource.plural(),
            self.user
        );
        ApiError::forbidden(*resource, name, message)
    }
}

/// What is asked, for the refusal.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `get`, `update` and so on.
    pub verb: &'static str,
    /// Of which resource.
    pub resource: Resource,
    /// Of which subresource.
    pub subresource: Option<&'static str>,
    /// Where.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
}

/// Why callers cannot be known as asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Everybody may do everything, on an address that others reach.
    #[error(
        "--auth none lets everybody do everything, so it is refused on {0}, which is not a loopback address: use --auth token, or listen on 127.0.0.1"
    )]
    OpenToOthers(SocketAddr),
    /// `--auth token` without a file.
    #[error("--auth token needs --token-auth-file")]
    NoFile,
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
}

impl Authentication {
    /// As configured; refuses `none` on an address that others reach.
    pub fn from_config(config: &config::Server) -> Result<Self, AuthError> {
        match config.auth {
            // A replica without an API lets nobody do anything.
            config::Auth::None if config.listen.ip().is_loopback() || !config.serving.role.serves() => Ok(Self::None),
            config::Auth::None => Err(AuthError::OpenToOthers(config.listen)),
            config::Auth::Token => {
                let path = config.token_auth_file.as_deref().ok_or(AuthError::NoFile)?;
                Ok(Self::Token(TokenFile::open(path)?))
            }
        }
    }

    /// Who sends these headers.
    pub fn identify(&self, headers: &HeaderMap) -> Result<Identity, ApiError> {
        if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Err(ApiError::denied("impersonation is not served here: send the token of the user that you mean"));
        }
        match self {
            Self::None if is_of_another_site(headers) => Err(ApiError::denied(
                "this server takes everybody for its owner, so it answers only requests made to a loopback name, and none from web pages of other sites",
            )),
            Self::None => Ok(Identity { user: "system:anonymous".into(), groups: vec![MASTERS.into()] }),
            Self::Token(file) => {
                let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
                let token =
                    value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                token.and_then(|(_, token)| file.find(token.trim())).ok_or_else(ApiError::unauthorized)
            }
        }
    }
}

/// Whether a browser sends this for a page of somebody else. A page may make a browser ask any address of this machine, by its
/// own origin or by a name that resolves to 127.0.0.1; where nobody is known, both must be refused by what the browser says.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).is_some_and(|host| !is_loopback_name(host));
    let origin =
        text(header::ORIGIN).is_some_and(|origin| !is_loopback_name(origin.split_once("://").map_or(origin, |(_, host)| host)));
    host || origin
}

/// Whether an authority, with or without a port, names this machine to itself.
fn is_loopback_name(authority: &str) -> bool {
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A file of tokens, read again when it changes. Tokens are looked up by their sha256, so that no comparison of them takes a
/// time that tells anything.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: Arc<PathBuf>,
    known: Arc<RwLock<Known>>,
}

#[derive(Debug)]
struct Known {
    modified: Option<SystemTime>,
    users: HashMap<[u8; 32], Identity>,
}

impl TokenFile {
    /// Reads a file.
    pub fn open(path: &Path) -> Result<Self, AuthError> {
        let known = Known { modified: modified(path), users: read(path)? };
        Ok(Self { path: Arc::new(path.to_owned()), known: Arc::new(RwLock::new(known)) })
    }

    fn find(&self, token: &str) -> Option<Identity> {
        self.read_again();
        let known = self.known.read().expect("no holder of this lock panics");
        known.users.get(&<[u8; 32]>::from(Sha256::digest(token))).cloned()
    }

    /// A file that changed and cannot be read keeps what was known; that is logged once a change.
    fn read_again(&self) {
        let now = modified(&self.path);
        if self.known.read().expect("no holder of this lock panics").modified == now {
            return;
        }
        let mut known = self.known.write().expect("no holder of this lock panics");
        if known.modified == now {
            return;
        }
        known.modified = now;
        match read(&self.path) {
            Ok(users) => {
                tracing::info!(users = users.len(), "the token file has changed and was read again");
                known.users = users;
            }
            Err(error) => tracing::error!(%error, "the token file has changed and cannot be read; the tokens known before stay"),
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read(path: &Path) -> Result<HashMap<[u8; 32], Identity>, AuthError> {
    let text = fs::read_to_string(path).map_err(|source| AuthError::Read { path: path.to_owned(), source })?;
    let mut lines = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .comment(Some(b'#'))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let mut users = HashMap::new();
    for record in lines.records() {
        let bad = |line: u64, message| AuthError::Line { path: path.to_owned(), line, message };
        let form = "must be token,user,uid and optionally \"group1,group2\" in quotes";
        let record = record.map_err(|error| bad(error.position().map_or(0, csv::Position::line), form))?;
        let bad = |message| bad(record.position().map_or(0, csv::Position::line), message);
        let (Some(token), Some(user), Some(_), 3 | 4) = (record.get(0), record.get(1), record.get(2), record.len()) else {
            return Err(bad(form));
        };
        if token.is_empty() || user.is_empty() {
            return Err(bad("token and user must not be empty"));
        }
        let groups = record.get(3).unwrap_or_default().split(',').map(str::trim).filter(|group| !group.is_empty());
        let identity = Identity { user: user.to_owned(), groups: groups.map(str::to_owned).collect() };
        if users.insert(Sha256::digest(token).into(), identity).is_some() {
            return Err(bad("this token stands in the file twice"));
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(&file, text).expect("writing it");
        file
    }

    fn bearer(token: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a header"))])
    }

    #[test]
    fn callers_are_known_by_their_token_and_others_are_not() {
        let file = file("# people\ns3cret,alice,1\nroot,admin,2,\"system:masters,ops\"\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let alice = auth.identify(&bearer("s3cret")).expect("alice");
        assert_eq!(alice.reach(), Reach::Own("alice".into()));
        assert_eq!(auth.identify(&bearer("root")).expect("admin").reach(), Reach::Everything);
        for headers in [bearer("s3cre"), bearer(""), HeaderMap::new()] {
            assert_eq!(auth.identify(&headers).expect_err("unknown").code().as_u16(), 401);
        }
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_keeps_what_was_known() {
        let file = file("one,alice,1\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let later = |seconds| {
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(time)).expect("its time");
        };
        fs::write(&file, "two,alice,1\n").expect("writing it");
        later(1_000);
        assert!(auth.identify(&bearer("one")).is_err() && auth.identify(&bearer("two")).is_ok());
        fs::write(&file, "broken\n").expect("writing it");
        later(2_000);
        assert!(auth.identify(&bearer("two")).is_ok());
    }

    #[test]
    fn where_nobody_is_known_web_pages_of_other_sites_and_borrowed_names_are_refused() {
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
            assert_eq!(Authentication::None.identify(&with(name.clone(), value)).is_ok(), ok, "{name}: {value}");
        }
    }

    #[test]
    fn a_name_with_a_comma_stands_in_quotes_and_loose_groups_are_refused() {
        let file = file("t,\"Smith, J\",1,\"dev, ops\"\n");
        let auth = Authentication::Token(TokenFile::open(file.path()).expect("the file"));
        let smith = auth.identify(&bearer("t")).expect("smith");
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
            serving: config::Serving::default(),
        };
        assert!(Authentication::from_config(&none("127.0.0.1:0")).is_ok());
        assert!(Authentication::from_config(&none("[::1]:0")).is_ok());
        let refused = Authentication::from_config(&none("0.0.0.0:0")).expect_err("refused");
        assert!(refused.to_string().contains("loopback"), "{refused}");
    }

    #[test]
    fn a_refusal_reads_as_a_kube_apiservers() {
        let bob = Identity { user: "bob".into(), groups: vec![] };
        let asked = Asked { verb: "get", resource: Resource::Chats, subresource: None, namespace: "team-a", name: "x" };
        let error = bob.check(&asked, Some("alice")).expect_err("not his");
        assert_eq!(
            error.message(),
            "chats.moorline.dev \"x\" is forbidden: User \"bob\" cannot get resource \"chats\" in API group \"moorline.dev\" in the namespace \"team-a\""
        );
        assert!(bob.check(&asked, Some("bob")).is_ok());
    }
}
