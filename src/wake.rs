//! Wake-ups: hints that there may be something to do. Losing one costs a poll, never correctness. They carry no data; but within a
//! process whoever takes a push says in which namespace, and whether some chat may have to be told, which saves the loop the look for it, or
//! a lap.
//!
//! `NOTIFY` is never sent in a writing transaction, because a commit that notifies takes a lock on the whole database; each
//! process sends an empty one on a connection of its own, after commit: the first at once, then at most one every 10 ms.
//! Listeners register before they look. What a process has told the others it does not hear again: it knew before they did.

use crate::{
    clock::Clock,
    model::push::Audience,
    store::{error::full_jitter, turns::in_few_turns},
};
use sqlx::{
    ConnectOptions as _, Executor as _, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Says that a record may be due.
const WORK: &str = "moorline_work";
/// Says that the log may have grown.
const EVENTS: &str = "moorline_events";
/// So many namespaces with news are known; what is beyond is looked for.
const NEWS_MAX: usize = 64;
/// Two notifications of one process are at least so far apart.
const APART: Duration = Duration::from_millis(10);
/// The first pause before connecting again, at most; it doubles up to [`PAUSE_CAP`].
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before connecting again.
const PAUSE_CAP: Duration = Duration::from_secs(10);

/// Whether processes tell each other through the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ListenNotify {
    /// By LISTEN and NOTIFY: needs sessions, so no pooler in transaction mode.
    On,
    /// Not at all: each polls.
    Off,
}

/// Wakes whoever waits for work or for events, here and in the other processes.
#[derive(Clone, Debug)]
pub struct Wake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    chats: watch::Sender<()>,
    agents: watch::Sender<()>,
    news: Mutex<BTreeMap<String, Audience>>,
    quiet: watch::Sender<()>,
    events: watch::Sender<()>,
    tell_work: Notify,
    tell_events: Notify,
    /// The backend of the connection that tells; 0 for none.
    teller: AtomicU32,
}

impl Default for Wake {
    fn default() -> Self {
        Self(Arc::new(Inner {
            chats: watch::Sender::new(()),
            agents: watch::Sender::new(()),
            news: Mutex::default(),
            quiet: watch::Sender::new(()),
            events: watch::Sender::new(()),
            tell_work: Notify::new(),
            tell_events: Notify::new(),
            teller: AtomicU32::new(0),
        }))
    }
}

impl Inner {
    /// Both lanes look.
    fn look(&self) {
        self.chats.send_replace(());
        self.agents.send_replace(());
    }

    fn lock_news(&self) -> MutexGuard<'_, BTreeMap<String, Audience>> {
        self.news.lock().expect("no holder of this lock panics")
    }
}

impl Wake {
    /// A record may be due. Call it after commit.
    pub fn work(&self) {
        self.0.look();
        self.0.tell_work.notify_one();
    }

    /// An agent of this namespace has news; its chats are told by its lap. Where nobody is to be told, a lane of this process sees to it in a
    /// moment, and the other processes need not look. Call it after commit.
    pub fn news(&self, namespace: &str, audience: Audience) {
        let mut news = self.0.lock_news();
        let kept = if let Some(known) = news.get_mut(namespace) {
            *known = audience.max(*known);
            true
        } else if news.len() < NEWS_MAX {
            news.insert(namespace.to_owned(), audience);
            true
        } else {
            false
        };
        drop(news);
        if kept && audience == Audience::Nobody && self.0.quiet.receiver_count() > 0 {
            self.0.quiet.send_replace(());
            return;
        }
        self.0.agents.send_replace(());
        self.0.tell_work.notify_one();
    }

    /// Where agents have had news since this was last asked, as far as it is known: the rest is to be looked for.
    pub fn take_news(&self) -> BTreeMap<String, Audience> {
        std::mem::take(&mut *self.0.lock_news())
    }

    /// The log has grown. Call it after commit.
    pub fn events(&self) {
        self.0.events.send_replace(());
        self.0.tell_events.notify_one();
    }

