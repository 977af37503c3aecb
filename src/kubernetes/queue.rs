//! The objects that are to be looked at: each at most once in the queue and at most once in hand, now or after a while. What is
//! added while it is in hand is looked at again. Bounded by the number of objects.

use super::kind::Id;
use crate::metrics::{Controller, METRICS};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The first pause of an object that failed, at most; it doubles up to [`BACKOFF_CAP`].
pub const BACKOFF: Duration = Duration::from_millis(250);
/// The longest pause of an object that failed.
pub const BACKOFF_CAP: Duration = Duration::from_mins(1);

/// Objects that there is room for when nothing is to be looked at.
const ROOM: usize = 256;

#[derive(Debug, Default)]
struct Inner {
    ready: VecDeque<Id>,
    /// What is in `ready`, or is to be when it is no longer in hand; and since when.
    wanted: HashMap<Id, Instant>,
    in_hand: HashSet<Id>,
    /// The earliest time of each that waits; entries of `later` with another time are out of date.
    due: HashMap<Id, Instant>,
    later: BinaryHeap<Reverse<(Instant, Id)>>,
    failures: HashMap<Id, u32>,
    /// Whether the metrics tell of it: of the mirror's they do.
    measured: bool,
}

impl Inner {
    fn add(&mut self, id: &Id) {
        self.due.remove(id);
        if self.wanted.contains_key(id) {
            return;
        }
        self.wanted.insert(id.clone(), Instant::now());
        if self.measured {
            METRICS.queued();
        }
        if !self.in_hand.contains(id) {
            self.ready.push_back(id.clone());
        }
    }

    fn measure(&self) {
        if self.measured {
            METRICS.depth(Controller::Mirror, i64::try_from(self.ready.len()).unwrap_or(i64::MAX));
        }
    }

    fn ripen(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.later.peek() {
            if *at > now {
                return;
            }
            let (at, id) = (*at, id.clone());
            self.later.pop();
            if self.due.get(&id) == Some(&at) {
                self.add(&id);
            }
        }
    }
}

/// The queue. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Queue(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    inner: Mutex<Inner>,
    more: Notify,
    /// Nothing is left to be taken now.
    none: Notify,
}

/// An object in hand. When a task panics that has it, it has failed, and is tried again.
#[derive(Debug)]
pub struct InHand {
    queue: Queue,
    id: Option<Id>,
}

impl InHand {
    /// The queue has been told what came of it.
    pub fn told(mut self) {
        self.id = None;
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.queue.failed(&id, 1.0);
        if std::thread::panicking() {
            tracing::error!(object = %id, "looking at it panicked; it is tried again");
        }
    }
}

