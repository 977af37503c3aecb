//! Where the server is and who is asking: flags, else a kubeconfig, else this machine.
//!
//! A server that is named (`--server`, MOORLINE_SERVER) is asked with the token that is given, and with nothing of a kubeconfig
//! that merely lies about: its credentials are for another server. Only a kubeconfig or a context that is asked for by a flag
//! lends its credentials to `--server`, as it does with kubectl.

use super::{Client, root};
use kube::{
    Config,
    config::{AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext},
};
use reqwest::Url;
use secrecy::SecretString;
use std::{
    env, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// The server of `moorline serve` and `moorline dev` when nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8460";

const CONNECT: Duration = Duration::from_secs(5);
/// The name that our own context, cluster and user have.
const OURS: &str = "moorline";

/// What a person says about the server.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// Its address.
    pub server: Option<String>,
    /// A bearer token.
    pub token: Option<SecretString>,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// A file of certificates that vouch for the server.
    pub certificate_authority: Option<PathBuf>,
    /// Take any certificate.
    pub insecure_skip_tls_verify: bool,
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig.
    pub context: Option<String>,
    /// How long to wait for an answer.
    pub timeout: Duration,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server's address is none.
    #[error("the server must be an address like {DEFAULT_SERVER}, got {server:?} from {from}")]
    Server {
        /// What was got.
        server: String,
        /// Where it is from.
        from: String,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {path} cannot be used: {why}")]
    Kubeconfig {
        /// Which files.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file that a flag names cannot be read.
    #[error("{flag} {}: {source}", path.display())]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The HTTP client could not be set up.
    #[error("the connection to {place} cannot be set up: {why}")]
    Http {
        /// The server.
        place: String,
        /// Why.
        why: String,
    },
}

impl Connection {
    /// A client. Asks nobody yet.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        for (flag, path) in [("--token-file", &self.token_file), ("--certificate-authority", &self.certificate_authority)] {
            if let Some(path) = path {
                std::fs::metadata(path).map_err(|source| ConnectError::File { flag, path: path.clone(), source })?;
            }
        }
        let (kubeconfig, options, from) = self.kubeconfig()?;
        let unusable = |error: &(dyn std::error::Error + 'static)| ConnectError::Kubeconfig {
            path: from.clone(),
            why: match error.source() {
                Some(source) => format!("{error} ({})", root(source)),
                None => error.to_string(),
            },
        };
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| unusable(&error))?;
        let server = config.cluster_url.to_string();
        let address = Url::parse(&server).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let Some(address) = address else { return Err(ConnectError::Server { server, from }) };
        if address.host_str().is_some_and(is_loopback) {
            config.proxy_url = None;
        }
        config.connect_timeout = Some(CONNECT);
        // A person waits: say what happened, at once. A retried POST could do a thing twice.
        config.default_retry = false;
        let namespace = config.default_namespace.clone();
        let place = format!("{} ({from})", address.as_str().trim_end_matches('/'));
        let http =
            kube::Client::try_from(config).map_err(|error| ConnectError::Http { place: place.clone(), why: root(&error) })?;
        Ok(Client { http, place, namespace, timeout: self.timeout })
    }

    /// The kubeconfig that says all this, which of its contexts, and where it is from.
    fn kubeconfig(&self) -> Result<(Kubeconfig, KubeConfigOptions, String), ConnectError> {
        let asked_for = self.kubeconfig.is_some() || self.context.is_some();
        let found = match (&self.server, asked_for) {
            (Some(_), false) => None,
            (Some(_), true) | (None, _) => self.read()?,
        };
        let (mut kubeconfig, from) = match (found, &self.context) {
            (Some((kubeconfig, path)), Some(context)) => (kubeconfig, format!("context {context} of {path}")),
            (Some((kubeconfig, path)), None) => match &kubeconfig.current_context {
                Some(context) if !context.is_empty() => {
                    let from = format!("context {context} of {path}");
                    (kubeconfig, from)
                }
                // Which of them is meant is not for us to guess.
                Some(_) | None if self.server.is_none() && (self.kubeconfig.is_some() || !kubeconfig.contexts.is_empty()) => {
                    let names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
                    let these = if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
                    let why = format!("it has no current context: name one with --context{these}, or a server with --server");
                    return Err(ConnectError::Kubeconfig { path, why });
                }
                Some(_) | None => (ours(DEFAULT_SERVER), "the default".into()),
            },
            (None, Some(context)) => {
                let why = format!("there is none, and --context {context} asks for one");
                return Err(ConnectError::Kubeconfig { path: "~/.kube/config".into(), why });
            }
            (None, None) => (ours(DEFAULT_SERVER), "the default".into()),
        };
        let from = if self.server.is_some() { "--server or MOORLINE_SERVER".to_owned() } else { from };
        if let Some(server) = &self.server
            && server.parse::<http::Uri>().is_err()
        {
            return Err(ConnectError::Server { server: server.clone(), from });
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        self.overlay(&mut kubeconfig);
        whole_tokens(&mut kubeconfig, self.context.as_deref());
        Ok((kubeconfig, options, from))
    }

    /// The files that kubectl would read, merged as it does; one that is not there is passed over, as it does too.
    fn read(&self) -> Result<Option<(Kubeconfig, String)>, ConnectError> {
        let read = |path: &Path| {
            Kubeconfig::read_from(path)
                .map_err(|error| ConnectError::Kubeconfig { path: path.display().to_string(), why: root(&error) })
        };
        if let Some(path) = &self.kubeconfig {
            return Ok(Some((read(path)?, path.display().to_string())));
        }
        let listed = env::var_os("KUBECONFIG").map(|paths| env::split_paths(&paths).collect::<Vec<_>>());
        let listed = listed.filter(|paths| paths.iter().any(|path| !path.as_os_str().is_empty()));
        let home = || env::home_dir().map(|home| vec![home.join(".kube").join("config")]).unwrap_or_default();
        let paths: Vec<PathBuf> = listed.unwrap_or_else(home).into_iter().filter(|path| path.is_file()).collect();
        let mut merged: Option<Kubeconfig> = None;
        for path in &paths {
            let next = read(path)?;
            merged = Some(match merged {
                None => next,
                Some(before) => before
                    .merge(next)
                    .map_err(|error| ConnectError::Kubeconfig { path: path.display().to_string(), why: root(&error) })?,
            });
        }
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        Ok(merged.map(|merged| (merged, names.join(", "))))
    }

    /// What flags say goes before what the kubeconfig says.
    fn overlay(&self, kubeconfig: &mut Kubeconfig) {
        let text = |path: &PathBuf| path.display().to_string();
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            if let Some(server) = &self.server {
                cluster.server = Some(server.clone());
                cluster.tls_server_name = None;
            }
            if let Some(path) = &self.certificate_authority {
                (cluster.certificate_authority, cluster.certificate_authority_data) = (Some(text(path)), None);
            }
            if self.insecure_skip_tls_verify {
                cluster.insecure_skip_tls_verify = Some(true);
            }
        }
        let Self { token, token_file, .. } = self;
        if token.is_none() && token_file.is_none() {
            return;
        }
        // Alone: a certificate or a plugin beside it would speak for somebody else.
        let user = AuthInfo { token: token.clone(), token_file: token_file.as_ref().map(text), ..AuthInfo::default() };
        kubeconfig.auth_infos.insert(0, NamedAuthInfo { name: OURS.into(), auth_info: Some(user), ..NamedAuthInfo::default() });
        for context in kubeconfig.contexts.iter_mut().filter_map(|named| named.context.as_mut()) {
            context.user = Some(OURS.into());
        }
    }
}

