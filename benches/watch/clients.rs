//! Many watchers in a process of their own, so that what they cost is not counted as the server's.
//!
//! `clients ADDRESS PATH WATCHERS FILE`: opens them and says `open`; then, for each line of its input, which is what each is to have,
//! says what they got as soon as all have it: whether all got the same bytes (one of them, the witness, writes its own to FILE, for
//! whoever can compare them with the log), when some of them had how many lines, and how many were cut off. Who is cut off goes on from the
//! last version that it saw, as clients do, and is counted. Ends when its input does.

use super::{
    got::{Got, Next, Wanted},
    stream::Stream,
};
use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead as _, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::{ChildStdin, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

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
    /// How often one was cut off, and went on from where it was.
    pub resumed: u64,
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
    /// Starts it, and returns when every watcher has been answered: which is before it has been told anything.
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

    /// Waits until each has this.
    pub fn told(&mut self, wanted: Wanted) -> anyhow::Result<Told> {
        writeln!(self.input.as_mut().context("their input")?, "{}", serde_json::to_string(&wanted)?)?;
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

/// The time, as the database tells it, in microseconds.
pub fn now() -> u64 {
    u64::try_from(moorline::clock::system().now().as_microsecond()).unwrap_or_default()
}

/// What a watcher got, and what it still wants.
#[derive(Default)]
struct Watcher {
    got: Got,
    wanted: Option<Wanted>,
}

impl Watcher {
    /// Whether what it wanted has come just now.
    fn is_content(&mut self) -> bool {
        self.wanted.take_if(|wanted| self.got.has(*wanted)).is_some()
    }
}

/// All of them.
struct Watchers {
    address: SocketAddr,
    path: String,
    each: Vec<Mutex<Watcher>>,
    /// How many still want something.
    left: AtomicUsize,
    /// How many bytes came to anybody.
    came: AtomicU64,
    /// That nobody wants anything any more, or one has failed.
    news: Notify,
    failed: Mutex<Option<anyhow::Error>>,
}

impl Watchers {
    fn at(&self, n: usize) -> MutexGuard<'_, Watcher> {
        self.each[n].lock().expect("no holder of this lock panics")
    }

    fn all(&self) -> impl Iterator<Item = MutexGuard<'_, Watcher>> {
        (0..self.each.len()).map(|n| self.at(n))
    }

    /// Takes what came to one.
    fn take(&self, n: usize, bytes: &[u8]) {
        self.came.fetch_add(bytes.len() as u64, Relaxed);
        let mut watcher = self.at(n);
        watcher.got.take(bytes);
        if watcher.is_content() && self.left.fetch_sub(1, Relaxed) == 1 {
            self.news.notify_one();
        }
    }

    async fn open(&self, n: usize, path: &str) -> anyhow::Result<Stream> {
        let mut stream = Stream::open(self.address, path).await?;
        stream.answered(|bytes| self.take(n, bytes)).await?;
        Ok(stream)
    }

    /// Reads, and goes on when it is cut off.
    async fn follow(&self, n: usize, mut stream: Stream) -> anyhow::Result<()> {
        loop {
            let mut came = false;
            let more = stream.read(|bytes| {
                came |= !bytes.is_empty();
                self.take(n, bytes);
            });
            let more = match more.await {
                Ok(more) => more,
                Err(error) if error.is::<std::io::Error>() => false, // a connection that breaks ends the stream
                Err(error) => return Err(error),
            };
            if came && n.is_multiple_of(SAMPLED) {
                let got = &mut self.at(n).got;
                got.arrivals.push((got.lines, now()));
            }
            if !more {
                let next = self.at(n).got.next();
                stream = self.open(n, &again(&self.path, &next)).await.context("a watcher that was cut off")?;
            }
        }
    }

    /// Waits until all have it, for as long as anything comes to anybody. Returns when that was.
    async fn have(&self, wanted: Wanted) -> anyhow::Result<u64> {
        self.left.store(self.each.len(), Relaxed);
        let mut has = 0;
        for mut watcher in self.all() {
            watcher.wanted = Some(wanted);
            has += usize::from(watcher.is_content());
        }
        let mut before = self.came.load(Relaxed);
        if self.left.fetch_sub(has, Relaxed) == has {
            return Ok(now());
        }
        loop {
            let news = tokio::time::timeout(PATIENCE, self.news.notified()).await;
            if let Some(failed) = self.failed.lock().expect("no holder of this lock panics").take() {
                return Err(failed);
            }
            if self.left.load(Relaxed) == 0 {
                return Ok(now());
            }
            let came = self.came.load(Relaxed);
            ensure!(news.is_ok() || came > before, "nothing came to any watcher for {PATIENCE:?}: {}", self.lack(wanted));
            before = came;
        }
    }

    /// What is missing, for people.
    fn lack(&self, wanted: Wanted) -> String {
        let lines: Vec<u64> = self.all().map(|watcher| watcher.got.lines).collect();
        let resumed: u64 = self.all().map(|watcher| watcher.got.resumed).sum();
        let (least, most) = (lines.iter().min().unwrap_or(&0), lines.iter().max().unwrap_or(&0));
        let one = self.all().find(|watcher| watcher.wanted.is_some()).map(|watcher| watcher.got.end()).unwrap_or_default();
        format!(
            "{} of {} do not have {wanted:?}. They have {least} to {most} lines, and went on {resumed} times; one of them has this last: {one}",
            self.left.load(Relaxed),
            lines.len()
        )
    }

    /// What they got, but for when.
    fn told(&self, took: f64) -> Told {
        let first = self.at(0);
        let others = || (1..self.each.len()).map(|n| self.at(n));
        Told {
            differ: others().filter(|other| !other.got.is_as(&first.got)).count(),
            lines: first.got.lines,
            resumed: first.got.resumed + others().map(|other| other.got.resumed).sum::<u64>(),
            took,
            arrivals: std::iter::once(first.got.arrivals.clone())
                .chain(others().map(|other| other.got.arrivals.clone()))
                .filter(|arrivals| !arrivals.is_empty())
                .collect(),
        }
    }
}

