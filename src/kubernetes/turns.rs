//! One look at an object at a time: what a watch tells and what was asked for again may concern the same object, and the later must
//! not be done before the earlier has ended. Objects share turns: a few more wait than have to.

use super::kind::Id;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use tokio::sync::{Mutex, MutexGuard};

/// How many looks there may be at once. More than ever are.
const TURNS: usize = 64;

/// The turns. Who has one must not ask for another.
#[derive(Debug)]
pub struct Turns([Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Turns {
    /// Waits until nobody else looks at this object.
    pub async fn of(&self, id: &Id) -> MutexGuard<'_, ()> {
        let number = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
        let turn = usize::try_from(number % TURNS as u64).expect("it is less than a usize");
        self.0[turn].lock().await
    }
}