impl Queue {
    /// The mirror's, of which the metrics tell.
    pub fn of_the_mirror() -> Self {
        Self(Arc::new(Parts { inner: Mutex::new(Inner { measured: true, ..Inner::default() }), ..Parts::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().expect("no holder of this lock panics")
    }

    /// To be looked at now.
    pub fn add(&self, id: &Id) {
        let mut inner = self.lock();
        inner.add(id);
        inner.measure();
        drop(inner);
        self.0.more.notify_one();
    }

    /// To be looked at after a while, unless something asks for it earlier.
    pub fn add_after(&self, id: &Id, pause: Duration) {
        let at = Instant::now() + pause;
        let mut inner = self.lock();
        if inner.wanted.contains_key(id) || inner.due.get(id).is_some_and(|due| *due <= at) {
            return;
        }
        inner.due.insert(id.clone(), at);
        inner.later.push(Reverse((at, id.clone())));
        drop(inner);
        self.0.more.notify_one();
    }

    /// Takes at most so many, when there are any: they are in hand until [`Queue::done`].
    pub async fn take(&self, max: usize) -> Vec<Id> {
        loop {
            let more = self.0.more.notified();
            let next = {
                let mut inner = self.lock();
                inner.ripen(Instant::now());
                let count = max.min(inner.ready.len());
                if count > 0 {
                    let taken: Vec<Id> = inner.ready.drain(..count).collect();
                    for id in &taken {
                        let since = inner.wanted.remove(id);
                        inner.in_hand.insert(id.clone());
                        if let Some(since) = since.filter(|_| inner.measured) {
                            METRICS.dequeued(since.elapsed());
                        }
                    }
                    inner.measure();
                    if inner.ready.is_empty() {
                        inner.ready.shrink_to(ROOM);
                        inner.wanted.shrink_to(ROOM);
                        self.0.none.notify_waiters();
                    }
                    return taken;
                }
                inner.later.peek().map(|Reverse((at, _))| *at)
            };
            match next {
                Some(at) => tokio::select! { () = more => {}, () = sleep_until(at) => {} },
                None => more.await,
            }
        }
    }

    /// Sees to it that an object comes again whatever happens to who looks at it.
    pub fn in_hand(&self, id: &Id) -> InHand {
        InHand { queue: self.clone(), id: Some(id.clone()) }
    }

    /// Waits until nothing is left to be taken now: what there is is in hand, or waits.
    pub async fn worked_off(&self) {
        loop {
            let none = self.0.none.notified();
            if self.lock().ready.is_empty() {
                return;
            }
            none.await;
        }
    }

    /// It is no longer in hand, and is as it should be.
    pub fn done(&self, id: &Id) {
        let mut inner = self.lock();
        inner.failures.remove(id);
        Self::put_back(&mut inner, id);
        drop(inner);
        self.0.more.notify_one();
    }

    /// It is no longer in hand, and is to be tried again. `random` is the jitter, in `0.0..1.0`. Answers how often it has failed.
    pub fn failed(&self, id: &Id, random: f64) -> u32 {
        let failures = {
            let mut inner = self.lock();
            Self::put_back(&mut inner, id);
            let failures = inner.failures.entry(id.clone()).or_default();
            *failures += 1;
            let failures = *failures;
            if inner.measured {
                METRICS.requeued();
            }
            failures
        };
        self.add_after(id, crate::store::error::full_jitter(BACKOFF, BACKOFF_CAP, failures, random));
        failures
    }

    fn put_back(inner: &mut Inner, id: &Id) {
        if inner.in_hand.remove(id) && inner.wanted.contains_key(id) {
            inner.ready.push_back(id.clone());
        }
    }

    /// Nothing is to be looked at any more, but what is in hand.
    pub fn clear(&self) {
        let mut inner = self.lock();
        let in_hand = std::mem::take(&mut inner.in_hand);
        *inner = Inner { in_hand, measured: inner.measured, ..Inner::default() };
        inner.measure();
        self.0.none.notify_waiters();
    }

    /// How many are to be looked at, those that wait included.
    pub fn depth(&self) -> usize {
        let inner = self.lock();
        inner.wanted.len() + inner.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kubernetes::kind::Kind, model::object::Key};

    fn id(name: &str) -> Id {
        Id { kind: Kind::Chat, key: Key::new("n", name) }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_added_often_is_taken_once_and_again_when_it_was_added_while_in_hand() {
        let queue = Queue::default();
        queue.add(&id("a"));
        queue.add(&id("a"));
        assert_eq!(queue.take(10).await, [id("a")]);
        queue.add(&id("a"));
        queue.add(&id("b"));
        assert_eq!(queue.take(10).await, [id("b")], "a is in hand");
        queue.done(&id("a"));
        assert_eq!(queue.take(10).await, [id("a")]);
        queue.done(&id("a"));
        queue.done(&id("b"));
        assert_eq!(queue.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_times_counts_and_now_is_earlier_than_any() {
        let queue = Queue::default();
        let began = Instant::now();
        queue.add_after(&id("a"), Duration::from_secs(9));
        queue.add_after(&id("a"), Duration::from_secs(3));
        queue.add_after(&id("a"), Duration::from_secs(5));
        assert_eq!(queue.take(10).await, [id("a")]);
        assert_eq!(began.elapsed().as_secs(), 3);
        queue.done(&id("a"));
        assert_eq!(queue.depth(), 0, "nothing is left of the other times");
        queue.add_after(&id("b"), Duration::from_secs(5));
        queue.add(&id("b"));
        queue.take(1).await;
        assert_eq!(began.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_worked_off_when_all_is_taken_or_waits_for_its_time() {
        let (queue, began) = (Queue::default(), Instant::now());
        queue.worked_off().await;
        queue.add(&id("a"));
        queue.add(&id("b"));
        queue.add_after(&id("c"), Duration::from_secs(9));
        let taking = async {
            for after in [1, 2] {
                sleep_until(began + Duration::from_secs(after)).await;
                queue.take(1).await;
            }
        };
        tokio::join!(queue.worked_off(), taking);
        assert_eq!(began.elapsed().as_secs(), 2);
        queue.add(&id("d"));
        tokio::join!(queue.worked_off(), async { queue.clear() });
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_fails_waits_longer_each_time_and_success_forgets_it() {
        let queue = Queue::default();
        queue.add(&id("a"));
        for failures in 1..20 {
            queue.take(1).await;
            assert_eq!(queue.failed(&id("a"), 1.0), failures);
        }
        queue.take(1).await;
        queue.done(&id("a"));
        queue.add(&id("a"));
        queue.take(1).await;
        assert_eq!(queue.failed(&id("a"), 0.0), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_task_had_in_hand_that_panicked_comes_again_and_what_was_told_of_does_not() {
        let queue = Queue::default();
        for name in ["a", "b"] {
            queue.add(&id(name));
        }
        for taken in queue.take(2).await {
            let (queue, hand) = (queue.clone(), queue.in_hand(&taken));
            let task = tokio::spawn(async move {
                assert_eq!(taken.key.name, "a", "what goes wrong with b");
                queue.done(&taken);
                hand.told();
            });
            task.await.ok();
        }
        assert_eq!(queue.take(10).await, [id("b")]);
        queue.done(&id("b"));
        assert_eq!(queue.depth(), 0);
    }
}
