//! A network that somebody has a hand on: a TCP proxy that can be cut, slowed and silenced, and be whole again.

use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
    time::sleep,
};

/// How it is with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// As it should.
    Whole,
    /// Everything that is sent arrives so much later.
    Slow(Duration),
    /// Nothing arrives, and nobody is told: connections stay, and come to be.
    Silent,
    /// Every connection has ended, and none comes to be.
    Cut,
}

/// A running proxy. It ends with this, and so do the connections through it.
pub struct Link {
    /// Where it listens: `host:port`.
    pub address: String,
    flow: watch::Sender<Flow>,
    accepting: AbortHandle,
}

impl Link {
    /// One to `target`, a `host:port` or a URL of nothing more.
    pub async fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = target.split_once("://").map_or(target, |(_, target)| target).to_owned();
        let (flow, seen) = watch::channel(Flow::Whole);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (target, seen) = (target.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut ended = seen.clone();
                    tokio::select! {
                        // Also when the link is gone.
                        _ = ended.wait_for(|flow| *flow == Flow::Cut) => {}
                        () = carry(client, &target, seen) => {}
                    }
                });
            }
        });
        Self { address, flow, accepting: accepting.abort_handle() }
    }

    /// Where it listens, for who speaks TLS through it.
    pub fn https(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on it is like this.
    pub fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries bytes both ways until one of the two ends. A server that is away refuses, and so does this.
async fn carry(client: TcpStream, target: &str, flow: watch::Receiver<Flow>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let (asks, answers) = (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(asks.0, answers.1, flow.clone()) => {}
        () = one_way(answers.0, asks.1, flow.clone()) => {}
    }
}

async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut flow: watch::Receiver<Flow>) {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let Ok(n @ 1..) = from.read(&mut bytes).await else { return };
        let Ok(now) = flow.wait_for(|flow| *flow != Flow::Silent).await.map(|flow| *flow) else { return };
        if let Flow::Slow(by) = now {
            sleep(by).await;
        }
        if to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}
