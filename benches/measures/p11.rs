//! P11: `GET …/chats/{n}/context` of 50 resources of 4 KiB, against a static answer of the same size of the same server: requests a
//! second of each, turn about in one run. And the same by a client that has the context already (304).
//!
//! The chats are 64 of one agent, asked for in turn: an agent's chats are moored to one snapshot. Server, database and clients share
//! the machine; the clients are threads that read an answer into a buffer and ask again. The static answer is a route of the
//! server's own router, behind the same middleware, and knows who asks, too.

use super::{
    agent::{Agent, NAMESPACE},
    plot::Bars,
    report::Report,
    serve,
    setting::Setting,
    sql::Statements,
    stats::ratios,
};
use anyhow::{Context as _, bail, ensure};
use axum::{body::Bytes, http::header, routing::get};
use moorline::http::{self, auth::Identity};
use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Turns of a round, in which all sides have theirs: what else the machine does falls on all of them alike.
const SLICES: u32 = 10;
const CONNECTIONS: usize = 64;
const RESOURCES: usize = 50;
const RESOURCE_SIZE: usize = 4096;
/// All of them moored to one snapshot, as the chats of a workspace are.
const CHATS: usize = 64;
/// What the ratio is asked to be.
const ASKED: f64 = 0.6;

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (rounds, slice) = (setting.of(11, 5, 1), Duration::from_millis(setting.of(300, 300, 50)));
    let mut report = Report::default();
    let pool = setting.database("p11").await?;
    let mut agent = Agent::new(pool.clone(), "agent").await?;
    agent.push_text(RESOURCES, RESOURCE_SIZE).await?;
    agent.chats(i64::try_from(CHATS)?).await?;
    agent.settle().await?;
    let (stop, fixed) = (CancellationToken::new(), Arc::new(OnceLock::<Bytes>::new()));
    let answer = {
        let fixed = Arc::clone(&fixed);
        async move |_: Identity| ([(header::CONTENT_TYPE, "application/json")], fixed.get().cloned().unwrap_or_default())
    };
    let address = serve::start(&pool, http::routes().into_router().route("/static", get(answer)), stop.clone()).await?;
    let (etag, size) = etag(address)?;
    fixed.set(Bytes::from(vec![b'x'; size])).map_err(|_| anyhow::anyhow!("it is set once"))?;
    let not_modified = format!("if-none-match: {etag}\r\n");
    report.fact("bytes of an answer", size);
    let [mut statics, mut contexts, mut knowns] = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        let mut rates = [0.0; 3];
        for _ in 0..SLICES {
            rates[0] += measure(address, |_| "/static".to_owned(), "", slice).await? / f64::from(SLICES);
            rates[1] += measure(address, context_path, "", slice).await? / f64::from(SLICES);
            rates[2] += measure(address, context_path, &not_modified, slice).await? / f64::from(SLICES);
        }
        // The first is for caches to fill.
        if round > 0 {
            statics.push(rates[0]);
            contexts.push(rates[1]);
            knowns.push(rates[2]);
        }
    }
    let counted = Statements::begin(&pool).await?;
    let rate = measure(address, context_path, "", slice * 5).await?;
    report.fact("a context costs", counted.each(rate * (slice * 5).as_secs_f64()).await?);
    report.figure("a static answer", "/s", &statics);
    report.figure("a context", "/s", &contexts);
    report.figure("a context that is known (304)", "/s", &knowns);
    report.at_least("context", "ratio", &ratios(&contexts, &statics), ASKED);
    report.at_least("context-known", "ratio", &ratios(&knowns, &statics), ASKED);
    report.plots.push(Bars {
        file: "p11-context",
        title: format!("Answers of {} KiB, {CONNECTIONS} connections", size >> 10),
        unit: "a second",
        rows: vec![
            ("static".to_owned(), statics),
            ("a chat's context".to_owned(), contexts),
            ("a context that is known".to_owned(), knowns),
        ],
    });
    stop.cancel();
    pool.close().await;
    Ok(report)
}

fn context_path(n: usize) -> String {
    format!("/apis/moorline.dev/v1alpha1/namespaces/{NAMESPACE}/chats/agent-chat-{}/context", n % CHATS + 1)
}

/// Requests a second.
async fn measure(address: SocketAddr, path: fn(usize) -> String, header: &str, time: Duration) -> anyhow::Result<f64> {
    let requests: Vec<String> =
        (0..CHATS).map(|n| format!("GET {} HTTP/1.1\r\nhost: {address}\r\n{header}\r\n", path(n))).collect();
    tokio::task::spawn_blocking(move || {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        // Connections and buffers are made before the clock begins.
        let made = (0..CONNECTIONS).map(|_| Client::new(address)).collect::<anyhow::Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let clients: Vec<_> = made
                .into_iter()
                .enumerate()
                .map(|(first, mut client)| {
                    let (requests, stop, count) = (&requests, &stop, &count);
                    scope.spawn(move || {
                        for request in requests.iter().cycle().skip(first * CHATS / CONNECTIONS) {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            client.ask(request)?;
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        anyhow::Ok(())
                    })
                })
                .collect();
            let began = Instant::now();
            std::thread::sleep(time);
            let (asked, took) = (count.load(Ordering::Relaxed), began.elapsed());
            stop.store(true, Ordering::Relaxed);
            for client in clients {
                client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = asked as f64 / took.as_secs_f64();
            Ok(rate)
        })
    })
    .await?
}

/// The tag of the answer, and its size.
fn etag(address: SocketAddr) -> anyhow::Result<(String, usize)> {
    let mut client = Client::new(address)?;
    let head = client.ask(&format!("GET {} HTTP/1.1\r\nhost: {address}\r\n\r\n", context_path(0)))?;
    let body: serde_json::Value = serde_json::from_slice(&client.buffer[head.len()..client.end])?;
    ensure!(body["resources"].as_array().is_some_and(|all| all.len() == RESOURCES), "the context is not what was pushed");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).context("an answer without a tag")?;
    Ok((etag.to_owned(), client.size))
}

/// A connection that is kept, and a buffer for answers.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: usize,
    size: usize,
}

impl Client {
    fn new(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; 1 << 18], end: 0, size: 0 })
    }

    /// Asks, and reads the whole answer. Returns its head.
    fn ask(&mut self, request: &str) -> anyhow::Result<String> {
        self.stream.write_all(request.as_bytes())?;
        self.end = 0;
        let (head, length) = loop {
            let got = self.stream.read(&mut self.buffer[self.end..])?;
            ensure!(got > 0, "the server hung up");
            self.end += got;
            if let Some(at) = self.buffer[..self.end].windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at + 4]).into_owned();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length = match length {
                    Some(length) => length.parse::<usize>()?,
                    None if head.starts_with("HTTP/1.1 304") => 0,
                    None => bail!("an answer without its length: {head}"),
                };
                break (head, length);
            }
        };
        ensure!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 304"), "{head}");
        self.size = length;
        let whole = head.len() + length;
        ensure!(whole <= self.buffer.len(), "an answer of {whole} bytes");
        self.stream.read_exact(&mut self.buffer[self.end..whole])?;
        self.end = whole;
        Ok(head)
    }
}
