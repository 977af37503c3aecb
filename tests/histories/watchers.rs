//! Watchers: of transitions by cursor, and of chats by version. They are cut off again and again, come back to another server,
//! and go on where they were; some list anew instead. They note what they are told, and judge nothing.

mod events;
mod lines;
mod objects;

use super::{log::Place, servers::Servers};
use crate::support::proxy::Seeded;
use moorline::model::event::EventKind;
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::RwLock, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The name of the chat that is made and deleted when all else is over: whoever was told of that has been told of everything.
pub const LAST: &str = "last-of-all";
/// How long they may take for it while nobody is told anything new: whoever is cut off all the time may be far behind.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often that is waited for, at most.
const PATIENT: u32 = 10;

/// A transition, as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    pub place: Place,
    pub kind: EventKind,
    pub chat: Option<(Uuid, i64)>,
    pub name: String,
}

/// What a watch says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    Added,
    Modified,
    Deleted,
}

/// A line of a watch of chats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub word: Word,
    pub id: Uuid,
    pub name: String,
    pub rv: i64,
    /// Counts the connections; the first is 0.
    pub connection: u32,
    pub shown: Shown,
}

/// What an object shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    pub mark: Option<String>,
    pub hash: Option<String>,
    pub dirty: bool,
}

/// From a start on, without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Transitions after this place.
    Events { after: Place, told: Vec<Transition> },
    /// Chats: the list, its version, and what was told since; all of them, or those that are not archived. `resumed` is from which
    /// version each connection went on.
    Objects { selects: bool, version: i64, listed: HashMap<Uuid, (i64, Shown)>, told: Vec<Told>, resumed: Vec<i64> },
}

/// All that one watcher was told.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub watcher: String,
    pub stretches: Vec<Stretch>,
    /// How often it was told to begin again.
    pub expired: u32,
    /// How often its connection ended, by itself or by another.
    pub cuts: u32,
    /// It was told of the end of [`LAST`], at the end of its last stretch, or that stretch is a list from after it.
    pub complete: bool,
}

impl Seen {
    /// How many lines it was told.
    pub fn lines(&self) -> usize {
        let of = |stretch: &Stretch| match stretch {
            Stretch::Events { told, .. } => told.len(),
            Stretch::Objects { told, .. } => told.len(),
        };
        self.stretches.iter().map(of).sum()
    }
}

/// What a watcher of chats does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Cut off, it lists anew, most of the time: how a watch begins is where it may go wrong.
    ListsAnew,
    /// It goes on from the last version that it was told.
    Resumes,
    /// The same, of those that are not archived only; it is cut off all the time.
    Selects,
}

/// What all watchers have in common.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Counts what they have been told that was new to them.
    told: Arc<AtomicU64>,
    /// The last chat is gone. While it is made and deleted nobody lists the chats: nobody is to wait for what he has missed.
    over: Arc<RwLock<bool>>,
    /// It has been waited for long enough.
    give_up: CancellationToken,
}

impl Shared {
    fn is_told(&self) {
        self.told.fetch_add(1, Ordering::Relaxed);
    }

    /// How much they have been told that was new to them.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }
}

/// Running watchers.
pub struct Watchers {
    pub shared: Shared,
    tasks: JoinSet<Seen>,
}

impl Watchers {
    /// So many of transitions, and so many of chats.
    pub fn start(servers: &Servers, seed: u64, events: usize, objects: usize) -> Self {
        let (mut tasks, shared) = (JoinSet::new(), Shared::default());
        for n in 0..events + objects {
            let random = Seeded::new(seed.wrapping_mul(31).wrapping_add(1_000 + n as u64));
            let (servers, shared) = (servers.clone(), shared.clone());
            if n < events {
                tasks.spawn(events::watch(format!("transitions {n}"), n as u64, servers, random, shared));
            } else {
                let habit = [Habit::ListsAnew, Habit::Resumes, Habit::Selects][(n - events) % 3];
                tasks.spawn(objects::watch(format!("chats {n}"), n as u64, habit, servers, random, shared));
            }
        }
        Self { shared, tasks }
    }

    /// Makes and deletes the last chat, and waits until every watcher was told.
    pub async fn finish(self, servers: &Servers) -> Vec<Seen> {
        let Self { shared, tasks } = self;
        let http = reqwest::Client::new();
        let chats = || format!("{}/apis/moorline.dev/v1alpha1/namespaces/team-0/chats", servers.of(0));
        let last = json!({"metadata": {"name": LAST}});
        let mut over = shared.over.write().await;
        let made =
            http.post(chats()).header("content-type", "application/json").header("prefer", "wait=10").body(last.to_string());
        assert_eq!(made.send().await.unwrap().status(), 201);
        let deleted = http.delete(format!("{}/{LAST}", chats())).send().await.unwrap();
        assert_eq!(deleted.status(), 200);
        *over = true;
        drop(over);
        let mut tasks = Box::pin(tasks.join_all());
        for _ in 0..PATIENT {
            let known = shared.told();
            if let Ok(seen) = timeout(PATIENCE, &mut tasks).await {
                return seen;
            }
            if shared.told() == known {
                break;
            }
        }
        shared.give_up.cancel(); // whoever is not complete is found out by the checker
        tasks.await
    }
}
