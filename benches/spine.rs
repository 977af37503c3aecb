//! Two comparisons, each of two things in one run on one server, with the ratio printed.
//!
//! 1. Hydrating 10,000 chats of one agent with 50 resources of 4 KiB through the real loop, against the per-chat copy in plain
//!    SQL that a design without immutable snapshots needs (`INSERT INTO … SELECT` of 50 rows with bodies a chat).
//! 2. Marking 100,000 chats dirty through the loop, events included, against one hand-written `UPDATE` and one
//!    `INSERT … SELECT` of the same rows on the same tables and indexes.
//!
//! `cargo bench --bench spine [-- hydrate|dirty] [--chats N]`. Bounded: it runs each comparison a fixed number of times.

use anyhow::{Context as _, bail};
use moorline::{
    clock::{self, Clock},
    embedded::{self, Embedded},
    metrics::METRICS,
    model::{
        access::Reach,
        agent::AgentSpec,
        object::{DeletionPolicy, Key, Source, TextMap},
        push::{Phase, Push},
        resource::{Resource, ResourceKind},
    },
    reconcile::Reconciler,
    store::{self, transact},
    writes::{
        agents::{CreateAgent, RegisterRun},
        push::AcceptPush,
    },
};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use std::time::{Duration, Instant};

const NAMESPACE: &str = "bench";
const ROUNDS: usize = 3;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let chats = match args.iter().position(|arg| arg == "--chats") {
        Some(at) => Some(args.get(at + 1).context("--chats takes a number")?.parse()?),
        None => None,
    };
    let only = args.first().filter(|arg| !arg.starts_with("--")).map(String::as_str);
    let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
    let options = embedded::Options {
        data_dir: directory.path().join("data"),
        pg_bin: None,
        ephemeral: true,
        // The server as `moorline dev` runs it: durable, and nothing tuned for either side.
        settings: Vec::new(),
    };
    let server = embedded::start(options).await?;
    let result = Box::pin(async {
        match only {
            None => {
                Box::pin(hydrate(&server, chats.unwrap_or(10_000))).await?;
                Box::pin(dirty(&server, chats.unwrap_or(100_000))).await
            }
            Some("hydrate") => Box::pin(hydrate(&server, chats.unwrap_or(10_000))).await,
            Some("dirty") => Box::pin(dirty(&server, chats.unwrap_or(100_000))).await,
            Some(other) => bail!("there is no benchmark {other:?}: hydrate, dirty"),
        }
    })
    .await;
    server.stop().await?;
    result
}

struct Bench {
    pool: PgPool,
    clock: Clock,
    key: Key,
    run: moorline::model::agent::Run,
    seq: i64,
}

impl Bench {
    async fn open(server: &Embedded, database: &str) -> anyhow::Result<PgPool> {
        let pool = store::pool(server.connect_options(database), 4);
        store::schema::migrate(&pool, false).await?;
        Ok(pool)
    }

