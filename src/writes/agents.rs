//! Creating, changing and deleting agents, and registering runs.

use super::{Preconditions, Refusal, WriteError, check_owner};
use crate::{
    clock::Clock,
    model::{
        access::Reach,
        agent::{Agent, AgentSpec, AgentView, Run},
        condition::Conditions,
        event::EventKind,
        fault::{Fault, FaultKind},
        object::{Key, Metadata, Progress, Requests, Source, TextMap},
    },
    store::{
        StoreError, Write, agents,
        events::{self, NewEvent},
        log::TxLog,
    },
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

/// Creates an agent.
pub struct CreateAgent<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Where, and under which name.
    pub key: &'a Key,
    /// What is asked of it.
    pub spec: &'a AgentSpec,
    /// Labels.
    pub labels: &'a TextMap,
    /// Annotations.
    pub annotations: &'a TextMap,
    /// Whose agents the caller reaches.
    pub reach: &'a Reach,
    /// Who owns its spec.
    pub source: Source,
}

impl Write for CreateAgent<'_> {
    type Output = AgentView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<AgentView, WriteError> {
        let Self { clock, key, spec, labels, annotations, reach, source } = self;
        may_join(tx, reach, &key.namespace, spec.workspace.as_deref()).await?;
        let mut log = TxLog::open(tx).await?;
        let requests = Requests::of(annotations);
        let agent = Agent {
            meta: Metadata {
                namespace: key.namespace.clone(),
                id: clock.new_id(),
                name: key.name.clone(),
                labels: (*labels).clone(),
                annotations: (*annotations).clone(),
                generation: 1,
                rv: log.rv,
                created_at: clock.now(),
            },
            deletion_timestamp: None,
            spec: (*spec).clone(),
            source: *source,
            paused: requests.paused,
            run: None,
            seq: 0,
            phase: None,
            latest: None,
            latest_error: String::new(),
            refresh_requested: requests.refresh,
            refresh_handled: None,
            reconcile_handled: None,
            progress: Progress { revision: 1, ..Progress::default() },
            conditions: Conditions::default(),
        };
        if !agents::insert(tx, &agent).await? {
            return Err(WriteError::AlreadyExists);
        }
        if events::deleted_later(tx, &key.namespace, &key.name, EventKind::AgentDeleted, log.rv).await? {
            return Err(StoreError::Guard { query: "db.agents.insert", expected: 1, got: 0 }.into());
        }
        append(tx, &mut log, EventKind::AgentCreated, &agent, json!({})).await?;
        agents::get(tx, key).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// What is to become of an agent's desired columns.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What is asked of it.
    pub spec: AgentSpec,
    /// Labels.
    pub labels: TextMap,
    /// Annotations.
    pub annotations: TextMap,
}

/// Changes an agent's desired columns.
pub struct UpdateAgent<'a> {
    /// Which.
    pub key: &'a Key,
    /// What the caller knows of it.
    pub known: Preconditions,
    /// What it is to become.
    pub wanted: &'a Wanted,
    /// Whose agents the caller reaches.
    pub reach: &'a Reach,
    /// Who asks.
    pub asks: Source,
}

impl Write for UpdateAgent<'_> {
    type Output = AgentView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<AgentView, WriteError> {
        let Self { key, known, wanted, reach, asks } = self;
        let old = locked(tx, key).await?; // locks, then reads
        let Agent { meta, spec, .. } = &old.agent;
        known.check(meta.id, meta.rv)?;
        if (&spec.workspace, spec.build) != (&wanted.spec.workspace, wanted.spec.build) {
            may_join(tx, reach, &key.namespace, wanted.spec.workspace.as_deref()).await?;
        }
        if spec.workspace != wanted.spec.workspace && agents::former_workspaces(tx, &key.namespace, meta.id).await? >= FORMER_MAX
        {
            let message =
                format!("may change again when the chats of the {FORMER_MAX} workspaces that it has left know; try again");
            return Err(WriteError::Invalid(vec![Fault::new("spec.workspace", FaultKind::Forbidden, message)]));
        }
        let spec_changed = *spec != wanted.spec;
        if spec_changed {
            check_owner("Agent", meta, old.agent.source, *asks)?;
        }
        let (before, after) = (Requests::of(&meta.annotations), Requests::of(&wanted.annotations));
        let asks_refresh = after.refresh.is_some() && after.refresh != before.refresh;
        let input = spec_changed || asks_refresh || after.reconcile != before.reconcile || after.paused != before.paused;
        if !input && meta.labels == wanted.labels && meta.annotations == wanted.annotations {
            return Ok(old);
        }
        let mut log = TxLog::open(tx).await?;
        let mut new = old.agent.clone();
        new.meta.rv = log.rv;
        new.meta.labels.clone_from(&wanted.labels);
        new.meta.annotations.clone_from(&wanted.annotations);
        new.meta.generation += i64::from(spec_changed);
        new.spec = wanted.spec.clone();
        new.paused = after.paused;
        if asks_refresh {
            new.refresh_requested = after.refresh;
        }
        new.progress.revision += i64::from(input);
        let left = spec.workspace.as_deref().filter(|old| wanted.spec.workspace.as_deref() != Some(old));
        agents::update(tx, &new, left).await?;
        append(tx, &mut log, EventKind::AgentUpdated, &new, json!({"before": before_of(&old.agent, &new)})).await?;
        agents::get(tx, key).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// What changes of the labels, the selectable fields and of who may see it, as it was.
fn before_of(old: &Agent, new: &Agent) -> Value {
    let mut before = Map::new();
    if old.meta.labels != new.meta.labels {
        before.insert("labels".into(), json!(old.meta.labels));
    }
    if old.spec.workspace != new.spec.workspace {
        before.insert("workspace".into(), json!(old.spec.workspace));
    }
    if old.spec.service_account != new.spec.service_account {
        before.insert("serviceAccount".into(), json!(old.spec.service_account));
    }
    Value::Object(before)
}

/// Most workspaces that an agent may have left whose chats have not all been told.
const FORMER_MAX: i32 = 32;

/// Asks for an agent's deletion: the loop lets its chats go, which keep their pins, then removes the row.
pub struct DeleteAgent<'a> {
    /// Time.
    pub clock: &'a Clock,
    /// Which.
    pub key: &'a Key,
    /// What the caller knows of it.
    pub known: Preconditions,
    /// Who asks.
    pub asks: Source,
}

