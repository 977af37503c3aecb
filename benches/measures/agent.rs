//! An agent of a database of the bench's own, its chats, and the loop's own transactions, without a server between.

use moorline::{
    clock::{self, Clock},
    metrics::METRICS,
    model::{
        access::Reach,
        agent::{AgentSpec, Run},
        object::{DeletionPolicy, Key, Source, TextMap},
        push::{Phase, Push},
        resource::{Resource, ResourceKind},
    },
    reconcile::Reconciler,
    store::transact,
    writes::{
        agents::{CreateAgent, RegisterRun},
        push::AcceptPush,
    },
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool};
use std::time::Instant;

/// Where the bench's agents and chats are.
pub const NAMESPACE: &str = "bench";

/// An agent with a run.
pub struct Agent {
    pub pool: PgPool,
    pub clock: Clock,
    pub key: Key,
    run: Run,
    seq: i64,
}

impl Agent {
    /// A new one.
    pub async fn new(pool: PgPool, name: &str) -> anyhow::Result<Self> {
        let clock = clock::system();
        let key = Key::new(NAMESPACE, name);
        let spec = AgentSpec {
            workspace: None,
            build: None,
            service_account: None,
            suspend: false,
            revision_history_limit: 10,
            deletion_policy: DeletionPolicy::Delete,
        };
        let none = TextMap::new();
        let create = CreateAgent {
            clock: &clock,
            key: &key,
            spec: &spec,
            labels: &none,
            annotations: &none,
            reach: &Reach::Everything,
            source: Source::Api,
        };
        transact(&pool, &clock, &create).await?;
        let run = transact(&pool, &clock, &RegisterRun { clock: &clock, key: &key }).await?;
        Ok(Self { pool, clock, key, run, seq: 0 })
    }

    /// The same agent in a copy of its database.
    pub fn in_copy(&self, pool: PgPool) -> Self {
        Self { pool, clock: self.clock.clone(), key: self.key.clone(), run: self.run.clone(), seq: self.seq }
    }

    /// Pushes so many resources of so many bytes; those of one version are alike.
    pub async fn push(&mut self, version: u8, resources: usize, size: usize) -> anyhow::Result<()> {
        let resources = (0..resources).map(|n| {
            let source = format!("skills/skill-{n:02}");
            let path = format!("{source}/SKILL.md");
            Resource::ok(ResourceKind::Skill, source, path, noise(size, (n as u64) << 8 | u64::from(version)))
        });
        self.send(resources.collect()).await
    }

    /// Pushes these.
    pub async fn send(&mut self, resources: Vec<Resource>) -> anyhow::Result<()> {
        self.seq += 1;
        let push = Push::new(self.run.id, (self.run.epoch, self.seq), Phase::Complete, String::new(), resources);
        transact(&self.pool, &self.clock, &AcceptPush { clock: &self.clock, key: &self.key, push: &push }).await?;
        Ok(())
    }

    /// Pushes so many resources of about so many bytes of text as people write it.
    pub async fn push_text(&mut self, resources: usize, size: usize) -> anyhow::Result<()> {
        let text = |n: usize| {
            let line = format!("- {n}: write the \"test\" first, watch it fail, then make it pass \u{2014} and say why.\n");
            let text = line.repeat(size / line.len() + 1);
            text.chars()
                .scan(0, |bytes, c| {
                    *bytes += c.len_utf8();
                    (*bytes <= size).then_some(c)
                })
                .collect::<String>()
        };
        let resources = (0..resources).map(|n| {
            let source = format!("skills/skill-{n:02}");
            let path = format!("{source}/SKILL.md");
            Resource::ok(ResourceKind::Skill, source, path, text(n).into_bytes())
        });
        self.send(resources.collect()).await
    }

    /// So many chats as the API makes them, in one statement. They are due.
    pub async fn chats(&self, count: i64) -> anyhow::Result<()> {
        let mut connection = self.pool.acquire().await?.detach();
        connection.execute("SET statement_timeout = 0").await?;
        sqlx::query(
            "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
             SELECT $1, id, $3 || '-chat-' || n, log_rv(), 'user-' || n % 1000, $3, id, 'bench', now(), now()
             FROM (SELECT n, (left(md5($3), 8) || '-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id FROM generate_series(1, $2) n) x",
        )
        .bind(NAMESPACE)
        .bind(count)
        .bind(&self.key.name)
        .execute(&mut connection)
        .await?;
        connection.execute("VACUUM ANALYZE chats").await?;
        connection.close().await?;
        Ok(())
    }

    /// Runs the loop's own transactions, in the lanes' order, until nothing is due in the namespace. Returns their number.
    pub async fn settle(&self) -> anyhow::Result<usize> {
        self.settle_with(&Reconciler::new(self.pool.clone(), self.clock.clone())).await
    }

    /// The same with a reconciler that is kept, as the process keeps its own.
    pub async fn settle_with(&self, reconciler: &Reconciler) -> anyhow::Result<usize> {
        let mut transactions = 0;
        loop {
            transactions += 1;
            if reconciler.converge_due(NAMESPACE).await?.seen > 0 {
                continue;
            }
            transactions += 1;
            if reconciler.fan_out(NAMESPACE, uuid::Uuid::nil()).await?.is_none() {
                return Ok(transactions);
            }
        }
    }
}

/// Bytes that do not compress.
pub fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators", 2016)
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}

/// Bytes of write-ahead log so far.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub async fn wal(pool: &PgPool) -> anyhow::Result<f64> {
    let bytes: i64 = sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetch_one(pool).await?;
    Ok(bytes as f64)
}

/// Bytes on disk of tables, with their indexes.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub async fn on_disk(pool: &PgPool, tables: &str) -> anyhow::Result<f64> {
    let sql = format!("SELECT sum(pg_total_relation_size(t::regclass))::bigint FROM unnest('{{{tables}}}'::text[]) t");
    let bytes: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await?;
    Ok(bytes as f64)
}

/// Bytes of all tables.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub async fn all_on_disk(pool: &PgPool) -> anyhow::Result<f64> {
    let sql = "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    let bytes: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
    Ok(bytes as f64)
}

/// How long something takes, in seconds.
pub async fn timed<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Seconds that each statement of this process took so far, by its name.
pub fn statements() -> Vec<(String, f64)> {
    let text = METRICS.text(moorline::metrics::Format::Prometheus);
    let sums = text.lines().filter_map(|line| line.strip_prefix("moorline_db_query_duration_seconds_sum{query=\""));
    sums.filter_map(|line| {
        let (query, total) = line.split_once("\"} ")?;
        Some((query.to_owned(), total.parse().ok()?))
    })
    .collect()
}

/// What each statement took since [`statements`] was asked, the largest first, for people.
pub fn statements_since(before: &[(String, f64)]) -> Vec<String> {
    let earlier = |name: &str| before.iter().find(|(query, _)| query == name).map_or(0.0, |(_, total)| *total);
    let mut now: Vec<(String, f64)> =
        statements().into_iter().map(|(query, total)| (query.clone(), total - earlier(&query))).collect();
    now.sort_by(|a, b| b.1.total_cmp(&a.1));
    now.truncate(10);
    now.into_iter().filter(|(_, total)| *total > 0.0).map(|(query, total)| format!("{query:<34} {total:>8.3} s")).collect()
}
