//! A world of agents and chats on a real database, told in chained verbs. Nothing here fakes anything: every verb is the
//! write that the API makes, and every look is the read that the API gives.

use jiff::Timestamp;
use moorline::{
    clock::{self, Clock},
    model::{
        access::Reach,
        agent::{AgentSpec, AgentView, Run},
        chat::{ChatSpec, ChatState, ChatView, Reference, RefreshPolicy},
        object::{DeletionPolicy, Key, Source, TextMap},
        push::{Phase, Push},
        resource::{Resource, ResourceKind},
    },
    reconcile::Reconciler,
    store::{self, transact},
    writes::{
        Preconditions, WriteError,
        agents::{CreateAgent, DeleteAgent, RegisterRun, UpdateAgent},
        chats::{CreateChat, DeleteChat, Propagation, RefreshChat, ReportChat, UpdateChat},
        push::{AcceptPush, PushAnswer},
    },
};
use sqlx::PgPool;
use uuid::Uuid;

/// The world.
#[derive(Clone)]
pub struct World {
    pub pool: PgPool,
    pub clock: Clock,
    pub reconciler: Reconciler,
    pub namespace: String,
}

/// A file of a workspace.
pub fn file(source: &str, body: &str) -> Resource {
    Resource::ok(ResourceKind::InstructionFile, source, source, body.as_bytes().to_vec())
}

impl World {
    pub fn new(pool: PgPool) -> Self {
        let clock = clock::system();
        let reconciler = Reconciler::new(pool.clone(), clock.clone());
        Self { pool, clock, reconciler, namespace: "team-a".into() }
    }

    pub fn with_batch(mut self, batch: i64) -> Self {
        self.reconciler = self.reconciler.with_batch(batch);
        self
    }

    pub fn key(&self, name: &str) -> Key {
        Key::new(&self.namespace, name)
    }