    async fn new(pool: PgPool) -> anyhow::Result<Self> {
        let clock = clock::system();
        let key = Key::new(NAMESPACE, "agent");
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

    async fn push(&mut self, version: u8, resources: usize, size: usize) -> anyhow::Result<()> {
        self.seq += 1;
        let resources = (0..resources).map(|n| {
            let source = format!("skills/skill-{n:02}");
            let path = format!("{source}/SKILL.md");
            Resource::ok(ResourceKind::Skill, source, path, noise(size, (n as u64) << 8 | u64::from(version)))
        });
        let push = Push::new(self.run.id, (self.run.epoch, self.seq), Phase::Complete, String::new(), resources.collect());
        transact(&self.pool, &self.clock, &AcceptPush { clock: &self.clock, key: &self.key, push: &push }).await?;
        Ok(())
    }

    /// Chats as the API makes them, by the thousand.
    async fn chats(&self, count: i64) -> anyhow::Result<()> {
        sqlx::query(
            "INSERT INTO chats (namespace, id, name, rv, owner, agent, root_id, created_by, created_at, updated_at)
             SELECT $1, id, 'chat-' || n, log_rv(), 'user-' || n % 1000, 'agent', id, 'bench', now(), now()
             FROM (SELECT n, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id FROM generate_series(1, $2) n) x",
        )
        .bind(NAMESPACE)
        .bind(count)
        .execute(&self.pool)
        .await?;
        self.pool.execute("VACUUM ANALYZE").await?;
        Ok(())
    }

    /// Runs the loop's own transactions, in the lanes' order, until nothing is due.
    async fn settle(&self) -> anyhow::Result<()> {
        let reconciler = Reconciler::new(self.pool.clone(), self.clock.clone());
        loop {
            if reconciler.converge_due(NAMESPACE).await?.seen > 0 {
                continue;
            }
            if reconciler.fan_out(NAMESPACE, uuid::Uuid::nil()).await?.is_none() {
                return Ok(());
            }
        }
    }
}

/// Bytes that do not compress.
fn noise(size: usize, seed: u64) -> Vec<u8> {
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

async fn wal(pool: &PgPool) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint").fetch_one(pool).await?)
}

async fn size(pool: &PgPool, tables: &str) -> anyhow::Result<i64> {
    let sql = format!("SELECT sum(pg_total_relation_size(t::regclass))::bigint FROM unnest('{{{tables}}}'::text[]) t");
    Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(pool).await?)
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

/// The time of each statement so far, from the metrics, the largest first.
fn statements() -> Vec<(String, f64)> {
    let text = METRICS.text(moorline::metrics::Format::Prometheus);
    let sums = text.lines().filter_map(|line| line.strip_prefix("moorline_db_query_duration_seconds_sum{query=\""));
    let mut sums: Vec<(String, f64)> = sums
        .filter_map(|line| {
            let (query, total) = line.split_once("\"} ")?;
            Some((query.to_owned(), total.parse().ok()?))
        })
        .collect();
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    sums.truncate(12);
    sums
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(a: i64, b: i64) -> f64 {
    a as f64 / b as f64
}

async fn hydrate(server: &Embedded, count: i64) -> anyhow::Result<()> {
    server.ensure_database("hydrate").await?;
    let mut bench = Bench::new(Bench::open(server, "hydrate").await?).await?;
    bench.chats(count).await?;
    bench.settle().await?;
    let pool = bench.pool.clone();
    pool.execute("CHECKPOINT").await?;
    let (wal_before, size_before) = (wal(&pool).await?, size(&pool, "snapshots,blobs").await?);
    let loop_took = Box::pin(timed(async {
        bench.push(1, 50, 4096).await?;
        bench.settle().await
    }))
    .await?;
    let (loop_wal, loop_size) = (wal(&pool).await? - wal_before, size(&pool, "snapshots,blobs").await? - size_before);
    let pinned: i64 = sqlx::query_scalar("SELECT count(*) FROM chats WHERE snapshot_id IS NOT NULL").fetch_one(&pool).await?;
    if pinned != count {
        bail!("{pinned} of {count} chats were hydrated");
    }
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events WHERE kind = 'ContextHydrated'").fetch_one(&pool).await?;
    if events != count {
        bail!("{events} of {count} hydrations are in the log");
    }
    pool.execute(
        "CREATE TABLE copied (chat_id uuid NOT NULL, kind text NOT NULL, source text NOT NULL, source_path text NOT NULL,
                              body bytea NOT NULL, content_hash bytea NOT NULL, size_bytes bigint NOT NULL, status text NOT NULL,
                              PRIMARY KEY (chat_id, kind, source))",
    )
    .await?;
    pool.execute("CHECKPOINT").await?;
    let wal_before = wal(&pool).await?;
    let copy_took = timed(async {
        sqlx::query(
            "INSERT INTO copied SELECT r.chat_id, r.kind, r.source, r.source_path, r.body,
                                       decode(substr(r.content_hash, 8), 'hex'), r.size_bytes, r.status
             FROM chat_context_resources r",
        )
        .execute(&pool)
        .await?;
        Ok(())
    })
    .await?;
    let (copy_wal, copy_size) = (wal(&pool).await? - wal_before, size(&pool, "copied").await?);
    pool.execute("TRUNCATE copied").await?;
    let ids: Vec<uuid::Uuid> = sqlx::query_scalar("SELECT id FROM chats ORDER BY id").fetch_all(&pool).await?;
    let one_by_one = timed(async {
        for id in &ids[..ids.len() / 10] {
            sqlx::query(
                "INSERT INTO copied SELECT r.chat_id, r.kind, r.source, r.source_path, r.body,
                                           decode(substr(r.content_hash, 8), 'hex'), r.size_bytes, r.status
                 FROM chat_context_resources r WHERE r.namespace = $1 AND r.chat_id = $2",
            )
            .bind(NAMESPACE)
            .bind(id)
            .execute(&pool)
            .await?;
        }
        Ok(())
    })
    .await?
        * 10;
    println!("hydrating {count} chats of one agent with 50 resources of 4 KiB");
    println!("                                    loop            copy       ratio");
    println!(
        "  time                      {loop_took:>10.3?}    {copy_took:>12.3?}   {:>9.1}",
        copy_took.as_secs_f64() / loop_took.as_secs_f64()
    );
    println!(
        "  time, a statement a chat  {loop_took:>10.3?}    {one_by_one:>12.3?}   {:>9.1}   (ten times a tenth of the chats)",
        one_by_one.as_secs_f64() / loop_took.as_secs_f64()
    );
    println!("  context on disk (bytes)   {loop_size:>10}    {copy_size:>12}   {:>9.1}", ratio(copy_size, loop_size));
    println!("  write-ahead log (bytes)   {loop_wal:>10}    {copy_wal:>12}   {:>9.1}", ratio(copy_wal, loop_wal));
    println!("  (the loop's log includes one event a chat; the copy writes none)");
    println!("  where the loop's time went, by statement:");
    for (query, total) in statements() {
        println!("    {query:<28} {total:>8.3} s");
    }
    pool.close().await;
    Ok(())
}

async fn dirty(server: &Embedded, count: i64) -> anyhow::Result<()> {
    server.ensure_database("dirty").await?;
    let mut bench = Bench::new(Bench::open(server, "dirty").await?).await?;
    bench.push(1, 50, 512).await?;
    bench.chats(count).await?;
    bench.settle().await?;
    bench.pool.execute("VACUUM FULL ANALYZE chats").await?;
    bench.push(2, 50, 512).await?;
    bench.pool.close().await;
    let mut ratios = Vec::new();
    println!("marking {count} chats dirty, events included");
    for round in 1..=ROUNDS {
        let (ours, theirs) = (copy(server, "dirty_loop").await?, copy(server, "dirty_hand").await?);
        let bench =
            Bench { pool: ours, clock: bench.clock.clone(), key: bench.key.clone(), run: bench.run.clone(), seq: bench.seq };
        let wal_before = wal(&bench.pool).await?;
        let loop_took = Box::pin(timed(bench.settle())).await?;
        let loop_wal = wal(&bench.pool).await? - wal_before;
        check_dirty(&bench.pool, count).await?;
        bench.pool.close().await;
        let wal_before = wal(&theirs).await?;
        let hand_took = timed(by_hand(&theirs)).await?;
        let hand_wal = wal(&theirs).await? - wal_before;
        check_dirty(&theirs, count).await?;
        theirs.close().await;
        let times = loop_took.as_secs_f64() / hand_took.as_secs_f64();
        println!(
            "  round {round}: loop {loop_took:>8.3?}  by hand {hand_took:>8.3?}  ratio {times:.2}   (log: {:.2})",
            ratio(loop_wal, hand_wal)
        );
        ratios.push(times);
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median ratio {:.2}", ratios[ROUNDS / 2]);
    Ok(())
}

/// A copy of the prepared database, warm.
async fn copy(server: &Embedded, name: &str) -> anyhow::Result<PgPool> {
    let admin = PgPool::connect_with(server.connect_options("postgres")).await?;
    admin.execute(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))).await?;
    admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE dirty"))).await?;
    admin.execute("CHECKPOINT").await?;
    admin.close().await;
    let pool = store::pool(server.connect_options(name), 4);
    store::log::bump(&mut *pool.acquire().await?, false).await?;
    pool.execute("SELECT count(*), sum(length(c::text)) FROM chats c").await?;
    Ok(pool)
}

