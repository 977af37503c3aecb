//! stub
use tokio::sync::watch;
/// o
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}
/// l
#[derive(Clone, Debug)]
pub struct Lease {}
impl Lease {
    /// n
    pub fn new(_: kube::Client, _: Options, _: &str, _: &crate::clock::Clock) -> Self { Self {} }
    /// r
    pub async fn run(self, _: tokio_util::sync::CancellationToken) {}
    /// h
    pub fn holding(&self) -> watch::Receiver<bool> { watch::channel(true).1 }
    /// m
    pub fn may_write(&self) -> bool { true }
    /// i
    pub fn identity(&self) -> &str { "x" }
}