    /// Registers for chats that may be due. Register before you look.
    pub fn on_chats(&self) -> watch::Receiver<()> {
        self.0.chats.subscribe()
    }

    /// Registers for agents that may be due. Register before you look.
    pub fn on_agents(&self) -> watch::Receiver<()> {
        self.0.agents.subscribe()
    }

    /// Registers for agents that are due and have nobody to tell. Register before you look.
    pub fn on_quiet(&self) -> watch::Receiver<()> {
        self.0.quiet.subscribe()
    }

    /// Registers for events. Register before you look.
    pub fn on_events(&self) -> watch::Receiver<()> {
        self.0.events.subscribe()
    }

    /// Tells the other processes and hears them, until `shutdown`. When there are other `options`, connects again.
    pub async fn run(&self, options: watch::Receiver<PgConnectOptions>, clock: Clock, shutdown: CancellationToken) {
        let tell = again("telling other replicas", &clock, &shutdown, || async {
            let (now, replaced) = now_and_replaced(&options);
            let result = tokio::select! { result = self.tell(&now) => result, () = replaced => Ok(()) };
            self.0.teller.store(0, Ordering::Release);
            // What was being told may not have been.
            self.0.tell_work.notify_one();
            self.0.tell_events.notify_one();
            result
        });
        let hear = again("listening to other replicas", &clock, &shutdown, || async {
            let (now, replaced) = now_and_replaced(&options);
            tokio::select! { result = self.hear(&now) => result, () = replaced => Ok(()) }
        });
        tokio::join!(tell, hear);
    }

    async fn tell(&self, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let mut connection: PgConnection = in_few_turns(options.connect()).await?;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
        self.0.teller.store(backend.unsigned_abs(), Ordering::Release);
        loop {
            let channel = tokio::select! {
                () = self.0.tell_work.notified() => WORK,
                () = self.0.tell_events.notified() => EVENTS,
            };
            connection.execute(sqlx::AssertSqlSafe(format!("NOTIFY {channel}"))).await?;
            tokio::time::sleep(APART).await;
        }
    }

    async fn hear(&self, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
        let one = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = in_few_turns(one.connect_with(options.clone())).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false); // it is told, and connects as here
        listener.listen_all([WORK, EVENTS]).await?;
        // Whatever was missed until now is looked for now.
        self.0.look();
        self.0.events.send_replace(());
        while let Some(heard) = listener.try_recv().await? {
            if heard.process_id() == self.0.teller.load(Ordering::Acquire) {
                continue;
            }
            match heard.channel() {
                WORK => self.0.look(),
                _ => self.0.events.send_replace(()),
            }
        }
        Err(sqlx::Error::WorkerCrashed)
    }
}

/// The options as they are, and a wait for others.
fn now_and_replaced(options: &watch::Receiver<PgConnectOptions>) -> (PgConnectOptions, impl Future<Output = ()> + use<>) {
    let mut options = options.clone();
    let now = options.borrow_and_update().clone();
    let replaced = async move {
        if options.changed().await.is_err() {
            std::future::pending::<()>().await; // nobody replaces them
        }
    };
    (now, replaced)
}

/// Runs `f` until `shutdown`; after a failure again, with back-off.
async fn again<F: Future<Output = Result<(), sqlx::Error>>>(
    what: &str,
    clock: &Clock,
    shutdown: &CancellationToken,
    f: impl Fn() -> F,
) {
    let mut failures = 0;
    loop {
        let began = std::time::Instant::now();
        let result = tokio::select! { () = shutdown.cancelled() => return, result = f() => result };
        failures = if began.elapsed() > PAUSE_CAP { 1 } else { failures + 1 };
        if let Err(error) = result {
            tracing::warn!(%error, "{what} failed; polling until it works again");
        }
        let pause = full_jitter(PAUSE, PAUSE_CAP, failures, clock.random());
        tokio::select! { () = shutdown.cancelled() => return, () = tokio::time::sleep(pause) => {} }
    }
}
