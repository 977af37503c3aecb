//! A connection to PostgreSQL on which round trips are counted: a proxy that reads what a client sends, and counts how often it waits
//! for an answer.

use moorline::store;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    task::AbortHandle,
};

/// A running proxy. It ends with this.
pub(crate) struct Counted {
    options: PgConnectOptions,
    round_trips: Arc<AtomicUsize>,
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
        let round_trips = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&round_trips);
        let accepting = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (server, count) = (server.clone(), Arc::clone(&count));
                tokio::spawn(async move { carry(client, UnixStream::connect(server).await.unwrap(), &count).await });
            }
        });
        let options = options.clone().socket(directory.path());
        Self { options, round_trips, accepting: accepting.abort_handle(), _directory: directory }
    }

    /// A pool of one connection through it: what that has prepared is what is used, and it is never asked whether it lives.
    pub(crate) fn pool(&self) -> PgPool {
        let options = PgPoolOptions::new().max_connections(1).test_before_acquire(false);
        options.acquire_timeout(Duration::from_mins(1)).connect_lazy_with(store::session(self.options.clone()))
    }

    /// How often somebody has waited for an answer so far.
    pub(crate) fn round_trips(&self) -> usize {
        self.round_trips.load(Ordering::SeqCst)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, count: &AtomicUsize) {
    let (mut asks, mut answers) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let (mut reader, mut bytes) = (Reader::default(), vec![0; 64 * 1024]);
        while let Ok(n @ 1..) = asks.read(&mut bytes).await {
            count.fetch_add(reader.waits(&bytes[..n]), Ordering::SeqCst);
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
}

impl Reader {
    /// How many of these messages are waited for by whom the work is done for: a query, and the end of an extended one. An end of
    /// nothing is sqlx asking whether a connection lives, when it comes back to its pool.
    fn waits(&mut self, bytes: &[u8]) -> usize {
        self.bytes.extend_from_slice(bytes);
        let mut waits = 0;
        loop {
            let head = usize::from(self.begun);
            let Some(length) = self.bytes.get(head..head + 4) else { return waits };
            let whole = head + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.bytes.len() < whole {
                return waits;
            }
            if self.begun {
                match self.bytes[0] {
                    b'Q' => waits += 1,
                    b'S' => waits += usize::from(std::mem::take(&mut self.asked)),
                    _ => self.asked = true,
                }
            }
            self.begun = true;
            self.bytes.drain(..whole);
        }
    }
}
