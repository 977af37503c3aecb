//! The program's own statements, as `.sqlx/` has them: what is checked against a database when it is compiled, and nothing that was
//! copied from it.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::path::Path;

/// A statement, and the types of its parameters.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text.
    pub text: String,
    types: Vec<String>,
}

/// Every statement that the program has.
pub fn all() -> anyhow::Result<Vec<Statement>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
        let file: Value = serde_json::from_slice(&std::fs::read(entry?.path())?)?;
        let parameters = file["describe"]["parameters"]["Left"].as_array().cloned().unwrap_or_default();
        let types = parameters.iter().map(|name| sql_type(name.as_str().unwrap_or_default())).collect::<anyhow::Result<_>>()?;
        all.push(Statement { text: file["query"].as_str().context("a query")?.to_owned(), types });
    }
    all.sort_by(|a, b| a.text.cmp(&b.text));
    Ok(all)
}

fn sql_type(name: &str) -> anyhow::Result<String> {
    if let Some(of) = name.strip_suffix("Array") {
        return Ok(format!("{}[]", sql_type(of)?));
    }
    ensure!(!name.is_empty(), "a parameter without a type");
    Ok(match name {
        "Int2" => "smallint".to_owned(),
        "Int4" => "integer".to_owned(),
        "Int8" => "bigint".to_owned(),
        "Bool" => "boolean".to_owned(),
        other => other.to_lowercase(),
    })
}

impl Statement {
    /// Its text on one line.
    pub fn line(&self) -> String {
        self.text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Pages of lists, which the program has planned anew for the values that each is asked with (`store::lists::moment`).
    pub fn is_planned_anew(&self) -> bool {
        self.text.contains("($1::jsonb IS NULL OR NOT EXISTS (")
    }

    /// What plans exist for: not for what locks, or for calls.
    pub fn has_a_plan(&self) -> bool {
        ["SELECT", "WITH", "UPDATE", "DELETE", "INSERT"].iter().any(|verb| self.text.trim_start().starts_with(verb))
    }

    /// PREPARE, under this name.
    pub fn prepare(&self, name: &str) -> String {
        let types = if self.types.is_empty() { String::new() } else { format!("({})", self.types.join(", ")) };
        format!("PREPARE {name}{types} AS {}", self.text)
    }

    /// EXPLAIN EXECUTE of what was prepared, for no values: a generic plan does not look at them.
    pub fn explain(&self, name: &str) -> String {
        explain(name, &vec!["NULL".to_owned(); self.types.len()])
    }

    /// EXPLAIN EXECUTE of what was prepared, for batches of so many and for a namespace that there is not.
    pub fn explain_batch(&self, name: &str, rows: usize) -> String {
        let value = |of: &String| match (of.strip_suffix("[]"), of.as_str()) {
            (Some(of), _) => format!("array_fill(NULL::{of}, ARRAY[{rows}])"),
            (None, "text") => "'(0,1)'".to_owned(), // which is a place, too
            (None, "jsonb") => "'{}'".to_owned(),
            (None, "uuid") => "gen_random_uuid()".to_owned(),
            (None, "timestamptz" | "date") => "now()".to_owned(),
            (None, "boolean") => "true".to_owned(),
            (None, "bytea") => "''".to_owned(),
            (None, "bigint") => format!("{}", i64::MAX), // what is bounded by it is not, as of a version of now
            (None, number) => format!("1::{number}"),
        };
        explain(name, &self.types.iter().map(value).collect::<Vec<_>>())
    }
}

fn explain(name: &str, values: &[String]) -> String {
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    format!("EXPLAIN (FORMAT JSON) EXECUTE {name}{values}")
}
