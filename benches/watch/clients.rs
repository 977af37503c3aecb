//! Many watchers in a process of their own, so that what they cost is not counted as the server's.
//!
//! `clients ADDRESS PATH WATCHERS FILE`: opens them, says `open`, reads from its input how many lines each is to get, and when all
//! have them says what they got: whether all got the same bytes (one of them, the witness, writes its own to FILE, for whoever
//! can compare them with the log) and when some of them had how many. Ends when its input does.

use super::stream::Stream;
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{ChildStdin, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, task::JoinHandle};

/// How many connect at once.
const AT_ONCE: usize = 64;
/// Of so many watchers one says when it got what.
const SAMPLED: usize = 20;
/// How long they may all get nothing before all have everything, once it is known what that is. Whoever gets less than they should, but
/// still gets something, waits for a machine that is busy; when nobody gets anything any more, something was lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the watchers say when all have got what they should.
#[derive(Debug, Deserialize, Serialize)]
pub struct Told {
    /// Watchers that got other bytes than the witness.
    pub differ: usize,
    /// Lines of the witness.
    pub lines: u64,
    /// From the first connection on until the last had everything, in seconds.
    pub took: f64,
    /// Of some watchers: how many lines each had at which time, in microseconds since 1970.
    pub arrivals: Vec<Vec<(u64, u64)>>,
}

/// The watchers' process.
pub struct Clients {
    child: std::process::Child,
    input: Option<ChildStdin>,
    output: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    witness: PathBuf,
}

impl Clients {
    /// Starts it, and returns when every watcher has been answered.
    pub fn open(address: SocketAddr, path: &str, watchers: usize, witness: PathBuf) -> anyhow::Result<Self> {
        let mut command = std::process::Command::new(std::env::current_exe()?);
        command.args(["clients", &address.to_string(), path, &watchers.to_string()]).arg(&witness);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("its output")?);
        let mut clients = Self { child, input, output: std::io::BufReader::new(output).lines(), witness };
        let line = clients.line()?;
        ensure!(line == "open", "the clients say {line:?}");
        Ok(clients)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        Ok(self.output.next().context("the clients ended")??)
    }

    /// Waits until each has got so many lines.
    pub fn told(&mut self, lines: u64) -> anyhow::Result<Told> {
        writeln!(self.input.as_mut().context("their input")?, "{lines}")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    /// What the witness got.
    pub fn witness(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.witness)?)
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.input = None;
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What one watcher has got.
#[derive(Default)]
struct Got {
    lines: u64,
    hash: u64,
    /// What does not fill a word yet.
    rest: Vec<u8>,
    arrivals: Vec<(u64, u64)>,
    text: Vec<u8>,
}

impl Got {
    /// The hash is of the stream, however it was cut.
    fn take(&mut self, mut bytes: &[u8], keep: bool) {
        self.lines += bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum::<u64>();
        if keep {
            self.text.extend_from_slice(bytes);
        }
        if !self.rest.is_empty() {
            let (first, rest) = bytes.split_at(bytes.len().min(8 - self.rest.len()));
            self.rest.extend_from_slice(first);
            bytes = rest;
            if self.rest.len() < 8 {
                return;
            }
            let word = std::mem::take(&mut self.rest);
            self.mix(&word);
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.mix(word);
        }
        self.rest.extend_from_slice(words.remainder());
    }

