//! Converging agents whose news nobody has to be told: most pushes come while nobody chats.

use super::{Batch, Reconciler};
use crate::{
    plan::conditions::{AgentAfter, Health, of_agent},
    store::{self, StoreError, fanout},
};

/// Most agents at once.
const AGENTS_MAX: i64 = 64;

impl Reconciler {
    /// Converges agents of the namespace that are due, that no chat follows, and that show nothing new by it: what a lap of each would
    /// come to, in two statements for all of them and without a lock in between. Those that it leaves are due still.
    pub async fn converge_quiet(&self, namespace: &str) -> Result<Batch, StoreError> {
        let now = self.clock.now();
        let mut connection = store::acquire(&self.pool).await?;
        let mut found = fanout::quiet(&mut connection, namespace, AGENTS_MAX).await?; // reads, unlocked
        found.retain(|agent| {
            let latest = agent.latest.as_ref();
            let after = AgentAfter {
                deleting: false,
                suspended: agent.suspended,
                phase: agent.phase,
                latest: latest.map(|(degraded, resources, error)| Health { degraded: *degraded, resources: *resources, error }),
            };
            agent.conditions.patch(&of_agent(&after), now).is_empty() // pure
        });
        if found.is_empty() {
            return Ok(Batch::default());
        }
        let quiet: Vec<_> = found.iter().map(|agent| (agent.id, agent.revision)).collect();
        let seen = fanout::end_quiet(&mut connection, namespace, &quiet).await?; // locks and writes what is as it was read
        Ok(Batch { seen, ..Batch::default() })
    }
}
