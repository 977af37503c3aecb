//! A proxy before PostgreSQL that reads what goes through it: it knows the transaction that each connection is in and its
//! statement, and stops where it is told to, before a statement has gone out or when it is done and its answer is not in.
//!
//! So every gap between two statements of every transaction is a place to stop at, `COMMIT` included, in the very binary
//! that is shipped: nothing is compiled in, and no step can be forgotten. Between two statements a process does nothing that
//! anybody else can see, so to end it in such a gap is to end it anywhere within.

use sqlx::postgres::PgConnectOptions;
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream, UnixStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::AbortHandle,
};

/// On which side of a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It has not gone out.
    Before,
    /// It is done, and nobody has been told.
    After,
}

/// Where to stop: in a transaction whose first statement contains `first`, at statement `step` of it, counted from 0.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub first: &'static str,
    pub step: usize,
    pub side: Side,
}

/// A connection that has been stopped.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// The statements of its transaction so far: the last is the one it stopped at.
    pub statements: Vec<String>,
    pub side: Side,
}

impl Stopped {
    /// Whether the transaction is committed.
    pub fn committed(&self) -> bool {
        self.side == Side::After && self.statements.last().is_some_and(|last| last == COMMIT)
    }

    /// For a person: what it stopped at.
    pub fn told(&self) -> String {
        let last = self.statements.last().unwrap();
        format!("{:?} {}", self.side, last.split_whitespace().take(5).collect::<Vec<_>>().join(" "))
    }
}

/// What comes of the connections that have been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wait,
    GoOn,
    /// Reset on both sides.
    Cut,
}

struct Shared {
    place: Mutex<Option<Place>>,
    stopped: mpsc::UnboundedSender<Stopped>,
    fate: watch::Sender<Fate>,
}

/// The running proxy. It ends with this.
pub struct Statements {
    /// Where it listens.
    port: u16,
    shared: Arc<Shared>,
    stops: tokio::sync::Mutex<mpsc::UnboundedReceiver<Stopped>>,
    accepting: AbortHandle,
}

impl Statements {
    /// One before the server that these lead to, by a socket.
    pub async fn before(server: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stopped, stops) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { place: Mutex::default(), stopped, fate: watch::Sender::new(Fate::Wait) });
        let (socket, ours) = (socket_of(server), shared.clone());
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (socket, shared) = (socket.clone(), ours.clone());
                tokio::spawn(async move {
                    let Ok(server) = UnixStream::connect(socket).await else { return };
                    Box::pin(Carried::new(client, server, shared).carry()).await;
                });
            }
        });
        Self { port, shared, stops: tokio::sync::Mutex::new(stops), accepting: accepting.abort_handle() }
    }

    /// How a process reaches a database through it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The next connection that comes by there stops; the others go on.
    pub fn stop_at(&self, place: Place) {
        self.shared.fate.send_replace(Fate::Wait);
        *self.shared.place.lock().unwrap() = Some(place);
    }

    /// Nobody stops any more.
    pub fn stop_nobody(&self) {
        *self.shared.place.lock().unwrap() = None;
    }

    /// Whether one has come by where it was told to stop: it has stopped, or does as soon as its statement is done.
    pub fn is_reached(&self) -> bool {
        self.shared.place.lock().unwrap().is_none()
    }

    /// Waits for one that has stopped.
    pub async fn stopped(&self) -> Stopped {
        self.stops.lock().await.recv().await.unwrap()
    }

    /// Resets the connection that has been stopped.
    pub fn cut(&self) {
        self.shared.fate.send_replace(Fate::Cut);
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.shared.fate.send_replace(Fate::GoOn);
    }
}

impl Drop for Statements {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Where a server's socket is.
pub fn socket_of(server: &PgConnectOptions) -> PathBuf {
    server.get_socket().expect("a server of ours has a socket").join(format!(".s.PGSQL.{}", server.get_port()))
}

/// How the last statement of a transaction reads, if it goes well.
const COMMIT: &str = "COMMIT";
/// What a message of a client begins with.
const PARSE: u8 = b'P';
const BIND: u8 = b'B';
const QUERY: u8 = b'Q';
const SYNC: u8 = b'S';
/// What the last message of an answer begins with.
const READY: u8 = b'Z';

/// One connection.
struct Carried {
    asks: OwnedReadHalf,
    answers: OwnedWriteHalf,
    server: UnixStream,
    shared: Arc<Shared>,
    /// Read from the client, and not sent on.
    pending: Vec<u8>,
    /// The text of each prepared statement.
    prepared: HashMap<Vec<u8>, String>,
    /// The statements of the transaction it is in, `BEGIN` left out; none outside.
    transaction: Option<Vec<String>>,
}

impl Carried {
    fn new(client: TcpStream, server: UnixStream, shared: Arc<Shared>) -> Self {
        let (asks, answers) = client.into_split();
        Self { asks, answers, server, shared, pending: Vec::new(), prepared: HashMap::new(), transaction: None }
    }

