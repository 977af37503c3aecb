//! A network that somebody has a hand on: a TCP proxy that can be cut, reset, slowed and silenced, be whole again, and lead to
//! somewhere else.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    net::{TcpListener, TcpStream, UnixStream},
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

/// Where a link leads to.
#[derive(Clone, Debug)]
enum End {
    /// A `host:port`.
    Address(String),
    Socket(PathBuf),
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl End {
    /// A `host:port` or a URL of nothing more.
    fn at(target: &str) -> Self {
        Self::Address(target.split_once("://").map_or(target, |(_, target)| target).to_owned())
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Address(address) => Box::new(TcpStream::connect(address).await?),
            Self::Socket(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// A running proxy. It ends with this, and so do the connections through it.
pub struct Link {
    /// Where it listens: `host:port`.
    pub address: String,
    flow: watch::Sender<Flow>,
    /// How often the connections of the time were reset.
    resets: watch::Sender<u64>,
    end: Arc<Mutex<End>>,
    accepting: AbortHandle,
}

impl Link {
    /// One to `target`, a `host:port` or a URL of nothing more.
    pub async fn to(target: &str) -> Self {
        Self::leading_to(End::at(target)).await
    }

    /// One to a socket of this machine.
    pub async fn to_socket(path: PathBuf) -> Self {
        Self::leading_to(End::Socket(path)).await
    }

    async fn leading_to(end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ((flow, seen), resets) = (watch::channel(Flow::Whole), watch::Sender::new(0));
        let (end, reset) = (Arc::new(Mutex::new(end)), resets.clone());
        let towards = end.clone();
        let accepting = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (end, seen, mut reset) = (towards.lock().unwrap().clone(), seen.clone(), reset.subscribe());
                tokio::spawn(async move {
                    let mut ended = seen.clone();
                    tokio::select! {
                        () = carry(&mut client, &end, seen) => return,
                        // Also when the link is gone.
                        _ = ended.wait_for(|flow| *flow == Flow::Cut) => {}
                        _ = reset.changed() => {}
                    }
                    // A network that breaks does not say goodbye.
                    client.set_zero_linger().ok();
                });
            }
        });
        Self { address, flow, resets, end, accepting: accepting.abort_handle() }
    }

    /// Connections that are made from now on lead to `target`, a `host:port` or a URL of nothing more.
    pub fn lead_to(&self, target: &str) {
        *self.end.lock().unwrap() = End::at(target);
    }

    /// Resets the connections that there are.
    pub fn reset(&self) {
        self.resets.send_modify(|resets| *resets += 1);
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
async fn carry(client: &mut TcpStream, end: &End, flow: watch::Receiver<Flow>) {
    let Ok(server) = end.connect().await else { return };
    let (asks, answers) = (client.split(), split(server));
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
