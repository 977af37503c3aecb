//! Whether the front's tasks still do something. An unreachable cluster is no fault of theirs: each failure is a sign of life
//! too. What this finds is a task that hangs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::Instant;

/// How long a task may show no sign of life: a watch is ended by the cluster, or by us, within five minutes.
const SILENCE: Duration = Duration::from_mins(10);

/// The signs of life.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<HashMap<String, Instant>>>);

impl Liveness {
    /// A task is alive.
    pub fn alive(&self, task: &str) {
        let mut signs = self.0.lock().expect("no holder of this lock panics");
        match signs.get_mut(task) {
            Some(at) => *at = Instant::now(),
            None => drop(signs.insert(task.to_owned(), Instant::now())),
        }
    }

    /// How long a task has shown no sign of life.
    pub fn silence(&self, task: &str) -> Duration {
        self.0.lock().expect("no holder of this lock panics").get(task).map_or(Duration::ZERO, Instant::elapsed)
    }

    /// A task has ended as it should.
    pub fn ended(&self, task: &str) {
        self.0.lock().expect("no holder of this lock panics").remove(task);
    }

    /// The tasks that have shown no sign of life for ten minutes, with how long.
    pub fn silent(&self) -> Vec<(String, Duration)> {
        let signs = self.0.lock().expect("no holder of this lock panics");
        let silent = signs.iter().map(|(task, at)| (task.clone(), at.elapsed())).filter(|(_, silent)| *silent > SILENCE);
        let mut silent: Vec<_> = silent.collect();
        silent.sort();
        silent
    }
}

impl Liveness {
    /// How long the quietest task has shown no sign of life; nothing when there are none.
    pub fn longest_silence(&self) -> Duration {
        let signs = self.0.lock().expect("no holder of this lock panics");
        signs.values().map(Instant::elapsed).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_hangs_is_named_and_one_that_ended_is_not() {
        let liveness = Liveness::default();
        liveness.alive("watch of chats");
        liveness.alive("watch of agents");
        liveness.alive("mirror");
        tokio::time::advance(Duration::from_mins(6)).await;
        liveness.alive("watch of agents");
        liveness.ended("mirror");
        tokio::time::advance(Duration::from_mins(6)).await;
        assert_eq!(liveness.silence("watch of agents"), Duration::from_mins(6));
        assert_eq!(liveness.silence("mirror"), Duration::ZERO);
        let silent: Vec<String> = liveness.silent().into_iter().map(|(task, _)| task).collect();
        assert_eq!(silent, ["watch of chats"]);
    }
}
