//! The first, the middle and the last page of lists of 1,000,000 chats, over HTTP, turn about in one run: a page costs the page,
//! wherever it is. Printed as medians with the ratio to the first; fails when a last page costs more than 1.2 times the first.
//!
//! The chats are made in SQL: 20 namespaces, in each 10 agents with a snapshot, 100 owners, and what changed last in an order that
//! has nothing to do with names. Pages of 500, as kubectl asks for them, and of 20, where less hides behind the writing of JSON.
//!
//! `cargo bench --bench lists [-- --chats N --rounds N]`. Bounded: it makes the chats once and asks a fixed number of times.

use anyhow::{Context as _, bail, ensure};
use jiff_sqlx::Timestamp as SqlTs;
use moorline::{
    clock, config,
    embedded::{self, Embedded},
    http::{
        self, AppState,
        auth::Authentication,
        page::{Continue, ListQuery, Place},
        status::Resource,
    },
    model::object::Key,
    store::{self, lists::Updated},
    wake::{ListenNotify, Wake},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Executor as _, PgPool};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many more a last page may cost.
const GOAL: f64 = 1.2;
const NAMESPACES: i64 = 20;

/// A list: its name, its namespace, its query, and the same in SQL.
struct List {
    name: &'static str,
    namespace: Option<&'static str>,
    selector: &'static str,
    order: &'static str,
    sql: &'static str,
}

const fn by_name(name: &'static str, namespace: Option<&'static str>, selector: &'static str, sql: &'static str) -> List {
    List { name, namespace, selector, order: "name", sql }
}

const fn by_change(name: &'static str, namespace: Option<&'static str>, selector: &'static str, sql: &'static str) -> List {
    List { name, namespace, selector, order: "-updated", sql }
}

const LISTS: [List; 12] = [
    by_name("everything", None, "", "true"),
    by_name("one namespace", Some("team-07"), "", "namespace = 'team-07'"),
    by_name("one owner", None, "spec.owner=user-42", "owner = 'user-42'"),
    by_name("one agent", None, "spec.agentRef.name=agent-3", "agent = 'agent-3'"),
    by_name(
        "one agent of one namespace",
        Some("team-07"),
        "spec.agentRef.name=agent-3",
        "namespace = 'team-07' AND agent = 'agent-3'",
    ),
    by_name("one workspace", None, "spec.workspaceRef.name=ws-5", "workspace = 'ws-5'"),
    by_name("one state", None, "status.state=Error", "state = 'Error'"),
    by_name("archived", None, "spec.archived=true", "archived"),
    by_name("dirty", None, "status.dirty=true", "dirty_since IS NOT NULL"),
    by_change("everything, last changed first", None, "", "true"),
    by_change("one namespace, last changed first", Some("team-07"), "", "namespace = 'team-07'"),
    by_change("one owner, last changed first", None, "spec.owner=user-42", "owner = 'user-42'"),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |name: &str, default: i64| match args.iter().position(|arg| arg == name) {
        Some(at) => args.get(at + 1).with_context(|| format!("{name} takes a number"))?.parse().context("a number"),
        None => Ok(default),
    };
    let (chats, rounds) = (number("--chats", 1_000_000)?, usize::try_from(number("--rounds", 41)?)?);
    rustls::crypto::ring::default_provider().install_default().ok();
    let directory = tempfile::Builder::new().prefix("moorline-bench-").tempdir()?;
    let options = embedded::Options {
        data_dir: directory.path().join("data"),
        pg_bin: None,
        ephemeral: true,
        // So that making the chats does not take longer than asking for them.
        settings: vec![("max_wal_size".to_owned(), "4GB".to_owned()), ("synchronous_commit".to_owned(), "off".to_owned())],
    };
    let server = embedded::start(options).await?;
    let result = Box::pin(run(&server, chats, rounds)).await;
    server.stop().await?;
    result
}

