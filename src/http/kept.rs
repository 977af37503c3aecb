//! What was used last, within bounds: in bytes, and in number. Speed only: whoever keeps something here can make it again.

use crate::metrics::METRICS;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most entries: looking for the one that was used longest ago looks at all of them.
const ENTRIES_MAX: usize = 1024;

/// What was used last.
#[derive(Debug)]
pub struct Kept<K, V> {
    entries: Mutex<Entries<K, V>>,
    bytes_max: usize,
    gauge: &'static str,
}

#[derive(Debug)]
struct Entries<K, V> {
    all: HashMap<K, Entry<V>>,
    bytes: usize,
    uses: u64,
    /// How many uses there had been when [`Kept::forget`] was called last.
    fresh: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V: Clone> Kept<K, V> {
    /// At most so many bytes, told by `moorline_cache_bytes` under this name.
    pub fn new(gauge: &'static str, bytes_max: usize) -> Self {
        let entries = Mutex::new(Entries { all: HashMap::new(), bytes: 0, uses: 0, fresh: 0 });
        Self { entries, bytes_max, gauge }
    }

    /// An entry, if it is here.
    pub fn get(&self, key: &K) -> Option<V> {
        let mut entries = self.entries();
        entries.uses += 1;
        let now = entries.uses;
        let entry = entries.all.get_mut(key)?;
        entry.used = now;
        Some(entry.value.clone())
    }

    /// Keeps an entry of so many bytes, in the place of what was used longest ago. One that takes more than three quarters of the room is not
    /// kept: it does not drive out all others.
    pub fn put(&self, key: K, value: V, bytes: usize) {
        if bytes > self.bytes_max / 4 * 3 {
            return;
        }
        let mut entries = self.entries();
        entries.uses += 1;
        let used = entries.uses;
        entries.bytes += bytes;
        if let Some(old) = entries.all.insert(key, Entry { value, bytes, used }) {
            entries.bytes -= old.bytes;
        }
        while entries.bytes > self.bytes_max || entries.all.len() > ENTRIES_MAX {
            let oldest = entries.all.iter().min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone());
            let Some(removed) = oldest.and_then(|key| entries.all.remove(&key)) else { return };
            entries.bytes -= removed.bytes;
        }
        METRICS.cache(self.gauge, entries.bytes);
    }

    /// Forgets what nobody has used since this was called last.
    pub fn forget(&self) {
        let mut entries = self.entries();
        let uses = entries.uses;
        let fresh = std::mem::replace(&mut entries.fresh, uses);
        entries.all.retain(|_, entry| entry.used > fresh);
        entries.bytes = entries.all.values().map(|entry| entry.bytes).sum();
        METRICS.cache(self.gauge, entries.bytes);
    }

    /// Keeps none.
    pub fn clear(&self) {
        let mut entries = self.entries();
        entries.all = HashMap::new();
        entries.bytes = 0;
        METRICS.cache(self.gauge, 0);
    }

    fn entries(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner) // what is kept is whole after each step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 800;

    fn held(kept: &Kept<i64, ()>) -> (usize, usize) {
        let entries = kept.entries();
        assert_eq!(entries.bytes, entries.all.values().map(|entry| entry.bytes).sum::<usize>());
        (entries.all.len(), entries.bytes)
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let kept = Kept::new("test", ROOM);
        for id in 0..8 {
            kept.put(id, (), ROOM / 8);
        }
        assert_eq!(held(&kept), (8, ROOM));
        assert!(kept.get(&0).is_some());
        kept.put(8, (), 2);
        assert!(kept.get(&0).is_some() && kept.get(&8).is_some() && kept.get(&1).is_none());
        assert_eq!(held(&kept), (8, ROOM - ROOM / 8 + 2));
        kept.put(8, (), 3);
        assert_eq!(held(&kept), (8, ROOM - ROOM / 8 + 3));
    }

    #[test]
    fn neither_many_nor_large_ones_go_over_the_bounds() {
        let kept = Kept::new("test", 1 << 20);
        kept.put(-1, (), (3 << 18) + 1);
        assert_eq!(held(&kept), (0, 0));
        for id in 0..2000 {
            kept.put(id, (), 2);
        }
        assert_eq!(held(&kept), (ENTRIES_MAX, 2 * ENTRIES_MAX));
    }

    #[test]
    fn what_nobody_has_used_for_a_while_is_forgotten() {
        let kept = Kept::new("test", ROOM);
        (0..3).for_each(|id| kept.put(id, (), 1));
        kept.forget();
        assert_eq!(held(&kept), (3, 3), "they are new");
        kept.get(&1);
        kept.forget();
        assert_eq!(held(&kept), (1, 1));
        assert!(kept.get(&1).is_some());
        kept.clear();
        assert_eq!(held(&kept), (0, 0));
    }
}