impl Write for DeleteAgent<'_> {
    type Output = AgentView;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<AgentView, WriteError> {
        let Self { clock, key, known, asks } = self;
        let old = locked(tx, key).await?; // locks, then reads
        known.check(old.agent.meta.id, old.agent.meta.rv)?;
        check_owner("Agent", &old.agent.meta, old.agent.source, *asks)?;
        if old.agent.deletion_timestamp.is_some() {
            return Ok(old);
        }
        let mut log = TxLog::open(tx).await?;
        let mut new = old.agent.clone();
        new.meta.rv = log.rv;
        new.meta.generation += 1; // as a kube-apiserver does when it sets the deletion timestamp
        new.deletion_timestamp = Some(clock.now());
        new.progress.revision += 1;
        agents::update(tx, &new, None).await?;
        append(tx, &mut log, EventKind::AgentUpdated, &new, json!({})).await?;
        agents::get(tx, key).await?.ok_or(WriteError::NotFound)
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// Registers a run: from now on only its pushes count.
pub struct RegisterRun<'a> {
    /// Time and ids.
    pub clock: &'a Clock,
    /// Of which agent.
    pub key: &'a Key,
}

impl Write for RegisterRun<'_> {
    type Output = Run;
    type Error = WriteError;

    async fn run(&self, tx: &mut PgConnection) -> Result<Run, WriteError> {
        let Self { clock, key } = self;
        let old = locked(tx, key).await?; // locks, then reads
        if old.agent.deletion_timestamp.is_some() {
            return Err(Refusal::Deleting.into());
        }
        let mut log = TxLog::open(tx).await?;
        let (run_id, now) = (clock.new_id(), clock.now());
        let epoch = agents::begin_run(tx, &key.namespace, old.agent.meta.id, run_id, now, log.rv).await?;
        append(tx, &mut log, EventKind::AgentUpdated, &old.agent, json!({"epoch": epoch})).await?;
        Ok(Run { id: run_id, epoch, started_at: now })
    }

    fn store_error(error: &WriteError) -> Option<&StoreError> {
        error.store()
    }
}

/// A workspace's current agent speaks to every chat of the workspace, so whoever does not reach everything may only join one
/// whose agents are all his own.
async fn may_join(tx: &mut PgConnection, reach: &Reach, namespace: &str, workspace: Option<&str>) -> Result<(), WriteError> {
    let (Some(user), Some(workspace)) = (reach.user(), workspace) else { return Ok(()) };
    agents::lock_workspace(tx, namespace, workspace).await?; // locks, then reads
    if agents::workspace_of_others(tx, namespace, workspace, user).await? {
        let message = format!("workspace {workspace:?} has agents of others: only they, or an administrator, may add to it");
        return Err(WriteError::Invalid(vec![Fault::new("spec.workspace", FaultKind::Forbidden, message)]));
    }
    Ok(())
}

/// Locks an agent, then reads it in a new statement.
pub(super) async fn locked(tx: &mut PgConnection, key: &Key) -> Result<AgentView, WriteError> {
    agents::lock(tx, key).await?.ok_or(WriteError::NotFound)?;
    agents::get(tx, key).await?.ok_or(WriteError::NotFound)
}

pub(super) async fn append(
    tx: &mut PgConnection,
    log: &mut TxLog,
    kind: EventKind,
    agent: &Agent,
    payload: Value,
) -> Result<(), StoreError> {
    let event = NewEvent {
        namespace: &agent.meta.namespace,
        kind,
        subject: Some(agent.meta.id),
        name: &agent.meta.name,
        chat: None,
        agent: Some(agent.meta.id),
        payload,
    };
    events::append(tx, log, event).await
}