async fn run(server: &Embedded, chats: i64, rounds: usize) -> anyhow::Result<()> {
    server.ensure_database("lists").await?;
    let pool = store::pool(server.connect_options("lists"), 8);
    store::schema::migrate(&pool, false).await?;
    let began = Instant::now();
    make(&pool, chats).await?;
    println!("{chats} chats, made in {:.0?}; {rounds} rounds, medians in ms", began.elapsed());
    let stop = CancellationToken::new();
    let address = serve(&pool, stop.clone()).await?;
    let mut missed = Vec::new();
    for limit in [500, 20] {
        println!("pages of {limit:<28}      first    middle      last   last/first");
        for list in &LISTS {
            let pages = pages(&pool, list, limit).await?;
            let [first, middle, last] = measure(address, list, &pages, limit, rounds).await?;
            let ratio = last / first;
            println!("  {:<36} {first:>9.2} {middle:>9.2} {last:>9.2} {ratio:>9.2}", list.name);
            if limit == 500 && ratio > GOAL {
                missed.push(format!("{} ({ratio:.2})", list.name));
            }
        }
    }
    stop.cancel();
    pool.close().await;
    ensure!(missed.is_empty(), "a last page costs more than {GOAL} times the first: {}", missed.join(", "));
    println!("every last page of 500 costs at most {GOAL} times the first");
    Ok(())
}

/// Agents with a snapshot each, and chats of them as they are once converged.
async fn make(pool: &PgPool, chats: i64) -> anyhow::Result<()> {
    let mut connection = pool.acquire().await?;
    connection.execute("SET statement_timeout = 0; SET maintenance_work_mem = '256MB'").await?;
    sqlx::query(
        "INSERT INTO agents (namespace, id, name, rv, created_at, converged_revision)
         SELECT 'team-' || lpad(t::text, 2, '0'), gen_random_uuid(), 'agent-' || a, log_rv(), now(), 1
         FROM generate_series(0, $1 - 1) t, generate_series(0, 9) a",
    )
    .bind(NAMESPACES)
    .execute(&mut *connection)
    .await?;
    connection
        .execute(
            "INSERT INTO snapshots (namespace, agent_id, agent_name, name, revision, context_hash, manifest, resource_count,
                                    degraded_count, size_bytes, created_at, rv)
             SELECT namespace, id, name, name || '-abababababab', 1, decode(repeat('ab', 32), 'hex'), '[]', 0, 0, 0, now(), log_rv()
             FROM agents",
        )
        .await?;
    // Indexes are built at the end: sooner than row by row.
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "SELECT indexname::text, indexdef FROM pg_indexes
         WHERE tablename = 'chats' AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = 'chats'::regclass)",
    )
    .fetch_all(&mut *connection)
    .await?;
    for (name, _) in &indexes {
        connection.execute(AssertSqlSafe(format!("DROP INDEX {name}"))).await?;
    }
    let rv: i64 = sqlx::query_scalar("SELECT log_rv()").fetch_one(&mut *connection).await?;
    sqlx::query(
        "INSERT INTO chats (namespace, id, name, rv, owner, title, agent, workspace, root_id, created_by, created_at, updated_at,
                            archived, state, snapshot_id, pin_cause, pinned_at, dirty_since, converged_revision, observed_generation,
                            conditions)
         SELECT s.namespace, x.id, 'chat-' || x.n, $3, 'user-' || x.mixed % 100, 'Chat number ' || x.n,
                CASE WHEN x.mixed % 4 > 0 THEN s.agent_name END, CASE WHEN x.mixed % 4 = 0 THEN 'ws-' || x.mixed / 4 % 10 END,
                x.id, 'bench', now(), now() - make_interval(secs => x.mixed % 1000000), x.mixed % 7 = 0,
                CASE WHEN x.mixed % 50 = 1 THEN 'Error' ELSE 'Waiting' END, s.id, 'Hydrated', now(),
                CASE WHEN x.mixed % 30 = 2 THEN now() END, 1, 1,
                '{\"Ready\": {\"status\": \"True\", \"reason\": \"Pinned\", \"message\": \"pinned to its agent''s latest snapshot\"},
                  \"Ready@\": \"2026-11-21T00:00:00.000000Z\"}'
         FROM (SELECT n, n * 7919 % 1000003 AS mixed, ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS id
               FROM generate_series(1, $1) n) x
         JOIN (SELECT s.*, row_number() OVER (ORDER BY namespace, name) - 1 AS number FROM snapshots s) s
              ON s.number = x.mixed / 100 % ($2 * 10)",
    )
    .bind(chats)
    .bind(NAMESPACES)
    .bind(rv)
    .execute(&mut *connection)
    .await?;
    for (_, definition) in &indexes {
        connection.execute(AssertSqlSafe(definition.clone())).await?;
    }
    for statement in ["VACUUM ANALYZE chats", "ANALYZE", "CHECKPOINT"] {
        connection.execute(statement).await?;
    }
    connection.close_on_drop();
    Ok(())
}