    /// Until one of the two ends, or it is cut.
    async fn carry(mut self) -> Option<()> {
        // The first message has no type.
        while self.pending.len() < 4 || self.pending.len() < length(&self.pending) {
            self.hear().await?;
        }
        let first = length(&self.pending);
        let startup: Vec<u8> = self.pending.drain(..first).collect();
        self.server.write_all(&startup).await.ok()?;
        let mut said = vec![0; 16 * 1024];
        loop {
            while let Some(batch) = self.batch() {
                self.pass(batch).await?;
            }
            let mut asked = [0; 16 * 1024];
            tokio::select! {
                read = self.asks.read(&mut asked) => match read {
                    Ok(n @ 1..) => self.pending.extend_from_slice(&asked[..n]),
                    Ok(_) | Err(_) => return None,
                },
                // What it says unasked, and what it says to the first message.
                read = self.server.read(&mut said) => match read {
                    Ok(n @ 1..) => self.answers.write_all(&said[..n]).await.ok()?,
                    Ok(_) | Err(_) => return None,
                },
            }
        }
    }

    async fn hear(&mut self) -> Option<()> {
        let mut asked = [0; 4096];
        let n = self.asks.read(&mut asked).await.ok().filter(|n| *n > 0)?;
        self.pending.extend_from_slice(&asked[..n]);
        Some(())
    }

    /// What the client has sent up to where it waits for an answer, if it has come so far.
    fn batch(&mut self) -> Option<Vec<u8>> {
        let mut at = 0;
        while self.pending.len() >= at + 5 {
            let (kind, end) = (self.pending[at], at + 1 + length(&self.pending[at + 1..]));
            if self.pending.len() < end {
                return None;
            }
            at = end;
            if matches!(kind, QUERY | SYNC) {
                return Some(self.pending.drain(..at).collect());
            }
        }
        None
    }

    /// The statement that a batch executes.
    fn statement(&mut self, batch: &[u8]) -> Option<String> {
        let (mut at, mut executed) = (0, None);
        while at < batch.len() {
            let end = at + 1 + length(&batch[at + 1..]);
            let body = &batch[at + 5..end];
            let mut words = body.split(|byte| *byte == 0);
            match batch[at] {
                QUERY => executed = words.next().map(text),
                PARSE => {
                    let (name, sql) = (words.next().unwrap(), words.next().unwrap());
                    self.prepared.insert(name.to_vec(), text(sql));
                }
                BIND => {
                    words.next();
                    executed = words.next().and_then(|name| self.prepared.get(name)).cloned();
                }
                _ => {}
            }
            at = end;
        }
        executed
    }

    /// Sends a batch on, and its answer back.
    async fn pass(&mut self, batch: Vec<u8>) -> Option<()> {
        let stop = self.statement(&batch).and_then(|statement| self.step(statement));
        if let Some(stop) = stop.as_ref().filter(|stop| stop.side == Side::Before) {
            self.stop(stop.clone()).await?;
        }
        self.server.write_all(&batch).await.ok()?;
        let answer = self.answer().await?;
        if let Some(stop) = stop.filter(|stop| stop.side == Side::After) {
            self.stop(stop).await?;
        }
        self.answers.write_all(&answer).await.ok()
    }

    /// Notes a statement; whether to stop at it.
    fn step(&mut self, statement: String) -> Option<Stopped> {
        if statement.starts_with("BEGIN") {
            self.transaction = Some(Vec::new());
            return None;
        }
        let statements = self.transaction.as_mut()?;
        let last = matches!(statement.as_str(), COMMIT | "ROLLBACK");
        statements.push(statement);
        if statements.len() == 2 && statements[1] == COMMIT {
            // It looked for something to do, and there was nothing: not the transaction that is meant.
            self.transaction = None;
            return None;
        }
        let stopped = {
            let mut place = self.shared.place.lock().unwrap();
            let here = |place: &mut Place| statements.len() == place.step + 1 && statements[0].contains(place.first);
            place.take_if(here).map(|place| Stopped { statements: statements.clone(), side: place.side })
        };
        if last {
            self.transaction = None;
        }
        stopped
    }

    /// Everything up to where the server waits for the next batch.
    async fn answer(&mut self) -> Option<Vec<u8>> {
        let (mut answer, mut at) = (Vec::new(), 0);
        let mut said = vec![0; 16 * 1024];
        loop {
            while answer.len() >= at + 5 {
                let end = at + 1 + length(&answer[at + 1..]);
                if answer.len() < end {
                    break;
                }
                if answer[at] == READY {
                    return Some(answer);
                }
                at = end;
            }
            if let Ok(n @ 1..) = self.server.read(&mut said).await {
                answer.extend_from_slice(&said[..n]);
            } else {
                // The last words of a server that ends a session.
                self.answers.write_all(&answer).await.ok();
                return None;
            }
        }
    }

    /// Stands still until it is told what comes of it, or the client is gone.
    async fn stop(&mut self, stopped: Stopped) -> Option<()> {
        let mut fate = self.shared.fate.subscribe();
        self.shared.stopped.send(stopped).ok()?;
        tokio::select! {
            decided = fate.wait_for(|fate| *fate != Fate::Wait) => match *decided.ok()? {
                Fate::GoOn => Some(()),
                Fate::Cut | Fate::Wait => {
                    self.asks.as_ref().set_zero_linger().ok();
                    None
                }
            },
            heard = self.hear() => heard,
        }
    }
}

/// The length of a message, which counts itself.
fn length(bytes: &[u8]) -> usize {
    let bytes: [u8; 4] = bytes[..4].try_into().unwrap();
    usize::try_from(i32::from_be_bytes(bytes)).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
