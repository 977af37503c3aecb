//! Whether the cluster's definitions of our kinds fit this binary, and which verbs we lack.

use super::Mirror;
use crate::clock::Clock;
use kube::Client;
use tokio_util::sync::CancellationToken;

/// Why the cluster's definitions cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {}

/// Whether the cluster serves what this binary reads and writes.
pub async fn check(_client: &Client) -> Result<(), SchemaError> {
    Ok(())
}

/// Waits until it does, and says in between what is wrong. False when `stop` came first.
pub async fn wait(_client: &Client, _options: &super::Options, _clock: &Clock, _stop: &CancellationToken) -> bool {
    true
}

/// What we may not do and need to, each as `patch chats.moorline.dev/status in namespace x`.
pub async fn missing_verbs(
    _client: &Client,
    _namespaces: &[String],
    _mirror: Mirror,
    _lease_namespace: &str,
) -> Result<Vec<String>, kube::Error> {
    Ok(Vec::new())
}