/// The path of who goes on.
fn again(path: &str, next: &Next) -> String {
    let place = match next {
        Next::AsBefore => return path.to_owned(),
        Next::Everything => None,
        Next::After(place) => Some(place.as_str()),
    };
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let start = |pair: &&str| !pair.starts_with("cursor=") && !pair.starts_with("resourceVersion=");
    let query: Vec<&str> = query.split('&').filter(start).chain(place).collect();
    format!("{path}?{}", query.join("&"))
}

/// The process.
pub fn main(args: &[String]) -> anyhow::Result<()> {
    let [address, path, watchers, witness] = args else { anyhow::bail!("clients ADDRESS PATH WATCHERS FILE") };
    let (address, number): (SocketAddr, usize) = (address.parse()?, watchers.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let watchers = Arc::new(Watchers {
        address,
        path: path.clone(),
        each: (0..number).map(|_| Mutex::default()).collect(),
        left: AtomicUsize::default(),
        came: AtomicU64::default(),
        news: Notify::default(),
        failed: Mutex::default(),
    });
    watchers.at(0).got.keep = true;
    let done = runtime.block_on(async {
        let began = now();
        let mut opening = stream::iter(0..number)
            .map(|n| {
                let watchers = Arc::clone(&watchers);
                async move { watchers.open(n, &watchers.path).await.map(|stream| (n, stream)) }
            })
            .buffer_unordered(AT_ONCE);
        while let Some(opened) = opening.next().await {
            let ((n, stream), watchers) = (opened?, Arc::clone(&watchers));
            // They are read as soon as they are open.
            tokio::spawn(async move {
                if let Err(error) = watchers.follow(n, stream).await {
                    watchers.failed.lock().expect("no holder of this lock panics").get_or_insert(error);
                    watchers.news.notify_one();
                }
            });
        }
        println!("open");
        loop {
            let Some(wanted) = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await? else { return Ok(()) };
            let ended = watchers.have(serde_json::from_str(&wanted?)?).await?;
            #[expect(clippy::cast_precision_loss, reason = "a time for people")]
            let told = watchers.told(ended.saturating_sub(began) as f64 / 1e6);
            std::fs::write(witness, &watchers.at(0).got.text)?;
            println!("{}", serde_json::to_string(&told)?);
        }
    });
    runtime.shutdown_background(); // somebody may still wait for input
    done
}
