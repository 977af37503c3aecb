//! stub
/// o
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}
/// c
pub struct Cluster { /// c
 pub client: kube::Client, /// n
 pub namespace: String }
/// e
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {}
/// c
pub async fn connect(_: &Options) -> Result<Option<Cluster>, ConnectError> { Ok(None) }
