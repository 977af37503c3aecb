//! Whether there is a cluster, and how it is spoken to.

use clap::{Args, ValueEnum};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::PathBuf, time::Duration};
use tower::util::MapRequestLayer;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// What a pod has.
const IN_CLUSTER: &str = "KUBERNETES_SERVICE_HOST";

/// Whether there is a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// When this process runs in one.
    Auto,
    /// No.
    Off,
    /// Yes: the one it runs in, or else the kubeconfig's.
    On,
}

/// Where the cluster is.
#[derive(Clone, Debug, Args)]
pub struct ConnectOptions {
    /// Whether manifests of a cluster are taken over and answered: auto is on in a pod, and off elsewhere.
    #[arg(long, env = "MOORLINE_KUBERNETES", value_enum, default_value = "auto")]
    pub kubernetes: Wanted,
    /// The kubeconfig of the cluster. Default: the pod's own account in a pod; elsewhere $KUBECONFIG, or ~/.kube/config.
    #[arg(long, env = "MOORLINE_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Default: its current one.
    #[arg(long, env = "MOORLINE_KUBE_CONTEXT", value_name = "NAME")]
    pub kube_context: Option<String>,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Of the kubeconfig.
    #[error("the kubeconfig cannot be used ({options}): {source}; --kubernetes=off serves without a cluster")]
    Kubeconfig {
        /// What was asked for.
        options: String,
        /// What is wrong.
        source: kube::config::KubeconfigError,
    },
    /// Of the pod's own account.
    #[error("the account of this pod cannot be used: {0}; --kubernetes=off serves without a cluster")]
    InCluster(#[from] kube::config::InClusterError),
    /// Of what it says.
    #[error("the cluster's connection cannot be set up: {0}")]
    Client(#[from] kube::Error),
}

/// A cluster that can be spoken to. Nothing was asked of it yet.
#[derive(Clone)]
pub struct Cluster {
    /// For single requests. It does not try again by itself: whoever asks knows when to.
    pub client: Client,
    /// The namespace of this process.
    pub namespace: String,
    config: Config,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A client that says each time before it asks.
    pub fn client_that_tells(&self, tell: impl Fn() + Clone + Send + Sync + 'static) -> Result<Client, ConnectError> {
        let layer = MapRequestLayer::new(move |request: http::Request<kube::client::Body>| {
            tell();
            request
        });
        Ok(ClientBuilder::try_from(self.config.clone())?.with_layer(&layer).build())
    }
}

/// Finds the cluster, if there is to be one.
pub async fn connect(options: &ConnectOptions) -> Result<Option<Cluster>, ConnectError> {
    let in_cluster = std::env::var_os(IN_CLUSTER).is_some();
    let explicit = options.kubeconfig.is_some() || options.kube_context.is_some();
    let mut config = match options.kubernetes {
        Wanted::Off => return Ok(None),
        Wanted::Auto if !in_cluster => return Ok(None),
        Wanted::Auto | Wanted::On if in_cluster && !explicit => Config::incluster()?,
        Wanted::Auto | Wanted::On => from_kubeconfig(options).await?,
    };
    config.connect_timeout = Some(CONNECT);
    // A watch is silent for minutes, and each request has its own time.
    config.read_timeout = None;
    config.default_retry = false;
    let client = Client::try_from(config.clone())?;
    Ok(Some(Cluster { client, namespace: config.default_namespace.clone(), config }))
}

async fn from_kubeconfig(options: &ConnectOptions) -> Result<Config, ConnectError> {
    let wanted = KubeConfigOptions { context: options.kube_context.clone(), ..KubeConfigOptions::default() };
    let config = match &options.kubeconfig {
        Some(file) => match Kubeconfig::read_from(file) {
            Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &wanted).await,
            Err(error) => Err(error),
        },
        None => Config::from_kubeconfig(&wanted).await,
    };
    config.map_err(|source| {
        let file = options.kubeconfig.as_ref().map_or_else(|| "$KUBECONFIG or ~/.kube/config".into(), |file| file.display().to_string());
        let context = options.kube_context.as_deref().unwrap_or("its current context");
        ConnectError::Kubeconfig { options: format!("{file}, {context}"), source }
    })
}
