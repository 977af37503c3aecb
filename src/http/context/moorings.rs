//! Looking up what chats are moored to, as many as are asked for at once in one statement. Speed only.
//!
//! A request puts its chat on its namespace's list, and the look of that namespace takes the whole list. So nobody waits for
//! company (a request that is alone is looked up at once), and those that ask while a statement is under way share the next
//! one. A statement only ever answers those that asked before it began: each sees every write that was done before it asked.

use crate::{
    model::object::Key,
    store::{self, StoreError, context::Mooring},
};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// How many requests one statement answers at most.
const TAKEN_MAX: usize = 256;

/// How often others' turns come first, at most, before the statement goes out.
const GATHERED_MAX: usize = 8;

/// Who waits, by namespace. A namespace is in it exactly while somebody looks for it.
type Waiting = HashMap<String, Vec<Asked>>;

/// The lists, and how to look.
#[derive(Clone, Debug)]
pub struct Moorings {
    pool: PgPool,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug)]
struct Asked {
    name: String,
    answer: oneshot::Sender<Result<Option<Mooring>, StoreError>>,
}

impl Moorings {
    /// Looks on connections of this pool.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, waiting: Arc::default() }
    }

    /// What a chat is moored to; none when it is not there.
    pub async fn find(&self, key: &Key) -> Result<Option<Mooring>, StoreError> {
        let (answer, found) = oneshot::channel();
        if self.ask(&key.namespace, Asked { name: key.name.clone(), answer }) {
            // A task of its own: whoever asked may go away, and others wait for it.
            tokio::spawn(Look { moorings: self.clone(), namespace: key.namespace.clone(), active: true }.run());
        }
        match found.await {
            Ok(found) => found,
            // The look failed, for all that it was for: each finds out for itself why, and whether it still does.
            Err(_) => self.find_alone(key).await,
        }
    }

    /// Puts somebody on the list. Whether nobody looks for that yet.
    fn ask(&self, namespace: &str, asked: Asked) -> bool {
        let mut waiting = self.lock();
        if let Some(all) = waiting.get_mut(namespace) {
            all.push(asked);
            return false;
        }
        waiting.insert(namespace.to_owned(), vec![asked]);
        true
    }

    async fn find_alone(&self, key: &Key) -> Result<Option<Mooring>, StoreError> {
        let mut connection = store::acquire(&self.pool).await?;
        let names = [key.name.clone()];
        Ok(store::context::moorings(&mut connection, &key.namespace, &names).await?.remove(&key.name))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who looks for a namespace. However it ends, its list is gone with it, so that the next to ask begins another.
struct Look {
    moorings: Moorings,
    namespace: String,
    /// Whether the list is its own: it is, until it found that nobody waits.
    active: bool,
}

impl Look {
    /// Looks until nobody waits.
    async fn run(mut self) {
        loop {
            // The connection first: whoever asks while we wait for it is in time. And a new one each time, in turn with others.
            let mut connection = match store::acquire(&self.moorings.pool).await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, "no connection to look up contexts on");
                    let asked = self.moorings.lock().get_mut(&self.namespace).map(std::mem::take);
                    for Asked { answer, .. } in asked.into_iter().flatten() {
                        answer.send(Err(StoreError::Database { query: "db.acquire", source: sqlx::Error::PoolTimedOut })).ok();
                    }
                    return;
                }
            };
            self.gather().await;
            let Some(asked) = self.take() else { return };
            let mut names: Vec<String> = asked.iter().map(|asked| asked.name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            let Ok(mut found) = store::context::moorings(&mut connection, &self.namespace, &names).await else { return };
            drop(connection);
            let all_differ = names.len() == asked.len();
            for Asked { name, answer } in asked {
                let found = if all_differ { found.remove(&name) } else { found.get(&name).cloned() };
                answer.send(Ok(found)).ok();
            }
            if self.ended() {
                return;
            }
        }
    }

    /// Lets requests that have arrived, and wait only for their turn to be read, come along: goes to the end of the queue of what is
    /// ready for as long as each time there are more. Nobody is waited for: where nothing else is ready, this takes no time. (A
    /// statement for one chat costs PostgreSQL nearly as much as one for ten.)
    async fn gather(&self) {
        let mut before = 0;
        for _ in 0..GATHERED_MAX {
            tokio::task::yield_now().await;
            let waiting = self.moorings.lock().get(&self.namespace).map_or(0, Vec::len);
            if waiting <= before {
                return;
            }
            before = waiting;
        }
    }

    /// Those that wait, the longest first.
    fn take(&self) -> Option<Vec<Asked>> {
        let mut waiting = self.moorings.lock();
        let all = waiting.get_mut(&self.namespace).filter(|all| !all.is_empty())?;
        let taken = all.len().min(TAKEN_MAX);
        Some(all.drain(..taken).collect())
    }

    /// Whether nobody waits any more; then, in the same moment, nobody looks either.
    fn ended(&mut self) -> bool {
        let mut waiting = self.moorings.lock();
        let ended = waiting.get(&self.namespace).is_none_or(Vec::is_empty);
        if ended {
            waiting.remove(&self.namespace);
            self.active = false;
        }
        ended
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        // Ended early. Whoever is still on the list sees that nobody will answer, and looks alone.
        if self.active {
            self.moorings.lock().remove(&self.namespace);
        }
    }
}
