//! Looking up what chats are moored to, as many as are asked for at once in one statement. Speed only.
//!
//! A request puts its chat on the list, and a look takes the whole list of one namespace. So nobody waits for company (a
//! request that is alone is looked up at once), and whoever asks while others are being looked up shares the next statement. A
//! statement only ever answers those that asked before it began, so that each sees every write that was done before it asked.

use crate::{
    model::object::Key,
    store::{self, StoreError, context::Mooring},
};
use sqlx::PgPool;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// How many looks may be under way at once: one on its way and one being made.
const LOOKS: usize = 2;
/// How many chats one statement looks up at most.
const CHATS_MAX: usize = 256;

/// The list, and how many look.
#[derive(Clone, Debug)]
pub struct Moorings {
    pool: PgPool,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By namespace, the one that waits longest first; none is empty.
    asked: VecDeque<(String, Vec<Asked>)>,
    looks: usize,
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
        if self.lock().ask(&key.namespace, Asked { name: key.name.clone(), answer }) {
            // A task of its own: whoever asked may go away, and others wait for it.
            tokio::spawn(self.clone().look());
        }
        match found.await {
            Ok(found) => found,
            // The look failed, for all that it was for: each finds out for itself why, and whether it still does.
            Err(_) => self.find_alone(key).await,
        }
    }

    async fn find_alone(&self, key: &Key) -> Result<Option<Mooring>, StoreError> {
        let mut connection = store::acquire(&self.pool).await?;
        let names = [key.name.clone()];
        Ok(store::context::moorings(&mut connection, &key.namespace, &names).await?.remove(&key.name))
    }

    /// Looks until nobody waits.
    async fn look(self) {
        let looking = Looking(&self);
        let mut connection = match store::acquire(&self.pool).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "no connection to look up contexts on");
                for Asked { answer, .. } in looking.give_up() {
                    answer.send(Err(StoreError::Database { query: "db.acquire", source: sqlx::Error::PoolTimedOut })).ok();
                }
                return;
            }
        };
        while let Some((namespace, mut asked)) = self.take() {
            let mut names: Vec<String> = asked.iter().map(|asked| asked.name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            let Ok(mut found) = store::context::moorings(&mut connection, &namespace, &names).await else { return };
            let last = asked.pop();
            for Asked { name, answer } in asked {
                answer.send(Ok(found.get(&name).cloned())).ok();
            }
            if let Some(Asked { name, answer }) = last {
                answer.send(Ok(found.remove(&name))).ok();
            }
        }
    }

    fn take(&self) -> Option<(String, Vec<Asked>)> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Puts somebody on the list. Whether somebody else must look.
    fn ask(&mut self, namespace: &str, asked: Asked) -> bool {
        match self.asked.iter_mut().find(|(of, _)| of == namespace) {
            Some((_, all)) => all.push(asked),
            None => self.asked.push_back((namespace.to_owned(), vec![asked])),
        }
        let look = self.looks < LOOKS;
        self.looks += usize::from(look);
        look
    }

    /// Those that wait in the namespace that waits longest.
    fn take(&mut self) -> Option<(String, Vec<Asked>)> {
        let (namespace, mut asked) = self.asked.pop_front()?;
        let later = asked.split_off(asked.len().min(CHATS_MAX));
        if !later.is_empty() {
            self.asked.push_back((namespace.clone(), later));
        }
        Some((namespace, asked))
    }
}

/// A look that is under way. However it ends, nobody is left on the list without somebody who looks.
struct Looking<'a>(&'a Moorings);

impl Looking<'_> {
    fn give_up(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().asked).into_iter().flat_map(|(_, asked)| asked).collect()
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.looks -= 1;
        if waiting.looks == 0 {
            // Whoever came in between is told by this to look alone.
            waiting.asked.clear();
        }
    }
}
