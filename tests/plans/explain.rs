//! What a generic plan reads: which tables, by which indexes, and what of it whole.

use super::statements::Statement;
use anyhow::Context as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use std::collections::{BTreeSet, HashMap};

/// A table of fewer rows may be read whole.
const LARGE: f64 = 500.0;

/// Indexes of so few rows that each may be read whole: of what is due, what has drifted, which agents are gone.
const FEW: [&str; 4] = ["chats_due", "agents_due", "chats_dirty_name", "events_agent_deleted"];

/// What is known of the database's tables and indexes, partitions counted as what they are partitions of.
#[derive(Debug)]
pub struct Catalog {
    /// Tables with many rows.
    large: BTreeSet<String>,
    /// What a partition, or its index, is a part of.
    whole: HashMap<String, String>,
    /// Of an index: its table, and its columns.
    indexes: HashMap<String, (String, Vec<String>)>,
}

/// How a statement gets at a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// The table.
    pub table: String,
    /// The index, or `ctid of` the table: the places of rows that are known. None means that all of the table is read.
    pub index: Option<String>,
    /// Whether that reads as many rows as the table, the index or a namespace has.
    pub is_whole: bool,
}

impl Catalog {
    /// Reads it.
    pub async fn read(connection: &mut PgConnection) -> anyhow::Result<Self> {
        let large: Vec<(String,)> = sqlx::query_as(
            "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND reltuples >= $1
                              AND relnamespace = 'public'::regnamespace",
        )
        .bind(LARGE)
        .fetch_all(&mut *connection)
        .await?;
        let parts: Vec<(String, String)> = sqlx::query_as(
            "SELECT c.relname::text, p.relname::text FROM pg_inherits i
             JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent",
        )
        .fetch_all(&mut *connection)
        .await?;
        let indexes: Vec<(String, String, Vec<String>)> = sqlx::query_as(
            "SELECT i.relname::text, t.relname::text,
                    (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = i.oid)
             FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
             WHERE t.relnamespace = 'public'::regnamespace",
        )
        .fetch_all(connection)
        .await?;
        Ok(Self {
            large: large.into_iter().map(|(name,)| name).collect(),
            whole: parts.into_iter().collect(),
            indexes: indexes.into_iter().map(|(name, table, columns)| (name, (table, columns))).collect(),
        })
    }

    fn named(&self, name: &str) -> String {
        self.whole.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    /// What the generic plan of a statement reads of large tables.
    pub async fn accesses(&self, connection: &mut PgConnection, statement: &Statement) -> anyhow::Result<BTreeSet<Access>> {
        let mut found = BTreeSet::new();
        self.walk(&generic_plan(connection, statement).await?, &mut found);
        Ok(found)
    }

    fn walk(&self, node: &Value, found: &mut BTreeSet<Access>) {
        let text = |key: &str| node[key].as_str();
        if let Some(index) = text("Index Name") {
            if let Some((table, columns)) = self.indexes.get(index)
                && self.large.contains(table)
            {
                // The key's first column is the namespace, which may hold nearly everything.
                let condition = text("Index Cond").unwrap_or_default();
                let said: Vec<&String> = columns.iter().filter(|column| mentions(condition, column)).collect();
                let narrow = said.first() == columns.first().as_ref() && said.iter().any(|column| *column != "namespace");
                let index = self.named(index);
                let is_whole = !narrow && !FEW.contains(&index.as_str());
                found.insert(Access { table: self.named(table), index: Some(index), is_whole });
            }
        } else if let Some(table) = text("Relation Name").filter(|table| self.large.contains(*table)) {
            let table = self.named(table);
            match text("Node Type") {
                Some("Seq Scan" | "Tid Range Scan") => drop(found.insert(Access { table, index: None, is_whole: true })),
                Some("Tid Scan") => {
                    let index = Some(format!("ctid of {table}"));
                    found.insert(Access { table, index, is_whole: false });
                }
                _ => {}
            }
        }
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.walk(child, found);
        }
    }
}

/// The plan of a statement that PostgreSQL keeps for any values.
pub async fn generic_plan(connection: &mut PgConnection, statement: &Statement) -> anyhow::Result<Value> {
    plan(connection, statement, "force_generic_plan", &statement.explain(NAME)).await
}

/// The plan of a statement for batches of a thousand of a namespace that statistics do not know.
pub async fn plan_of_a_batch(connection: &mut PgConnection, statement: &Statement) -> anyhow::Result<Value> {
    plan(connection, statement, "force_custom_plan", &statement.explain_batch(NAME, 1_000)).await
}

const NAME: &str = "statement_under_test";

async fn plan(connection: &mut PgConnection, statement: &Statement, mode: &str, explain: &str) -> anyhow::Result<Value> {
    connection.execute(AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await?;
    connection.execute(AssertSqlSafe(statement.prepare(NAME))).await.with_context(|| statement.line())?;
    let plan = sqlx::query_as(AssertSqlSafe(explain.to_owned())).persistent(false).fetch_one(&mut *connection).await;
    let plan: (sqlx::types::Json<Value>,) = plan.with_context(|| statement.line())?;
    connection.execute("DEALLOCATE statement_under_test").await?;
    Ok(plan.0.0[0]["Plan"].clone())
}

/// By which conditions a plan compares each row of one side with each of what was sent or put together: of a batch of a thousand that
/// would be a million, and the plan thinks that ten are sent.
pub fn compares_each_with_each(node: &Value) -> Vec<String> {
    let children = node["Plans"].as_array().map_or(&[][..], Vec::as_slice);
    let mut found: Vec<String> = children.iter().flat_map(compares_each_with_each).collect();
    if let (Some("Nested Loop"), Some(condition), [_, inner]) =
        (node["Node Type"].as_str(), node["Join Filter"].as_str(), children)
    {
        let mut inner = inner;
        while let Some("Materialize" | "Subquery Scan" | "Sort" | "Aggregate" | "Unique") = inner["Node Type"].as_str() {
            inner = &inner["Plans"][0];
        }
        if let Some("Function Scan" | "CTE Scan" | "Values Scan" | "ProjectSet" | "Append") = inner["Node Type"].as_str() {
            found.push(condition.to_owned());
        }
    }
    found
}

/// Whether a condition speaks of a column, and not of one whose name has this one in it.
fn mentions(condition: &str, column: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    condition.match_indices(column).any(|(at, _)| {
        let after = condition[at + column.len()..].chars().next();
        // Of the table's own: what another table's row is compared with stands behind a dot.
        let before = condition[..at].chars().next_back();
        !before.is_some_and(|c| is_word(c) || c == '.') && !after.is_some_and(is_word)
    })
}
