//! Where the servers are, which may change while clients run.

use std::sync::{Arc, RwLock};

/// Base URLs. Shared: whoever starts a server anew on another port says so here.
#[derive(Clone, Debug)]
pub struct Servers(Arc<RwLock<Vec<String>>>);

impl Servers {
    /// These.
    pub fn new(urls: Vec<String>) -> Self {
        assert!(!urls.is_empty(), "a server to send to");
        Self(Arc::new(RwLock::new(urls)))
    }

    /// One of them, in turn.
    pub fn of(&self, turn: u64) -> String {
        let urls = self.0.read().unwrap();
        urls[usize::try_from(turn % urls.len() as u64).unwrap()].clone()
    }

    /// One of them is somewhere else now.
    pub fn moved(&self, at: usize, url: String) {
        self.0.write().unwrap()[at] = url;
    }
}