/// A token file that ends in a newline, as an editor leaves it, holds the token before it, as it does for kubectl; kube would send
/// the newline too. Others are left to kube, which reads them again every minute. One that cannot be read, too: it says so.
fn whole_tokens(kubeconfig: &mut Kubeconfig, context: Option<&str>) {
    let context = context.or(kubeconfig.current_context.as_deref());
    let named = kubeconfig.contexts.iter().find(|named| Some(named.name.as_str()) == context);
    let Some(user) = named.and_then(|named| named.context.as_ref()?.user.clone()) else { return };
    let user = kubeconfig.auth_infos.iter_mut().find(|named| named.name == user).and_then(|named| named.auth_info.as_mut());
    let Some(user) = user.filter(|user| user.token.is_none()) else { return };
    let text = user.token_file.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let token = text.trim();
    if token != text {
        (user.token, user.token_file) = (Some(SecretString::from(token)), None);
    }
}

/// A kubeconfig that says only where the server is.
fn ours(server: &str) -> Kubeconfig {
    let cluster = Cluster { server: Some(server.to_owned()), ..Cluster::default() };
    let context = Context { cluster: OURS.into(), user: None, ..Context::default() };
    Kubeconfig {
        clusters: vec![NamedCluster { name: OURS.into(), cluster: Some(cluster), ..NamedCluster::default() }],
        contexts: vec![NamedContext { name: OURS.into(), context: Some(context), ..NamedContext::default() }],
        current_context: Some(OURS.into()),
        ..Kubeconfig::default()
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: one\n\
        clusters: [{name: c1, cluster: {server: 'https://one.example:6443'}}, {name: c2, cluster: {server: 'https://two.example/front/'}}]\n\
        users: [{name: u, user: {token: secret}}]\n\
        contexts: [{name: one, context: {cluster: c1, user: u, namespace: team-a}}, {name: two, context: {cluster: c2, user: u}}]\n";

    async fn connect(connection: Connection) -> Result<Client, ConnectError> {
        rustls::crypto::ring::default_provider().install_default().ok();
        connection.client().await
    }

    fn written(dir: &tempfile::TempDir) -> Connection {
        let path = dir.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        Connection { kubeconfig: Some(path), ..Connection::default() }
    }

    #[tokio::test]
    async fn the_current_context_says_server_and_namespace_unless_another_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let client = connect(written(&dir)).await.unwrap();
        assert!(client.place().starts_with("https://one.example:6443 (context one of "), "{}", client.place());
        assert_eq!(client.namespace(), "team-a");
        let client = connect(Connection { context: Some("two".into()), ..written(&dir) }).await.unwrap();
        assert!(client.place().starts_with("https://two.example/front (context two of "), "{}", client.place());
        assert_eq!(client.namespace(), "default");
        let error = connect(Connection { context: Some("three".into()), ..written(&dir) }).await.err().unwrap();
        assert!(error.to_string().contains("three"), "{error}");
    }

    #[tokio::test]
    async fn a_named_server_goes_before_everything() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection { server: Some("http://127.0.0.1:1".into()), ..written(&dir) };
        let client = connect(connection.clone()).await.unwrap();
        assert_eq!(client.place(), "http://127.0.0.1:1 (--server or MOORLINE_SERVER)");
        // The kubeconfig was asked for by a flag: it lends its credentials.
        let (kubeconfig, _, _) = connection.kubeconfig().unwrap();
        assert!(kubeconfig.auth_infos[0].auth_info.as_ref().unwrap().token.is_some());
        let (kubeconfig, _, _) = Connection { kubeconfig: None, ..connection }.kubeconfig().unwrap();
        assert!(kubeconfig.auth_infos.is_empty());
    }

    #[tokio::test]
    async fn a_token_that_is_given_speaks_alone() {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection { token: Some("mine".into()), ..written(&dir) };
        let (kubeconfig, _, _) = connection.kubeconfig().unwrap();
        assert!(kubeconfig.contexts.iter().all(|named| named.context.as_ref().unwrap().user.as_deref() == Some(OURS)));
    }

    #[tokio::test]
    async fn a_server_is_an_http_address() {
        for bad in ["", "localhost:8460", "ftp://example.com", "127.0.0.1:8460", "unix:/run/x", "http://", "a b"] {
            let connection = Connection { server: Some(bad.into()), ..Connection::default() };
            let error = connect(connection).await.err();
            assert!(
                matches!(&error, Some(ConnectError::Server { server, .. }) if server.trim_end_matches('/') == bad.trim_end_matches('/')),
                "{bad}: {error:?}"
            );
        }
    }

    #[tokio::test]
    async fn files_that_are_missing_are_named() {
        let missing = || Some(PathBuf::from("/nonexistent/file"));
        let cases = [
            Connection { kubeconfig: missing(), ..Connection::default() },
            Connection { token_file: missing(), ..Connection::default() },
            Connection { certificate_authority: missing(), ..Connection::default() },
        ];
        for connection in cases {
            let error = connect(connection).await.err().unwrap().to_string();
            assert!(error.contains("/nonexistent/file"), "{error}");
        }
    }
}
