//! A connection to PostgreSQL on which round trips are counted: a proxy that reads what a client sends, and notes how often it waits
//! for an answer, and to what.

use moorline::store;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};

/// The statements that were waited for, in order.
type Waits = Arc<Mutex<Vec<String>>>;

/// A running proxy. It ends with this.
pub(crate) struct Counted {
    options: PgConnectOptions,
    waits: Waits,
    accepting: AbortHandle,
    _directory: TempDir,
}

impl Counted {
    /// One before the server of `options`, which listens on a socket.
    pub(crate) fn before(options: &PgConnectOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = format!(".s.PGSQL.{}", options.get_port());
        let server = options.get_socket().unwrap().join(&name);
        let listener = UnixListener::bind(directory.path().join(&name)).unwrap();
        let waits = Waits::default();
        let noted = Arc::clone(&waits);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, noted) = (server.clone(), Arc::clone(&noted));
                tokio::spawn(async move { carry(client, UnixStream::connect(server).await.unwrap(), &noted).await });
            }
        });
        let options = options.clone().socket(directory.path());
        Self { options, waits, accepting: accepting.abort_handle(), _directory: directory }
    }

    /// A pool of one connection through it: what that has prepared is what is used, and it is never asked whether it lives.
    pub(crate) fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
        options.acquire_timeout(Duration::from_mins(1)).connect_lazy_with(store::session(self.options.clone()))
    }

    /// How often somebody has waited for an answer so far.
    pub(crate) fn round_trips(&self) -> usize {
        self.waits.lock().unwrap().len()
    }

    /// What was waited for since there were so many round trips.
    pub(crate) fn since(&self, round_trips: usize) -> Vec<String> {
        self.waits.lock().unwrap()[round_trips..].to_vec()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, noted: &Mutex<Vec<String>>) {
    let (mut asks, mut answers) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let (mut reader, mut bytes) = (Reader::default(), vec![0; 64 * 1024]);
        while let Ok(n @ 1..) = asks.read(&mut bytes).await {
            noted.lock().unwrap().extend(reader.waits(&bytes[..n]));
            if to_server.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        tokio::io::copy(&mut from_server, &mut answers).await.ok();
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}

/// Reads a client's messages: a type and a length each, but for the first, which has no type.
#[derive(Default)]
struct Reader {
    begun: bool,
    asked: bool,
    bytes: Vec<u8>,
    /// Statements by the name under which they were prepared.
    prepared: HashMap<Vec<u8>, String>,
    /// The one that was asked for last; none when it was only prepared.
    current: Option<String>,
}

/// The texts of a message, each up to its NUL.
fn texts(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message[5..].split(|byte| *byte == 0)
}

impl Reader {
    /// What of these messages is waited for by whom the work is done for: a query, and the end of an extended one. An end of
    /// nothing is sqlx asking whether a connection lives, when it comes back to its pool.
    fn waits(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut waits = Vec::new();
        loop {
            let head = usize::from(self.begun);
            let Some(length) = self.bytes.get(head..head + 4) else { return waits };
            let whole = head + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.bytes.len() < whole {
                return waits;
            }
            if self.begun {
                let message = &self.bytes[..whole];
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let mut texts = texts(message);
                match message[0] {
                    b'Q' => waits.extend(texts.next().map(text)),
                    b'S' if std::mem::take(&mut self.asked) => waits.push(self.current.take().unwrap_or_default()),
                    b'S' => {}
                    b'P' => {
                        let (name, statement) = (texts.next().unwrap().to_vec(), texts.next().map(text).unwrap());
                        self.prepared.insert(name, statement);
                        self.asked = true;
                    }
                    b'B' => {
                        self.current = texts.nth(1).and_then(|name| self.prepared.get(name)).cloned();
                        self.asked = true;
                    }
                    _ => self.asked = true,
                }
            }
            self.begun = true;
            self.bytes.drain(..whole);
        }
    }
}
