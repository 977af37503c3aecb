//! Whether there is a cluster, where it is, and how it is spoken to.
//!
//! The client never repeats a request by itself: whoever asked knows better when that is right, and a renewal of the lease that
//! is repeated for a quarter of an hour is none. It has no timeout for answers either, because a watch is one long answer:
//! every other call has its own. Tokens and authorities in files are read again by the client, at least once a minute.
//!
//! What it does not: ask the cluster anything. A cluster that is away is no error here.

use clap::{Args, ValueEnum};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tower::util::MapRequestLayer;

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(5);
/// Set by a kubelet in every container.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";
/// Where people's tools look for a kubeconfig: files, separated by colons.
const KUBECONFIG: &str = "KUBECONFIG";

/// Whether there is a front.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Exactly when this runs in a cluster.
    Auto,
    /// No.
    Off,
    /// Yes; it is an error when no cluster is known.
    On,
}

/// Whether there is a cluster, and where.
#[derive(Clone, Debug, Args)]
pub struct ConnectOptions {
    /// Whether manifests of a cluster are taken over and shown their status. `auto`: exactly when this runs in a cluster.
    #[arg(long, env = "MOORLINE_KUBERNETES", value_enum, default_value = "auto")]
    pub kubernetes: Mode,
    /// Where the cluster is.
    #[command(flatten)]
    pub place: Place,
}

/// Where a cluster is.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// The file that says where the cluster is. Without it: the cluster that this runs in; outside of one, as kubectl.
    #[arg(long, env = "MOORLINE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, instead of its current one.
    #[arg(long, env = "MOORLINE_KUBE_CONTEXT", value_name = "NAME")]
    pub kube_context: Option<String>,
}

/// A cluster, which may be away.
#[derive(Clone)]
pub struct Cluster {
    /// How it is spoken to. Never repeats a request; has no timeout for answers.
    pub client: Client,
    /// The namespace that is ours: the pod's, the context's, or `default`.
    pub namespace: String,
    config: Config,
}

impl Cluster {
    /// A client that says each time before it asks.
    pub fn client_that_tells(&self, tell: impl Fn() + Clone + Send + Sync + 'static) -> Result<Client, ConnectError> {
        let layer = MapRequestLayer::new(move |request: http::Request<kube::client::Body>| {
            tell();
            request
        });
        Ok(ClientBuilder::try_from(self.config.clone())
            .map_err(|source| failed(&self.config, source))?
            .with_layer(&layer)
            .build())
    }
}

fn failed(config: &Config, source: kube::Error) -> ConnectError {
    ConnectError::Client { url: config.cluster_url.to_string(), source }
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No cluster is known.
    #[error(
        "no cluster is known: {IN_CLUSTER} is not set, so this runs in none; --kubeconfig (MOORLINE_KUBECONFIG) is not given; \
         and of the files that kubectl looks for ({looked_for}) there is none"
    )]
    Unknown {
        /// The files.
        looked_for: String,
    },
    /// What a kubelet gives a pod is not all there.
    #[error("{IN_CLUSTER} is set, so this runs in a cluster, but its service account cannot be used: {0}")]
    InCluster(#[from] InClusterError),
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {file}: {source}")]
    Kubeconfig {
        /// Which.
        file: String,
        /// Why not.
        source: KubeconfigError,
    },
    /// The credentials or the address cannot be used.
    #[error("a client for the cluster at {url}: {source}")]
    Client {
        /// Where.
        url: String,
        /// Why not.
        source: kube::Error,
    },
}

/// The way to the cluster, if there is to be one.
pub async fn connect(options: &ConnectOptions) -> Result<Option<Cluster>, ConnectError> {
    let ConnectOptions { kubernetes, place } = options;
    match kubernetes {
        Mode::Off => Ok(None),
        Mode::Auto if !in_cluster() => {
            if place.kubeconfig.is_some() || place.kube_context.is_some() {
                tracing::warn!("a kubeconfig is named and not used: outside of a cluster it needs --kubernetes=on");
            }
            Ok(None)
        }
        Mode::Auto | Mode::On => connect_to(place).await.map(Some),
    }
}

/// The way to the cluster at a place.
pub async fn connect_to(place: &Place) -> Result<Cluster, ConnectError> {
    let mut config = config(place).await?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = None;
    let agent = http::HeaderValue::from_static(concat!("moorline/", env!("CARGO_PKG_VERSION")));
    config.headers.push((http::header::USER_AGENT, agent));
    let client = Client::try_from(config.clone()).map_err(|source| failed(&config, source))?;
    Ok(Cluster { client, namespace: config.default_namespace.trim().to_owned(), config })
}

fn in_cluster() -> bool {
    env::var_os(IN_CLUSTER).is_some()
}

async fn config(place: &Place) -> Result<Config, ConnectError> {
    let Place { kubeconfig, kube_context } = place;
    // A file that lies about in an image must not win over the cluster that the image runs in.
    if kubeconfig.is_none() && kube_context.is_none() && in_cluster() {
        return Ok(Config::incluster()?);
    }
    let read = kubeconfig.as_ref().map_or_else(Kubeconfig::read, Kubeconfig::read_from);
    let looked_for = || looked_for(env::var_os(KUBECONFIG), env::home_dir().as_deref());
    let file = kubeconfig.as_ref().map_or_else(looked_for, |file| file.display().to_string());
    let options = KubeConfigOptions { context: kube_context.clone(), ..KubeConfigOptions::default() };
    let config = match read {
        Ok(read) => Config::from_custom_kubeconfig(read, &options).await,
        Err(error) if kubeconfig.is_none() && is_missing(&error) => {
            return Err(ConnectError::Unknown { looked_for: file });
        }
        Err(error) => Err(error),
    };
    config.map_err(|source| ConnectError::Kubeconfig { file, source })
}

fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(error, _) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// The files that are looked for when none is named.
fn looked_for(named: Option<OsString>, home: Option<&Path>) -> String {
    match (named, home) {
        (Some(named), _) if !named.is_empty() => format!("{KUBECONFIG}={}", named.display()),
        (_, Some(home)) => home.join(".kube/config").display().to_string(),
        (_, None) => format!("{KUBECONFIG} is not set and there is no home"),
    }
}
