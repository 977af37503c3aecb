//! P8: the first, the middle and the last page of lists of 1,000,000 chats, over HTTP, turn about in one run: a page costs the page,
//! wherever it is.
//!
//! Pages of 500, as kubectl asks for them; and of 20, where less hides behind the writing of JSON: those are told, not asked for.
//! The server is the library's own, in this process.

use super::{plot::Bars, report::Report, serve, setting::Setting, stats};
use anyhow::{Context as _, bail, ensure};
use jiff_sqlx::Timestamp as SqlTs;
use moorline::{
    http::{
        self,
        page::{Continue, ListQuery, Place},
        status::Resource,
    },
    model::object::Key,
    store::{self, lists::Updated},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use std::{net::SocketAddr, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many more a last page may cost.
const GOAL: f64 = 1.2;

/// A list: its name, its namespace, its query, and the same in SQL.
struct List {
    name: &'static str,
    namespace: Option<&'static str>,
    labels: &'static str,
    selector: &'static str,
    order: &'static str,
    sql: &'static str,
}

const fn by_name(name: &'static str, namespace: Option<&'static str>, selector: &'static str, sql: &'static str) -> List {
    List { name, namespace, labels: "", selector, order: "name", sql }
}

const fn by_change(name: &'static str, namespace: Option<&'static str>, selector: &'static str, sql: &'static str) -> List {
    List { name, namespace, labels: "", selector, order: "-updated", sql }
}

const LISTS: [List; 14] = [
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
    List { labels: "tier=gold", ..by_name("one label", None, "", "labels @> '{\"tier\": \"gold\"}'") },
    List { labels: "tier=trial", ..by_name("one rare label", None, "", "labels @> '{\"tier\": \"trial\"}'") },
    by_change("everything, last changed first", None, "", "true"),
    by_change("one namespace, last changed first", Some("team-07"), "", "namespace = 'team-07'"),
    by_change("one owner, last changed first", None, "spec.owner=user-42", "owner = 'user-42'"),
];

/// Measures.
pub async fn run(setting: &Setting) -> anyhow::Result<Report> {
    let (rounds, limits) = (setting.of(41, 21, 2), setting.of([500, 20], [50, 20], [2, 1]));
    let mut report = Report::default();
    let pool = setting.million().await?;
    let stop = CancellationToken::new();
    let address = serve::start(&pool, http::routes().into_router(), stop.clone()).await?;
    report.fact("chats", setting.million_chats());
    let mut bars = Vec::new();
    for (n, limit) in limits.into_iter().enumerate() {
        for list in &LISTS {
            let pages = pages(&pool, list, limit).await?;
            let [first, middle, last] = measure(address, list, &pages, limit, rounds).await?;
            let name = format!("{}, pages of {limit}", list.name);
            for (place, times) in [("first", &first), ("middle", &middle), ("last", &last)] {
                report.figure(&format!("{name}, {place}"), "ms", times);
            }
            for (place, times) in [("middle", &middle), ("last", &last)] {
                // Of medians: a page of a round has nothing to do with another of that round but the noise.
                let ratio = [stats::median(times) / stats::median(&first)];
                let line = format!("{name}: {place}").replace([' ', ','], "-").replace("--", "-").replace(':', "");
                match n {
                    0 => report.at_most(&line, "ratio", &ratio, GOAL),
                    _ => report.told(&line, "ratio", &ratio),
                }
            }
            if n == 0 {
                bars.push((format!("{}, first", list.name), first));
                bars.push((format!("{}, last", list.name), last));
            }
        }
    }
    report.plots.push(Bars {
        file: "p8-lists",
        title: "Pages of lists, the first and the last".to_owned(),
        unit: "ms",
        rows: bars,
    });
    stop.cancel();
    pool.close().await;
    Ok(report)
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
    if !list.labels.is_empty() {
        query["labelSelector"] = json!(list.labels);
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

/// What each round of the three pages took, in ms.
async fn measure(
    address: SocketAddr,
    list: &List,
    pages: &[Page; 3],
    limit: i64,
    rounds: usize,
) -> anyhow::Result<[Vec<f64>; 3]> {
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
            if !list.labels.is_empty() {
                query.push(("labelSelector", list.labels.to_owned()));
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
                took[n].push(time.as_secs_f64() * 1e3);
            }
        }
    }
    Ok(took)
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
