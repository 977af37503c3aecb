//! Answers that cost a question to somebody else: kept for a time, within bounds; one question for all who ask the same at the
//! same time; and so many questions at once at most.
//!
//! A question is a task of its own: whoever asked first may go away, and others wait for it. That nobody answered is an answer
//! for a second, so that a server that is away is not asked once for every request.

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

/// How long nobody is asked again after nobody answered.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Why there is no answer, in a sentence.
pub type Failed = Arc<str>;

/// An answer, and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<V> {
    /// What was said.
    pub value: V,
    /// Until when it is not asked for again.
    pub until: Instant,
}

type Asking<V> = Shared<BoxFuture<'static, Result<Answer<V>, Failed>>>;

enum Slot<V> {
    Asking(Asking<V>),
    Known(Result<Answer<V>, Failed>, Instant),
}

/// The answers.
pub struct Cache<K, V> {
    slots: Arc<Mutex<HashMap<K, Slot<V>>>>,
    turns: Arc<Semaphore>,
    entries_max: usize,
}

impl<K, V> std::fmt::Debug for Cache<K, V> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Cache").field("entries_max", &self.entries_max).finish_non_exhaustive()
    }
}

impl<K: Hash + Eq + Clone + Send + 'static, V: Clone + Send + Sync + 'static> Cache<K, V> {
    /// Of at most so many answers, and so many questions at once.
    pub fn new(entries_max: usize, at_once: usize) -> Self {
        Self { slots: Arc::default(), turns: Arc::new(Semaphore::new(at_once)), entries_max }
    }

    /// What is known without asking.
    pub fn known(&self, key: &K) -> Option<Answer<V>> {
        match lock(&self.slots).get(key)? {
            Slot::Known(Ok(answer), _) if answer.until > Instant::now() => Some(answer.clone()),
            Slot::Known(..) | Slot::Asking(_) => None,
        }
    }

    /// The answer: as it is known, or as `ask` finds it. What `ask` waits for must end by itself.
    pub async fn get<F>(&self, key: K, ask: impl FnOnce() -> F) -> Result<Answer<V>, Failed>
    where
        F: Future<Output = Result<Answer<V>, Failed>> + Send + 'static,
    {
        let asking = {
            let mut slots = lock(&self.slots);
            match slots.get(&key) {
                Some(Slot::Known(answer, until)) if *until > Instant::now() => return answer.clone(),
                Some(Slot::Asking(asking)) => asking.clone(),
                Some(Slot::Known(..)) | None => {
                    if !make_room(&mut slots, &key, self.entries_max) {
                        return Err("too many questions wait for an answer".into());
                    }
                    let asking = self.begin(key.clone(), ask());
                    slots.insert(key, Slot::Asking(asking.clone()));
                    asking
                }
            }
        };
        asking.await
    }

    /// Asks, in a task that puts the answer down.
    fn begin<F>(&self, key: K, ask: F) -> Asking<V>
    where
        F: Future<Output = Result<Answer<V>, Failed>> + Send + 'static,
    {
        let (slots, turns) = (Arc::clone(&self.slots), Arc::clone(&self.turns));
        let task = tokio::spawn(async move {
            let turn = turns.acquire().await;
            let answer = ask.await;
            drop(turn);
            let until = answer.as_ref().map_or_else(|_| Instant::now() + AFTER_FAILURE, |answer| answer.until);
            // Its slot is there: only answers are thrown away.
            lock(&slots).insert(key, Slot::Known(answer.clone(), until));
            answer
        });
        async move { task.await.unwrap_or_else(|_| Err("asking failed".into())) }.boxed().shared()
    }
}

fn lock<T>(slots: &Mutex<T>) -> MutexGuard<'_, T> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room for one more; not when all that is there is being asked for.
fn make_room<K: Hash + Eq + Clone, V>(slots: &mut HashMap<K, Slot<V>>, key: &K, entries_max: usize) -> bool {
    if slots.len() < entries_max || slots.contains_key(key) {
        return true;
    }
    let now = Instant::now();
    let is_wanted = |slot: &Slot<V>| match slot {
        Slot::Asking(_) => true,
        Slot::Known(_, until) => *until > now,
    };
    slots.retain(|_, slot| is_wanted(slot));
    // An eighth of it at once, so that a full cache is not gone through for every newcomer.
    let superfluous = (slots.len() + entries_max.div_ceil(8)).saturating_sub(entries_max);
    let known = slots.iter().filter(|(_, slot)| matches!(slot, Slot::Known(..)));
    let some: Vec<K> = known.map(|(key, _)| key.clone()).take(superfluous).collect();
    for key in &some {
        slots.remove(key);
    }
    slots.len() < entries_max
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Notify;

    #[expect(clippy::unnecessary_wraps, reason = "it is given in the place of what may fail")]
    fn for_a_minute(value: u32) -> Result<Answer<u32>, Failed> {
        Ok(Answer { value, until: Instant::now() + Duration::from_mins(1) })
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_time_and_is_then_asked_for_again() {
        let cache = Cache::new(10, 2);
        assert_eq!(cache.known(&"a"), None);
        assert_eq!(cache.get("a", || async { for_a_minute(1) }).await.expect("an answer").value, 1);
        assert_eq!(cache.get("a", || async { for_a_minute(2) }).await.expect("an answer").value, 1);
        assert_eq!(cache.known(&"a").map(|answer| answer.value), Some(1));
        tokio::time::advance(Duration::from_secs(61)).await;
        assert_eq!(cache.known(&"a"), None);
        assert_eq!(cache.get("a", || async { for_a_minute(2) }).await.expect("an answer").value, 2);
    }

    #[tokio::test]
    async fn equal_questions_are_one_and_outlive_whoever_asked_first() {
        let (cache, asked, go) = (Arc::new(Cache::new(10, 2)), Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let ask = || {
            let (cache, asked, go) = (Arc::clone(&cache), Arc::clone(&asked), Arc::clone(&go));
            tokio::spawn(async move {
                let question = async move {
                    go.notified().await;
                    for_a_minute(7)
                };
                let counted = || {
                    asked.fetch_add(1, Ordering::Relaxed);
                    question
                };
                cache.get("a", counted).await.map(|answer| answer.value)
            })
        };
        let first = ask();
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let others: Vec<_> = (0..50).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        first.abort();
        go.notify_one();
        for other in others {
            assert_eq!(other.await.expect("no panic"), Ok(7));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn that_nobody_answered_is_not_asked_again_for_a_second() {
        let cache: Cache<_, u32> = Cache::new(10, 2);
        assert!(cache.get("a", || async { Err("away".into()) }).await.is_err());
        assert!(cache.get("a", || async { for_a_minute(1) }).await.is_err(), "at once");
        tokio::time::advance(Duration::from_millis(1_001)).await;
        assert_eq!(cache.get("a", || async { for_a_minute(1) }).await.expect("an answer").value, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_answers_than_there_may_be() {
        let cache = Cache::new(16, 2);
        for n in 0..1_000 {
            cache.get(n, || async move { for_a_minute(n) }).await.expect("an answer");
            assert!(lock(&cache.slots).len() <= 16);
        }
        assert!(lock(&cache.slots).len() > 8, "most of them are kept");
        assert_eq!(cache.known(&999).map(|answer| answer.value), Some(999));
    }
}
