//! `GET …/chats/{n}/context` of 50 resources of 4 KiB, against a static answer of the same size of the same server: requests a second
//! of each, turn about in one run, with the ratio printed. And the same for a client that has the context already (304).
//!
//! The chats are 64 of one agent, asked for in turn: an agent's chats are moored to one snapshot.
//!
//! `cargo bench --bench context [-- --seconds N --connections N]`. Server, database and clients share the machine; the clients
//! are threads that read an answer into a buffer and ask again. The static answer is a route of the server's own router, behind the
//! same middleware, and knows who asks, too.

use anyhow::{Context as _, bail, ensure};
use axum::{body::Bytes, http::header, routing::get};
use moorline::{
    clock::{self, Clock},
    config,
    embedded::{self, Embedded},
    http::{
        self, AppState,
        auth::{Authentication, Identity},
    },
    model::{
        access::Reach,
        agent::AgentSpec,
        chat::{ChatSpec, Reference, RefreshPolicy},
        object::{DeletionPolicy, Key, Source, TextMap},
        push::{Phase, Push},
        resource::{Resource, ResourceKind},
    },
    reconcile::Reconciler,
    store::{self, transact},
    wake::{ListenNotify, Wake},
    writes::{
        agents::{CreateAgent, RegisterRun},
        chats::CreateChat,
        push::AcceptPush,
    },
};
use sqlx::PgPool;
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

const NAMESPACE: &str = "bench";
const ROUNDS: usize = 5;
const SLICES: u32 = 10;
const RESOURCES: usize = 50;
const RESOURCE_SIZE: usize = 4096;
/// All of them moored to one snapshot, as the chats of a workspace are.
const CHATS: usize = 64;
/// What the ratio is asked to be.
const ASKED: f64 = 0.6;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |name: &str, default: u64| match args.iter().position(|arg| arg == name) {
        Some(at) => args.get(at + 1).with_context(|| format!("{name} takes a number"))?.parse().context("a number"),
        None => Ok(default),
    };
    let (seconds, connections) = (number("--seconds", 3)?, usize::try_from(number("--connections", 64)?)?);
    let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
    let options =
        embedded::Options { data_dir: directory.path().join("data"), pg_bin: None, ephemeral: true, settings: Vec::new() };
    let server = embedded::start(options).await?;
    let result = Box::pin(run(&server, Duration::from_secs(seconds), connections)).await;
    server.stop().await?;
    result
}