    pub fn agent(&self, name: &str) -> NewAgent<'_> {
        NewAgent { world: self, name: name.into(), workspace: None, build: None }
    }

    pub fn chat(&self, name: &str) -> NewChat<'_> {
        NewChat { world: self, name: name.into(), spec: unbound(), annotations: TextMap::new() }
    }

    /// Converges until nothing is due: the chats' lane first, as the worker does. Answers how many records were seen.
    pub async fn settle(&self) -> usize {
        let mut all = 0;
        for _ in 0..10_000 {
            let mut seen = self.reconciler.converge_due(&self.namespace).await.expect("the chats' lane").seen;
            if seen == 0 {
                seen = self
                    .reconciler
                    .fan_out(&self.namespace, Uuid::nil())
                    .await
                    .expect("the agents' lane")
                    .map_or(0, |told| told.batch.seen);
            }
            if seen == 0 {
                return all;
            }
            all += seen;
        }
        panic!("the world does not settle");
    }

    /// Whatever is set aside is to be tried again so many seconds from now, or was so many ago: by the database's clock, which
    /// alone decides.
    pub async fn retry_in(&self, seconds: f64) {
        for sql in [
            "UPDATE chats SET retry_at = now() + $1 * interval '1 second' WHERE retry_at IS NOT NULL",
            "UPDATE agents SET retry_at = now() + $1 * interval '1 second' WHERE retry_at IS NOT NULL",
        ] {
            sqlx::query(sql).bind(seconds).execute(&self.pool).await.expect("moving a retry");
        }
    }

    pub async fn look(&self, chat: &str) -> ChatView {
        self.find(chat).await.unwrap_or_else(|| panic!("there is no chat {chat}"))
    }

    pub async fn find(&self, chat: &str) -> Option<ChatView> {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::chats::get(&mut connection, &self.key(chat)).await.expect("reading a chat")
    }

    pub async fn look_at_agent(&self, agent: &str) -> Option<AgentView> {
        let mut connection = self.pool.acquire().await.expect("a connection");
        store::agents::get(&mut connection, &self.key(agent)).await.expect("reading an agent")
    }

    /// The bodies that a chat is moored to, by source.
    pub async fn bodies(&self, chat: &str) -> Vec<(String, Vec<u8>)> {
        let mut connection = self.pool.acquire().await.expect("a connection");
        let context = store::chats::context(&mut connection, &self.key(chat), true).await.expect("reading a context");
        let pin = context.expect("the chat").pin.expect("a pin");
        let body = |resource: &moorline::model::resource::ResourceMeta| {
            resource.content_hash.and_then(|hash| pin.bodies.get(&hash).cloned()).unwrap_or_default()
        };
        pin.manifest.iter().map(|resource| (resource.source.clone(), body(resource))).collect()
    }

    /// The kinds of a chat's events, in order.
    pub async fn story(&self, chat: &str) -> Vec<String> {
        let id = self.look(chat).await.chat.meta.id;
        self.story_of(id).await
    }

    pub async fn story_of(&self, id: Uuid) -> Vec<String> {
        let rows: Vec<(String, i64)> =
            sqlx::query_as("SELECT e.kind, e.chat_seq FROM events e WHERE e.chat_id = $1 ORDER BY e.rv, e.seq")
                .bind(id)
                .fetch_all(&self.pool)
                .await
                .expect("reading events");
        for (n, (_, seq)) in rows.iter().enumerate() {
            assert_eq!(usize::try_from(*seq), Ok(n + 1), "events of a chat are numbered without a gap, in the order of the log");
        }
        rows.into_iter().map(|(kind, _)| kind).collect()
    }

    pub async fn update_chat(
        &self,
        name: &str,
        change: impl FnOnce(&mut ChatSpec, &mut TextMap),
    ) -> Result<ChatView, WriteError> {
        let old = self.look(name).await;
        let mut wanted = moorline::writes::chats::Wanted {
            spec: old.chat.spec,
            labels: old.chat.meta.labels,
            annotations: old.chat.meta.annotations,
        };
        change(&mut wanted.spec, &mut wanted.annotations);
        let key = self.key(name);
        let write =
            UpdateChat { clock: &self.clock, key: &key, known: Preconditions::default(), wanted: &wanted, asks: Source::Api };
        transact(&self.pool, &self.clock, &write).await
    }

    pub async fn update_agent(&self, name: &str, change: impl FnOnce(&mut AgentSpec, &mut TextMap)) -> AgentView {
        let old = self.look_at_agent(name).await.expect("the agent");
        let mut wanted = moorline::writes::agents::Wanted {
            spec: old.agent.spec,
            labels: old.agent.meta.labels,
            annotations: old.agent.meta.annotations,
        };
        change(&mut wanted.spec, &mut wanted.annotations);
        let key = self.key(name);
        let write = UpdateAgent {
            key: &key,
            known: Preconditions::default(),
            wanted: &wanted,
            reach: &Reach::Everything,
            asks: Source::Api,
        };
        transact(&self.pool, &self.clock, &write).await.expect("updating an agent")
    }

    pub async fn refresh(&self, chat: &str, token: &str) -> Result<ChatView, WriteError> {
        transact(&self.pool, &self.clock, &RefreshChat { key: &self.key(chat), id: self.look(chat).await.chat.meta.id, token })
            .await
    }

    pub async fn report(&self, chat: &str, state: ChatState) -> ChatView {
        let key = self.key(chat);
        let write =
            ReportChat { clock: &self.clock, key: &key, known: Preconditions::default(), state: Some(state), last_error: None };
        transact(&self.pool, &self.clock, &write).await.expect("reporting a state")
    }

    pub async fn delete_chat(&self, chat: &str, propagation: Propagation) -> Result<ChatView, WriteError> {
        let key = self.key(chat);
        let write = DeleteChat { key: &key, known: Preconditions::default(), propagation, asks: Source::Api };
        transact(&self.pool, &self.clock, &write).await
    }

    pub async fn delete_agent(&self, agent: &str) -> AgentView {
        let key = self.key(agent);
        let write = DeleteAgent { clock: &self.clock, key: &key, known: Preconditions::default(), asks: Source::Api };
        transact(&self.pool, &self.clock, &write).await.expect("deleting an agent")
    }

    /// The row versions and the amount of write-ahead log: what a converge that writes nothing leaves as it is.
    pub async fn footprint(&self) -> (Vec<(String, String)>, i64) {
        let rows = sqlx::query_as(
            "SELECT name, xmin::text || '/' || ctid::text FROM chats UNION ALL
             SELECT name, xmin::text || '/' || ctid::text FROM agents UNION ALL
             SELECT 'events', count(*)::text FROM events ORDER BY 1, 2",
        );
        let rows = rows.fetch_all(&self.pool).await.expect("row versions");
        let wal = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetch_one(&self.pool).await;
        (rows, wal.expect("the write-ahead log"))
    }
}