async fn check_dirty(pool: &PgPool, count: i64) -> anyhow::Result<()> {
    let (dirty, events): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM chats WHERE dirty_since IS NOT NULL),
                (SELECT count(*) FROM events WHERE kind = 'ContextDrifted')",
    )
    .fetch_one(pool)
    .await?;
    if (dirty, events) != (count, count) {
        bail!("{dirty} chats are dirty and {events} drifts are in the log, of {count}");
    }
    Ok(())
}

/// What somebody who knows what is going to happen would write.
async fn by_hand(pool: &PgPool) -> anyhow::Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("SET LOCAL statement_timeout = 0").await?;
    let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *tx).await?;
    sqlx::query(
        r#"UPDATE chats SET dirty_since = now(), rv = $2, event_seq = event_seq + 1,
                  conditions = conditions || '{"Ready": {"status": "True", "reason": "PinnedStale", "message": "pinned; its agent has moved on: refresh to follow"}, "Drifted": {"status": "True", "reason": "ContentChanged", "message": "its agent''s latest snapshot is another one than its pin"}, "Drifted@": "2026-11-21T00:00:00.000000Z"}'
           WHERE namespace = $1 AND agent = 'agent'"#,
    )
    .bind(NAMESPACE)
    .bind(rv)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO events (namespace, rv, seq, kind, subject, name, chat_id, agent_id, chat_seq, payload)
         SELECT c.namespace, c.rv, row_number() OVER (), 'ContextDrifted', c.id, c.name, c.id, s.agent_id, c.event_seq,
                (SELECT payload FROM (SELECT jsonb_build_object(
                     'from', 'sha256:' || repeat('a', 64), 'to', 'sha256:' || repeat('b', 64), 'fromSnapshot', s.name,
                     'toSnapshot', s.name, 'agent', 'agent', 'since', now(), 'before', '{\"dirty\": false}'::jsonb,
                     'drift', (SELECT jsonb_build_object('added', 0, 'changed', 50, 'removed', 0, 'truncated', true, 'resources',
                                jsonb_agg(jsonb_build_object('kind', 'Skill', 'source', 'skills/skill-' || n, 'change', 'Changed')))
                               FROM generate_series(1, 20) n)) AS payload OFFSET 0) p)
         FROM chats c JOIN snapshots s ON s.namespace = c.namespace AND s.id = c.snapshot_id
         WHERE c.namespace = $1 AND c.rv = $2",
    )
    .bind(NAMESPACE)
    .bind(rv)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}