async fn run(server: &Embedded, time: Duration, connections: usize) -> anyhow::Result<()> {
    server.ensure_database("context").await?;
    let pool = store::pool(server.connect_options("context"), 8);
    store::schema::migrate(&pool, false).await?;
    let clock = clock::system();
    moored(&pool, &clock).await?;
    let stop = CancellationToken::new();
    let fixed = Arc::new(OnceLock::new());
    let address = serve(&pool, &clock, Arc::clone(&fixed), stop.clone()).await?;
    let (etag, size) = etag(address)?;
    fixed.set(Bytes::from(vec![b'x'; size])).expect("it is set once");
    let not_modified = format!("if-none-match: {etag}\r\n");
    println!("GET chats/context of {RESOURCES} resources of {RESOURCE_SIZE} bytes, {connections} connections, {time:?} each");
    println!("              static/s   context/s   ratio      304/s");
    let mut ratios = Vec::new();
    let slice = time / SLICES;
    for round in 0..=ROUNDS {
        // In thin slices, turn about: what else the machine does falls on all of them alike.
        let (mut fixed, mut context, mut known, mut size) = (0.0, 0.0, 0.0, 0);
        for _ in 0..SLICES {
            fixed += measure(address, |_| "/static".to_owned(), "", connections, slice).await?.0;
            let (rate, length) = measure(address, context_path, "", connections, slice).await?;
            (context, size) = (context + rate, length);
            known += measure(address, context_path, &not_modified, connections, slice).await?.0;
        }
        let (fixed, context, known) = (fixed / f64::from(SLICES), context / f64::from(SLICES), known / f64::from(SLICES));
        let ratio = context / fixed;
        // The first is for caches to fill.
        if round > 0 {
            println!("  round {round}   {fixed:>10.0}  {context:>10.0}   {ratio:>5.2} {known:>10.0}   (an answer: {size} bytes)");
            ratios.push(ratio);
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median ratio {:.2} (asked: at least {ASKED})", ratios[ROUNDS / 2]);
    stop.cancel();
    pool.close().await;
    Ok(())
}

/// A chat moored to text as people write it.
async fn moored(pool: &PgPool, clock: &Clock) -> anyhow::Result<()> {
    let (agent, none) = (Key::new(NAMESPACE, "agent"), TextMap::new());
    let spec = AgentSpec {
        workspace: None,
        build: None,
        service_account: None,
        suspend: false,
        revision_history_limit: 10,
        deletion_policy: DeletionPolicy::Delete,
    };
    let (reach, source) = (&Reach::Everything, Source::Api);
    let create = CreateAgent { clock, key: &agent, spec: &spec, labels: &none, annotations: &none, reach, source };
    transact(pool, clock, &create).await?;
    let run = transact(pool, clock, &RegisterRun { clock, key: &agent }).await?;
    let resources = (0..RESOURCES).map(|n| {
        let source = format!("skills/skill-{n:02}");
        let path = format!("{source}/SKILL.md");
        let line = format!("- {n}: write the \"test\" first, watch it fail, then make it pass \u{2014} and say why.\n");
        let mut body = line.repeat(RESOURCE_SIZE / line.len() + 1).into_bytes();
        body.truncate(RESOURCE_SIZE);
        let body = String::from_utf8_lossy(&body).chars().filter(|c| *c != '\u{fffd}').collect::<String>();
        Resource::ok(ResourceKind::Skill, source, path, body.into_bytes())
    });
    let push = Push::new(run.id, (run.epoch, 1), Phase::Complete, String::new(), resources.collect());
    transact(pool, clock, &AcceptPush { clock, key: &agent, push: &push }).await?;
    let spec = ChatSpec {
        owner: "bench".into(),
        title: String::new(),
        reference: Reference::Agent("agent".into()),
        parent: None,
        refresh_policy: RefreshPolicy::Manual,
        suspend: false,
        archived: false,
        deletion_policy: DeletionPolicy::Delete,
    };
    for n in 0..CHATS {
        let chat = Key::new(NAMESPACE, format!("chat-{n}"));
        let create =
            CreateChat { clock, key: &chat, spec: &spec, labels: &none, annotations: &none, created_by: "bench", reach, source };
        transact(pool, clock, &create).await?;
    }
    let reconciler = Reconciler::new(pool.clone(), clock.clone());
    while reconciler.converge_due(NAMESPACE).await?.seen > 0 || reconciler.fan_out(NAMESPACE, uuid::Uuid::nil()).await?.is_some()
    {
    }
    Ok(())
}

/// The server's own router, with one more path.
async fn serve(pool: &PgPool, clock: &Clock, fixed: Arc<OnceLock<Bytes>>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let config = config::Server {
        listen: "127.0.0.1:0".parse()?,
        auth: config::Auth::None,
        token_auth_file: None,
        listen_notify: ListenNotify::Off,
        poll_ms: 2000,
        database_connections: 8,
        retention_interval: config::RETENTION_INTERVAL,
        event_retention: config::EVENT_RETENTION,
        access: config::Access::default(),
        serving: config::Serving::default(),
    };
    let authentication = Authentication::from_config(&config)?;
    let state = AppState::new(pool.clone(), clock.clone(), Wake::default(), authentication);
    let fixed = async move |_: Identity| ([(header::CONTENT_TYPE, "application/json")], fixed.get().cloned().unwrap_or_default());
    let known = http::routes().into_router().route("/static", get(fixed));
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(http::serve::serve(listener, http::router_of(state, known), None, stop));
    Ok(address)
}

fn context_path(n: usize) -> String {
    format!("/apis/moorline.dev/v1alpha1/namespaces/{NAMESPACE}/chats/chat-{}/context", n % CHATS)
}

/// Requests a second, and the size of an answer.
async fn measure(
    address: SocketAddr,
    path: fn(usize) -> String,
    header: &str,
    connections: usize,
    time: Duration,
) -> anyhow::Result<(f64, usize)> {
    let requests: Vec<String> =
        (0..CHATS).map(|n| format!("GET {} HTTP/1.1\r\nhost: {address}\r\n{header}\r\n", path(n))).collect();
    tokio::task::spawn_blocking(move || {
        let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
        // Connections and buffers are made before the clock begins.
        let made = (0..connections).map(|_| Client::new(address)).collect::<anyhow::Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let clients: Vec<_> = made
                .into_iter()
                .enumerate()
                .map(|(first, mut client)| {
                    let (requests, stop, count) = (&requests, &stop, &count);
                    scope.spawn(move || {
                        for request in requests.iter().cycle().skip(first * CHATS / connections) {
                            if stop.load(Ordering::Relaxed) {
                                break;
                            }
                            client.ask(request)?;
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                        anyhow::Ok(client.size)
                    })
                })
                .collect();
            let began = Instant::now();
            std::thread::sleep(time);
            let (asked, took) = (count.load(Ordering::Relaxed), began.elapsed());
            stop.store(true, Ordering::Relaxed);
            let mut size = 0;
            for client in clients {
                size = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            let rate = asked as f64 / took.as_secs_f64();
            Ok((rate, size))
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