fn unbound() -> ChatSpec {
    ChatSpec {
        owner: "alice".into(),
        title: String::new(),
        reference: Reference::Unbound,
        parent: None,
        refresh_policy: RefreshPolicy::Manual,
        suspend: false,
        archived: false,
        deletion_policy: DeletionPolicy::Delete,
    }
}

/// An agent about to be created.
pub struct NewAgent<'a> {
    world: &'a World,
    name: String,
    workspace: Option<String>,
    build: Option<i64>,
}

impl<'a> NewAgent<'a> {
    pub fn of_workspace(mut self, workspace: &str, build: i64) -> Self {
        self.workspace = Some(workspace.into());
        self.build = Some(build);
        self
    }

    /// Creates it and registers a run.
    pub async fn running(self) -> RunningAgent<'a> {
        let world = self.world;
        let key = world.key(&self.name);
        let spec = AgentSpec {
            workspace: self.workspace,
            build: self.build,
            service_account: None,
            suspend: false,
            revision_history_limit: 10,
            deletion_policy: DeletionPolicy::Delete,
        };
        let none = TextMap::new();
        let create = CreateAgent {
            clock: &world.clock,
            key: &key,
            spec: &spec,
            labels: &none,
            annotations: &none,
            reach: &Reach::Everything,
            source: Source::Api,
        };
        transact(&world.pool, &world.clock, &create).await.expect("creating an agent");
        let mut agent =
            RunningAgent { world, key, run: Run { id: Uuid::nil(), epoch: 0, started_at: Timestamp::UNIX_EPOCH }, seq: 0 };
        agent.begin_run().await;
        agent
    }
}

/// An agent with a run.
pub struct RunningAgent<'a> {
    pub world: &'a World,
    pub key: Key,
    pub run: Run,
    pub seq: i64,
}

impl RunningAgent<'_> {
    pub async fn begin_run(&mut self) {
        let write = RegisterRun { clock: &self.world.clock, key: &self.key };
        self.run = transact(&self.world.pool, &self.world.clock, &write).await.expect("registering a run");
        self.seq = 0;
    }

    pub async fn push(&mut self, resources: Vec<Resource>) -> PushAnswer {
        self.try_push(Phase::Complete, resources).await.expect("a push")
    }

    pub async fn try_push(&mut self, phase: Phase, resources: Vec<Resource>) -> Result<PushAnswer, WriteError> {
        let push = self.next_push(phase, resources);
        self.send(&push).await
    }

    /// The push that comes next, not sent.
    pub fn next_push(&mut self, phase: Phase, resources: Vec<Resource>) -> Push {
        self.seq += 1;
        Push::new(self.run.id, (self.run.epoch, self.seq), phase, String::new(), resources)
    }

    pub async fn send(&self, push: &Push) -> Result<PushAnswer, WriteError> {
        transact(&self.world.pool, &self.world.clock, &AcceptPush { clock: &self.world.clock, key: &self.key, push }).await
    }
}

/// A chat about to be created.
pub struct NewChat<'a> {
    world: &'a World,
    name: String,
    spec: ChatSpec,
    annotations: TextMap,
}

impl NewChat<'_> {
    pub fn of_agent(mut self, agent: &str) -> Self {
        self.spec.reference = Reference::Agent(agent.into());
        self
    }

    pub fn of_workspace(mut self, workspace: &str) -> Self {
        self.spec.reference = Reference::Workspace(workspace.into());
        self
    }

    pub fn child_of(mut self, parent: &str) -> Self {
        self.spec.parent = Some(parent.into());
        self
    }

    pub fn follows_drift(mut self) -> Self {
        self.spec.refresh_policy = RefreshPolicy::OnDrift;
        self
    }

    pub fn archived(mut self) -> Self {
        self.spec.archived = true;
        self
    }

    pub async fn create(self) -> ChatView {
        self.try_create().await.expect("creating a chat")
    }

    pub async fn try_create(self) -> Result<ChatView, WriteError> {
        let world = self.world;
        let key = world.key(&self.name);
        let write = CreateChat {
            clock: &world.clock,
            key: &key,
            spec: &self.spec,
            labels: &TextMap::new(),
            annotations: &self.annotations,
            created_by: "alice",
            reach: &Reach::Everything,
            source: Source::Api,
        };
        transact(&world.pool, &world.clock, &write).await
    }
}