/// The server's own router.
async fn serve(pool: &PgPool, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let config = config::Server {
        listen: "127.0.0.1:0".parse()?,
        auth: config::Auth::None,
        token_auth_file: None,
        listen_notify: ListenNotify::Off,
        poll_ms: 2000,
        database_connections: 8,
        retention_interval: config::RETENTION_INTERVAL,
        event_retention: config::EVENT_RETENTION,
        access: config::Access::default(),
        serving: config::Serving::default(),
    };
    let authentication = Authentication::from_config(&config)?;
    let state = AppState::new(pool.clone(), clock::system(), Wake::default(), authentication);
    let listener = tokio::net::TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    tokio::spawn(http::serve::serve(listener, http::router(state), None, stop));
    Ok(address)
}

/// A page: its token, and the name of its first chat.
struct Page {
    token: Option<String>,
    begins: String,
}

/// The first, the middle and the last page of a list, found in SQL.
async fn pages(pool: &PgPool, list: &List, limit: i64) -> anyhow::Result<[Page; 3]> {
    let mut connection = pool.acquire().await?;
    let count = format!("SELECT count(*) FROM chats WHERE {}", list.sql);
    let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut *connection).await?;
    ensure!(count >= 4 * limit, "{} has {count} chats only", list.name);
    let version = store::log::list_version(&mut connection).await?;
    let mut query = json!({"orderBy": list.order});
    if !list.selector.is_empty() {
        query["fieldSelector"] = json!(list.selector);
    }
    let query: ListQuery = serde_json::from_value(query)?;
    let wanted = query.read(Resource::Chats, list.namespace).map_err(|error| anyhow::anyhow!(error.message().to_owned()))?;
    let mut pages = Vec::new();
    for begin in [0, count / 2, count - limit] {
        // The page's first chat, and the one before it.
        let (order, updated) = match list.order {
            "name" => ("namespace, name", false),
            _ => ("updated_at DESC, id DESC", true),
        };
        let sql = format!(
            "SELECT namespace, name, updated_at, id FROM chats WHERE {} ORDER BY {order} LIMIT 2 OFFSET {}",
            list.sql,
            (begin - 1).max(0)
        );
        let rows: Vec<(String, String, SqlTs, Uuid)> = sqlx::query_as(AssertSqlSafe(sql)).fetch_all(&mut *connection).await?;
        let [before, first] = <[_; 2]>::try_from(rows).map_err(|_| anyhow::anyhow!("two chats"))?;
        if begin == 0 {
            pages.push(Page { token: None, begins: before.1 });
            continue;
        }
        let place = if updated {
            Place::Updated(Updated { at: before.2.to_jiff(), id: before.3 })
        } else {
            Place::Name(Key::new(before.0, before.1))
        };
        pages.push(Page { token: Some(Continue::after(place, version, &wanted).encode()), begins: first.1 });
    }
    <[_; 3]>::try_from(pages).map_err(|_| anyhow::anyhow!("three pages"))
}

/// The medians of the three pages, in ms.
async fn measure(address: SocketAddr, list: &List, pages: &[Page; 3], limit: i64, rounds: usize) -> anyhow::Result<[f64; 3]> {
    let path = list.namespace.map_or(String::new(), |namespace| format!("/namespaces/{namespace}"));
    let base = format!("http://{address}/apis/moorline.dev/v1alpha1{path}/chats");
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut took = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (n, page) in pages.iter().enumerate() {
            let mut query = vec![("limit", limit.to_string()), ("orderBy", list.order.to_owned())];
            if !list.selector.is_empty() {
                query.push(("fieldSelector", list.selector.to_owned()));
            }
            query.extend(page.token.clone().map(|token| ("continue", token)));
            let request = client.get(&base).query(&query);
            let began = Instant::now();
            let body = request.send().await?.error_for_status()?.bytes().await?;
            let time = began.elapsed();
            if round == 0 {
                // For caches to fill, and to see that it is the page.
                check(&serde_json::from_slice(&body)?, page, limit, n == 2).with_context(|| list.name)?;
            } else {
                took[n].push(time);
            }
        }
    }
    Ok(took.map(median))
}

fn check(body: &Value, page: &Page, limit: i64, is_last: bool) -> anyhow::Result<()> {
    let items = body["items"].as_array().context("items")?;
    ensure!(i64::try_from(items.len())? == limit, "a page of {} chats", items.len());
    ensure!(items[0]["metadata"]["name"] == *page.begins, "a page that begins with {}", items[0]["metadata"]["name"]);
    if body["metadata"]["continue"].is_null() != is_last {
        bail!("the last page says that there are more, or another one that there are none");
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}