    fn mix(&mut self, word: &[u8]) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// The time, as the database tells it, in microseconds.
pub fn now() -> u64 {
    u64::try_from(moorline::clock::system().now().as_microsecond()).unwrap_or_default()
}

/// The process.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let [address, path, watchers, witness] = args else { anyhow::bail!("clients ADDRESS PATH WATCHERS FILE") };
    let (address, watchers): (SocketAddr, usize) = (address.parse()?, watchers.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (told, listen) = watch::channel(u64::MAX);
    let got_so_far: Arc<[AtomicU64]> = (0..watchers).map(|_| AtomicU64::new(0)).collect();
    let done = runtime.block_on(async {
        let began = now();
        let opened: Vec<_> = stream::iter(0..watchers)
            .map(|n| {
                let (listen, got_so_far) = (listen.clone(), Arc::clone(&got_so_far));
                async move {
                    let (mut stream, mut got) = (Stream::open(address, path).await?, Got::default());
                    stream.answered(|bytes| got.take(bytes, n == 0)).await?;
                    // They are read as soon as they are open.
                    anyhow::Ok(tokio::spawn(follow(stream, got, n, listen, got_so_far)))
                }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let watching = opened.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        println!("open");
        let wanted = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?;
        told.send(wanted.context("how many lines")??.parse()?)?;
        let (mut all, mut streams) = (Vec::new(), Vec::new());
        for one in watching {
            let (got, stream) = patiently(one, &got_so_far).await??;
            all.push(got);
            streams.push(stream);
        }
        #[expect(clippy::cast_precision_loss, reason = "a time for people")]
        let took = now().saturating_sub(began) as f64 / 1e6;
        let first = all.iter().find(|got| !got.text.is_empty()).context("a witness")?;
        std::fs::write(witness, &first.text)?;
        let differ = all.iter().filter(|got| (got.lines, got.hash, &got.rest) != (first.lines, first.hash, &first.rest)).count();
        let lines_of_first = first.lines;
        let arrivals = all.into_iter().filter(|got| !got.arrivals.is_empty()).map(|got| got.arrivals).collect();
        println!("{}", serde_json::to_string(&Told { differ, lines: lines_of_first, took, arrivals })?);
        // They stay open, for whoever looks at what they cost, until the input ends.
        tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
        drop(streams);
        Ok(())
    });
    runtime.shutdown_background(); // somebody may still wait for input
    done
}

/// Waits for a watcher for as long as any of them gets something.
async fn patiently<T>(one: JoinHandle<T>, got_so_far: &[AtomicU64]) -> anyhow::Result<T> {
    let sum = || got_so_far.iter().map(|lines| lines.load(Ordering::Relaxed)).sum::<u64>();
    let mut one = one;
    let mut before = sum();
    loop {
        match tokio::time::timeout(PATIENCE, &mut one).await {
            Ok(done) => return Ok(done?),
            Err(_) if sum() > before => before = sum(),
            Err(_) => {
                let mut lines: Vec<u64> = got_so_far.iter().map(|lines| lines.load(Ordering::Relaxed)).collect();
                lines.sort_unstable();
                let (least, most) = (lines.first().copied().unwrap_or(0), lines.last().copied().unwrap_or(0));
                let with_most = lines.iter().filter(|lines| **lines == most).count();
                anyhow::bail!(
                    "nothing came to any watcher for {PATIENCE:?}, and not every one got everything: from {least} to {most} lines, \
                     which {with_most} of {} have",
                    lines.len()
                );
            }
        }
    }
}

/// Reads until there are as many lines as are wanted, when that is known.
async fn follow(
    mut stream: Stream,
    mut got: Got,
    n: usize,
    mut wanted: watch::Receiver<u64>,
    got_so_far: Arc<[AtomicU64]>,
) -> anyhow::Result<(Got, Stream)> {
    let mut enough = *wanted.borrow_and_update();
    while got.lines < enough {
        let mut bytes = 0;
        let more = tokio::select! {
            changed = wanted.changed() => {
                changed?;
                enough = *wanted.borrow_and_update();
                continue;
            }
            more = stream.read(|piece| { bytes += piece.len(); got.take(piece, n == 0); }) => more?,
        };
        got_so_far[n].store(got.lines, Ordering::Relaxed);
        ensure!(more || got.lines >= enough, "the stream of a watcher ended after {} lines", got.lines);
        if n.is_multiple_of(SAMPLED) && bytes > 0 {
            got.arrivals.push((got.lines, now()));
        }
    }
    Ok((got, stream))
}
