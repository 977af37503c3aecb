//! A network that breaks: a TCP proxy that cuts each connection after a random number of bytes, until it is told to be calm.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// A pseudorandom sequence that a seed gives again: what a test did can be done once more.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `range`.
    pub fn of(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }
}

/// A running proxy. It ends with this.
pub struct Proxy {
    /// Where it listens, as a URL.
    pub url: String,
    cuts: Arc<AtomicU64>,
    calm: Arc<AtomicBool>,
    accepting: AbortHandle,
}

impl Proxy {
    /// One before `target` (`host:port`) that cuts a connection when the server has sent so many bytes, `cuts` times at most.
    pub async fn start(target: &str, seed: u64, bytes: Range<u64>, cuts: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (done, calm) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (target, mut random) = (target.to_owned(), Seeded::new(seed));
        let (counted, calmed) = (done.clone(), calm.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let budget = random.of(bytes.clone());
                let (counted, calmed, target) = (counted.clone(), calmed.clone(), target.clone());
                tokio::spawn(async move {
                    // A server that is away refuses, and so does this.
                    let Ok(server) = TcpStream::connect(&target).await else { return };
                    let may_cut = || !calmed.load(Ordering::SeqCst) && counted.load(Ordering::SeqCst) < cuts;
                    if carry(client, server, budget, may_cut).await == End::Cut {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        Self { url, cuts: done, calm, accepting: accepting.abort_handle() }
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    /// No more cuts.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(PartialEq, Eq)]
enum End {
    /// By one of the two.
    Theirs,
    Cut,
}

/// Carries bytes both ways until one of the two ends, or the server has sent `budget` of them and it `may_cut`.
async fn carry(mut client: TcpStream, mut server: TcpStream, mut budget: u64, may_cut: impl Fn() -> bool) -> End {
    let (mut asks, mut answers) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            read = client.read(&mut asks) => match read {
                Ok(n) if n > 0 && server.write_all(&asks[..n]).await.is_ok() => {}
                Ok(_) | Err(_) => return End::Theirs,
            },
            read = server.read(&mut answers) => match read {
                Ok(n) if n > 0 => {
                    let n64 = n as u64;
                    if n64 > budget && may_cut() {
                        // In the middle of a line, most of the time.
                        let last = usize::try_from(budget).unwrap();
                        client.write_all(&answers[..last]).await.ok();
                        return End::Cut;
                    }
                    budget = budget.saturating_sub(n64);
                    if client.write_all(&answers[..n]).await.is_err() {
                        return End::Theirs;
                    }
                }
                Ok(_) | Err(_) => return End::Theirs,
            },
        }
    }
}
