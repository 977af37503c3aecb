//! Converging agents whose news nobody has to be told: most pushes come while nobody chats.

use super::Reconciler;
use crate::{
    plan::conditions::{AgentAfter, Health, of_agent},
    store::{self, StoreError, fanout},
};

/// Most agents at once.
const AGENTS_MAX: usize = 64;

/// What became of the agents that are due in a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quieted {
    /// So many are converged, because nobody is to be told of them.
    pub seen: usize,
    /// There are others, whose laps are due.
    pub others: bool,
}

impl Reconciler {
    /// Converges agents of the namespace that are due, that no chat follows, and that show nothing new by it: what a lap of each would
    /// come to, in two statements for all of them and without a lock in between. Those that it leaves are due still.
    pub async fn converge_quiet(&self, namespace: &str) -> Result<Quieted, StoreError> {
        let now = self.clock.now();
        let mut connection = store::acquire(&self.pool).await?;
        let fanout::Due { mut quiet, mut others } = fanout::quiet(&mut connection, namespace, AGENTS_MAX).await?; // reads, unlocked
        let found = quiet.len();
        quiet.retain(|agent| {
            let latest = agent.latest.as_ref();
            let after = AgentAfter {
                deleting: false,
                suspended: agent.suspended,
                phase: agent.phase,
                latest: latest.map(|(degraded, resources, error)| Health { degraded: *degraded, resources: *resources, error }),
            };
            agent.conditions.patch(&of_agent(&after), now).is_empty() // pure
        });
        others |= quiet.len() < found;
        let quiet: Vec<_> = quiet.iter().map(|agent| (agent.id, agent.revision)).collect();
        let seen = match quiet.as_slice() {
            [] => 0,
            quiet => fanout::end_quiet(&mut connection, namespace, quiet).await?, // locks and writes what is as it was read
        };
        Ok(Quieted { seen, others })
    }
}
