//! Many clients at once.

use super::{
    client::Client,
    history::{History, Stopwatch},
    operation::Script,
    servers::Servers,
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What is to be done.
#[derive(Clone)]
pub struct Load {
    pub clients: usize,
    /// Decides the sequence of operations of each client, and nothing else.
    pub seed: u64,
    /// At most so many operations in all.
    pub count: u64,
    /// Ends it earlier: cancel it when the time is over. What is under way comes back first.
    pub stop: CancellationToken,
    pub servers: Servers,
    /// Counts what has been sent so far.
    pub done: Arc<AtomicU64>,
    /// Counts what of it was acknowledged.
    pub acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// So many operations of so many clients.
    pub fn new(clients: usize, seed: u64, count: u64, servers: &Servers) -> Self {
        Self {
            clients,
            seed,
            count,
            stop: CancellationToken::new(),
            servers: servers.clone(),
            done: Arc::default(),
            acknowledged: Arc::default(),
        }
    }

    /// Does it. Servers that do not answer end nothing: what nobody knows is *maybe*, and the client goes on.
    pub async fn run(&self) -> History {
        let clock = Stopwatch::start();
        let mut clients = JoinSet::new();
        for number in 0..self.clients {
            let load = self.clone();
            clients.spawn(async move {
                let script = Script::new(load.seed, number, load.clients);
                let mut client = Client::new(number, script, load.servers.clone(), clock);
                while !load.stop.is_cancelled() && load.done.load(Ordering::SeqCst) < load.count {
                    let step = client.step().await;
                    load.done.fetch_add(step.sent, Ordering::SeqCst);
                    load.acknowledged.fetch_add(step.acknowledged, Ordering::SeqCst);
                }
                client.records
            });
        }
        let mut records = clients.join_all().await.concat();
        records.sort_by_key(|record| (record.invoked, record.client));
        History { records }
    }
}
